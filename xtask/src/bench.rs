//! `cargo xtask bench …`: what procprobe costs, as ratios against its peers in one run on one machine.

pub mod peer;
pub mod stats;
mod switch;

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use anyhow::{Context, Result, ensure};
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

/// Ctrl-C must not end xtask before it has put everything back: note it, and stop at the next step.
pub fn on_interrupt() -> Result<Arc<AtomicBool>> {
    let flag = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        signal_hook::flag::register(signal, Arc::clone(&flag)).context("catching signals")?;
    }
    Ok(flag)
}

pub fn check(interrupted: &AtomicBool) -> Result<()> {
    ensure!(
        !interrupted.load(Ordering::Relaxed),
        "interrupted; everything is put back"
    );
    Ok(())
}
