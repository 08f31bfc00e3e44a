//! `cargo xtask bench …`: what procprobe costs, as ratios against its peers in one run on one machine.

mod exporter;
mod futex;
mod load;
pub mod pair;
pub mod peer;
mod scrape;
mod slowdown;
mod snapshot;
pub mod stats;
mod switch;
mod usage;

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
    /// Nanoseconds of eBPF per futex wait that blocks, beside futexctn where it is available
    Futex(futex::Options),
    /// Time of a look and of a scrape, and memory, at 1,000 to 30,000 threads
    Snapshot(snapshot::Options),
    /// Real programs with the agent and without, in turn
    Slowdown(slowdown::Options),
    /// A scrape of 10,000 threads, beside process-exporter and `node_exporter`; CPU time under 1,000 forks a second
    Scrape(scrape::Options),
}

/// The verb.
pub fn run(workspace: &Workspace, bench: Bench) -> Result<()> {
    match bench {
        Bench::Switch(options) => switch::run(workspace, &options),
        Bench::Futex(options) => futex::run(workspace, &options),
        Bench::Snapshot(options) => snapshot::run(workspace, &options),
        Bench::Slowdown(options) => slowdown::run(workspace, &options),
        Bench::Scrape(options) => scrape::run(workspace, &options),
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

/// The middle one.
pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}
