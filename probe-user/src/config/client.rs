//! How a client proves who it is and whom it believes: the part of Prometheus's `http_config` that its own
//! tools read from a file (`promtool --http.config.file`), the counterpart of the web configuration.

use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::complaint::Complaint;
use super::file;

/// A client's configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ClientConfig {
    /// Who asks.
    pub basic_auth: Option<BasicAuth>,
    /// Whom to believe.
    pub tls_config: TlsConfig,
}

/// A user and a password, which may stand in a file of its own.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BasicAuth {
    /// The user.
    pub username: String,
    /// The password.
    #[serde(default)]
    pub password: Option<String>,
    /// The file that holds it.
    #[serde(default)]
    pub password_file: Option<PathBuf>,
}

/// Certificates. Paths are relative to the file's directory.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TlsConfig {
    /// Who may have signed the agent's certificate; without it, whom this host believes.
    pub ca_file: Option<PathBuf>,
    /// The certificate to show.
    pub cert_file: Option<PathBuf>,
    /// Its key.
    pub key_file: Option<PathBuf>,
    /// The name that the agent's certificate is for, if it is not the one in the address.
    pub server_name: Option<String>,
}

impl ClientConfig {
    /// Reads a file, and the password from its own.
    ///
    /// # Errors
    /// [`Complaint`] if it cannot be read, or says something that makes no sense.
    pub fn read(path: &Path) -> Result<Self, Complaint> {
        let about = |what: String| Complaint::about(path, what);
        let text = file::read_text(path)
            .map_err(|error| about(format!("{error} (name an existing file with --http-config)")))?;
        let mut config: Self = serde_saphyr::from_str(&text).map_err(|error| {
            let error = error.without_snippet().to_string();
            about(error)
        })?;
        let directory = path.parent().unwrap_or(Path::new(""));
        let tls = &mut config.tls_config;
        for file in [&mut tls.ca_file, &mut tls.cert_file, &mut tls.key_file] {
            *file = file.take().map(|file| directory.join(file));
        }
        if tls.cert_file.is_some() != tls.key_file.is_some() {
            return Err(about("cert_file and key_file go together (name both)".to_owned()));
        }
        if let Some(auth) = &mut config.basic_auth {
            auth.read_password(directory, &about)?;
        }
        Ok(config)
    }
}

impl BasicAuth {
    fn read_password(
        &mut self,
        directory: &Path,
        about: &dyn Fn(String) -> Complaint,
    ) -> Result<(), Complaint> {
        match (&self.password, &self.password_file) {
            (Some(_), Some(_)) => Err(about(
                "password and password_file are both there (keep one)".to_owned(),
            )),
            (None, Some(file)) => {
                let file = directory.join(file);
                let text =
                    file::read_text(&file).map_err(|error| Complaint::about(&file, error.to_string()))?;
                self.password = Some(text.trim_end_matches(['\r', '\n']).to_owned());
                Ok(())
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn the_form_of_promtool_is_read_and_what_is_wrong_is_told() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("http.yml");
        let read = |text: &str| {
            fs::write(&path, text).unwrap();
            ClientConfig::read(&path).map_err(|complaint| complaint.to_string())
        };
        fs::write(directory.path().join("secret"), "pass word\n").unwrap();
        let config = read(
            "basic_auth:\n  username: joe\n  password_file: secret\ntls_config:\n  ca_file: ca.crt\n  server_name: a\n",
        )
        .unwrap();
        let auth = config.basic_auth.unwrap();
        assert_eq!(
            (auth.username.as_str(), auth.password.as_deref()),
            ("joe", Some("pass word"))
        );
        assert_eq!(
            config.tls_config.ca_file.unwrap(),
            directory.path().join("ca.crt")
        );
        for (text, what) in [
            ("basic_auth:\n  user: joe\n", "user"),
            (
                "basic_auth:\n  username: joe\n  password: a\n  password_file: secret\n",
                "both",
            ),
            ("basic_auth:\n  username: joe\n  password_file: none\n", "none"),
            ("tls_config:\n  cert_file: a\n", "key_file"),
            ("proxy_url: http://x\n", "proxy_url"),
        ] {
            let complaint = read(text).unwrap_err();
            assert!(
                complaint.contains(what) && !complaint.contains('\n'),
                "{text}: {complaint}"
            );
        }
    }
}
