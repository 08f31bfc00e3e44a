//! The web configuration file: TLS, passwords and headers, in the form that Prometheus's exporters share
//! (`web.config.file` of its exporter-toolkit). What this agent cannot do of it is refused, never ignored.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use serde::Deserialize;

use super::complaint::Complaint;
use super::file;

/// A web configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct WebConfig {
    /// Certificates; without it, plain HTTP.
    pub tls_server_config: Option<Tls>,
    /// The protocol.
    pub http_server_config: Http,
    /// User names and the bcrypt hashes of their passwords; if there are any, nothing is served without.
    pub basic_auth_users: BTreeMap<String, String>,
}

/// Certificates and versions. Paths are relative to the file's directory.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tls {
    /// The certificate and its chain, PEM.
    pub cert_file: PathBuf,
    /// Its key, PEM.
    pub key_file: PathBuf,
    /// Whether clients have to show a certificate.
    #[serde(default)]
    pub client_auth_type: ClientAuth,
    /// Who may have signed it, PEM.
    #[serde(default)]
    pub client_ca_file: Option<PathBuf>,
    /// Oldest protocol version.
    #[serde(default = "oldest")]
    pub min_version: TlsVersion,
    /// Newest protocol version.
    #[serde(default = "newest")]
    pub max_version: TlsVersion,
}

/// Whether clients have to show a certificate. Go's names, as the toolkit has them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
pub enum ClientAuth {
    /// They need none.
    #[default]
    NoClientCert,
    /// A certificate is checked if there is one.
    VerifyClientCertIfGiven,
    /// They need one.
    RequireAndVerifyClientCert,
}

/// Versions of TLS that are safe to use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
pub enum TlsVersion {
    /// 1.2.
    TLS12,
    /// 1.3.
    TLS13,
}

fn oldest() -> TlsVersion {
    TlsVersion::TLS12
}

fn newest() -> TlsVersion {
    TlsVersion::TLS13
}

/// The protocol.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Http {
    /// HTTP/2, which this agent does not speak.
    pub http2: Option<bool>,
    /// Headers of every answer.
    pub headers: BTreeMap<String, String>,
}

/// Headers that may be set, as in the toolkit.
const HEADERS: [&str; 5] = [
    "Content-Security-Policy",
    "Strict-Transport-Security",
    "X-Content-Type-Options",
    "X-Frame-Options",
    "X-XSS-Protection",
];

/// Costs double with each: 14 takes about a second of a CPU, 31 most of two days.
const COSTLIEST: u32 = 14;

impl WebConfig {
    /// Reads a file.
    ///
    /// # Errors
    /// [`Complaint`] if it cannot be read, or says something that makes no sense.
    pub fn read(path: &Path) -> Result<Self, Complaint> {
        let text = file::read_text(path).map_err(|error| {
            Complaint::about(path, format!("{error} (name an existing file with --web-config)"))
        })?;
        Self::parse(path, &text)
    }

    fn parse(path: &Path, text: &str) -> Result<Self, Complaint> {
        // An empty document is no mapping, but means the same as one without keys.
        let says_nothing = |line: &str| line.trim().is_empty() || line.trim_start().starts_with('#');
        if text.lines().all(says_nothing) {
            return Ok(Self::default());
        }
        let mut config: Self =
            serde_saphyr::from_str(text).map_err(|error| complaint(path, error.without_snippet()))?;
        config.check(path)?;
        if let Some(tls) = &mut config.tls_server_config {
            let directory = path.parent().unwrap_or(Path::new(""));
            tls.cert_file = directory.join(&tls.cert_file);
            tls.key_file = directory.join(&tls.key_file);
            tls.client_ca_file = tls.client_ca_file.take().map(|file| directory.join(file));
        }
        Ok(config)
    }

    /// What serde does not see.
    fn check(&self, path: &Path) -> Result<(), Complaint> {
        let wrong = |what: String| Err(Complaint::about(path, what));
        for (user, hash) in &self.basic_auth_users {
            let remedy = format!("`htpasswd -nBC 10 {user}` prints one");
            match bcrypt::HashParts::from_str(hash) {
                Err(_) => {
                    return wrong(format!(
                        "the password of user {user} is no bcrypt hash ({remedy})"
                    ));
                }
                Ok(parts) if parts.get_cost() > COSTLIEST => {
                    return wrong(format!(
                        "the password of user {user} has the cost {}: each guess of anybody would keep the agent busy for \
                         seconds to days (at most {COSTLIEST}; {remedy})",
                        parts.get_cost()
                    ));
                }
                Ok(_) => {}
            }
        }
        if self.http_server_config.http2 == Some(true) {
            return wrong("http2: true: this agent speaks HTTP/1.1 only (leave it out)".to_owned());
        }
        let headers = self.http_server_config.headers.keys();
        for name in headers {
            if !HEADERS.iter().any(|known| known.eq_ignore_ascii_case(name)) {
                return Err(Complaint::unknown(path, None, name, &HEADERS));
            }
        }
        match &self.tls_server_config {
            Some(tls) if tls.min_version > tls.max_version => {
                wrong("min_version is newer than max_version (swap them)".to_owned())
            }
            Some(tls) if tls.client_auth_type == ClientAuth::NoClientCert && tls.client_ca_file.is_some() => {
                wrong(
                    "client_ca_file without a client_auth_type (add client_auth_type: RequireAndVerifyClientCert)"
                        .to_owned(),
                )
            }
            Some(tls) if tls.client_auth_type != ClientAuth::NoClientCert && tls.client_ca_file.is_none() => {
                wrong("client_auth_type without a client_ca_file (add the CA's certificate)".to_owned())
            }
            _ => Ok(()),
        }
    }
}

