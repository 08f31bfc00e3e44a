//! One thread: what it is, what it does and since when, what it waits for.

use std::fmt;
use std::sync::Arc;

use probe_ebpf::ledger::BlockedOn;
use probe_ebpf::lock::{FutexWait, LiveFutex};
use probe_ebpf::record::NS_LEVELS;
use probe_ebpf::state::State;
use smallvec::SmallVec;

use super::account::Account;
use super::locks::site::Site;

/// Identity of a thread. A tid alone is none: the kernel hands it out again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ThreadId {
    /// Thread id in the initial pid namespace.
    pub tid: u32,
    /// `start_boottime`, nanoseconds of CLOCK_BOOTTIME (ticks of 10 ms from /proc).
    pub start_ns: u64,
}

/// What a thread is in now: a state that has time booked to it, or dead.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Condition {
    /// One of the states of a living thread.
    Alive(State),
    /// Dead, not yet reaped.
    Zombie,
    /// Dead and reaped, about to vanish.
    Dead,
}

impl Condition {
    /// All of them, in the order they are listed everywhere.
    pub const ALL: [Self; 10] = [
        Self::Alive(State::Running),
        Self::Alive(State::Runnable),
        Self::Alive(State::Sleeping),
        Self::Alive(State::Uninterruptible),
        Self::Alive(State::Stopped),
        Self::Alive(State::Traced),
        Self::Alive(State::Idle),
        Self::Alive(State::Parked),
        Self::Zombie,
        Self::Dead,
    ];

    /// The name used in JSON, in labels and in text.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Alive(state) => state_name(state),
            Self::Zombie => "zombie",
            Self::Dead => "dead",
        }
    }

    /// The letter `ps` shows.
    pub const fn letter(self) -> char {
        match self {
            Self::Alive(State::Running | State::Runnable) => 'R',
            Self::Alive(State::Sleeping) => 'S',
            Self::Alive(State::Uninterruptible) => 'D',
            Self::Alive(State::Stopped) => 'T',
            Self::Alive(State::Traced) => 't',
            Self::Alive(State::Idle) => 'I',
            Self::Alive(State::Parked) => 'P',
            Self::Zombie => 'Z',
            Self::Dead => 'X',
        }
    }
}

/// The name of a state with time booked to it.
pub const fn state_name(state: State) -> &'static str {
    match state {
        State::Running => "running",
        State::Runnable => "runnable",
        State::Sleeping => "sleeping",
        State::Uninterruptible => "uninterruptible",
        State::Stopped => "stopped",
        State::Traced => "traced",
        State::Idle => "idle",
        State::Parked => "parked",
    }
}

/// A name as the kernel has it: up to 15 bytes of anything.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Comm([u8; 16]);

impl Comm {
    /// From the kernel's NUL-terminated bytes. What follows the NUL is dropped.
    pub fn from_kernel(bytes: [u8; 16]) -> Self {
        let mut comm = Self(bytes);
        let length = comm.bytes().len();
        comm.0[length..].fill(0);
        comm
    }

    /// From text, cut to what fits.
    pub fn new(text: &str) -> Self {
        let mut bytes = [0; 16];
        let length = text.len().min(15);
        bytes[..length].copy_from_slice(&text.as_bytes()[..length]);
        Self(bytes)
    }

    /// The bytes up to the terminator.
    pub fn bytes(&self) -> &[u8] {
        let length = self.0.iter().position(|&byte| byte == 0).unwrap_or(self.0.len());
        &self.0[..length]
    }
}

impl fmt::Display for Comm {
    /// Control characters and bytes that are no UTF-8 come out escaped, so a name can break no terminal and no format.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&crate::model::escape(self.bytes()))
    }
}

impl fmt::Debug for Comm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.to_string())
    }
}

/// Where a thread was read from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ReadFrom {
    /// The kernel's task iterator.
    #[default]
    Iterator,
    /// /proc: the iterator does not show it, or eBPF is not in use.
    Proc,
}

/// Switches since the thread began: the kernel's own counters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Switches {
    /// It gave the CPU up.
    pub voluntary: u64,
    /// The CPU was taken from it.
    pub involuntary: u64,
}

impl Switches {
    /// What came since `earlier`.
    #[must_use]
    pub fn since(self, earlier: Self) -> Self {
        Self {
            voluntary: self.voluntary.saturating_sub(earlier.voluntary),
            involuntary: self.involuntary.saturating_sub(earlier.involuntary),
        }
    }

    /// Adds another count.
    pub fn add(&mut self, other: Self) {
        self.voluntary += other.voluntary;
        self.involuntary += other.involuntary;
    }
}

/// A futex wait that has not ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenWait {
    /// As it began, or was found.
    pub wait: FutexWait,
    /// Nanoseconds since it began.
    pub age_ns: u64,
    /// Nanoseconds of it since accounting began: what will be booked at its end.
    pub counted_ns: u64,
    /// What memory says now; `None` if it was not read.
    pub live: Option<Box<LiveFutex>>,
    /// The code that waits, as far as it is known.
    pub site: Arc<Site>,
}

