//! Everything known about the host at one moment.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use super::locks::memory::SharedMemory;
use super::thread::{Comm, Thread};

/// Which way the threads were read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SourceKind {
    /// Through eBPF.
    Bpf,
    /// From /proc alone: current states, no times.
    Proc,
}

impl SourceKind {
    /// The name used in JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Bpf => "bpf",
            Self::Proc => "proc",
        }
    }
}

/// What was lost, by reason. All reasons are always present, so that a zero is a statement.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Losses(BTreeMap<&'static str, u64>);

impl Losses {
    /// The reasons there are, with what each means.
    pub const REASONS: [(&'static str, &'static str); 17] = [
        (
            "ring_fork",
            "a fork event found the ring full; the next snapshot shows the process",
        ),
        (
            "ring_exec",
            "an exec event found the ring full; the next snapshot shows the new name",
        ),
        (
            "ring_exit",
            "an exit event found the ring full; its times are booked to comm=\"(lost)\"",
        ),
        (
            "ring_reap",
            "a reap event found the ring full; the reap delay of that process is not known",
        ),
        (
            "lock_table",
            "a futex wait found the table of locks full (--max-locks); its thread's time is complete, its lock's is not",
        ),
        (
            "edge_table",
            "a futex wait found the table of waiters and holders full (--max-edges); its lock's time is complete, who waited for whom is not",
        ),
        (
            "storage",
            "a transition was not booked because the thread's storage could not be had",
        ),
        (
            "torn",
            "a ledger changed under every attempt to read it; the next snapshot has it",
        ),
        (
            "clock",
            "an interval ended before it began and was booked as zero",
        ),
        (
            "symbols",
            "the process that reads symbols died over a file or was late; functions and locks of that file have no names",
        ),
        ("malformed", "a record did not follow the contract"),
        ("unread", "a process in /proc could not be read"),
        (
            "memory",
            "the memory at a futex, or what a process has mapped, was not read: it might not come, or did not in time; who holds that lock is not known",
        ),
        (
            "descriptions",
            "the command line and executable of a process were not read: it might not answer, or did not in time",
        ),
        (
            "descriptors",
            "what the descriptors of a process stand for was not read in time; its waits count as read or write",
        ),
        (
            "cgroups",
            "the files of a unit's cgroups were not read in time; its procprobe_unit_* are those of the time before, or missing",
        ),
        (
            "namespace",
            "a process has another number in this /proc; its command line and executable are not known",
        ),
    ];

    /// No losses.
    pub fn none() -> Self {
        Self(Self::REASONS.iter().map(|&(reason, _)| (reason, 0)).collect())
    }

    /// Adds to a reason.
    pub fn add(&mut self, reason: &'static str, count: u64) {
        *self.0.entry(reason).or_default() += count;
    }

    /// These and others.
    #[must_use]
    pub fn and(&self, others: &Self) -> Self {
        let mut both = self.clone();
        for (reason, count) in others.iter() {
            both.add(reason, count);
        }
        both
    }

    /// Whether nothing was lost.
    pub fn is_empty(&self) -> bool {
        self.0.values().all(|&count| count == 0)
    }

    /// Only what was lost of the stream of events; the other reasons are about times.
    #[must_use]
    pub fn of_events(&self) -> Self {
        let mut losses = self.clone();
        losses
            .0
            .retain(|reason, _| reason.starts_with("ring_") || *reason == "malformed");
        losses
    }

    /// What came since `earlier`.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        let before = |reason| earlier.0.get(reason).copied().unwrap_or(0);
        Self(
            self.0
                .iter()
                .map(|(&reason, &count)| (reason, count.saturating_sub(before(reason))))
                .collect(),
        )
    }

    /// Reason and count, sorted by reason.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        self.0.iter().map(|(&reason, &count)| (reason, count))
    }
}

/// All threads of the host.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// Wall clock.
    pub taken_at: SystemTime,
    /// CLOCK_MONOTONIC when reading began, nanoseconds.
    pub began_ns: u64,
    /// CLOCK_MONOTONIC when it ended.
    pub ended_ns: u64,
    /// CLOCK_BOOTTIME, nanoseconds.
    pub boottime_ns: u64,
    /// How it was read.
    pub source: SourceKind,
    /// Every thread, zombies included, those of a process mostly together. In no order: sorting what is a few hundred bytes each
    /// took a twentieth of a scrape of 10,000 threads, and whoever shows them has an order of its own.
    pub threads: Vec<Thread>,
    /// What was lost since the source was opened.
    pub losses: Losses,
    /// How long reading took.
    pub took: Duration,
    /// Processes that the iterator does not show and /proc does.
    pub hidden: usize,
    /// What was found out about the memory that futexes lie in.
    pub memory: SharedMemory,
}

impl Snapshot {
    /// What is known of processes, with their names.
    pub fn named<T: Copy>(&self, known: &BTreeMap<u32, T>) -> BTreeMap<u32, (T, Comm)> {
        if known.is_empty() {
            return BTreeMap::new();
        }
        let leaders = self.threads.iter().filter(|thread| thread.is_leader());
        leaders
            .filter_map(|thread| Some((thread.pid, (*known.get(&thread.pid)?, thread.comm))))
            .collect()
    }
}