fn complaint(path: &Path, error: &serde_saphyr::Error) -> Complaint {
    let line = error.location().map(|location| location.line());
    if let serde_saphyr::Error::SerdeUnknownField { field, expected, .. } = error {
        return Complaint::unknown(path, line, field, expected);
    }
    // The message ends with the place, which is said already.
    let message = error.to_string();
    let what = message
        .split_once(" at line ")
        .map_or(message.as_str(), |(what, _)| what);
    match line {
        Some(line) => Complaint::at(path, line, what),
        None => Complaint::about(path, what),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<WebConfig, String> {
        WebConfig::parse(Path::new("/etc/w.yml"), text).map_err(|complaint| complaint.to_string())
    }

    /// "secret".
    const HASH: &str = "$2b$04$Zs11kyvZuhCXQ7WA9xlfKu3/Ta83VU36M976H6W2XodoTD4RlySEu";

    #[test]
    fn the_toolkits_form_is_read() {
        let config = parse(&format!(
            "tls_server_config:\n  cert_file: web.crt\n  key_file: /run/web.key\n  min_version: TLS13\n\
             http_server_config:\n  headers:\n    X-Frame-Options: deny\n\
             basic_auth_users:\n  prometheus: {HASH}\n"
        ))
        .unwrap();
        let tls = config.tls_server_config.unwrap();
        assert_eq!(tls.cert_file, Path::new("/etc/web.crt"));
        assert_eq!(tls.key_file, Path::new("/run/web.key"));
        assert_eq!(tls.min_version, TlsVersion::TLS13);
        assert_eq!(tls.client_auth_type, ClientAuth::NoClientCert);
        assert_eq!(config.basic_auth_users["prometheus"], HASH);
        assert_eq!(parse("# nothing\n\n"), Ok(WebConfig::default()));
    }

    #[test]
    fn the_shipped_example_is_right_and_says_nothing_until_somebody_uncomments_it() {
        let shipped = include_str!("../../../xtask/dist/web.yml");
        assert_eq!(parse(shipped), Ok(WebConfig::default()));
        // `#key` and `#  key` are configuration, `# Word` is prose.
        let lines = shipped.lines().map(|line| match line.strip_prefix('#') {
            Some(rest) if rest.starts_with("  ") || !rest.starts_with(' ') => rest,
            _ => line,
        });
        let config = parse(&lines.collect::<Vec<_>>().join("\n")).unwrap();
        let tls = config.tls_server_config.unwrap();
        assert_eq!(tls.client_ca_file.unwrap(), Path::new("/etc/clients.crt"));
        assert_eq!(config.http_server_config.headers.len(), 1);
        assert!(bcrypt::verify("secret", &config.basic_auth_users["prometheus"]).unwrap());
    }

    #[test]
    fn what_is_wrong_is_told_on_one_line() {
        let told = |text: &str, what: &str| {
            let complaint = parse(text).unwrap_err();
            assert!(
                complaint.contains(what) && complaint.starts_with("/etc/w.yml") && !complaint.contains('\n'),
                "{text}: {complaint}"
            );
        };
        told(
            "tls_server_config:\n  cert_file: a\n  key_fil: b\n",
            "line 3: unknown key key_fil (did you mean key_file?)",
        );
        told(
            "basic_auth_user:\n  a: b\n",
            "line 1: unknown key basic_auth_user (did you mean basic_auth_users?)",
        );
        told(
            "basic_auth_users:\n  joe: secret\n",
            "the password of user joe is no bcrypt hash",
        );
        told(
            &format!("basic_auth_users:\n  joe: {}\n", HASH.replace("$04$", "$15$")),
            "has the cost 15",
        );
        told("tls_server_config:\n  cert_file: a\n", "key_file");
        told(
            "tls_server_config:\n  cert_file: a\n  key_file: b\n  min_version: TLS10\n",
            "line 4",
        );
        told(
            "tls_server_config:\n  cert_file: a\n  key_file: b\n  client_auth_type: RequireAndVerifyClientCert\n",
            "client_ca_file",
        );
        told("http_server_config:\n  http2: true\n", "HTTP/1.1 only");
        told(
            "http_server_config:\n  headers:\n    X-Frame-Option: deny\n",
            "did you mean X-Frame-Options?",
        );
        told("tls_server_config: [\n", "line");
        told("a: b: c\n", "line 1");
    }
}
