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

/// A shallow clone takes seconds.
const FETCH: Duration = Duration::from_secs(60);

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
    clippy.args(["clippy", "--quiet"]);
    build::bpf_arguments(&mut clippy, workspace, &toolchain).args(["--", "-D", "warnings"]);
    process::run(&mut clippy).context("clippy for the eBPF target")
}

fn deny(workspace: &Workspace) -> Result<()> {
    say("lint: licences, sources, duplicates");
    let mut check = workspace.cargo();
    check.args(["deny", "check", "--hide-inclusion-graph"]);
    process::run(check.args(["bans", "licenses", "sources"])).context("cargo deny")?;
    advisories(workspace)
}

/// Known holes of what `Cargo.lock` names. Where the database cannot be had, that is said, and no failure:
/// without that network one can still build, and check everything else.
pub fn advisories(workspace: &Workspace) -> Result<()> {
    setup::deny()?;
    say("advisories: fetching the database");
    let mut fetch = workspace.cargo();
    if let Err(error) = process::run_within(fetch.args(["deny", "fetch", "db"]), FETCH) {
        say(&format!(
            "ADVISORIES WERE NOT CHECKED: the database could not be fetched: {error:#} (where there is a copy: \
             git config --global url.COPY.insteadOf {DATABASE})"
        ));
        return Ok(());
    }
    let mut check = workspace.cargo();
    check.args(["deny", "check", "--hide-inclusion-graph", "advisories"]);
    process::run(&mut check).context("cargo deny")?;
    say("advisories: none against what is used");
    Ok(())
}

/// Where cargo-deny has it from.
const DATABASE: &str = "https://github.com/RustSec/advisory-db";
