//! What the agent is told: files, with flags before them; read at the start, and again at SIGHUP.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::sync::watch;

use super::super::args::AgentArgs;
use crate::config::web::WebConfig;
use crate::config::{Config, DEFAULT_PATH};
use crate::export::guard::{Policy, Web};
use crate::export::host::Names;
use crate::export::http::Shared;
use crate::export::workers::Workers;
use crate::view::json::Disclosure;

/// Everything the agent is told.
pub struct Setup {
    /// Options.
    pub config: Config,
    /// Certificates and users.
    pub web: Arc<Web>,
    /// The files that were read.
    pub files: Vec<PathBuf>,
}

impl Setup {
    /// Reads all files there are.
    ///
    /// # Errors
    /// One line about the file that is wrong.
    pub fn read(args: &AgentArgs, workers: &Workers) -> anyhow::Result<Self> {
        let (config, file) = args.config()?;
        let mut files: Vec<PathBuf> = file.into_iter().collect();
        let web = match &config.web_config {
            Some(path) => {
                files.push(path.clone());
                Web::new(path, WebConfig::read(path)?, workers)?
            }
            None => Web::new(Path::new(""), WebConfig::default(), workers)?,
        };
        Ok(Self { config, web, files })
    }

    /// Says that all is well, and with which files.
    pub fn summary(&self) -> String {
        let files: Vec<String> = self.files.iter().map(|file| file.display().to_string()).collect();
        match files.as_slice() {
            [] => format!("ok: no file ({DEFAULT_PATH} is not there): defaults and flags"),
            _ => format!("ok: {}", files.join(", ")),
        }
    }

    /// Who may see what over TCP.
    pub fn policy(&self) -> Arc<Policy> {
        Arc::new(Policy {
            told: Disclosure {
                details: self.config.expose_details,
                cmdline: self.config.expose_cmdline,
            },
            names: Names::new(&self.config.http.hosts),
        })
    }

    /// Warns of what is allowed and hardly meant.
    pub fn warn(&self) {
        let address = self.config.listen;
        if !address.ip().is_loopback() && self.web.is_open() {
            tracing::warn!(
                "{address} is reachable from other hosts, and nobody is asked for a password (see web_config)"
            );
        }
    }
}

impl AgentArgs {
    /// The configuration, and the file that it is from.
    ///
    /// # Errors
    /// One line about the file if it is wrong.
    pub fn config(&self) -> anyhow::Result<(Config, Option<PathBuf>)> {
        let default = Path::new(DEFAULT_PATH);
        let path = self
            .config
            .as_deref()
            .or_else(|| default.exists().then_some(default));
        let mut config = path.map(Config::read).transpose()?.unwrap_or_default();
        self.override_in(&mut config);
        Ok((config, path.map(Path::to_owned)))
    }

    /// Flags go before the file.
    fn override_in(&self, config: &mut Config) {
        fn set<T: Clone>(option: &mut T, flag: Option<&T>) {
            if let Some(value) = flag {
                *option = value.clone();
            }
        }
        set(&mut config.listen, self.listen.as_ref());
        set(&mut config.socket, self.socket.as_ref());
        set(&mut config.max_groups, self.max_groups.as_ref());
        set(&mut config.max_locks, self.max_locks.as_ref());
        set(&mut config.max_edges, self.max_edges.as_ref());
        set(&mut config.retention, self.retention.as_ref());
        set(&mut config.expose_cmdline, self.expose_cmdline.as_ref());
        set(&mut config.expose_details, self.expose_details.as_ref());
        if let Some(path) = &self.web_config {
            config.web_config = Some(path.clone());
        }
    }
}

/// What of a running agent a reload changes.
#[derive(Clone)]
pub struct Changeable {
    /// TLS, users and headers.
    pub web: watch::Sender<Arc<Web>>,
    /// Who may see what.
    pub policy: watch::Sender<Arc<Policy>>,
}

/// Reads everything again and applies what can be applied while running. A file that is wrong changes nothing.
pub fn reload(args: &AgentArgs, running: &Config, shared: &Shared, changeable: &Changeable) {
    let setup = match Setup::read(args, &shared.workers) {
        Ok(setup) => setup,
        Err(error) => {
            tracing::error!("not reloaded, all stays as it was: {error:#}");
            return;
        }
    };
    setup.warn();
    let label_map = setup.config.label_map.clone();
    shared.engine.tell(move |engine| engine.set_label_map(label_map));
    changeable.policy.send_replace(setup.policy());
    changeable.web.send_replace(Arc::clone(&setup.web));
    let later = setup.config.needs_restart(running);
    if later.is_empty() {
        tracing::info!("reloaded: {}", setup.summary());
    } else {
        tracing::warn!("reloaded, but a restart is needed for {}", later.join(", "));
    }
}
