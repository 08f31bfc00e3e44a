//! The account kept for every thread, in `BPF_MAP_TYPE_TASK_STORAGE`.
//!
//! Who writes what:
//! - [`Ledger`] except [`Wake`]: `sched_switch` alone, for the thread that leaves the CPU and the one that enters it.
//!   Both writes for one thread are ordered by the run-queue lock, so there is one writer at a time.
//! - [`Wake`]: `sched_waking` alone, under the wakee's `pi_lock`. It may run before the sleeper's own switch-out is
//!   traced, which is why it touches nothing else and is resolved when the thread next enters a CPU.
//! - The snapshot iterator reads. [`Ledger::sequence`] is odd while an update is under way.
//!
//! Size: a storage element is `bpf_local_storage_elem` (72 bytes before the value on 6.18) plus the value, from a
//! power-of-two slab. Up to 952 bytes the element fits in 1 KiB; the assertion below keeps room for later kernels.
//!
//! Order: a wake-up comes mostly from another CPU than the one its thread runs on, and a cache line that one CPU writes and the
//! other reads moves between them each time, 20 to 70 ns a move. So there are three kinds of lines, and no field in the wrong one:
//! 1. what hardly ever changes (of a thread at a futex: one flag), in the line that every lookup reads: the value begins 8 bytes into a cache line
//!    (`bpf_local_storage_data` is aligned to one, and its first member, which a lookup compares, is a pointer);
//! 2. what a wake-up writes without reading it ([`Ledger::wake`]), and what the thread itself writes but a wake-up does not read;
//! 3. what every switch writes.

use bytemuck::{Pod, Zeroable};

use crate::histogram::BUCKETS;
use crate::lock::FutexWait;
use crate::state::{STATES, State};
use crate::waiting::CLASSES;

/// States with a histogram in the ledger itself, by index: running, runnable, sleeping, uninterruptible, idle.
pub const COMMON_STATES: usize = 5;
/// States whose histogram lives in [`RareLedger`]: stopped, traced, parked. Few threads ever enter one.
pub const RARE_STATES: usize = STATES - COMMON_STATES;

/// [`Ledger::flags`]: the thread has a [`RareLedger`] as well.
pub const HAS_RARE: u8 = 1;

/// [`Ledger::flags`]: the thread is in a futex wait, which ends when it next runs.
pub const IN_FUTEX: u8 = 2;

/// What a thread waits in, read from its saved user registers when it left the CPU.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct BlockedOn {
    /// System call number, or [`NO_SYSCALL`].
    pub syscall: i64,
    /// Its first two arguments: for a futex wait the address and the operation.
    pub args: [u64; 2],
}

/// [`BlockedOn::syscall`] of a thread that is not in a system call: a kernel thread, a page fault, an interrupt.
pub const NO_SYSCALL: i64 = -1;

/// The latest wake-up of a thread.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Wake {
    /// `bpf_ktime_get_ns()` at `sched_waking`; 0 if it was never woken while we looked.
    pub at_ns: u64,
    /// The futex that the waker released, if that is what it was doing.
    pub futex: u64,
    /// Tid of a waker in a futex call. An interrupt that hit a running thread is booked to that thread.
    pub waker_tid: u32,
    /// The wakee's `__state` when it was woken.
    pub from_bits: u32,
    /// [`crate::waiting::op`]: what the waker was doing with the futex; noted if the wakee waits in one, or may.
    pub op: u32,
    /// Zero.
    pub padding: u32,
}

