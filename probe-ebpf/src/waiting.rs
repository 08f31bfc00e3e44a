//! What a thread waits in, as far as the kernel side tells it apart: the class of its system call, and for a futex the
//! call's meaning, whichever of the kernel's futex system calls it is.

/// Number of classes that time is booked to.
pub const CLASSES: usize = 12;

/// What a blocked thread waits in. The discriminant is what tables and ledgers store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Class {
    /// A system call of no class below.
    Other = 0,
    /// `poll`, `select`, `epoll_wait`, `io_uring_enter`: for any of several things.
    Poll = 1,
    /// `read` and its kin, in interruptible sleep: a pipe, a socket, a terminal.
    Read = 2,
    /// `write` and its kin, likewise.
    Write = 3,
    /// A file system: `read` or `write` in uninterruptible sleep, `open`, `stat`, `rename`.
    File = 4,
    /// `fsync` and its kin.
    Sync = 5,
    /// `nanosleep`, `pause`: for time or a signal.
    Sleep = 6,
    /// `wait`: for a child.
    Wait = 7,
    /// `recv`, `send`, `accept`, `connect`.
    Socket = 8,
    /// A futex.
    Futex = 9,
    /// No system call: a page fault, or another exception.
    PageFault = 10,
    /// A kernel thread.
    Kernel = 11,
}

impl Class {
    /// All classes, in the order of their index.
    pub const ALL: [Self; CLASSES] = [
        Self::Other,
        Self::Poll,
        Self::Read,
        Self::Write,
        Self::File,
        Self::Sync,
        Self::Sleep,
        Self::Wait,
        Self::Socket,
        Self::Futex,
        Self::PageFault,
        Self::Kernel,
    ];

    /// The class a ledger's byte stands for.
    pub fn from_byte(byte: u8) -> Option<Self> {
        Self::ALL.get(usize::from(byte)).copied()
    }
}

/// In a [`SyscallTable`]: of class [`Class::Other`], and its caller ends, which wakes who joins it.
pub const EXIT: u8 = 16;
/// In a [`SyscallTable`]: `restart_syscall`, which goes on with the call before it.
pub const RESTART: u8 = 17;

/// System call numbers of one table: more than any architecture has.
pub const TABLE_SPAN: usize = 512;
/// [`Class`] by system call number: the machine's own calls, then those of 32-bit programs. Filled in by the agent, which
/// knows the names.
pub type SyscallTable = [u8; 2 * TABLE_SPAN];

/// Set in a system call's number if it was made the 32-bit way (`TS_COMPAT`), by another table of numbers.
pub const COMPAT: i64 = 1 << 32;

/// `futex_waitv(2)`, the same number on every architecture (5.16).
pub const SYS_FUTEX_WAITV: u64 = 449;
/// `futex_wake(2)` (6.7).
pub const SYS_FUTEX_WAKE: u64 = 454;
/// `futex_wait(2)` (6.7).
pub const SYS_FUTEX_WAIT: u64 = 455;
/// `futex_requeue(2)` (6.7).
pub const SYS_FUTEX_REQUEUE: u64 = 456;

/// What a futex call asks for. Waits are below [`op::FIRST_WAKE`], the rest wakes.
pub mod op {
    /// None, or one that neither waits nor wakes.
    pub const NONE: u8 = 0;
    /// `FUTEX_WAIT`.
    pub const WAIT: u8 = 1;
    /// `FUTEX_WAIT_BITSET`.
    pub const WAIT_BITSET: u8 = 2;
    /// `FUTEX_LOCK_PI`, `FUTEX_LOCK_PI2`.
    pub const LOCK_PI: u8 = 3;
    /// `FUTEX_WAIT_REQUEUE_PI`: a condition variable with a priority-inheriting mutex.
    pub const WAIT_REQUEUE_PI: u8 = 4;
    /// `futex_waitv(2)`: for any of several.
    pub const WAITV: u8 = 5;
    /// `futex_wait(2)`.
    pub const WAIT2: u8 = 6;
    /// The first that wakes.
    pub const FIRST_WAKE: u8 = 16;
    /// Wakes at most one.
    pub const WAKE_ONE: u8 = 16;
    /// Wakes more.
    pub const WAKE_MANY: u8 = 17;
    /// Wakes some and moves others to another futex.
    pub const REQUEUE: u8 = 18;
    /// `FUTEX_WAKE_OP`.
    pub const WAKE_OP: u8 = 19;
    /// `FUTEX_UNLOCK_PI`.
    pub const UNLOCK_PI: u8 = 20;
    /// The end of a thread, which clears and wakes its tid word.
    pub const EXIT: u8 = 21;
}

