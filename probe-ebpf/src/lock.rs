//! Futex waits, and the two tables in which they are added up: one entry per lock, one per waiter and holder.
//!
//! A wait is seen from its begin (the switch-out in a futex call) to its end (the thread runs again). The tables have fixed
//! sizes; a wait that finds one full is counted in [`crate::totals::Totals`], and its thread's ledger has its time anyway.

use bytemuck::{Pod, Zeroable};

use crate::histogram::BUCKETS;
use crate::waiting::{flag, op};

/// A futex wait as it began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct FutexWait {
    /// User address of the futex word; of the first of several.
    pub address: u64,
    /// Site: the user instruction after the system call. It lies in the code of the library whose protocol
    /// the word follows.
    pub ip: u64,
    /// The word, read when the wait began: with short holds it has changed by then.
    pub word: u32,
    /// The word behind it.
    pub next: u32,
    /// The value that the caller expected to find.
    pub value: u32,
    /// Tid that memory may name as the owner, in the pid namespace of its writer; 0 if it names none.
    /// Whether it is one is for the agent to say, which knows the protocol of the site.
    pub owner: u32,
    /// [`crate::waiting::op`]; [`op::NONE`] if the thread is in no futex wait.
    pub op: u8,
    /// [`crate::waiting::flag`].
    pub flags: u8,
    /// What the thread waits in: a [`crate::waiting::Class`] as a byte. Set for every blocked thread.
    pub class: u8,
    /// [`Expected`] as a byte: what kind of number [`Self::value`] is.
    pub expected: u8,
    /// Zero.
    pub padding: u32,
}

/// What kind of number a caller expects in the futex word. Unlike the word itself, which changes before it
/// can be read, the expected value is the same in every wait of a protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Expected {
    /// None of those below.
    Other = 0,
    /// 0: condition variables and semaphores of glibc, parkers.
    Zero = 1,
    /// 1.
    One = 2,
    /// 2: "locked, with waiters" since Drepper's "Futexes are tricky"; a counter passes through it, too.
    Two = 3,
    /// Bit 31 and others: "locked, with waiters" of PI, robust and musl's mutexes.
    Flagged = 4,
    /// All bits: parked threads of Rust, older semaphores of musl.
    AllOnes = 5,
}

/// Number of kinds of expected values.
pub const EXPECTED: usize = 6;

impl Expected {
    /// The kind of a value.
    #[inline(always)]
    pub const fn of(value: u32) -> Self {
        match value {
            0 => Self::Zero,
            1 => Self::One,
            2 => Self::Two,
            u32::MAX => Self::AllOnes,
            _ if value & HAS_WAITERS != 0 => Self::Flagged,
            _ => Self::Other,
        }
    }
}

/// Words read at a futex: the word itself and the four behind it.
pub const WORDS: usize = 5;

/// `FUTEX_TID_MASK`.
pub const TID_MASK: u32 = 0x3fff_ffff;
/// `FUTEX_OWNER_DIED`.
pub const OWNER_DIED: u32 = 0x4000_0000;
/// `FUTEX_WAITERS`.
pub const HAS_WAITERS: u32 = 0x8000_0000;
/// The highest tid there can be (`PID_MAX_LIMIT`).
pub const TID_LIMIT: u32 = 4 << 20;
/// The bits that `__kind` of a mutex of glibc can have: type, robust, PI, protect, shared, elision.
const GLIBC_KINDS: u32 = 0x3f3;
/// `PTHREAD_MUTEX_ROBUST_NORMAL_NP`.
const GLIBC_ROBUST: u32 = 0x10;
/// `PTHREAD_MUTEX_PRIO_PROTECT_NP`: the word has the priority ceiling from bit [`CEILING_SHIFT`] on.
const GLIBC_PROTECT: u32 = 0x40;
/// `PTHREAD_MUTEX_PRIO_CEILING_SHIFT`.
const CEILING_SHIFT: u32 = 19;
/// What a contended mutex's word is in Drepper's scheme.
const CONTENDED: u32 = 2;

/// Whether a word can be a tid.
#[inline(always)]
pub const fn is_tid(word: u32) -> bool {
    word != 0 && word <= TID_LIMIT
}

