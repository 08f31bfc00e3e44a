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
    /// The word, read when the wait began.
    pub word: u32,
    /// The word behind it.
    pub next: u32,
    /// The value that the caller expected to find.
    pub value: u32,
    /// Tid of the holder as it stands in memory, hence in the waiter's pid namespace; 0 if the memory names none.
    pub owner: u32,
    /// [`crate::waiting::op`]; [`op::NONE`] if the thread is in no futex wait.
    pub op: u8,
    /// [`crate::waiting::flag`].
    pub flags: u8,
    /// What the thread waits in: a [`crate::waiting::Class`] as a byte. Set for every blocked thread.
    pub class: u8,
    /// [`Layout`] as a byte.
    pub layout: u8,
    /// Zero.
    pub padding: u32,
}

/// What the memory at a futex looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Layout {
    /// Nothing known.
    Unknown = 0,
    /// The word is the holder's tid: priority-inheriting and robust mutexes.
    TidWord = 1,
    /// A mutex of glibc: the word is 2 (locked, contended), the owner's tid stands 8 bytes on.
    GlibcMutex = 2,
    /// The word is 2 and was expected to be, as in most mutexes that know no owner (Rust, glibc's internal ones, Go's runtime).
    Contended = 3,
    /// The word is the tid of a thread whose end is waited for.
    Join = 4,
}

/// Number of layouts.
pub const LAYOUTS: usize = 5;

impl Layout {
    /// All of them, in the order of their index.
    pub const ALL: [Self; LAYOUTS] = [
        Self::Unknown,
        Self::TidWord,
        Self::GlibcMutex,
        Self::Contended,
        Self::Join,
    ];

    /// The layout a byte stands for.
    pub fn from_byte(byte: u8) -> Self {
        Self::ALL.get(usize::from(byte)).copied().unwrap_or(Self::Unknown)
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
/// What a contended mutex's word is, by Drepper's "Futexes are tricky" and whoever followed it.
const CONTENDED: u32 = 2;

/// Whether a word can be a tid.
#[inline(always)]
pub const fn is_tid(word: u32) -> bool {
    word != 0 && word <= TID_LIMIT
}

/// What the memory at a futex says of the lock it may be, and of who holds it (0 if it does not).
///
/// `words` are the futex word and the four behind it. Layout of a mutex of glibc (`sysdeps/nptl/bits/struct_mutex.h`):
/// `__lock`, `__count`, `__owner`, `__nusers`, `__kind`. Whether the owner is alive is for the agent to say.
#[inline(always)]
pub const fn read_layout(wait_op: u8, flags: u8, value: u32, words: &[u32; WORDS]) -> (Layout, u32) {
    let word = words[0];
    if wait_op == op::LOCK_PI || (word & HAS_WAITERS != 0 && value == word && is_tid(word & TID_MASK)) {
        return (Layout::TidWord, word & TID_MASK);
    }
    if value == CONTENDED && word == CONTENDED {
        // Rust waits with FUTEX_WAIT_BITSET and no timeout, glibc only with one: what follows Rust's word is data.
        let glibc_call = wait_op == op::WAIT || flags & flag::TIMED != 0;
        let owner = words[2];
        let kind = words[4];
        if glibc_call && is_tid(owner) && words[3] != 0 && kind & !GLIBC_KINDS == 0 {
            return (Layout::GlibcMutex, owner);
        }
        return (Layout::Contended, 0);
    }
    if flags & flag::PRIVATE == 0 && value == word && is_tid(word) && wait_op != op::WAITV {
        return (Layout::Join, word);
    }
    (Layout::Unknown, 0)
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
    /// Waits by [`Layout`], and one more so that their number is even.
    pub layouts: [u32; LAYOUTS + 1],
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
    /// Bytes that could be read: all; from the word on, [`WORDS`] of them or the word alone; or none.
    pub valid: u32,
    /// Zero.
    pub padding: u32,
    /// Instruction pointer in user space.
    pub ip: u64,
    /// Stack pointer.
    pub sp: u64,
    /// Frame pointer.
    pub bp: u64,
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

    #[test]
    fn a_mutex_of_glibc_names_its_owner() {
        let words = [2, 0, 4711, 1, 0];
        assert_eq!(
            read_layout(op::WAIT, flag::PRIVATE, 2, &words),
            (Layout::GlibcMutex, 4711)
        );
        let timed = flag::PRIVATE | flag::TIMED;
        assert_eq!(
            read_layout(op::WAIT_BITSET, timed, 2, &words),
            (Layout::GlibcMutex, 4711)
        );
    }

    #[test]
    fn what_follows_a_mutex_of_rust_is_data() {
        let words = [2, 0, 4711, 1, 0];
        assert_eq!(
            read_layout(op::WAIT_BITSET, flag::PRIVATE, 2, &words),
            (Layout::Contended, 0)
        );
        assert_eq!(
            read_layout(op::WAIT, flag::PRIVATE, 2, &[2, 0, 0, 0, 0]),
            (Layout::Contended, 0)
        );
        assert_eq!(
            read_layout(op::WAIT, flag::PRIVATE, 2, &[2, 0, 4711, 1, 0xdead_0000]),
            (Layout::Contended, 0)
        );
    }

    #[test]
    fn words_that_are_tids() {
        let robust = HAS_WAITERS | 0x2a;
        let words = [robust, 0, 42, 1, 16];
        assert_eq!(read_layout(op::WAIT, 0, robust, &words), (Layout::TidWord, 42));
        let words = [HAS_WAITERS | 0x2b, 0, 0, 0, 0];
        assert_eq!(
            read_layout(op::LOCK_PI, flag::PRIVATE, 0, &words),
            (Layout::TidWord, 43)
        );
        let join = [44, 0, 0, 0, 0];
        assert_eq!(
            read_layout(op::WAIT_BITSET, flag::REALTIME, 44, &join),
            (Layout::Join, 44)
        );
        assert_eq!(
            read_layout(op::WAIT_BITSET, flag::PRIVATE, 44, &join),
            (Layout::Unknown, 0)
        );
    }
}
