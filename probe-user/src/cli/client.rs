//! Asks a running agent.
//!
//! Whoever sits at an address may be anybody: a port is free while an agent restarts. So what answers is
//! checked first (the socket's and the port's owner, or the certificate), the answer is read with a limit and
//! a deadline, is taken apart as JSON, and its strings are made fit for a terminal before anything is
//! printed. No proxy is asked, whatever the environment says: what one host's agent tells is nobody else's.

use std::fmt;
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use axum::body::Bytes;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use http_body_util::{BodyExt, Empty, Limited};
use hyper::Request;
use hyper::client::conn::http1;
use hyper::header;
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use rustls::{CertificateError, ClientConfig as TlsClient, RootCertStore};
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsConnector;

use super::runtime;
use crate::config::client::ClientConfig;
use crate::config::{Config, DEFAULT_SOCKET};
use crate::export::{accounts, tls};
use crate::model::escape;
use crate::view::json::{Answer, SCHEMA};

/// Longer than any answer takes that is not a window; an agent that is stopped should not stop us.
const PATIENCE: Duration = Duration::from_secs(10);
/// More than the answer of a host at the kernel's limit of threads.
const LONGEST: usize = 1 << 30;

/// Which agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// That of this host.
    Auto,
    /// None.
    Never,
    /// At a socket.
    Socket(PathBuf),
    /// At an address.
    Tcp {
        /// Name or address.
        host: String,
        /// Port.
        port: u16,
        /// With TLS.
        tls: bool,
    },
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => write!(f, "this host"),
            Self::Never => write!(f, "no agent"),
            Self::Socket(path) => write!(f, "{}", path.display()),
            Self::Tcp { host, port, tls } => {
                let scheme = if *tls { "https://" } else { "" };
                let (open, close) = if host.contains(':') { ("[", "]") } else { ("", "") };
                write!(f, "{scheme}{open}{host}{close}:{port}")
            }
        }
    }
}

/// Reads `--connect`.
///
/// # Errors
/// What it takes, if it is something else.
pub fn parse_target(text: &str) -> Result<Target, String> {
    match text {
        "auto" => return Ok(Target::Auto),
        "never" => return Ok(Target::Never),
        _ => {}
    }
    if let Some(path) = text
        .strip_prefix("unix:")
        .or_else(|| text.starts_with('/').then_some(text))
    {
        return Ok(Target::Socket(path.into()));
    }
    let (tls, address) = match text.split_once("://") {
        Some(("http", address)) => (false, address),
        Some(("https", address)) => (true, address),
        Some((scheme, _)) => return Err(format!("{scheme} is not spoken here (http or https)")),
        None => (false, text),
    };
    let wrong = || "not auto, never, a path, HOST:PORT or https://HOST:PORT".to_owned();
    let (host, port) = address.trim_end_matches('/').rsplit_once(':').ok_or_else(wrong)?;
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    let host = bare.unwrap_or(host);
    let is_name = |letter: char| letter.is_ascii_alphanumeric() || "-._:%".contains(letter);
    if host.is_empty() || !host.chars().all(is_name) || (bare.is_none() && host.contains(':')) {
        return Err(wrong());
    }
    Ok(Target::Tcp {
        host: host.to_owned(),
        port: port.parse().map_err(|_| wrong())?,
        tls,
    })
}

/// Asks an agent.
pub struct Client {
    target: Target,
    config: ClientConfig,
}

/// Somebody is there, but not somebody to be believed: nothing else is tried.
#[derive(Debug, thiserror::Error)]
#[error(
    "{at} is held by {holder}, who is neither root nor procprobe nor you: not asked (--connect names another agent)"
)]
struct Stranger {
    at: String,
    holder: String,
}

impl Client {
    /// For the agent that the command line names.
    ///
    /// # Errors
    /// If the file with the password is wrong, or no agent may be asked.
    pub fn new(target: &Target, config: Option<&Path>) -> anyhow::Result<Self> {
        anyhow::ensure!(
            *target != Target::Never,
            "only a running agent knows this (leave --connect never out)"
        );
        let config = config.map(ClientConfig::read);
        Ok(Self {
            target: target.clone(),
            config: config.transpose()?.unwrap_or_default(),
        })
    }