/// The tid that memory names as the owner if the futex is a priority-inheriting one or a mutex of glibc; 0 if
/// it names none.
///
/// `words` are the futex word and the four behind it. Layout of a mutex of glibc (`sysdeps/nptl/bits/struct_mutex.h`):
/// `__lock`, `__count`, `__owner`, `__nusers`, `__kind`; the last two change places in 32-bit programs. Other protocols can
/// look like it: the agent believes it only of waits that glibc's own code makes.
#[inline(always)]
pub const fn mutex_owner(wait_op: u8, flags: u8, value: u32, words: &[u32; WORDS]) -> u32 {
    let word = words[0];
    if wait_op == op::LOCK_PI {
        return if is_tid(word & TID_MASK) {
            word & TID_MASK
        } else {
            0
        };
    }
    // First what most words that are no mutex fail: this is the path of every wait.
    let owner = words[2];
    if !is_tid(owner) || word != value {
        return 0;
    }
    let compat = flags & flag::COMPAT != 0;
    let users = if compat { words[4] } else { words[3] };
    let kind = if compat { words[3] } else { words[4] };
    if users == 0 || kind & !GLIBC_KINDS != 0 {
        return 0;
    }
    // Rust waits with FUTEX_WAIT_BITSET and no timeout, glibc's mutexes only with one.
    if wait_op != op::WAIT && (wait_op != op::WAIT_BITSET || flags & flag::TIMED == 0) {
        return 0;
    }
    let ceiling = value >> CEILING_SHIFT;
    let normal =
        value == CONTENDED || (kind & GLIBC_PROTECT != 0 && value == ceiling << CEILING_SHIFT | CONTENDED);
    let robust = kind & GLIBC_ROBUST != 0 && word & HAS_WAITERS != 0 && word & TID_MASK == owner;
    if normal || robust { owner } else { 0 }
}

/// Which lock: an address in an address space. One of several processes (`flag::PRIVATE` missing) has a key in each; the
/// agent finds out which are one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Pod, Zeroable)]
#[repr(C)]
pub struct LockKey {
    /// Address space: never used again for another, so exec and address space reuse start afresh.
    pub space: u64,
    /// User address of the futex word.
    pub address: u64,
}

/// How a wait ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Outcome {
    /// By nobody's futex call: a timeout, a signal.
    Unmatched = 0,
    /// A thread woke one waiter of this futex.
    WokenOne = 1,
    /// A thread woke several at once.
    WokenMany = 2,
    /// A thread ended.
    Exit = 3,
}

/// Number of outcomes.
pub const OUTCOMES: usize = 4;

/// [`LockStats::waiter`]: there was more than one.
pub const SEVERAL: u32 = u32::MAX;

/// What was waited at one lock. Several CPUs add to it: sums are atomic, the samples are whoever wrote last.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct LockStats {
    /// Nanoseconds of all waits that ended.
    pub wait_ns: u64,
    /// The longest; two CPUs that write at the same moment may lose one.
    pub max_ns: u64,
    /// CLOCK_MONOTONIC of the latest end of a wait.
    pub last_ns: u64,
    /// Process of the latest waiter.
    pub pid: u32,
    /// The only waiter's tid so far, or [`SEVERAL`].
    pub waiter: u32,
    /// Who last ran on after a wait: the likely holder until it wakes somebody.
    pub acquirer: u32,
    /// Waits that had been moved here from another futex.
    pub requeued: u32,
    /// The latest wait's beginning.
    pub sample: FutexWait,
    /// Waits that had a timeout.
    pub timed: u32,
    /// Zero.
    pub padding: u32,
    /// Waits by [`Outcome`].
    pub outcomes: [u32; OUTCOMES],
    /// Waits by [`Expected`].
    pub expected: [u32; EXPECTED],
    /// Durations of waits.
    pub histogram: [u32; BUCKETS],
}

/// Set in [`EdgeKey::holder`] if memory named the holder (a tid in the waiter's pid namespace); else it is who woke the
/// waiter (a tid in the initial one).
pub const BY_OWNER: u32 = 1 << 31;

/// Who waited for whom at which lock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Pod, Zeroable)]
#[repr(C)]
pub struct EdgeKey {
    /// The lock.
    pub lock: LockKey,
    /// Tid of the waiter.
    pub waiter: u32,
    /// Tid of the holder, with [`BY_OWNER`]; 0 if none is known.
    pub holder: u32,
}

/// What one thread waited for another at one lock. The waiter alone writes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct EdgeStats {
    /// Nanoseconds of the waits that ended.
    pub wait_ns: u64,
    /// How many there were.
    pub waits: u64,
    /// The longest.
    pub max_ns: u64,
    /// CLOCK_MONOTONIC of the latest end.
    pub last_ns: u64,
}

