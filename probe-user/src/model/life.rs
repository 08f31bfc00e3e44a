//! One process from birth to reaping, and what happens to it.

use super::event::{Reason, Sender};
use super::thread::{Comm, Thread};

/// Identity of a process: that of its first thread. An exec by another thread takes both over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ProcessId {
    /// Process id.
    pub pid: u32,
    /// `start_boottime`; 0 if unknown.
    pub start_ns: u64,
}

/// Who adopts an orphan.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum AdopterKind {
    /// Pid 1 of the host.
    Init,
    /// An ancestor that asked for it (`PR_SET_CHILD_SUBREAPER`).
    Subreaper,
    /// Pid 1 of a pid namespace.
    PidnsInit,
}

impl AdopterKind {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Init, Self::Subreaper, Self::PidnsInit];

    /// The name used in JSON and labels.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Init => "init",
            Self::Subreaper => "subreaper",
            Self::PidnsInit => "pidns_init",
        }
    }
}

/// A death.
#[derive(Clone, Debug)]
pub struct Death {
    /// CLOCK_MONOTONIC.
    pub at_ns: u64,
    /// As `wait(2)` has it; `None` if the exit event was lost.
    pub status: Option<u32>,
    /// Why; `None` if the exit event was lost.
    pub reason: Option<Reason>,
    /// Who sent the signal.
    pub killer: Option<Sender>,
    /// Whether it had to be reaped.
    pub zombie: bool,
}

/// How a process lost its parent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Loss {
    /// The parent it lost first.
    pub original: ProcessId,
    /// Name of that parent, "" if it was never seen.
    pub original_comm: Comm,
    /// Who has it now.
    pub adopter: ProcessId,
    /// What that is.
    pub kind: AdopterKind,
    /// CLOCK_MONOTONIC when the latest loss became known.
    pub at_ns: u64,
}

/// One process, alive or dead.
#[derive(Clone, Debug)]
pub struct Life {
    /// Identity.
    pub id: ProcessId,
    /// Name.
    pub comm: Comm,
    /// Parent now.
    pub parent: ProcessId,
    /// Cgroup on the v2 hierarchy.
    pub cgroup_id: u64,
    /// Its death.
    pub death: Option<Death>,
    /// The loss of its parent.
    pub orphan: Option<Loss>,
    /// How many of its children were reaped since we look.
    pub children_reaped: u64,
    /// Whether it is pid 1 of a pid namespace of its own.
    pub(super) is_namespace_init: bool,
}

/// What followed from an event or a snapshot.
#[derive(Clone, Debug)]
pub enum Happening {
    /// A process lost its parent.
    Orphaned {
        /// The process.
        id: ProcessId,
        /// Its name.
        comm: Comm,
        /// How.
        loss: Loss,
    },
    /// A zombie was reaped.
    Reaped {
        /// The process.
        id: ProcessId,
        /// Its name.
        comm: Comm,
        /// Its parent.
        parent: ProcessId,
        /// Time from its death, nanoseconds.
        delay_ns: u64,
        /// CLOCK_MONOTONIC.
        at_ns: u64,
    },
}

/// Identity of a process by its first thread.
pub fn id_of(leader: &Thread) -> ProcessId {
    ProcessId {
        pid: leader.pid,
        start_ns: leader.id.start_ns,
    }
}

pub(super) fn parent_of(leader: &Thread) -> ProcessId {
    ProcessId {
        pid: leader.ppid,
        start_ns: leader.parent_start_ns,
    }
}
