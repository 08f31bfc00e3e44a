//! What the agent reads from files: its configuration (TOML), and the web configuration that Prometheus exporters share.
//!
//! | module | does |
//! |---|---|
//! | [`web`] | certificates, users, headers |
//! | [`metrics`] | what is exported, and of whom |
//! | [`client`] | the same for who asks |
//! | [`file`] | reads nothing that could block |
//! | [`complaint`] | says on one line what is wrong with a file |

pub mod client;
pub mod complaint;
mod duration;
pub mod file;
#[cfg(test)]
mod hostile;
pub mod metrics;
#[cfg(test)]
mod tests;
pub mod web;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;
use serde::de::{Deserializer, Error};

use crate::export::catalog;
use crate::model::groups::Grouping;
use crate::model::label_map::LabelMap;
use complaint::{Complaint, unknown_field};
pub use duration::parse as parse_duration;
pub use metrics::Metrics;

/// Read if no other is named, and if it is there.
pub const DEFAULT_PATH: &str = "/etc/procprobe/procprobe.toml";

/// Where the agent's socket is if no other place is named.
pub const DEFAULT_SOCKET: &str = "/run/procprobe/api.sock";
/// In place of a path: no socket.
pub const NO_SOCKET: &str = "none";

/// Everything the agent can be told. Each field has its default and its description in `procprobe.toml` as shipped.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Address and port to serve on.
    pub listen: SocketAddr,
    /// The socket through which root and its group see everything.
    pub socket: PathBuf,
    /// Groups with series of their own.
    #[serde(deserialize_with = "groups")]
    pub max_groups: u32,
    /// Locks that are told apart.
    #[serde(deserialize_with = "entries")]
    pub max_locks: u32,
    /// Pairs of waiter and holder that are told apart.
    #[serde(deserialize_with = "entries")]
    pub max_edges: u32,
    /// How long dead processes are remembered.
    #[serde(deserialize_with = "duration::deserialize")]
    pub retention: Duration,
    /// Whether the API shows command lines over TCP.
    pub expose_cmdline: bool,
    /// Whether the API shows addresses, executables and code over TCP to who gave no password.
    pub expose_details: bool,
    /// Where the web configuration is.
    pub web_config: Option<PathBuf>,
    /// What clients may take.
    pub http: Limits,
    /// How units are called.
    pub label_map: LabelMap,
    /// What is exported.
    pub metrics: Metrics,
}

/// What clients may take of the agent's time and memory.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Connections at a time.
    #[serde(deserialize_with = "at_least_one")]
    pub max_connections: usize,
    /// Connections of one peer at a time: another host, or a user at the socket.
    #[serde(deserialize_with = "at_least_one")]
    pub max_connections_per_peer: usize,
    /// Names of this host, besides its own, that requests over loopback may be for.
    pub hosts: Vec<String>,
    /// Requests that take a snapshot at a time; more wait.
    #[serde(deserialize_with = "at_least_one")]
    pub max_scrapes: usize,
    /// How long a client may take to say what it wants.
    #[serde(deserialize_with = "duration::deserialize")]
    pub header_timeout: Duration,
    /// How long an answer may take.
    #[serde(deserialize_with = "duration::deserialize")]
    pub request_timeout: Duration,
    /// How long a client may take to read on.
    #[serde(deserialize_with = "duration::deserialize")]
    pub write_timeout: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9982),
            socket: DEFAULT_SOCKET.into(),
            max_groups: 200,
            max_locks: 8_192,
            max_edges: 16_384,
            retention: Duration::from_secs(600),
            expose_cmdline: false,
            expose_details: false,
            web_config: None,
            http: Limits::default(),
            label_map: LabelMap::default(),
            metrics: Metrics::default(),
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_connections: 64,
            max_connections_per_peer: 16,
            hosts: Vec::new(),
            max_scrapes: 4,
            header_timeout: Duration::from_secs(30),
            request_timeout: Duration::from_secs(30),
            write_timeout: Duration::from_secs(30),
        }
    }
}

impl Limits {
    /// What only a restart changes.
    fn without_hosts(&self) -> Self {
        Self {
            hosts: Vec::new(),
            ..self.clone()
        }
    }
}

impl Config {
    /// Reads a file.
    ///
    /// # Errors
    /// [`Complaint`] if it cannot be read, or says something that makes no sense.
    pub fn read(path: &Path) -> Result<Self, Complaint> {
        let text = file::read_text(path).map_err(|error| {
            Complaint::about(path, format!("{error} (name an existing file with --config)"))
        })?;
        Self::parse(path, &text)
    }

    fn parse(path: &Path, text: &str) -> Result<Self, Complaint> {
        toml::from_str(text).map_err(|error| {
            let at = error.span().map_or(0, |span| span.start).min(text.len());
            let line = text.get(..at).unwrap_or_default().matches('\n').count() as u64 + 1;
            match unknown_field(error.message()) {
                Some((key, known)) => Complaint::unknown(path, Some(line), key, &known),
                None => Complaint::at(path, line, error.message()),
            }
        })
    }

    /// What makes a group of metrics, and which have series of their own.
    pub fn grouping(&self) -> Grouping {
        Grouping {
            max_groups: self.max_groups as usize,
            by: self.metrics.group_by,
            durations: self.metrics.durations,
            max_units: self.metrics.units.max as usize,
            units: self.metrics.units.filter(),
        }
    }

    /// How many units may have their cgroups read: none if nothing that comes of it is exported.
    pub fn max_units(&self) -> usize {
        if catalog::OF_UNITS
            .iter()
            .any(|name| self.metrics.families.shows(name))
        {
            self.max_groups as usize
        } else {
            0
        }
    }

    /// The options that differ and that only a restart changes.
    pub fn needs_restart(&self, running: &Self) -> Vec<&'static str> {
        let differences = [
            ("listen", self.listen != running.listen),
            ("socket", self.socket != running.socket),
            ("max_groups", self.max_groups != running.max_groups),
            ("max_locks", self.max_locks != running.max_locks),
            ("max_edges", self.max_edges != running.max_edges),
            ("metrics", self.metrics != running.metrics),
            ("retention", self.retention != running.retention),
            ("http", self.http.without_hosts() != running.http.without_hosts()),
        ];
        differences
            .into_iter()
            .filter_map(|(name, differs)| differs.then_some(name))
            .collect()
    }
}

fn groups<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u32, D::Error> {
    let count = u32::deserialize(deserializer)?;
    if (1..=100_000).contains(&count) {
        return Ok(count);
    }
    Err(D::Error::custom("max_groups is a number from 1 to 100000"))
}

fn entries<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u32, D::Error> {
    let count = u32::deserialize(deserializer)?;
    if (1..=1_000_000).contains(&count) {
        return Ok(count);
    }
    Err(D::Error::custom("a number from 1 to 1000000"))
}

fn at_least_one<'de, D: Deserializer<'de>>(deserializer: D) -> Result<usize, D::Error> {
    let count = usize::deserialize(deserializer)?;
    if (1..=10_000).contains(&count) {
        return Ok(count);
    }
    Err(D::Error::custom("a number from 1 to 10000"))
}