/// Bytes read before the futex word by a snapshot.
pub const LIVE_BEFORE: u64 = 24;
/// Words read around it.
pub const LIVE_WORDS: usize = 16;

/// What a snapshot reads about an open futex wait: memory around the word as it is now, and where the thread's code is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct LiveFutex {
    /// From [`LIVE_BEFORE`] bytes before the word.
    pub words: [u32; LIVE_WORDS],
    /// Bytes that could be read: all; from the word on, the rest, [`WORDS`] words or the word alone; or none.
    /// More than the rest: the others lie right before the word.
    pub valid: u32,
    /// Zero.
    pub padding: u32,
    /// Instruction pointer in user space.
    pub ip: u64,
    /// Stack pointer.
    pub sp: u64,
    /// Frame pointer.
    pub bp: u64,
    /// `r15` to `r12`, then `rbx`: what the calling function keeps in registers, such as the lock that it takes. Zero elsewhere than on
    /// x86.
    pub saved: [u64; 5],
}

impl LiveFutex {
    /// The futex word and the four behind it; `None` if they could not be read.
    pub fn words_at(&self) -> Option<[u32; WORDS]> {
        let first = (LIVE_BEFORE / 4) as usize;
        let mut words = [0; WORDS];
        if self.valid as usize >= WORDS * 4 {
            words.copy_from_slice(&self.words[first..first + WORDS]);
            return Some(words);
        }
        words[0] = self.words[first];
        (self.valid >= 4).then_some(words)
    }
}

const _: () = assert!(size_of::<LockStats>().is_multiple_of(8) && size_of::<LiveFutex>().is_multiple_of(8));

#[cfg(test)]
mod tests {
    use super::*;

    const MUTEX: [u32; WORDS] = [2, 0, 4711, 1, 0];

    #[test]
    fn a_mutex_of_glibc_names_its_owner() {
        assert_eq!(mutex_owner(op::WAIT, flag::PRIVATE, 2, &MUTEX), 4711);
        let timed = flag::PRIVATE | flag::TIMED;
        assert_eq!(mutex_owner(op::WAIT_BITSET, timed, 2, &MUTEX), 4711);
        let robust = HAS_WAITERS | 0x2a;
        assert_eq!(mutex_owner(op::WAIT, 0, robust, &[robust, 0, 42, 1, 16]), 42);
        let protect = 7 << CEILING_SHIFT | 2;
        assert_eq!(mutex_owner(op::WAIT, 0, protect, &[protect, 0, 42, 1, 0x40]), 42);
        // A 32-bit program's: kind before users.
        assert_eq!(mutex_owner(op::WAIT, flag::COMPAT, 2, &[2, 0, 42, 0, 1]), 42);
        let pi = HAS_WAITERS | 0x2b;
        assert_eq!(mutex_owner(op::LOCK_PI, flag::PRIVATE, 0, &[pi, 0, 0, 0, 0]), 43);
    }

    #[test]
    fn other_protocols_name_nobody() {
        assert_eq!(mutex_owner(op::WAIT_BITSET, flag::PRIVATE, 2, &MUTEX), 0, "Rust");
        assert_eq!(mutex_owner(op::WAIT, flag::PRIVATE, 2, &[2, 0, 0, 0, 0]), 0);
        assert_eq!(
            mutex_owner(op::WAIT, flag::PRIVATE, 2, &[2, 0, 4711, 1, 0xdead_0000]),
            0
        );
        let musl = HAS_WAITERS | 0x10;
        assert_eq!(
            mutex_owner(op::WAIT, flag::PRIVATE, musl, &[musl, 1, 0, 0, 0]),
            0,
            "EBUSY is no tid"
        );
        assert_eq!(
            mutex_owner(op::WAIT, 0, 44, &[44, 0, 0, 0, 0]),
            0,
            "neither is a counter"
        );
        let protect = 7 << CEILING_SHIFT | 2;
        assert_eq!(
            mutex_owner(op::WAIT, 0, protect, &[protect, 0, 42, 1, 0]),
            0,
            "no ceiling without its kind"
        );
    }

    #[test]
    fn expected_values_have_kinds() {
        use Expected::{AllOnes, Flagged, One, Other, Two, Zero};
        let kinds = [0, 1, 2, 3, HAS_WAITERS | 0x10, u32::MAX].map(Expected::of);
        assert_eq!(kinds, [Zero, One, Two, Other, Flagged, AllOnes]);
    }
}
