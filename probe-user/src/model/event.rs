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
}

/// A death.
#[derive(Clone, Debug)]
pub struct Exit {
    /// Exit code or signal as `wait(2)` has it.
    pub status: u32,
    /// Whether it was the last thread of its process.
    pub last: bool,
    /// Switches of its whole life.
    pub switches: Switches,
    /// The final account; `None` if it had none.
    pub account: Option<Account>,
}

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
