//! Zombies, and the parent at fault for each.
//!
//! A zombie is dead and waits to be reaped. Which kind it is decides who is at fault:
//! - `unreaped`: all its threads are dead; its parent has to call `wait(2)`.
//! - `leader_exited`: its first thread ended before the others. It is not dead; nobody is at fault.
//! - `dying`: it was told to end, by a signal or by itself, and something holds it up: a thread of its own that waits and no
//!   signal wakes, or, of the first process of a pid namespace, another process in there. No parent can reap it yet.
//! - `traced`: all its threads are dead and it is traced; the tracer comes first, then the parent.

use std::collections::HashMap;

use super::dying::Holders;
use super::life::{ProcessId, id_of};
use super::lives::Lives;
use super::snapshot::Snapshot;
use super::thread::{Condition, Thread};

/// Younger ones are on their way: every process is a zombie for a moment.
pub const GRACE_NS: u64 = 100_000_000;
/// The span that rates are taken over.
const RATE_SPAN_NS: u64 = 600_000_000_000;

/// See the module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Its parent does not wait.
    Unreaped,
    /// Its first thread ended, others live.
    LeaderExited,
    /// Its tracer does not wait.
    Traced,
    /// It was told to end and cannot.
    Dying,
}

impl Kind {
    /// The name used in JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Unreaped => "unreaped",
            Self::LeaderExited => "leader_exited",
            Self::Traced => "traced",
            Self::Dying => "dying",
        }
    }
}

/// One zombie.
#[derive(Clone, Copy, Debug)]
pub struct Zombie<'a> {
    /// Its first thread.
    pub thread: &'a Thread,
    /// Which kind.
    pub kind: Kind,
    /// Pid of the process that has to reap it; `None` if none has to.
    pub at_fault: Option<u32>,
    /// The thread that a dying one waits for.
    pub held_up_by: Option<&'a Thread>,
}

impl Zombie<'_> {
    /// How it ended, or will, as `wait(2)` has it.
    pub fn status(&self) -> Option<u32> {
        let ending = self.thread.ends_with.filter(|_| self.kind == Kind::Dying);
        self.thread.exit_status.or(ending)
    }
}

/// A parent that does not reap.
#[derive(Clone, Debug)]
pub struct Culprit<'a> {
    /// Its pid.
    pub pid: u32,
    /// Its first thread; `None` if the snapshot does not have it.
    pub thread: Option<&'a Thread>,
    /// Zombies it has to reap.
    pub count: u64,
    /// Age of the oldest, nanoseconds; `None` if unknown.
    pub oldest_ns: Option<u64>,
    /// How many come to stay per second; `None` if there is one, or their ages are unknown.
    pub per_second: Option<f64>,
    /// Nanoseconds since any of its threads called `wait(2)`; `None` if none did since accounting began, or unknown.
    pub last_wait_ns: Option<u64>,
    /// Children it has reaped since we look; `None` if we have not been looking.
    pub reaped: Option<u64>,
    /// Pids of its cgroup, or of the one above whose limit is nearest; `None` if none has a limit, or it is
    /// not known.
    pub unit_pids: Option<Pids>,
    /// Nanoseconds until it can have no more children at this rate, by the host's limit or its cgroup's.
    pub full_in_ns: Option<u64>,
}

/// How many pids there are and may be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pids {
    /// Threads, zombies included: each holds a pid.
    pub used: u64,
    /// The smaller of `kernel.pid_max` and `kernel.threads-max`.
    pub limit: Option<u64>,
}

/// The answer.
#[derive(Clone, Debug)]
pub struct Report<'a> {
    /// Zombies older than [`GRACE_NS`], the oldest first.
    pub zombies: Vec<Zombie<'a>>,
    /// Parents at fault, the one with most zombies first.
    pub culprits: Vec<Culprit<'a>>,
    /// Pids in use.
    pub pids: Pids,
    /// Nanoseconds until the pids run out at the current rate.
    pub full_in_ns: Option<u64>,
}

impl Report<'_> {
    /// Adds the limits of the parents' cgroups, which are often reached long before the host's. `pids_of`
    /// says what a cgroup has; it is outside of the model, since it needs the file system.
    pub fn limit_units(&mut self, mut pids_of: impl FnMut(u64) -> Option<Pids>) {
        let mut rates: HashMap<u64, f64> = HashMap::new();
        let cgroup_of = |culprit: &Culprit<'_>| culprit.thread.map_or(0, |thread| thread.cgroup_id);
        for culprit in &self.culprits {
            *rates.entry(cgroup_of(culprit)).or_default() += culprit.per_second.unwrap_or(0.0);
        }
        for culprit in &mut self.culprits {
            let cgroup_id = cgroup_of(culprit);
            culprit.unit_pids = pids_of(cgroup_id).filter(|_| cgroup_id != 0);
            let of_unit = culprit
                .unit_pids
                .and_then(|pids| lasts_ns(pids, rates[&cgroup_id]));
            let of_host = self.full_in_ns.filter(|_| culprit.per_second.is_some());
            culprit.full_in_ns = [of_unit, of_host].into_iter().flatten().min();
        }
    }
}

