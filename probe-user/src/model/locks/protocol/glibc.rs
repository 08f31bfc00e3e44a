//! The GNU C library, `sysdeps/nptl` and `nptl`. Run against 2.36, 64 and 32 bit, dynamic and static.
//!
//! | what | call | expects |
//! |---|---|---|
//! | mutex, internal lock | `FUTEX_WAIT`, timed `FUTEX_WAIT_BITSET` | 2 |
//! | robust mutex | `FUTEX_WAIT` | owner's tid, bit 31 |
//! | mutex with a priority ceiling | `FUTEX_WAIT` | ceiling << 19, 2 |
//! | once | `FUTEX_WAIT` | 1 and the fork generation << 2 |
//! | barrier | `FUTEX_WAIT` in `pthread_barrier_wait` | the round |
//! | condition variable, semaphore | `FUTEX_WAIT_BITSET`, realtime | 0 (condition variables from 2.41 on: a count) |
//! | readers-writer lock | the same | 2, 3; readers in line: the word with bit 2 |

use probe_ebpf::lock::{HAS_WAITERS, TID_LIMIT, TID_MASK, is_tid, mutex_owner};
use probe_ebpf::waiting::{flag, op};

use super::{Protocol, Role, Wait, owned, unowned};
use crate::model::locks::Kind;

/// `PTHREAD_MUTEX_PRIO_CEILING_SHIFT` and the priorities there are.
const CEILING_SHIFT: u32 = 19;
const CEILINGS: std::ops::RangeInclusive<u32> = 1..=99;

/// What glibc's own code waits for.
pub fn identify(wait: Wait<'_>) -> Protocol {
    if wait.call.op == op::WAIT {
        return plain(wait);
    }
    if wait.call.op == op::WAIT_BITSET {
        return common(wait);
    }
    unowned("futex", Kind::Unknown, Role::ByBehaviour)
}

/// What cannot be told without memory: most of these are condition variables, and those are no locks.
const EITHER: Protocol = Protocol {
    is_either: true,
    ..unowned("condition variable or semaphore", Kind::Condvar, Role::Idle)
};

/// Waits of code of their own, by `FUTEX_WAIT`.
fn plain(wait: Wait<'_>) -> Protocol {
    if wait
        .site
        .is_in(&["pthread_barrier_wait", "__pthread_barrier_wait"])
    {
        return unowned("barrier", Kind::Barrier, Role::Idle);
    }
    if wait.site.is_in(&["pthread_cond", "__pthread_cond", "__condvar"]) {
        return unowned("condition variable", Kind::Condvar, Role::Idle);
    }
    let value = wait.call.value;
    let ceiling = value >> CEILING_SHIFT;
    if value == 2 || (value & ((1 << CEILING_SHIFT) - 1) == 2 && CEILINGS.contains(&ceiling)) {
        return mutex(wait);
    }
    if value & HAS_WAITERS != 0 && is_tid(value & TID_MASK) {
        return mutex(wait);
    }
    if is_barrier(wait) {
        return unowned("barrier", Kind::Barrier, Role::Idle);
    }
    if value & 3 == 1 {
        return unowned("once", Kind::Mutex, Role::Lock);
    }
    unowned("futex", Kind::Unknown, Role::ByBehaviour)
}

/// A mutex, or one of the library's internal locks (malloc, stdio), whose memory names nobody.
fn mutex(wait: Wait<'_>) -> Protocol {
    let internal = wait.site.is_in(&["__lll_lock_wait_private"]);
    if internal {
        return unowned("lock inside the C library", Kind::Mutex, Role::Lock);
    }
    let words = wait.words();
    let owner = mutex_owner(wait.call.op, wait.call.flags, wait.call.value, &words);
    let kind = if wait.flag(flag::COMPAT) {
        words[3]
    } else {
        words[4]
    };
    // PTHREAD_MUTEX_RECURSIVE_NP is 1, PTHREAD_MUTEX_ERRORCHECK_NP 2: neither waits for itself.
    let can_own_itself = !matches!(kind & 3, 1 | 2);
    owned(
        "mutex",
        Kind::Mutex,
        (owner != 0).then_some(owner),
        can_own_itself,
    )
}

