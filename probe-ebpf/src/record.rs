//! What crosses from the kernel to the agent: one [`TaskRecord`] per thread from the snapshot iterator, and one
//! [`EventRecord`] per birth, exec and death from the ring.

use bytemuck::{Pod, Zeroable};

use crate::ledger::{BlockedOn, Killer, Ledger, RareLedger};
use crate::lock::{FutexWait, LiveFutex};

/// Length of `task_struct.comm`.
pub const COMM_LEN: usize = 16;
/// How many pid namespaces below the initial one are recorded; the kernel's own limit is 32.
pub const NS_LEVELS: usize = 4;

/// What a thread is, read the same way for snapshots and events.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct Facts {
    /// `start_boottime` in nanoseconds of CLOCK_BOOTTIME; with the tid the thread's identity.
    pub start_ns: u64,
    /// `start_boottime` of the parent process's leader.
    pub parent_start_ns: u64,
    /// Inode number of the cgroup on the v2 hierarchy, or on that of the pids controller where it is a v1 one; 0 if unknown.
    pub cgroup_id: u64,
    /// Identity of the pid namespace; means nothing but to compare.
    pub pid_namespace: u64,
    /// Voluntary switches since the thread began: the kernel's own counter, as in `/proc/PID/task/TID/status`.
    pub voluntary: u64,
    /// Involuntary ones.
    pub involuntary: u64,
    /// Thread id, in the initial pid namespace as all ids here.
    pub tid: u32,
    /// Process id.
    pub pid: u32,
    /// Process id of the parent (`real_parent`).
    pub ppid: u32,
    /// Process id of the tracer if `ptrace` is set, else of the parent.
    pub tracer: u32,
    /// `PF_*` flags.
    pub task_flags: u32,
    /// `ptrace` flags; not 0 for a traced thread.
    pub ptrace: u32,
    /// `__state` bits.
    pub state_bits: u32,
    /// `EXIT_*` bits.
    pub exit_state: u32,
    /// `exit_code` as in `wait(2)`: signal in the low 7 bits, 0x80 core dumped, code above.
    pub exit_code: u32,
    /// `signal->group_exit_code`; see [`Self::group_exit`].
    pub group_exit_code: u32,
    /// Threads of the process that have not begun to exit.
    pub live_threads: u32,
    /// Threads of the process that are not yet released.
    pub threads: u32,
    /// Effective user id.
    pub euid: u32,
    /// `static_prio`: 120 + nice for ordinary threads.
    pub static_prio: u32,
    /// `SCHED_*`.
    pub policy: u32,
    /// Process id of the session leader, alive or not.
    pub sid: u32,
    /// Process id of the process group leader, alive or not.
    pub pgid: u32,
    /// Not 0 if the process adopts the orphans among its descendants (`PR_SET_CHILD_SUBREAPER`).
    pub subreaper: u32,
    /// Not 0 if [`Self::group_exit_code`] is what `wait(2)` tells (`SIGNAL_GROUP_EXIT`): the group was told to end, or its
    /// last thread has ended.
    pub group_exit: u32,
    /// Depth of the pid namespace, 0 for the initial one.
    pub ns_level: u32,
    /// Tid in the namespaces at depth 1 to [`NS_LEVELS`], as far as [`Self::ns_level`] says.
    pub ns_tids: [u32; NS_LEVELS],
    /// Name, NUL-terminated, any bytes.
    pub comm: [u8; COMM_LEN],
}

/// [`TaskRecord::flags`]: a [`Ledger`] follows (its head, or all of it with [`HISTOGRAMS`]).
pub const LEDGER: u32 = 1;
/// [`TaskRecord::flags`]: the ledger that follows has its histograms.
pub const HISTOGRAMS: u32 = 2;
/// [`TaskRecord::flags`]: a [`RareLedger`] follows the ledger.
pub const RARE: u32 = 4;
/// [`TaskRecord::flags`]: the ledger changed under every attempt to read it.
pub const TORN: u32 = 8;
/// [`TaskRecord::flags`]: the thread is on a CPU.
pub const ON_CPU: u32 = 16;
/// [`TaskRecord::flags`]: a writer has the lock of the process's memory map, waits for it, or gets it next.
pub const MAP_LOCKED: u32 = 32;
/// [`TaskRecord::flags`]: nobody has it or waits for it. Neither is set of a thread that is not in
/// uninterruptible sleep, nor where the kernel does not tell.
pub const MAP_KNOWN: u32 = 128;
/// [`TaskRecord::flags`]: the freezer of a cgroup holds the thread.
pub const FROZEN: u32 = 64;
/// [`TaskRecord::flags`]: the process has executed a program since it was forked, and with that has memory of
/// its own.
pub const EXECUTED: u32 = 256;

/// Attempts to read a ledger that is being written before it is given up as [`TORN`].
pub const READ_ATTEMPTS: u32 = 8;

