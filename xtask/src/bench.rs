//! `cargo xtask bench …`: what procprobe costs, as ratios against its peers in one run on one machine.

mod peer;
mod stats;
mod switch;

use anyhow::Result;
use clap::Subcommand;

use crate::workspace::Workspace;

#[derive(Subcommand)]
pub enum Bench {
    /// Nanoseconds of eBPF per context switch, beside runqlat where it is available
    Switch(switch::Options),
}

/// The verb.
pub fn run(workspace: &Workspace, bench: Bench) -> Result<()> {
    match bench {
        Bench::Switch(options) => switch::run(workspace, &options),
    }
}
