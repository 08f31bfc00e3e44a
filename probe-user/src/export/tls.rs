//! What a TLS connection begins with: certificates and keys from files, for rustls.

use std::path::Path;
use std::sync::Arc;

use rustls::crypto::ring::default_provider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls::version::{TLS12, TLS13};
use rustls::{RootCertStore, ServerConfig, SupportedProtocolVersion};

use crate::config::complaint::Complaint;
use crate::config::web::{ClientAuth, Tls, TlsVersion};

/// Reads the files and puts them together.
///
/// # Errors
/// [`Complaint`] about the file that is not there, or holds something else.
pub fn server(tls: &Tls) -> Result<Arc<ServerConfig>, Complaint> {
    let provider = Arc::new(default_provider());
    let certificates = certificates("cert_file", &tls.cert_file)?;
    let key = PrivateKeyDer::from_pem_file(&tls.key_file)
        .map_err(|error| unusable("key_file", &tls.key_file, "key", &error))?;
    let verifier = verifier(tls, &provider)?;
    let wrong = |error: rustls::Error| {
        Complaint::about(
            &tls.cert_file,
            format!(
                "cannot be used with the key {}: {error} (are they a pair?)",
                tls.key_file.display()
            ),
        )
    };
    let builder = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&versions(tls))
        .map_err(wrong)?;
    let builder = match verifier {
        Some(verifier) => builder.with_client_cert_verifier(verifier),
        None => builder.with_no_client_auth(),
    };
    let mut config = builder.with_single_cert(certificates, key).map_err(wrong)?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

fn versions(tls: &Tls) -> Vec<&'static SupportedProtocolVersion> {
    let both = [(TlsVersion::TLS12, &TLS12), (TlsVersion::TLS13, &TLS13)];
    both.into_iter()
        .filter(|(version, _)| (tls.min_version..=tls.max_version).contains(version))
        .map(|(_, version)| version)
        .collect()
}

fn certificates(option: &str, path: &Path) -> Result<Vec<CertificateDer<'static>>, Complaint> {
    let read = || CertificateDer::pem_file_iter(path)?.collect::<Result<Vec<_>, _>>();
    match read() {
        Ok(certificates) if certificates.is_empty() => Err(Complaint::about(
            path,
            format!("no certificate in it ({option} has to name a PEM file)"),
        )),
        Ok(certificates) => Ok(certificates),
        Err(error) => Err(unusable(option, path, "certificate", &error)),
    }
}

fn unusable(option: &str, path: &Path, what: &str, error: &rustls::pki_types::pem::Error) -> Complaint {
    let why = match error {
        rustls::pki_types::pem::Error::Io(error) => error.to_string(),
        rustls::pki_types::pem::Error::NoItemsFound => format!("no {what} in it"),
        other => other.to_string(),
    };
    Complaint::about(
        path,
        format!("{why} ({option} has to name a PEM file that the agent's user can read)"),
    )
}

/// Checks clients' certificates, if it has to.
fn verifier(
    tls: &Tls,
    provider: &Arc<rustls::crypto::CryptoProvider>,
) -> Result<Option<Arc<dyn ClientCertVerifier>>, Complaint> {
    let Some(path) = &tls.client_ca_file else {
        return Ok(None);
    };
    let wrong = |why: String| Complaint::about(path, format!("no certificate of a CA: {why}"));
    let mut roots = RootCertStore::empty();
    for certificate in certificates("client_ca_file", path)? {
        roots.add(certificate).map_err(|error| wrong(error.to_string()))?;
    }
    let builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider));
    let builder = match tls.client_auth_type {
        ClientAuth::RequireAndVerifyClientCert => builder,
        ClientAuth::NoClientCert | ClientAuth::VerifyClientCertIfGiven => builder.allow_unauthenticated(),
    };
    builder
        .build()
        .map(Some)
        .map_err(|error| wrong(error.to_string()))
}