/// The fixed part of a snapshot record. What follows is said by [`Self::flags`]; [`Self::size`] is the distance to the
/// next record.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct TaskRecord {
    /// Bytes of the whole record.
    pub size: u32,
    /// What follows.
    pub flags: u32,
    /// CLOCK_MONOTONIC when this thread was read.
    pub now_ns: u64,
    /// `se.exec_start`: scheduler clock (without stolen time) when the thread last was on a CPU.
    pub exec_start_ns: u64,
    /// `sched_info.last_arrival`: scheduler clock when it last got a CPU; 0 if unknown.
    pub last_arrival_ns: u64,
    /// `sched_info.last_queued`: scheduler clock since when it waits for a CPU; 0 if it does not, or unknown.
    pub last_queued_ns: u64,
    /// Time on a CPU since the thread began.
    pub lifetime_running_ns: u64,
    /// Time runnable since the thread began; `u64::MAX` if unknown.
    pub lifetime_runnable_ns: u64,
    /// What the thread waits in, from its registers now.
    pub blocked_on: BlockedOn,
    /// The futex wait it is in, as it began or as it was found; its class in any case.
    pub futex: FutexWait,
    /// Address space (see [`crate::lock::LockKey`]); 0 for a kernel thread.
    pub space: u64,
    /// Stack pointer in user space; 0 for a kernel thread.
    pub sp: u64,
    /// Address of the word that the kernel clears and wakes when the thread ends (`CLONE_CHILD_CLEARTID`), 0
    /// if none: a thread that waits there waits for its end.
    pub clear_child_tid: u64,
    /// What it is.
    pub facts: Facts,
}

/// Room for the largest snapshot record.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct Scratch {
    /// The fixed part.
    pub task: TaskRecord,
    /// The ledger, or its head.
    pub ledger: Ledger,
    /// Histograms of rare states.
    pub rare: RareLedger,
}

/// [`MemoryRecord::outcome`]: memory was read, as far as [`LiveFutex::valid`] says.
pub const MEMORY_READ: u32 = 0;
/// [`MemoryRecord::outcome`]: the lock of the process's memory map is held or waited for by a writer. Reading
/// would wait behind it.
pub const MEMORY_LOCKED: u32 = 1;
/// [`MemoryRecord::outcome`]: the page belongs to a file whose file system may not answer (FUSE, network).
pub const MEMORY_OF_FILE: u32 = 2;
/// [`MemoryRecord::outcome`]: the agent has asked to leave the process alone.
pub const MEMORY_LEFT_ALONE: u32 = 3;

/// What the pass over memory found at one open futex wait.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct MemoryRecord {
    /// The thread: tid and `start_boottime`, as in [`Facts`].
    pub start_ns: u64,
    /// See [`Self::start_ns`].
    pub tid: u32,
    /// Its process.
    pub pid: u32,
    /// `MEMORY_*`.
    pub outcome: u32,
    /// Zero.
    pub padding: u32,
    /// The wait; with what memory says of it if nobody saw it begin.
    pub futex: FutexWait,
    /// Memory, and the registers.
    pub live: LiveFutex,
}

/// [`EventRecord::kind`]: a process or thread was born.
pub const EVENT_FORK: u32 = 1;
/// [`EventRecord::kind`]: a process runs a new program.
pub const EVENT_EXEC: u32 = 2;
/// [`EventRecord::kind`]: a thread died; an [`ExitRecord`].
pub const EVENT_EXIT: u32 = 3;

/// [`EventRecord::kind`]: a dead process was reaped: its parent has waited for it, or nobody had to.
pub const EVENT_REAP: u32 = 4;

/// A birth, an exec or a reaping; the head of an [`ExitRecord`].
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct EventRecord {
    /// `EVENT_*`.
    pub kind: u32,
    /// fork: tid of the thread that called it. exec: the tid the thread had before, which differs from the pid when a
    /// thread other than the leader called it. exit: 1 for the one thread that ends its process, else 0.
    pub other_tid: u32,
    /// CLOCK_MONOTONIC.
    pub at_ns: u64,
    /// The thread that was born, runs a new program or died.
    pub facts: Facts,
}

/// A death with the final ledger. Followed by nothing: rare histograms of the dead come in [`Self::rare`].
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct ExitRecord {
    /// Head.
    pub event: EventRecord,
    /// The final account; all zero if the thread had none.
    pub ledger: Ledger,
    /// Zero unless the ledger says [`crate::ledger::HAS_RARE`].
    pub rare: RareLedger,
    /// Who sent its process the last signal that may have killed it; zero if nobody did.
    pub killer: Killer,
}

const _: () = assert!(size_of::<TaskRecord>().is_multiple_of(8) && size_of::<ExitRecord>().is_multiple_of(8));