/// Draws the report. With `lives` it also knows what parents reaped since we look.
pub fn report<'a>(snapshot: &'a Snapshot, lives: Option<&Lives>, limit: Option<u64>) -> Report<'a> {
    let holders = Holders::new(snapshot);
    let leaders = snapshot.threads.iter().filter(|thread| thread.is_leader());
    let mut zombies: Vec<Zombie<'a>> = leaders.filter_map(|leader| zombie(leader, &holders)).collect();
    zombies.sort_by_key(|zombie| (std::cmp::Reverse(zombie.thread.condition_ns), zombie.thread.pid));
    let mut by_parent: HashMap<u32, Vec<&Zombie<'a>>> = HashMap::new();
    for zombie in &zombies {
        if let Some(pid) = zombie.at_fault {
            by_parent.entry(pid).or_default().push(zombie);
        }
    }
    let mut culprits: Vec<Culprit<'a>> = by_parent
        .iter()
        .map(|(&pid, zombies)| culprit(snapshot, lives, pid, zombies))
        .collect();
    culprits.sort_by_key(|culprit| (std::cmp::Reverse(culprit.count), culprit.pid));
    let pids = Pids {
        used: snapshot.threads.len() as u64,
        limit,
    };
    let full_in_ns = full_in_ns(pids, &culprits);
    Report {
        zombies,
        culprits,
        pids,
        full_in_ns,
    }
}

fn zombie<'a>(leader: &'a Thread, holders: &Holders<'a>) -> Option<Zombie<'a>> {
    let kind_of = |kind, at_fault, held_up_by| {
        Some(Zombie {
            thread: leader,
            kind,
            at_fault,
            held_up_by,
        })
    };
    let held_up_by = holders.of(leader);
    if leader.condition != Condition::Zombie {
        return held_up_by.and_then(|holder| kind_of(Kind::Dying, None, Some(holder)));
    }
    if leader.condition_ns.is_some_and(|age_ns| age_ns < GRACE_NS) {
        return None;
    }
    match leader.tracer {
        _ if held_up_by.is_some() => kind_of(Kind::Dying, None, held_up_by),
        _ if leader.live_threads > 0 => kind_of(Kind::LeaderExited, None, None),
        Some(tracer) if tracer != leader.ppid => kind_of(Kind::Traced, Some(tracer), None),
        _ => kind_of(Kind::Unreaped, Some(leader.ppid), None),
    }
}

fn culprit<'a>(
    snapshot: &'a Snapshot,
    lives: Option<&Lives>,
    pid: u32,
    zombies: &[&Zombie<'a>],
) -> Culprit<'a> {
    let thread = snapshot.threads.iter().find(|thread| thread.id.tid == pid);
    let waited = snapshot
        .threads
        .iter()
        .filter(|thread| thread.pid == pid)
        .filter_map(|thread| thread.last_wait_ns);
    let ages: Option<Vec<u64>> = zombies.iter().map(|zombie| zombie.thread.condition_ns).collect();
    Culprit {
        pid,
        thread,
        count: zombies.len() as u64,
        oldest_ns: ages.as_ref().and_then(|ages| ages.iter().copied().max()),
        per_second: ages.as_deref().and_then(per_second),
        last_wait_ns: waited.max().map(|at_ns| snapshot.ended_ns.saturating_sub(at_ns)),
        reaped: lives.and_then(|lives| {
            let id: ProcessId = id_of(thread?);
            Some(lives.get(id)?.children_reaped)
        }),
        unit_pids: None,
        full_in_ns: None,
    }
}

/// How many zombies came to stay per second: over the last ten minutes, or since the oldest.
fn per_second(ages_ns: &[u64]) -> Option<f64> {
    let span_ns = ages_ns.iter().copied().max()?.min(RATE_SPAN_NS);
    let recent = ages_ns.iter().filter(|&&age_ns| age_ns <= span_ns).count();
    if ages_ns.len() < 2 || recent == 0 || span_ns == 0 {
        return None;
    }
    Some(recent as f64 / (span_ns as f64 / 1e9))
}

fn full_in_ns(pids: Pids, culprits: &[Culprit<'_>]) -> Option<u64> {
    lasts_ns(
        pids,
        culprits.iter().filter_map(|culprit| culprit.per_second).sum(),
    )
}

/// How long the pids that are left last.
fn lasts_ns(pids: Pids, per_second: f64) -> Option<u64> {
    let left = pids.limit?.saturating_sub(pids.used);
    if per_second <= 0.0 {
        return None;
    }
    let seconds = left as f64 / per_second;
    // More than ten years is never.
    (seconds < 3.2e8)
        .then(|| std::time::Duration::from_secs_f64(seconds).as_nanos())
        .and_then(|ns| u64::try_from(ns).ok())
}

#[cfg(test)]
#[path = "zombies_tests.rs"]
mod tests;
