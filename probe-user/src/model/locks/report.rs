//! The answer: contended locks with their holders, who waited for whom, deadlocks, stalls, and what was no contention.

use std::collections::BTreeMap;

use probe_ebpf::ledger::BlockedOn;

use super::deadlock::Deadlock;
use super::memory::MemoryGap;
use super::site::Runtime;
use super::stall::Stall;
use super::{Grade, Kind, LockId, Party};
use crate::model::account::Histogram;
use crate::model::thread::{Comm, Condition};

/// See the module.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Length of the window, nanoseconds.
    pub window_ns: u64,
    /// What has evidence of being contended, most time waited first.
    pub locks: Vec<Lock>,
    /// What has not: idle pools, joins, timed polls, the unknown.
    pub idle: Vec<Lock>,
    /// Who waited for whom at contended locks, most time first.
    pub edges: Vec<Edge>,
    /// Deadlocks, oldest first.
    pub deadlocks: Vec<Deadlock>,
    /// Stalls.
    pub stalls: Vec<Stall>,
    /// How parallel the processes concerned were.
    pub processes: Vec<Parallelism>,
    /// Processes whose run-time system keeps its locks to itself, by pid, with their names.
    pub runtimes: BTreeMap<u32, (Runtime, Comm)>,
    /// Processes whose memory was not read, by pid, and why.
    pub memory_gaps: BTreeMap<u32, (MemoryGap, Comm)>,
    /// Where threads of deadlocks and stalls wait, by tid; filled in by whoever can read symbols.
    pub codes: BTreeMap<u32, Code>,
}

impl Report {
    /// Threads that will not go on by themselves: those of deadlocks and of stalls.
    pub fn at_a_standstill(&self) -> impl Iterator<Item = (Party, LockId)> {
        let members = self.deadlocks.iter().flat_map(|deadlock| &deadlock.members);
        let stalled = self.stalls.iter().flat_map(|stall| &stall.waits);
        let members = members.map(|member| (member.party, member.waits_for));
        members.chain(stalled.map(|wait| (wait.party, wait.lock)))
    }
}

/// One lock over the window.
#[derive(Clone, Debug)]
pub struct Lock {
    /// Which.
    pub id: LockId,
    /// A process that waits at it.
    pub pid: u32,
    /// Its name.
    pub comm: Comm,
    /// Address in that process.
    pub address: u64,
    /// What it is.
    pub kind: Kind,
    /// Whether other processes can wait at it.
    pub shared: bool,
    /// Waits, the open ones included.
    pub waits: u64,
    /// Nanoseconds waited within the window, open waits included.
    pub wait_ns: u64,
    /// The longest wait.
    pub max_ns: u64,
    /// Waits that ended.
    pub histogram: Histogram,
    /// Who waits now, longest first, and for how long.
    pub waiters: Vec<(Party, u64)>,
    /// Who holds it, or mostly held it.
    pub holder: Option<Holder>,
    /// How the waits follow each other, if that is remarkable.
    pub pattern: Option<Pattern>,
    /// Name of the lock, if it is static; filled in by whoever can read symbols.
    pub symbol: Option<String>,
    /// Where the code waits, innermost first; likewise.
    pub code: Option<Code>,
}

/// Functions that lead to a wait.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Code {
    /// Innermost first.
    pub frames: Vec<String>,
    /// Whether there may be more that could not be found.
    pub cut: bool,
}

/// A holder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Holder {
    /// Who.
    pub party: Party,
    /// How that is known.
    pub grade: Grade,
    /// What it does now, if it holds the lock now.
    pub doing: Option<Doing>,
}

/// What a thread does, and since when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Doing {
    /// State.
    pub condition: Condition,
    /// Whether it is the freezer of its cgroup that stops it.
    pub frozen: bool,
    /// For how long, nanoseconds.
    pub ns: Option<u64>,
    /// What it waits in.
    pub blocked_on: Option<BlockedOn>,
    /// What it waits for itself, if that is a futex.
    pub waits_for: Option<WaitsFor>,
}

/// The futex that a thread waits at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WaitsFor {
    /// Which.
    pub lock: LockId,
    /// What it is, as far as this one wait tells.
    pub kind: Kind,
    /// The thread whose end it waits for.
    pub joined: Option<u32>,
}

/// How waits follow each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pattern {
    /// The queue hardly ever empties: two or more wait all the time.
    Convoy,
    /// Two threads hand it to and fro.
    HandOver,
}

impl Pattern {
    /// The name used in JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Convoy => "convoy",
            Self::HandOver => "hand_over",
        }
    }
}

/// Who waited for whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Edge {
    /// Who waited.
    pub waiter: Party,
    /// For whom.
    pub holder: Party,
    /// At which lock.
    pub lock: LockId,
    /// How often, an open wait included.
    pub waits: u64,
    /// Nanoseconds.
    pub wait_ns: u64,
    /// How the holder is known.
    pub grade: Grade,
}

/// How many of a process's threads ran at once, on average.
#[derive(Clone, Debug, PartialEq)]
pub struct Parallelism {
    /// The process.
    pub pid: u32,
    /// Its name.
    pub comm: Comm,
    /// Threads at the end of the window.
    pub threads: u64,
    /// Threads on a CPU.
    pub running: f64,
    /// Threads waiting for one.
    pub runnable: f64,
    /// Threads waiting for a contended lock.
    pub lock_blocked: f64,
    /// Threads waiting at any futex.
    pub futex_blocked: f64,
}
