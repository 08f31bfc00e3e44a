//! `cargo xtask VERB`: everything one does with this repository, one file per verb.
//!
//! The verbs are plain programs on top of cargo so that a fresh machine needs nothing but a Rust toolchain to start:
//! whatever else is missing, `setup` installs. All chatter goes to stderr; stdout belongs to what a verb runs.

mod accuracy;
mod agent;
mod bench;
mod build;
mod dashboards;
mod dist;
mod environment;
mod lint;
mod packages;
mod paths;
mod process;
mod programs;
mod record;
mod run;
mod setup;
mod soak;
mod test;
mod toolchain;
mod truth;
mod verify;
mod vm;
mod workspace;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

use crate::{process::say, workspace::Workspace};

#[derive(Parser)]
#[command(
    name = "cargo xtask",
    bin_name = "cargo xtask",
    about = "procprobe's build, test and measurement commands"
)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Find or install everything the build needs; does nothing when all is there
    Setup(setup::Options),
    /// Build the eBPF object and, around it, target/release/procprobe
    Build,
    /// Build, then become `procprobe ARGS` as root
    Run(run::Options),
    /// Build, then run every test this machine can run
    Test(test::Options),
    /// Formatting, clippy for host and eBPF, licences and advisories
    Lint(lint::Options),
    /// Measure what the programs cost
    #[command(subcommand)]
    Bench(bench::Bench),
    /// Write dashboards/grafana/*.json from their definitions
    Dashboards,
    /// Let an agent run under churn for long, and fail if it grows
    Soak(soak::Options),
    /// Compare procprobe with the kernel's own counts and with libbpf-tools, all at once under real load
    Truth(truth::Options),
    /// Hold what is said against programs whose truth is known
    #[command(subcommand)]
    Accuracy(accuracy::Accuracy),
    /// Make the table of all that was recorded, and fail if anything is not as it should be
    Verify,
    /// Run the agent on other kernels
    #[command(subcommand)]
    Vm(vm::Vm),
    /// Build what is handed out: a static binary, an archive, a Debian package, what containers need
    Dist(dist::Options),
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    match dispatch(cli.verb) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say(&format!("error: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn dispatch(verb: Verb) -> Result<()> {
    let workspace = Workspace::locate()?;
    match verb {
        Verb::Setup(options) => setup::run(&workspace, options),
        Verb::Build => build::run(&workspace),
        Verb::Run(options) => run::run(&workspace, options),
        Verb::Test(options) => test::run(&workspace, &options),
        Verb::Lint(options) => lint::run(&workspace, options),
        Verb::Bench(bench) => bench::run(&workspace, bench),
        Verb::Dashboards => dashboards::run(&workspace),
        Verb::Soak(options) => soak::run(&workspace, &options),
        Verb::Truth(options) => truth::run(&workspace, &options),
        Verb::Accuracy(what) => accuracy::run(&workspace, &what),
        Verb::Verify => verify::run(&workspace),
        Verb::Vm(vm) => vm::run(&workspace, vm),
        Verb::Dist(options) => dist::run(&workspace, options),
    }
}
