//! `cargo xtask lint`: formatting, clippy for the host and for the eBPF target, licences and advisories.

use std::{env, fs, path::PathBuf, time::Duration};

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

/// Names a git repository to read advisories from, for who has a copy of `RustSec`'s and no way to theirs.
const DATABASE: &str = "PROCPROBE_ADVISORY_DB";

/// Known holes of what `Cargo.lock` names. Where the database cannot be had, that is said, and no failure: without that
/// network one can still build, and check everything else.
pub fn advisories(workspace: &Workspace) -> Result<()> {
    setup::deny()?;
    say("advisories: fetching the database");
    let config = deny_config(workspace)?;
    let deny = || {
        let mut cargo = workspace.cargo();
        cargo.args(["deny", "--config"]).arg(&config);
        cargo
    };
    if let Err(error) = process::run_within(deny().args(["fetch", "db"]), FETCH) {
        say(&format!(
            "ADVISORIES WERE NOT CHECKED: the database could not be fetched ({error:#}); {DATABASE}=URL names a copy"
        ));
        return Ok(());
    }
    process::run(deny().args(["check", "--hide-inclusion-graph", "advisories"])).context("cargo deny")?;
    say("advisories: none against what is used");
    Ok(())
}

/// The repository's configuration, with the database that the environment names.
fn deny_config(workspace: &Workspace) -> Result<PathBuf> {
    let ours = workspace.root.join("deny.toml");
    let Ok(url) = env::var(DATABASE) else {
        return Ok(ours);
    };
    let text = fs::read_to_string(&ours).with_context(|| format!("reading {}", ours.display()))?;
    let named = format!("[advisories]\ndb-urls = [{url:?}]\n");
    let text = text.replacen("[advisories]\n", &named, 1);
    let theirs = workspace.target.join("deny.toml");
    fs::write(&theirs, text).with_context(|| format!("writing {}", theirs.display()))?;
    Ok(theirs)
}
