//! The binary where any user can run it.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;

use super::{Live, probe};

/// Nobody, as most systems number it.
pub const NOBODY: u32 = 65_534;

/// A copy of the binary, until dropped.
pub struct Reachable {
    directory: tempfile::TempDir,
}

impl Reachable {
    /// Copies it.
    ///
    /// # Panics
    /// If it cannot.
    pub fn new(live: &Live) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).expect("opening it");
        fs::copy(&live.binary, directory.path().join("procprobe")).expect("copying the binary");
        Self { directory }
    }

    /// Where it is.
    pub fn path(&self) -> PathBuf {
        self.directory.path().join("procprobe")
    }

    /// Runs it to its end as nobody, without any privilege.
    pub fn as_nobody(&self, arguments: &[&str]) -> probe::Outcome {
        let mut command = Command::new(self.path());
        // std drops the supplementary groups as well.
        probe::finish(command.args(arguments).uid(NOBODY).gid(NOBODY))
    }
}
