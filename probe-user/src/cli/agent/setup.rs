//! What the agent is told: files, with flags before them; read at the start, and again at SIGHUP.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::sync::watch;

use super::super::args::AgentArgs;
use crate::config::web::WebConfig;
use crate::config::{Config, DEFAULT_PATH};
use crate::export::guard::Web;
use crate::export::http::Shared;

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
    pub fn read(args: &AgentArgs) -> anyhow::Result<Self> {
        let mut files = Vec::new();
        let default = Path::new(DEFAULT_PATH);
        let path = args
            .config
            .as_deref()
            .or_else(|| default.exists().then_some(default));
        let mut config = match path {
            Some(path) => {
                files.push(path.to_owned());
                Config::read(path)?
            }
            None => Config::default(),
        };
        args.override_in(&mut config);
        let web = match &config.web_config {
            Some(path) => {
                files.push(path.clone());
                Web::new(path, WebConfig::read(path)?)?
            }
            None => Web::new(Path::new(""), WebConfig::default())?,
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
    /// Flags go before the file.
    fn override_in(&self, config: &mut Config) {
        fn set<T: Clone>(option: &mut T, flag: Option<&T>) {
            if let Some(value) = flag {
                *option = value.clone();
            }
        }
        set(&mut config.listen, self.listen.as_ref());
        set(&mut config.max_groups, self.max_groups.as_ref());
        set(&mut config.max_locks, self.max_locks.as_ref());
        set(&mut config.max_edges, self.max_edges.as_ref());
        set(&mut config.retention, self.retention.as_ref());
        set(&mut config.expose_cmdline, self.expose_cmdline.as_ref());
        if let Some(path) = &self.web_config {
            config.web_config = Some(path.clone());
        }
    }
}

/// Reads everything again and applies what can be applied while running. A file that is wrong changes nothing.
pub fn reload(args: &AgentArgs, running: &Config, shared: &Shared, web: &watch::Sender<Arc<Web>>) {
    let setup = match Setup::read(args) {
        Ok(setup) => setup,
        Err(error) => {
            tracing::error!("not reloaded, all stays as it was: {error:#}");
            return;
        }
    };
    setup.warn();
    shared.expose_cmdline(setup.config.expose_cmdline);
    shared.engine().set_label_map(setup.config.label_map.clone());
    web.send_replace(Arc::clone(&setup.web));
    let later = setup.config.needs_restart(running);
    if later.is_empty() {
        tracing::info!("reloaded: {}", setup.summary());
    } else {
        tracing::warn!("reloaded, but a restart is needed for {}", later.join(", "));
    }
}
