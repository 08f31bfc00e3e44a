//! `cargo xtask lint`: formatting, clippy for the host and for the eBPF target, licences and advisories.

use std::time::Duration;

use anyhow::{Context, Result};
use clap::Args;

use crate::{
    build,
    process::{self, say},
    setup,
    workspace::Workspace,
};

#[derive(Args, Clone, Copy)]
pub struct Options {
    /// Only what needs nothing but the host's toolchain: formatting and clippy for the host
    #[arg(long)]
    quick: bool,
}

/// The verb.
pub fn run(workspace: &Workspace, options: Options) -> Result<()> {
    format(workspace)?;
    clippy_host(workspace)?;
    if options.quick {
        return Ok(());
    }
    clippy_bpf(workspace)?;
    deny(workspace)
}

fn format(workspace: &Workspace) -> Result<()> {
    say("lint: formatting");
    process::run(workspace.cargo().args(["fmt", "--all", "--check"]))
        .context("formatting; run `cargo fmt --all`")
}

fn clippy_host(workspace: &Workspace) -> Result<()> {
    say("lint: clippy, host");
    let mut cargo = workspace.cargo();
    cargo.args([
        "clippy",
        "--quiet",
        "--workspace",
        "--all-targets",
        "--",
        "-D",
        "warnings",
    ]);
    process::run(&mut cargo).context("clippy for the host")
}

/// The eBPF compiler's own `cargo-clippy`, by its path: `cargo clippy` would find rustup's first.
fn clippy_bpf(workspace: &Workspace) -> Result<()> {
    let toolchain = setup::toolchain()?;
    setup::lint(&toolchain)?;
    say("lint: clippy, eBPF");
    let mut clippy = build::bpf_cargo(workspace, &toolchain, "cargo-clippy");
    clippy
        .args(["clippy", "--quiet"])
        .args(build::BPF_ARGUMENTS)
        .args(["--", "-D", "warnings"]);
    process::run(&mut clippy).context("clippy for the eBPF target")
}

/// The advisory database is fetched apart, so that a machine without that network still checks everything else.
fn deny(workspace: &Workspace) -> Result<()> {
    say("lint: licences, sources, duplicates, advisories");
    let mut fetch = workspace.cargo();
    let fetched = process::run_within(fetch.args(["deny", "fetch", "db"]), Duration::from_secs(60));
    let mut check = workspace.cargo();
    check.args(["deny", "check", "--hide-inclusion-graph"]);
    if fetched.is_err() {
        check.args(["bans", "licenses", "sources"]);
    }
    process::run(&mut check).context("cargo deny")?;
    if let Err(error) = fetched {
        say(&format!(
            "ADVISORIES WERE NOT CHECKED: the database could not be fetched: {error:#}"
        ));
    }
    Ok(())
}