/// One thread at one moment.
#[derive(Clone, Debug)]
pub struct Thread {
    /// Identity.
    pub id: ThreadId,
    /// Process id.
    pub pid: u32,
    /// Process id of the parent.
    pub ppid: u32,
    /// `start_boottime` of the parent, 0 if unknown.
    pub parent_start_ns: u64,
    /// Process id of the tracer, if it is traced.
    pub tracer: Option<u32>,
    /// Name of the thread.
    pub comm: Comm,
    /// A thread of the kernel's own.
    pub kernel: bool,
    /// Effective user id.
    pub uid: Option<u32>,
    /// -20 to 19.
    pub nice: i32,
    /// `SCHED_*`.
    pub policy: u32,
    /// Tid in each pid namespace below the initial one, outermost first.
    pub ns_tids: SmallVec<[u32; NS_LEVELS]>,
    /// Cgroup on the v2 hierarchy, 0 if unknown.
    pub cgroup_id: u64,
    /// What it does now.
    pub condition: Condition,
    /// Whether the freezer of its cgroup holds it; `None` if unknown: /proc does not say.
    pub frozen: Option<bool>,
    /// Of a thread in uninterruptible sleep: whether a writer has the lock of its process's memory map, or
    /// waits for it. Then its maps and its memory cannot be read without waiting. `None` of others, and where
    /// that cannot be seen.
    pub map_locked: Option<bool>,
    /// Whether its process has executed a program since it was forked: its memory is its own. If not, its
    /// first thread may go on where a thread of its parent was, with the locks that one had. `None` where
    /// that cannot be seen.
    pub executed: Option<bool>,
    /// What its process was told to end with, as `wait(2)` will have it: by a fatal signal, or by
    /// `exit_group(2)`. `None` if it was not, or unknown: /proc does not say.
    pub ends_with: Option<u32>,
    /// How long it has been doing that, in nanoseconds; `None` if unknown.
    pub condition_ns: Option<u64>,
    /// Whether the truth may be longer than [`Self::condition_ns`].
    pub is_lower_bound: bool,
    /// What it waits in, if it is blocked in a system call.
    pub blocked_on: Option<BlockedOn>,
    /// Whether it waits outside of any system call, which is for a page.
    pub page_fault: bool,
    /// The descriptor that its latest read or write was about, if that was what it last waited in.
    pub descriptor: Option<u64>,
    /// The futex it waits at, if that is what it does.
    pub futex: Option<OpenWait>,
    /// Address space, by a number that no other has; 0 if unknown or none.
    pub space: u64,
    /// Stack pointer in user space when it entered the kernel; 0 if unknown.
    pub sp: u64,
    /// Address of the word that the kernel clears when it ends; 0 if unknown or none.
    pub clear_child_tid: u64,
    /// Pid namespace, by a number that means nothing but to compare; 0 if unknown.
    pub pid_namespace: u64,
    /// Exit code or signal, as `wait(2)` has it, once it is dead; `None` if alive or unknown.
    pub exit_status: Option<u32>,
    /// Threads of the process that have not begun to exit.
    pub live_threads: u32,
    /// Threads of the process that are not released: those that are ending, and its first even when that has
    /// ended.
    pub threads: u32,
    /// Session leader's pid, alive or not; 0 if unknown.
    pub sid: u32,
    /// Process group leader's pid, alive or not; 0 if unknown.
    pub pgid: u32,
    /// Whether the process adopts the orphans among its descendants; `None` if unknown: /proc does not say.
    pub subreaper: Option<bool>,
    /// CLOCK_MONOTONIC when the thread last called `wait(2)` or its kin; `None` if it has not since accounting began.
    pub last_wait_ns: Option<u64>,
    /// Time on a CPU since the thread began, nanoseconds.
    pub lifetime_running_ns: Option<u64>,
    /// Switches since the thread began.
    pub switches: Switches,
    /// Time per state since accounting began. `None` without eBPF.
    pub account: Option<Account>,
    /// Where this came from.
    pub read_from: ReadFrom,
}

impl Thread {
    /// Its tid as its own pid namespace has it.
    pub fn inner_tid(&self) -> u32 {
        self.ns_tids.last().copied().unwrap_or(self.id.tid)
    }

    /// The letter for its state: `ps` has none for frozen threads.
    pub fn letter(&self) -> char {
        if self.is_frozen() {
            'F'
        } else {
            self.condition.letter()
        }
    }

    /// Whether the freezer of its cgroup is known to hold it.
    pub fn is_frozen(&self) -> bool {
        self.frozen == Some(true) && matches!(self.condition, Condition::Alive(_))
    }

    /// Whether it is its process's first thread, which carries the process's identity.
    pub fn is_leader(&self) -> bool {
        self.id.tid == self.pid
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_escaped_and_cut_at_the_terminator() {
        assert_eq!(Comm::from_kernel(*b"bash\0garbage\0\0\0\0").to_string(), "bash");
        assert_eq!(
            Comm::from_kernel(*b"a\nb\x1b[31m\xff\0\0\0\0\0\0\0").to_string(),
            "a\\nb\\u{1b}[31m\\xff"
        );
        assert_eq!(Comm::from_kernel(*b"bash\0garbage\0\0\0\0"), Comm::new("bash"));
        assert_eq!(Comm::from_kernel([b'x'; 16]).bytes().len(), 16);
    }
}