/// Waits of `__futex_abstimed_wait_common`, through which condition variables, semaphores, readers-writer
/// locks, joins and timed mutexes go.
fn common(wait: Wait<'_>) -> Protocol {
    if is_endless(wait) {
        return unowned("lock that can never be had", Kind::PiMutex, Role::Lock);
    }
    if is_condvar(wait) {
        return unowned("condition variable", Kind::Condvar, Role::ByBehaviour);
    }
    let value = wait.call.value;
    let timed = wait.flag(flag::TIMED);
    if timed && value == 2 && (wait.call.owner != 0 || mutex(wait).owner.is_some()) {
        return mutex(wait);
    }
    match value {
        // A 32-bit program's semaphore: bit 0 says that there are waiters, the value is above it.
        1 if wait.flag(flag::COMPAT) && !timed => unowned("semaphore", Kind::Semaphore, Role::ByBehaviour),
        // __wrphase_futex and __writers_futex: PTHREAD_RWLOCK_FUTEX_USED is 2.
        2 | 3 => rwlock(wait),
        // __readers: writers go first, there are readers, and others wait (bits 1 and 2).
        _ if value & 7 == 6 => rwlock(wait),
        // The word behind is a count of waiters, or the other group's signals: memory tells, else nobody.
        0 if is_semaphore(wait) && wait.memory.is_none() => EITHER,
        0 if is_semaphore(wait) => unowned("semaphore", Kind::Semaphore, Role::ByBehaviour),
        _ => unowned("condition variable", Kind::Condvar, Role::ByBehaviour),
    }
}

/// After `EDEADLK` or `ESRCH` from the kernel, `pthread_mutex_lock()` of a priority-inheriting mutex sleeps
/// for ever at a zero on its own stack, which nobody can wake ("Delay the thread indefinitely",
/// `nptl/pthread_mutex_lock.c`).
///
/// Semaphores and condition variables that are variables of a function lie there as well, and somebody will
/// wake those: the counts of their waiters tell, so without memory nothing is known.
pub fn is_endless(wait: Wait<'_>) -> bool {
    // Of a mutex that processes share it is no private wait.
    let untimed = wait.call.flags & (flag::REALTIME | flag::TIMED) == flag::REALTIME;
    let of_nobody = wait.call.op == op::WAIT_BITSET && untimed && wait.call.value == 0;
    let nothing_else =
        wait.around(-6).is_some() && !is_condvar(wait) && !is_newer_condvar(wait) && !is_semaphore(wait);
    of_nobody && wait.is_on_own_stack() && nothing_else
}

/// By the memory before the word: `__wrefs` (the number of waiters, from bit 3 on) is 4 or 8 bytes before
/// `__g_signals`, and in 2.25 to 2.40 `__g_refs` (twice the waiters of the group) 24 bytes. Without it: a
/// semaphore's word never stands at 4 modulo 8.
fn is_condvar(wait: Wait<'_>) -> bool {
    let second = wait.call.address & 7 == 4;
    let Some(waiters) = wait.around(if second { -2 } else { -1 }) else {
        return second && wait.call.value == 0;
    };
    let waiters = waiters >> 3;
    let of_group = wait.around(-6).unwrap_or(0) >> 1;
    let plausible = (1..=TID_LIMIT).contains(&waiters);
    plausible && (of_group != 0 && of_group <= waiters || wait.call.value != 0)
}

/// The layout from 2.41 on, by the memory before the word: `__wrefs`, before it `__g1_orig_size` and two
/// `__g_size`, all of them small, and `__g1_start`, a count of 64 bits.
fn is_newer_condvar(wait: Wait<'_>) -> bool {
    let second = isize::from(wait.call.address & 7 == 4);
    let at = |before: isize| wait.around(-before - second).unwrap_or(u32::MAX);
    let is_count = |word: u32| word >> 3 <= TID_LIMIT;
    at(1) >> 3 != 0 && [1, 2, 3, 4].into_iter().all(|before| is_count(at(before))) && at(5) <= 0xff
}

/// The lower half is the value, the upper the number of waiters, then 0 or 128 (private or not).
fn is_semaphore(wait: Wait<'_>) -> bool {
    let words = wait.words();
    let aligned = wait.flag(flag::COMPAT) || wait.call.address & 7 == 0;
    aligned && (1..=0xffff).contains(&words[1]) && matches!(words[2], 0 | 128)
}

/// A barrier that is not complete: the number of those who have come stands before the word (the round that
/// goes on), the number it takes behind it.
fn is_barrier(wait: Wait<'_>) -> bool {
    let (Some(come), Some(needed)) = (wait.around(-1), wait.around(1)) else {
        return false;
    };
    let come = come.wrapping_sub(wait.words()[0]);
    come != 0 && come < needed && needed <= TID_LIMIT
}

/// `struct __pthread_rwlock_arch_t`: `__readers`, `__writers`, `__wrphase_futex` (8), `__writers_futex` (12), two pads, `__cur_writer` (24; in
/// 32-bit programs 28).
fn rwlock(wait: Wait<'_>) -> Protocol {
    // Waits are at offset 0 (readers in line), 8 (for the phase) or 12 (writers).
    let at = match (wait.call.value & 7 == 6, wait.call.address & 7) {
        (true, _) => 6,
        (false, 0) => 4,
        (false, _) => 3,
    };
    let at = at + isize::from(wait.flag(flag::COMPAT));
    let writer = wait.around(at).filter(|&tid| is_tid(tid));
    // A writer that asks again gets EDEADLK.
    owned("readers-writer lock", Kind::Rwlock, writer, false)
}
