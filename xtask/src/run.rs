//! `cargo xtask run`: build, then become `procprobe` as root.

use std::{ffi::OsString, os::unix::process::CommandExt};

use anyhow::{Context, Result};
use clap::Args;

use crate::{build, environment, process, workspace::Workspace};

#[derive(Args)]
pub struct Options {
    /// Arguments of procprobe; `agent` if there are none
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "ARGS")]
    arguments: Vec<OsString>,
}

/// The verb. Returns only if it fails: the process becomes procprobe, so signals and the exit code are procprobe's.
pub fn run(workspace: &Workspace, options: Options) -> Result<()> {
    build::run(workspace)?;
    let procprobe = workspace.procprobe();
    let mut command = process::as_root(&procprobe)?;
    environment::scrub(&mut command);
    if options.arguments.is_empty() {
        command.arg("agent");
    } else {
        command.args(options.arguments);
    }
    Err(command.exec()).with_context(|| format!("starting {}", procprobe.display()))
}