    /// The answer at a path.
    ///
    /// # Errors
    /// If there is no agent, if it is not to be believed, if it refuses, or says something else.
    pub fn get<T: DeserializeOwned>(&self, path: &str) -> anyhow::Result<Answer<T>> {
        let (target, body) = self.body(path)?;
        answer(&body).with_context(|| format!("{target} does not answer as an agent does"))
    }

    /// The first line at a path that answers in text.
    ///
    /// # Errors
    /// As [`Self::get`].
    pub fn text(&self, path: &str) -> anyhow::Result<String> {
        let (_, body) = self.body(path)?;
        Ok(first_line(&body))
    }

    fn body(&self, path: &str) -> anyhow::Result<(Target, Bytes)> {
        let (target, status, body) = runtime()?.block_on(self.ask(path))?;
        anyhow::ensure!(
            status == 200,
            "the agent at {target} says: {} (status {status})",
            first_line(&body)
        );
        Ok((target, body))
    }

    /// Asks the first that is there.
    async fn ask(&self, path: &str) -> anyhow::Result<(Target, u16, Bytes)> {
        let targets = match &self.target {
            Target::Auto => {
                let listen = Config::default().listen;
                let over_tcp = Target::Tcp {
                    host: listen.ip().to_string(),
                    port: listen.port(),
                    tls: false,
                };
                vec![Target::Socket(DEFAULT_SOCKET.into()), over_tcp]
            }
            named => vec![named.clone()],
        };
        let mut failures = Vec::new();
        for target in targets {
            let asked = tokio::time::timeout(PATIENCE, self.ask_one(&target, path)).await;
            match asked.unwrap_or_else(|_| Err(anyhow::anyhow!("no answer within {PATIENCE:?}"))) {
                Ok((status, body)) => return Ok((target, status, body)),
                Err(error) if error.is::<Stranger>() => return Err(error),
                Err(error) => failures.push(format!("{target}: {error:#}")),
            }
        }
        anyhow::bail!(
            "no agent answers at {} (is one running? procprobe agent)",
            failures.join("; nor at ")
        )
    }

    async fn ask_one(&self, target: &Target, path: &str) -> anyhow::Result<(u16, Bytes)> {
        match target {
            Target::Auto | Target::Never => anyhow::bail!("no address"),
            Target::Socket(file) => {
                let stream = UnixStream::connect(file).await?;
                believe(stream.peer_cred()?.uid(), target)?;
                exchange(stream, self.request(path, "localhost", false)?).await
            }
            Target::Tcp { host, port, tls } => {
                let stream = TcpStream::connect(first_of(host, *port)?).await?;
                if *tls {
                    let name = self.config.tls_config.server_name.as_deref().unwrap_or(host);
                    let name = ServerName::try_from(name.to_owned())?;
                    let connector = TlsConnector::from(self.tls()?);
                    let stream = connector.connect(name, stream).await;
                    let stream = stream.map_err(|error| anyhow::anyhow!("TLS: {}", distrust(&error)))?;
                    return exchange(stream, self.request(path, &target.to_string(), true)?).await;
                }
                let (ours, theirs) = (stream.local_addr()?, stream.peer_addr()?);
                let is_local = theirs.ip().to_canonical().is_loopback() || ours.ip() == theirs.ip();
                if is_local {
                    believe(owner(theirs)?, target)?;
                }
                exchange(stream, self.request(path, &target.to_string(), true)?).await
            }
        }
    }

    fn request(&self, path: &str, host: &str, with_password: bool) -> anyhow::Result<Request<Empty<Bytes>>> {
        let host = host.trim_start_matches("https://");
        let mut request = Request::get(path)
            .header(header::HOST, host)
            .header(header::CONNECTION, "close");
        if let Some(auth) = self.config.basic_auth.as_ref().filter(|_| with_password) {
            let password = auth.password.as_deref().unwrap_or_default();
            let credentials = BASE64_STANDARD.encode(format!("{}:{password}", auth.username));
            request = request.header(header::AUTHORIZATION, format!("Basic {credentials}"));
        }
        Ok(request.body(Empty::new())?)
    }

