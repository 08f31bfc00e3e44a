//! Births, execs and deaths, in the model's terms.

use super::account::Account;
use super::thread::Comm;
use super::thread::{Switches, ThreadId};

/// Something that happened to a thread or process.
#[derive(Clone, Debug)]
pub struct Event {
    /// CLOCK_MONOTONIC, nanoseconds.
    pub at_ns: u64,
    /// What.
    pub kind: EventKind,
    /// The thread it happened to.
    pub id: ThreadId,
    /// Its process.
    pub pid: u32,
    /// The parent of the process.
    pub ppid: u32,
    /// `start_boottime` of the parent, 0 if unknown.
    pub parent_start_ns: u64,
    /// Whether the process is pid 1 of a pid namespace of its own.
    pub namespace_init: bool,
    /// Its name, after the event.
    pub comm: Comm,
    /// A thread of the kernel's own.
    pub kernel: bool,
    /// Cgroup on the v2 hierarchy, 0 if unknown.
    pub cgroup_id: u64,
}

/// What happened.
#[derive(Clone, Debug)]
pub enum EventKind {
    /// Born. `pid == tid` for a process, else a thread.
    Fork {
        /// Tid of the thread that called fork or clone.
        caller: u32,
    },
    /// Runs a new program.
    Exec {
        /// The tid the thread had before; differs from the pid if a thread other than the leader called exec.
        old_tid: u32,
    },
    /// Died.
    Exit(Box<Exit>),
    /// Gone: its parent has waited for it, or nobody had to.
    Reap,
}

impl Event {
    /// How long the thread lived, if it is dead: from its birth, seen or not. `ahead_ns` is how far
    /// CLOCK_BOOTTIME, which births are noted in, is ahead of CLOCK_MONOTONIC.
    pub fn age_ns(&self, ahead_ns: u64) -> Option<u64> {
        let lived_ns = self
            .at_ns
            .saturating_add(ahead_ns)
            .saturating_sub(self.id.start_ns);
        (matches!(self.kind, EventKind::Exit(_)) && self.id.start_ns != 0).then_some(lived_ns)
    }

    /// Whether a dead thread is older than its account: then that has less than its life.
    pub fn is_older_than_account(&self, ahead_ns: u64) -> bool {
        // A fork is booked within microseconds of the birth.
        const APART_NS: u64 = 1_000_000;
        let EventKind::Exit(exit) = &self.kind else {
            return false;
        };
        exit.account.as_ref().is_some_and(|account| {
            let birth_ns = account.id.birth_ns.saturating_add(ahead_ns);
            self.id.start_ns.saturating_add(APART_NS) < birth_ns
        })
    }
}

/// Who sent a signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sender {
    /// Its process.
    pub pid: u32,
    /// `start_boottime` of that process.
    pub start_ns: u64,
    /// Name of the sending thread.
    pub comm: Comm,
}

/// A death.
#[derive(Clone, Debug)]
pub struct Exit {
    /// Exit code or signal as `wait(2)` has it.
    pub status: u32,
    /// Whether it was the last thread of its process.
    pub last: bool,
    /// Whether it stays as a zombie until somebody waits for it; else it is gone at once.
    pub zombie: bool,
    /// Who sent the signal it died of, if it died of one and the sender is known.
    pub killer: Option<Sender>,
    /// Whether the out-of-memory killer chose it.
    pub oom: bool,
    /// Switches of its whole life.
    pub switches: Switches,
    /// The final account; `None` if it had none.
    pub account: Option<Account>,
}

/// Why a process ended, as a label of metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reason {
    /// Exit code 0.
    Success,
    /// Another exit code.
    Failure,
    /// Killed by a signal.
    Signal,
    /// Killed by a signal, and a core was dumped.
    CoreDump,
    /// Killed by the out-of-memory killer.
    Oom,
}

impl Reason {
    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::Success,
        Self::Failure,
        Self::Signal,
        Self::CoreDump,
        Self::Oom,
    ];

    /// The label's value.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::Failure => "failure",
            Self::Signal => "signal",
            Self::CoreDump => "core_dump",
            Self::Oom => "oom",
        }
    }
}

impl Exit {
    /// Why.
    pub fn reason(&self) -> Reason {
        match exit_code(self.status) {
            Some(0) => Reason::Success,
            Some(_) => Reason::Failure,
            None if self.oom => Reason::Oom,
            None if self.status & CORE_DUMPED != 0 => Reason::CoreDump,
            None => Reason::Signal,
        }
    }
}

/// The bit of a `wait(2)` status that says a core was dumped.
const CORE_DUMPED: u32 = 0x80;

/// The exit code, if a `wait(2)` status is a normal exit.
pub fn exit_code(status: u32) -> Option<u32> {
    (status & 0x7f == 0).then_some((status >> 8) & 0xff)
}

/// The signal, if a `wait(2)` status is a death by signal.
pub fn exit_signal(status: u32) -> Option<u32> {
    (status & 0x7f != 0).then_some(status & 0x7f)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn status_is_a_code_or_a_signal() {
        assert_eq!((exit_code(0x300), exit_signal(0x300)), (Some(3), None));
        assert_eq!((exit_code(0x9), exit_signal(0x9)), (None, Some(9)));
        assert_eq!((exit_code(0x8b), exit_signal(0x8b)), (None, Some(11)));
        assert_eq!((exit_code(0), exit_signal(0)), (Some(0), None));
    }
}
