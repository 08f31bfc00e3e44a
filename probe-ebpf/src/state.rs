//! The states of a thread, and how the kernel's bits map to them.
//!
//! Names follow `man 5 proc`, `ps` and `htop`. The kernel side of the mapping is `__trace_sched_switch_state()` in
//! `include/trace/events/sched.h` and `task_state_index()` in `include/linux/sched.h`.

/// `TASK_INTERRUPTIBLE`.
pub const TASK_INTERRUPTIBLE: u32 = 0x1;
/// `TASK_UNINTERRUPTIBLE`.
pub const TASK_UNINTERRUPTIBLE: u32 = 0x2;
/// `__TASK_STOPPED`.
pub const TASK_STOPPED: u32 = 0x4;
/// `__TASK_TRACED`.
pub const TASK_TRACED: u32 = 0x8;
/// `TASK_PARKED`.
pub const TASK_PARKED: u32 = 0x40;
/// `TASK_DEAD`: set once, by `do_task_dead()`, before the final switch of a thread.
pub const TASK_DEAD: u32 = 0x80;
/// `TASK_WAKING`: between the waker's decision and the enqueue.
pub const TASK_WAKING: u32 = 0x200;
/// `TASK_IDLE` is `TASK_UNINTERRUPTIBLE | TASK_NOLOAD`.
pub const TASK_IDLE: u32 = 0x402;
/// `TASK_RTLOCK_WAIT`: blocked on a sleeping spin lock of a PREEMPT_RT kernel.
pub const TASK_RTLOCK_WAIT: u32 = 0x1000;
/// `TASK_FROZEN` (6.1 and newer): held by the freezer.
pub const TASK_FROZEN: u32 = 0x8000;

/// `EXIT_DEAD` in `exit_state`: being released, nobody will wait for it.
pub const EXIT_DEAD: u32 = 0x10;
/// `EXIT_ZOMBIE` in `exit_state`: dead, waits to be reaped.
pub const EXIT_ZOMBIE: u32 = 0x20;

/// `PF_KTHREAD` in `task_struct.flags`.
pub const PF_KTHREAD: u32 = 0x0020_0000;
/// `PF_IO_WORKER` in `task_struct.flags`: an `io_uring` worker, which has no user registers of its own.
pub const PF_IO_WORKER: u32 = 0x0000_0010;
/// `PF_FROZEN` in `task_struct.flags`: held by the freezer, before 6.1. Later the bit is one of kernel
/// threads.
pub const PF_FROZEN: u32 = 0x0001_0000;

/// `JOBCTL_TRAP_FREEZE` in `task_struct.jobctl`: the thread's cgroup (version 2) is to be frozen.
pub const JOBCTL_TRAP_FREEZE: u64 = 1 << 23;

/// Number of states that have time booked to them.
pub const STATES: usize = 8;

/// What a thread does. The discriminant is what the ledger stores, and the index of the per-state arrays.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum State {
    /// On a CPU.
    Running = 0,
    /// Wants a CPU and does not have one.
    Runnable = 1,
    /// Waits, and a signal would wake it.
    Sleeping = 2,
    /// Waits, and no signal (or only a fatal one) would wake it.
    Uninterruptible = 3,
    /// A kernel thread with nothing to do (`TASK_IDLE`); not counted in the load average.
    Idle = 4,
    /// Stopped by a job-control signal.
    Stopped = 5,
    /// Stopped by its tracer.
    Traced = 6,
    /// A parked kernel thread (its CPU is offline, or it was told to).
    Parked = 7,
}

impl State {
    /// All states, in the order of their index.
    pub const ALL: [Self; STATES] = [
        Self::Running,
        Self::Runnable,
        Self::Sleeping,
        Self::Uninterruptible,
        Self::Idle,
        Self::Stopped,
        Self::Traced,
        Self::Parked,
    ];

    /// Position in the per-state arrays of a ledger, `0..STATES`.
    #[inline(always)]
    pub const fn index(self) -> usize {
        self as usize
    }

    /// The state a ledger's byte stands for.
    pub const fn from_byte(byte: u8) -> Option<Self> {
        match byte {
            0 => Some(Self::Running),
            1 => Some(Self::Runnable),
            2 => Some(Self::Sleeping),
            3 => Some(Self::Uninterruptible),
            4 => Some(Self::Idle),
            5 => Some(Self::Stopped),
            6 => Some(Self::Traced),
            7 => Some(Self::Parked),
            _ => None,
        }
    }

    /// Whether a thread in this state needs a wake-up before it can run.
    #[inline(always)]
    pub const fn is_blocked(self) -> bool {
        !matches!(self, Self::Running | Self::Runnable)
    }

    /// The blocked state that `__state` bits stand for, `None` if they do not say blocked.
    ///
    /// Masks, not equality: a futex wait is `TASK_INTERRUPTIBLE | TASK_FREEZABLE` (0x2001), a killable one
    /// `TASK_UNINTERRUPTIBLE | TASK_WAKEKILL` (0x102), and `TASK_IDLE` (0x402) contains the bit of D without being D.
    #[inline(always)]
    pub const fn from_blocked_bits(bits: u32) -> Option<Self> {
        if bits & TASK_INTERRUPTIBLE != 0 {
            Some(Self::Sleeping)
        } else if bits & TASK_IDLE == TASK_IDLE {
            Some(Self::Idle)
        } else if bits & (TASK_UNINTERRUPTIBLE | TASK_RTLOCK_WAIT | TASK_FROZEN) != 0 {
            Some(Self::Uninterruptible)
        } else if bits & TASK_STOPPED != 0 {
            Some(Self::Stopped)
        } else if bits & TASK_TRACED != 0 {
            Some(Self::Traced)
        } else if bits & TASK_PARKED != 0 {
            Some(Self::Parked)
        } else {
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernel_bits_decode_by_mask() {
        let cases = [
            (0x0, None),
            (0x1, Some(State::Sleeping)),
            (0x2001, Some(State::Sleeping)),
            (0x2, Some(State::Uninterruptible)),
            (0x102, Some(State::Uninterruptible)),
            (0x1000, Some(State::Uninterruptible)),
            (0x8000, Some(State::Uninterruptible)),
            (0x402, Some(State::Idle)),
            (0x2402, Some(State::Idle)),
            (0x4, Some(State::Stopped)),
            (0x104, Some(State::Stopped)),
            (0x8, Some(State::Traced)),
            (0x40, Some(State::Parked)),
            (0x80, None),
            (0x200, None),
        ];
        for (bits, state) in cases {
            assert_eq!(State::from_blocked_bits(bits), state, "bits {bits:#x}");
        }
    }

    #[test]
    fn bytes_round_trip_and_indices_are_dense() {
        for (position, state) in State::ALL.into_iter().enumerate() {
            assert_eq!(State::from_byte(state as u8), Some(state));
            assert_eq!(state.index(), position);
        }
        assert_eq!(State::from_byte(8), None);
    }
}