    fn tls(&self) -> anyhow::Result<Arc<TlsClient>> {
        let tls = &self.config.tls_config;
        let mut roots = RootCertStore::empty();
        match &tls.ca_file {
            Some(file) => {
                for certificate in tls::certificates("ca_file", file)? {
                    roots.add(certificate)?;
                }
            }
            None => {
                roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            }
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = TlsClient::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots);
        Ok(Arc::new(match (&tls.cert_file, &tls.key_file) {
            (Some(certificate), Some(key)) => builder.with_client_auth_cert(
                tls::certificates("cert_file", certificate)?,
                tls::key("key_file", key)?,
            )?,
            _ => builder.with_no_client_auth(),
        }))
    }
}

/// Why a handshake failed, with the remedy where the library's own words leave one at a loss.
fn distrust(error: &io::Error) -> String {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref());
    match inner {
        Some(rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer)) => {
            "who signed the agent's certificate is not known here (tls_config: ca_file in --http-config)"
                .to_owned()
        }
        // What `openssl req -x509` makes unless it is told otherwise.
        Some(rustls::Error::InvalidCertificate(CertificateError::Other(other)))
            if other.0.to_string().contains("CaUsedAsEndEntity") =>
        {
            "the agent's certificate is an authority's (make one with basicConstraints = CA:FALSE)".to_owned()
        }
        _ => error.to_string(),
    }
}

/// The beginning of a text, fit for a terminal.
fn first_line(body: &[u8]) -> String {
    let said = String::from_utf8_lossy(body);
    let first: String = said
        .lines()
        .next()
        .unwrap_or_default()
        .chars()
        .take(300)
        .collect();
    escape(first.trim().as_bytes())
}

/// The first address of a name.
fn first_of(host: &str, port: u16) -> io::Result<SocketAddr> {
    let mut addresses = (host, port).to_socket_addrs()?;
    addresses
        .next()
        .ok_or_else(|| io::Error::other("the name has no address"))
}

/// Whether what `uid` holds is an agent's: root's, the packaged agent's, or our own.
fn believe(uid: u32, target: &Target) -> Result<(), Stranger> {
    // SAFETY: no arguments, cannot fail.
    let own = unsafe { libc::geteuid() };
    if uid == 0 || uid == own || accounts::uid(accounts::OURS) == Some(uid) {
        return Ok(());
    }
    Err(Stranger {
        at: target.to_string(),
        holder: accounts::user_name(uid),
    })
}

/// Who listens at an address of this host. Two users cannot at the same time: the kernel shares a port among
/// sockets of one user only.
fn owner(address: SocketAddr) -> anyhow::Result<u32> {
    let mut sockets = procfs::net::tcp().context("/proc/net/tcp")?;
    sockets.extend(procfs::net::tcp6().unwrap_or_default());
    let holds = |local: SocketAddr| {
        let (wanted, held) = (address.ip().to_canonical(), local.ip().to_canonical());
        local.port() == address.port() && (held == wanted || held.is_unspecified())
    };
    let mut owners = sockets
        .iter()
        .filter(|socket| socket.state == procfs::net::TcpState::Listen && holds(socket.local_address))
        .map(|socket| socket.uid);
    let first = owners.next().context("nobody listens there any more")?;
    // Of several the one to be believed least: which of them answered is not known.
    Ok(owners.fold(first, |all, one| if all == 0 { one } else { all }))
}