/// One thread's account. Times are `bpf_ktime_get_ns()` (CLOCK_MONOTONIC) or durations in nanoseconds.
///
/// Time is booked by the turn: from one switch-out to the next. A turn is a stay off the CPU ([`Self::off_state`] until the
/// wake-up, runnable until the switch-in), then one on it. Nothing is booked before the turn is over; what the current
/// turn has brought so far, the reader adds.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct Ledger {
    /// When accounting began: the fork, or the moment the programs went live. 0 until the first switch is seen. With
    /// [`Self::birth_tid`] this is the identity of the account, which an exec by a non-leader thread does not change (the
    /// tid it does).
    pub birth_ns: u64,
    /// Tid when accounting began.
    pub birth_tid: u32,
    /// What the snapshot that opened this ledger found the thread in: a [`State`] as a byte plus 1; 0 if none did.
    pub found_state: u8,
    /// [`HAS_RARE`], [`IN_FUTEX`].
    pub flags: u8,
    /// Zero.
    pub padding: [u8; 2],
    /// What the snapshot that opened this ledger found as [`Self::kernel_running_ns`]. Apart from the fields it is for, since
    /// `sched_switch` may be writing those at the same moment.
    pub found_running_ns: u64,
    /// See [`Self::found_running_ns`].
    pub found_runnable_ns: u64,
    /// When the thread last called `wait(2)` or one of its kin; 0 if it has not since accounting began.
    pub last_wait_ns: u64,
    /// How often it did.
    pub waits: u64,
    /// Zero: what is left of the cache line.
    pub spare: u64,
    /// The latest wake-up.
    pub wake: Wake,
    /// What the thread waits in; meaningful while the state is a blocked one.
    pub blocked_on: BlockedOn,
    /// Zero: what is left of the cache line.
    pub spare_too: u64,
    /// Odd while an update is under way.
    pub sequence: u32,
    /// [`State`] as a byte; means nothing while [`Self::birth_ns`] is 0.
    pub state: u8,
    /// What the thread was in when the turn began, as a byte: a blocked state, or runnable.
    pub off_state: u8,
    /// Zero.
    pub padding_too: [u8; 2],
    /// When the turn began: the last switch-out, or the birth.
    pub turn_ns: u64,
    /// When the thread was woken in this turn; noted at the switch-in, 0 if no wake-up was traced since the turn began.
    pub woken_ns: u64,
    /// Since when the thread is in [`Self::state`]: the switch-in while it runs, else the beginning of the turn.
    pub since_ns: u64,
    /// The kernel's own count of time on a CPU (`sum_exec_runtime`), as far as it is booked: when the turn began, less what
    /// did not fit into earlier turns.
    pub kernel_running_ns: u64,
    /// The kernel's own count of time in a run queue (`run_delay`), as far as it is booked.
    pub kernel_runnable_ns: u64,
    /// The futex wait, if it is one; its class in any case. Here it lies in two cache lines that every switch
    /// touches anyway.
    pub futex: FutexWait,
    /// Finished turns: nanoseconds per state, by [`State::index`].
    pub time_ns: [u64; STATES],
    /// Finished turns: nanoseconds in sleeping and uninterruptible, by [`crate::waiting::Class`].
    pub blocked_ns: [u64; CLASSES],
    /// Finished turns: log2 histograms of the durations. Last, so that a snapshot without histograms is a prefix.
    pub histogram: [[u32; BUCKETS]; COMMON_STATES],
}

/// Who sent a process a signal that may be its death.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Killer {
    /// `start_boottime` of the sending process's first thread.
    pub start_ns: u64,
    /// Sending process; 0 if the kernel sent it on its own account.
    pub pid: u32,
    /// Sending thread.
    pub tid: u32,
    /// The signal; 0 if none was sent.
    pub signal: u32,
    /// [`OOM_VICTIM`].
    pub flags: u32,
    /// Name of the sending thread.
    pub comm: [u8; 16],
}

/// [`Killer::flags`], [`Killers::flags`]: the out-of-memory killer chose the process.
pub const OOM_VICTIM: u32 = 1;
/// [`Killers::flags`]: `SIGKILL` was sent; nothing that comes later ends the process.
pub const KILLED: u32 = 2;

/// Signal numbers whose senders are kept: a power of two.
pub const KILLERS_KEPT: usize = 4;

/// Who sent a process signals that may be its death, by signal: one may be blocked for long, and others come
/// and be handled meanwhile. In a storage of its own on the process's first thread, made when such a signal
/// is sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Killers {
    /// Filled from the first on.
    pub kept: [Killer; KILLERS_KEPT],
    /// [`OOM_VICTIM`], [`KILLED`].
    pub flags: u32,
    /// Whose place the next one takes when all are taken.
    pub next: u32,
}

/// Histograms of the states that few threads ever enter, in a storage of their own that is made on first use.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct RareLedger {
    /// By [`State::index`] minus [`COMMON_STATES`].
    pub histogram: [[u32; BUCKETS]; RARE_STATES],
}

/// Bytes of a [`Ledger`] up to its histograms.
pub const LEDGER_HEAD: usize = core::mem::offset_of!(Ledger, histogram);
/// Bytes of a whole [`Ledger`].
pub const LEDGER_SIZE: usize = size_of::<Ledger>();

const _: () = assert!(
    LEDGER_SIZE <= 928,
    "a storage element must stay inside its 1 KiB slab, on later kernels too"
);
/// Bytes of a cache line that are left behind the pointer which every lookup reads.
const FIRST_LINE: usize = 64 - 8;
const _: () = assert!(
    core::mem::offset_of!(Ledger, wake) == FIRST_LINE
        && core::mem::offset_of!(Ledger, sequence) == FIRST_LINE + 64,
    "what every switch writes is in no cache line that a wake-up from another CPU touches"
);
const _: () = assert!(
    LEDGER_SIZE.is_multiple_of(8) && LEDGER_HEAD.is_multiple_of(8),
    "copied in words of 8 bytes"
);
const _: () = assert!(
    size_of::<RareLedger>().is_multiple_of(8),
    "copied in words of 8 bytes"
);
const _: () = assert!(State::Idle.index() + 1 == COMMON_STATES && State::Stopped.index() == COMMON_STATES);
