//! Where things are: the repository, its target directory, and what the build leaves there.

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result};
use serde::Deserialize;

use crate::{environment, process};

/// The repository and its build directory, both absolute.
pub struct Workspace {
    pub root: PathBuf,
    pub target: PathBuf,
}

#[derive(Deserialize)]
struct Metadata {
    workspace_root: PathBuf,
    target_directory: PathBuf,
}

impl Workspace {
    /// Asks cargo, which knows about `CARGO_TARGET_DIR` and the configuration files.
    pub fn locate() -> Result<Self> {
        let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml");
        let mut cargo = Command::new(cargo_program());
        cargo
            .args(["metadata", "--no-deps", "--format-version=1", "--manifest-path"])
            .arg(&manifest);
        let json = process::output(environment::scrub(&mut cargo)).context("locating the workspace")?;
        let metadata: Metadata = serde_json::from_str(&json).context("reading `cargo metadata`")?;
        Ok(Self {
            root: metadata.workspace_root,
            target: metadata.target_directory,
        })
    }

    /// The host's cargo, the one that built xtask, run in the repository.
    pub fn cargo(&self) -> Command {
        let mut cargo = Command::new(cargo_program());
        environment::scrub(&mut cargo)
            .current_dir(&self.root)
            .env("CARGO_TARGET_DIR", &self.target);
        cargo
    }

    /// Target directory of the eBPF build. Apart from the host's, so that the two never wait for each other's lock.
    pub fn bpf_target(&self) -> PathBuf {
        self.target.join("bpf")
    }

    /// The eBPF object.
    pub fn bpf_object(&self) -> PathBuf {
        self.bpf_target().join("bpfel-unknown-none/release/probe")
    }

    /// The release binary.
    pub fn procprobe(&self) -> PathBuf {
        self.target.join("release/procprobe")
    }

    /// Tools that only the tests use, unpacked instead of installed.
    pub fn tools(&self) -> PathBuf {
        self.target.join("tools")
    }
}

/// `cargo run` names itself; someone who starts the xtask binary by hand gets the one on the path.
pub fn cargo_program() -> PathBuf {
    env::var_os("CARGO").map_or_else(|| PathBuf::from("cargo"), PathBuf::from)
}
