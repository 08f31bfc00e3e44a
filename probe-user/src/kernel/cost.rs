//! What our own programs cost: runs and run time, from the kernel's statistics.
//!
//! The statistics cost about 45 ns a run themselves, so the agent turns them on for a second now and then and scales
//! up; with `kernel.bpf_stats_enabled=1` they are always on and exact.

use std::os::fd::OwnedFd;
use std::time::Duration;

use aya::programs::Program;
use aya::sys::{Stats, enable_stats};

use super::load::Probe;

/// One program's counters since it was loaded, as far as statistics were on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProgramCost {
    /// Program name.
    pub program: String,
    /// Time spent in it.
    pub run_time: Duration,
    /// How often it ran.
    pub runs: u64,
}

impl Probe {
    /// Reads the counters of every program of ours.
    pub fn cost(&self) -> Vec<ProgramCost> {
        self.ebpf
            .programs()
            .filter_map(|(name, program): (&str, &Program)| {
                let info = program.info().ok()?;
                Some(ProgramCost {
                    program: name.to_owned(),
                    run_time: info.run_time(),
                    runs: info.run_count(),
                })
            })
            .collect()
    }
}

/// Turns the statistics on for as long as the result lives. `None` where the kernel (before 5.8) or privileges refuse.
pub fn statistics() -> Option<OwnedFd> {
    enable_stats(Stats::RunTime).ok()
}