/// One request, one answer.
async fn exchange(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    request: Request<Empty<Bytes>>,
) -> anyhow::Result<(u16, Bytes)> {
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let answered = async {
        let answer = sender.send_request(request).await?;
        let status = answer.status().as_u16();
        let body = Limited::new(answer.into_body(), LONGEST).collect().await;
        let body = body.map_err(|error| anyhow::anyhow!("{error}"))?;
        Ok((status, body.to_bytes()))
    };
    tokio::pin!(answered);
    tokio::select! {
        answer = &mut answered => answer,
        ended = connection => {
            ended?;
            // What it had sent is there.
            answered.await
        }
    }
}

/// The answer in what an agent said, fit for a terminal whoever it really was.
fn answer<T: DeserializeOwned>(body: &[u8]) -> anyhow::Result<Answer<T>> {
    let mut value: Value = serde_json::from_slice(body)?;
    let schema = value.get("schema").and_then(Value::as_str).unwrap_or_default();
    anyhow::ensure!(
        schema == SCHEMA,
        "it speaks {:?}, this is {SCHEMA} (install the same version)",
        escape(schema.as_bytes())
    );
    tame(&mut value);
    Ok(serde_json::from_value(value)?)
}

/// Makes every string fit for a terminal. What an agent sends is so already, and stays as it is.
fn tame(value: &mut Value) {
    match value {
        Value::String(text) => {
            let tamed = escape(text.as_bytes());
            if tamed != *text {
                *text = tamed;
            }
        }
        Value::Array(values) => values.iter_mut().for_each(tame),
        Value::Object(fields) => fields.values_mut().for_each(tame),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// A note on what an agent did not tell, and how to be told; `None` if that was nothing.
pub fn withheld<T>(answer: &Answer<T>) -> Option<String> {
    (!answer.withheld.is_empty()).then(|| {
        format!(
            "not told over TCP: {} ({} has it for root and the group procprobe)",
            answer.withheld.join(", "),
            Path::new(DEFAULT_SOCKET).display()
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::view::json::Tree;

    #[test]
    fn addresses_are_read_and_shown_as_they_are_written() {
        for text in [
            "10.0.0.1:9982",
            "[::1]:1",
            "https://node7.example:443",
            "/run/x.sock",
        ] {
            assert_eq!(parse_target(text).unwrap().to_string(), text);
        }
        assert_eq!(parse_target("unix:/a"), Ok(Target::Socket("/a".into())));
        assert_eq!(parse_target("http://a:1/"), parse_target("a:1"));
        assert_eq!(parse_target("auto"), Ok(Target::Auto));
        for wrong in [
            "",
            "9982",
            "a",
            "a:",
            ":1",
            "a:99999",
            "::1:9",
            "ftp://a:1",
            "a b:1",
            "joe:secret@a:1",
            "a/b:1",
            "a\r\nx:1",
        ] {
            assert!(parse_target(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn what_is_no_answer_is_refused_and_what_is_one_can_be_shown() {
        let tree = |body: &str| answer::<Tree>(body.as_bytes());
        for wrong in [
            "",
            "  PID  S\u{1b}]0;title\u{7}",
            "{}",
            "[]",
            "{\"schema\":\"procprobe/v2\"}",
            "{\"schema\":\"procprobe/v1\"}",
        ] {
            let error = tree(wrong).unwrap_err();
            assert!(
                !format!("{error:#}").contains(char::is_control),
                "{wrong:?}: {error:#}"
            );
        }
        let good = "{\"schema\":\"procprobe/v1\",\"taken_at\":\"\\u001b[2J\",\"window_ns\":0,\"source\":\"bpf\",\
                    \"complete\":true,\"lost\":{},\"withheld\":[\"\\u001b]52;c;eA==\\u0007\"],\"processes\":[]}";
        let answer = tree(good).unwrap();
        assert_eq!(answer.taken_at, "\\u{1b}[2J");
        assert!(!withheld(&answer).unwrap().contains(char::is_control));
    }

    #[test]
    fn listeners_are_known_by_their_owner() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        // SAFETY: no arguments, cannot fail.
        let own = unsafe { libc::geteuid() };
        let address = listener.local_addr().unwrap();
        assert_eq!(owner(address).unwrap(), own);
        drop(listener);
        assert!(owner(address).is_err());
    }
}