/// Bits of [`crate::lock::FutexWait::flags`].
pub mod flag {
    /// `FUTEX_PRIVATE_FLAG`: known to this address space only.
    pub const PRIVATE: u8 = 1;
    /// With a timeout.
    pub const TIMED: u8 = 2;
    /// `FUTEX_CLOCK_REALTIME`, which glibc sets for its condition variables, semaphores and joins.
    pub const REALTIME: u8 = 4;
    /// The memory at the address could be read.
    pub const READ: u8 = 8;
    /// Not seen to begin: found by a snapshot.
    pub const FOUND: u8 = 16;
    /// A 32-bit call, so the words are those of a 32-bit program.
    pub const COMPAT: u8 = 32;
}

const FUTEX_CMD_MASK: u64 = 0x7f;
const FUTEX_PRIVATE_FLAG: u64 = 0x80;
const FUTEX_CLOCK_REALTIME: u64 = 0x100;

/// What `futex(2)` is asked for by its second argument, and how many it wakes at most, the third.
#[inline(always)]
pub const fn futex_op(operation: u64, count: u64) -> u8 {
    match operation & FUTEX_CMD_MASK {
        0 => op::WAIT,
        9 => op::WAIT_BITSET,
        6 | 13 => op::LOCK_PI,
        11 => op::WAIT_REQUEUE_PI,
        1 | 10 => {
            if count & 0xffff_ffff == 1 {
                op::WAKE_ONE
            } else {
                op::WAKE_MANY
            }
        }
        3 | 4 | 12 => op::REQUEUE,
        5 => op::WAKE_OP,
        7 => op::UNLOCK_PI,
        _ => op::NONE,
    }
}

/// The bits of that argument that matter.
#[inline(always)]
pub const fn futex_flags(operation: u64) -> u8 {
    let mut flags = 0;
    if operation & FUTEX_PRIVATE_FLAG != 0 {
        flags |= flag::PRIVATE;
    }
    if operation & FUTEX_CLOCK_REALTIME != 0 {
        flags |= flag::REALTIME;
    }
    flags
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operations_are_told_apart() {
        assert_eq!(futex_op(128, 2), op::WAIT);
        assert_eq!(futex_op(0x189, 0), op::WAIT_BITSET);
        assert_eq!(futex_op(134, 0), op::LOCK_PI);
        assert_eq!(futex_op(141, 0), op::LOCK_PI);
        assert_eq!(futex_op(129, 1), op::WAKE_ONE);
        assert_eq!(futex_op(129, 0x7fff_ffff), op::WAKE_MANY);
        assert_eq!(futex_op(132, 1), op::REQUEUE);
        assert_eq!(futex_op(2, 1), op::NONE);
        assert_eq!(futex_flags(0x189), flag::PRIVATE | flag::REALTIME);
        assert_eq!(futex_flags(0x109), flag::REALTIME);
    }

    #[test]
    fn classes_are_dense() {
        for (position, class) in Class::ALL.into_iter().enumerate() {
            assert_eq!(class as usize, position);
            assert_eq!(Class::from_byte(class as u8), Some(class));
        }
        assert_eq!(Class::from_byte(12), None);
    }
}
