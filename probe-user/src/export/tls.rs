//! What a TLS connection begins with: certificates and keys from files, for rustls.

use std::path::Path;
use std::sync::Arc;

use rustls::crypto::ring::default_provider;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls::version::{TLS12, TLS13};
use rustls::{RootCertStore, ServerConfig, SupportedProtocolVersion};

use crate::config::complaint::Complaint;
use crate::config::file;
use crate::config::web::{ClientAuth, Tls, TlsVersion};

/// Reads the files and puts them together.
///
/// # Errors
/// [`Complaint`] about the file that is not there, or holds something else.
pub fn server(tls: &Tls) -> Result<Arc<ServerConfig>, Complaint> {
    let provider = Arc::new(default_provider());
    let certificates = certificates("cert_file", &tls.cert_file)?;
    let key = key("key_file", &tls.key_file)?;
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

/// The certificates of a file.
///
/// # Errors
/// [`Complaint`] if it cannot be read, or holds none.
pub fn certificates(option: &str, path: &Path) -> Result<Vec<CertificateDer<'static>>, Complaint> {
    let read = || {
        let bytes = file::read(path).map_err(pem::Error::Io)?;
        CertificateDer::pem_slice_iter(&bytes).collect::<Result<Vec<_>, _>>()
    };
    match read() {
        Ok(certificates) if certificates.is_empty() => Err(Complaint::about(
            path,
            format!("no certificate in it ({option} has to name a PEM file)"),
        )),
        Ok(certificates) => Ok(certificates),
        Err(error) => Err(unusable(option, path, "certificate", &error)),
    }
}

/// The key in a file.
///
/// # Errors
/// [`Complaint`] if it cannot be read, or holds none.
pub fn key(option: &str, path: &Path) -> Result<PrivateKeyDer<'static>, Complaint> {
    let bytes = file::read(path).map_err(pem::Error::Io);
    bytes
        .and_then(|bytes| PrivateKeyDer::from_pem_slice(&bytes))
        .map_err(|error| unusable(option, path, "key", &error))
}

fn unusable(option: &str, path: &Path, what: &str, error: &pem::Error) -> Complaint {
    let why = match error {
        pem::Error::Io(error) => error.to_string(),
        pem::Error::NoItemsFound => format!("no {what} in it"),
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
