//! The load: two processes that wake each other through a pipe as fast as they can, on CPUs that they cannot leave.
//!
//! Left alone the scheduler has them share a CPU for one while and gives each its own for another. That is two loads: on one
//! CPU a wake-up finds everything in its cache; on one each it crosses over to a CPU that was halted.

use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use rustix::{
    process::Pid,
    thread::{CpuSet, sched_getaffinity, sched_setaffinity},
};

use crate::process::say;

/// `perf bench` forks as soon as it has made its pipes.
const FORK_LIMIT: Duration = Duration::from_secs(5);

/// Where the two run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Placement {
    OneCpu,
    OneEach,
}

impl Placement {
    /// As it is called in the report.
    pub fn name(self) -> &'static str {
        match self {
            Self::OneCpu => "on one CPU",
            Self::OneEach => "on one CPU each",
        }
    }

    /// Those that this machine has CPUs for.
    pub fn possible() -> Result<Vec<Self>> {
        let all = [Self::OneCpu, Self::OneEach];
        let cpus = own_cpus()?.len();
        if cpus < all.len() {
            say("there is one CPU here: no pair on one CPU each");
        }
        Ok(all.into_iter().take(cpus).collect())
    }

    /// The CPUs of the two.
    fn cpus(self) -> Result<[usize; 2]> {
        let cpus = own_cpus()?;
        let first = *cpus.first().context("this process may run on no CPU")?;
        let second = match self {
            Self::OneCpu => Some(&first),
            Self::OneEach => cpus.get(1),
        };
        let second = second.context("a CPU for each of two processes takes two CPUs")?;
        Ok([first, *second])
    }
}

/// The CPUs that this process may run on.
fn own_cpus() -> Result<Vec<usize>> {
    let set = sched_getaffinity(None).context("asking which CPUs there are")?;
    Ok((0..CpuSet::MAX_CPU).filter(|&cpu| set.is_set(cpu)).collect())
}

/// What came of it.
pub struct Played {
    pub seconds: f64,
    /// The two processes.
    pub pids: [u32; 2],
}

/// Plays `loops` round trips.
pub fn play(perf: &Path, loops: u64, placement: Placement) -> Result<Played> {
    let child = Command::new(perf)
        .args(["bench", "--format", "simple", "sched", "pipe", "-l"])
        .arg(loops.to_string())
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("starting {}", perf.display()))?;
    let parent = child.id();
    let placed = place(parent, placement);
    // Its children end with it, and it ends by itself: waited for before anything is said.
    let output = child.wait_with_output().context("waiting for `perf bench`")?;
    let child = placed?;
    ensure!(
        output.status.success(),
        "`perf bench sched pipe` failed ({})",
        output.status
    );
    let seconds = String::from_utf8_lossy(&output.stdout);
    let seconds = seconds
        .trim()
        .parse()
        .with_context(|| format!("`perf bench` printed {:?}, not seconds", seconds.trim()))?;
    Ok(Played {
        seconds,
        pids: [parent, child],
    })
}

/// Puts both in their places; returns the pid of the second.
fn place(parent: u32, placement: Placement) -> Result<u32> {
    let [first, second] = placement.cpus()?;
    pin(parent, first)?;
    let child = only_child(parent)?;
    pin(child, second)?;
    Ok(child)
}

/// The process that `parent` forks.
fn only_child(parent: u32) -> Result<u32> {
    let path = format!("/proc/{parent}/task/{parent}/children");
    let deadline = Instant::now() + FORK_LIMIT;
    loop {
        let children = fs::read_to_string(&path).with_context(|| format!("reading {path}"))?;
        if let Some(child) = children.split_ascii_whitespace().next() {
            return child.parse().with_context(|| format!("{path} says {children:?}"));
        }
        ensure!(Instant::now() < deadline, "`perf bench sched pipe` forked nobody");
        thread::sleep(Duration::from_millis(1));
    }
}

fn pin(pid: u32, cpu: usize) -> Result<()> {
    let mut set = CpuSet::new();
    set.set(cpu);
    // Not an option to pass on: none would be this process itself.
    let pid = i32::try_from(pid)
        .ok()
        .and_then(Pid::from_raw)
        .context("a pid that is none")?;
    sched_setaffinity(Some(pid), &set).with_context(|| format!("pinning a process to CPU {cpu}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_on_one_cpu_share_it_and_on_one_each_they_do_not() {
        let [first, second] = Placement::OneCpu.cpus().unwrap();
        assert_eq!(first, second);
        if Placement::possible().unwrap().contains(&Placement::OneEach) {
            let [first, second] = Placement::OneEach.cpus().unwrap();
            assert_ne!(first, second);
        }
    }
}
