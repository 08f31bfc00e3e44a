//! The musl C library, `src/thread`. Run against 1.2.3, dynamic and static, with and without symbols; read to
//! 1.2.5.
//!
//! | what | call | expects |
//! |---|---|---|
//! | mutex, `PTHREAD_MUTEX_NORMAL` | `FUTEX_WAIT` | `EBUSY` (16) with bit 31: no owner |
//! | mutex of another type | the same | the owner's tid with bit 31; bits 30 and 31 alone if the owner has ended |
//! | priority-inheriting mutex that the kernel refused | the same | 0, on the waiter's own stack |
//! | internal lock (`__lock`) | the same | `INT_MIN` and the number of threads |
//! | readers-writer lock | the same | the number of readers with bit 31, all bits if a writer has it |
//! | semaphore | the same | all bits (from 1.2.4 on bit 31 alone) |
//! | stream (`flockfile()`) | the same, private | the owner's tid with bit 30; that alone if the owner has ended |
//! | once | the same, private | 3 |
//! | barrier | the same, private | 0 or 1, on the stack of the one who came first |
//! | condition variable | the same | 2, on the waiter's own stack |
//! | join | the same | 2 (`DT_JOINABLE`), 8 bytes behind the thread's tid |
//!
//! A semaphore and a readers-writer lock that a writer has wait for the same value, and both have the number
//! of waiters behind it. The word behind that tells them apart: the semaphore keeps the futex' private flag
//! there (`sem->__val[2]`, 128 if it is private), the lock the opposite (`rw->_rw_shared ^ 128` is passed).

use probe_ebpf::lock::{HAS_WAITERS, OWNER_DIED, TID_MASK, is_tid};
use probe_ebpf::waiting::{flag, op};

use super::{Protocol, Role, Wait, abandoned, owned, unowned};
use crate::model::locks::Kind;

/// What a mutex of the ordinary type holds.
const EBUSY: u32 = 16;
/// `_m_type`, 4 bytes before the lock: the type, whether it is robust, of which priority protocol, and
/// whether it is shared.
const TYPES: u32 = 0x8f;
/// Recursive (1) or error-checking (2).
const WITH_OWNER: u32 = 3;
/// Robust: whoever comes next gets the lock of an owner that has ended.
const ROBUST: u32 = 4;
/// The flag of private futexes, as musl's locks keep it.
const FUTEX_PRIVATE: u32 = 128;
/// `MAYBE_WAITERS` of a stream, `src/internal/stdio_impl.h`.
const MAYBE_WAITERS: u32 = 1 << 30;
/// Waiters that a lock may count.
const COUNTS: std::ops::RangeInclusive<u32> = 1..=0xffff;

const CONDVAR: Protocol = unowned("condition variable", Kind::Condvar, Role::Idle);
const BARRIER: Protocol = unowned("barrier", Kind::Barrier, Role::Idle);
const RWLOCK: Protocol = unowned("readers-writer lock", Kind::Rwlock, Role::Lock);
const SEMAPHORE: Protocol = unowned("semaphore", Kind::Semaphore, Role::ByBehaviour);
const MUTEX: Protocol = unowned("mutex", Kind::Mutex, Role::Lock);

/// What musl's code waits for.
pub fn identify(wait: Wait<'_>) -> Protocol {
    if wait.call.op != op::WAIT {
        return unowned("futex", Kind::Unknown, Role::ByBehaviour);
    }
    if is_endless(wait) {
        return unowned("lock that can never be had", Kind::PiMutex, Role::Lock);
    }
    let untimed = wait.flag(flag::PRIVATE) && !wait.flag(flag::TIMED);
    match wait.call.value {
        // Barriers are the only ones of those that nobody else waits at for 0 or 1 without a timeout.
        0 | 1 if untimed => BARRIER,
        2 => CONDVAR,
        3 if untimed => unowned("once", Kind::Mutex, Role::Lock),
        u32::MAX | HAS_WAITERS => counted(wait).unwrap_or(SEMAPHORE),
        value if value & HAS_WAITERS != 0 => flagged(wait),
        value if untimed && value & MAYBE_WAITERS != 0 => stream(wait),
        _ => unowned("futex", Kind::Unknown, Role::ByBehaviour),
    }
}

/// A stream with waiters (`__lockfile()`). The one that ends with it leaves the flag
/// (`__do_orphaned_stdio_locks()`), and nobody ever takes it again.
fn stream(wait: Wait<'_>) -> Protocol {
    let (low, now) = (wait.call.value & TID_MASK, wait.words()[0]);
    if low == 0 && now == MAYBE_WAITERS {
        return abandoned("stream", Kind::Mutex);
    }
    let owner = (is_tid(low) && now == wait.call.value).then_some(low);
    owned("stream", Kind::Mutex, owner, false)
}

/// What a static program without symbols waits for, if it has musl in it: the code may be musl's, or one that
/// calls its `syscall()`, so only what memory or the place proves counts; `None` otherwise.
pub fn proved(wait: Wait<'_>) -> Option<Protocol> {
    if wait.call.op != op::WAIT {
        return None;
    }
    let on_own_stack = wait.flag(flag::PRIVATE) && wait.is_on_own_stack();
    match wait.call.value {
        1 if on_own_stack => Some(BARRIER),
        2 if on_own_stack => Some(CONDVAR),
        u32::MAX | HAS_WAITERS => counted(wait),
        value if value & HAS_WAITERS == 0 => None,
        value if value & TID_MASK == EBUSY => Some(MUTEX),
        _ => is_rwlock(wait).then_some(RWLOCK),
    }
}

/// After a refusal of the kernel (`EDEADLK`, `ESRCH`) a priority-inheriting mutex has its taker wait for ever
/// at a zero on its own stack (`pthread_mutex_timedlock_pi()`). `aio_suspend()` of nothing at all does the
/// same, and waits for ever as well.
pub fn is_endless(wait: Wait<'_>) -> bool {
    let untimed = wait.flag(flag::PRIVATE) && !wait.flag(flag::TIMED);
    wait.call.op == op::WAIT && untimed && wait.call.value == 0 && wait.is_on_own_stack()
}

/// What counts its waiters behind the word, by the flag behind that.
fn counted(wait: Wait<'_>) -> Option<Protocol> {
    if is_rwlock(wait) {
        return Some(RWLOCK);
    }
    let words = wait.words();
    let private = if wait.flag(flag::PRIVATE) {
        FUTEX_PRIVATE
    } else {
        0
    };
    let known = wait.memory.is_some() && COUNTS.contains(&words[1]) && words[2] == private;
    known.then_some(SEMAPHORE)
}

/// `pthread_rwlock_t`: lock, waiters, whether it is shared, and nothing else.
fn is_rwlock(wait: Wait<'_>) -> bool {
    let shared = if wait.flag(flag::PRIVATE) {
        0
    } else {
        FUTEX_PRIVATE
    };
    let word = |at| wait.around(at);
    word(1).is_some_and(|waiters| COUNTS.contains(&waiters))
        && word(2) == Some(shared)
        && (3..8).all(|at| word(at) == Some(0))
}

/// A lock with waiters.
fn flagged(wait: Wait<'_>) -> Protocol {
    let low = wait.call.value & TID_MASK;
    if low == EBUSY {
        return MUTEX;
    }
    if wait.site.is_in(&["__lock", "__wait"]) {
        return unowned("lock inside the C library", Kind::Mutex, Role::Lock);
    }
    let kind = wait.around(-1).filter(|kind| kind & !TYPES == 0);
    match kind {
        // All but ordinary ones hold the owner's tid.
        Some(kind) if kind & (WITH_OWNER | ROBUST) != 0 && (is_tid(low) || low == 0) => {
            let now = wait.words()[0];
            if kind & ROBUST == 0 && now & !HAS_WAITERS == OWNER_DIED {
                return abandoned("mutex", Kind::Mutex);
            }
            let owner = (is_tid(low) && now & TID_MASK == low && now & OWNER_DIED == 0).then_some(low);
            owned("mutex", Kind::Mutex, owner, kind & WITH_OWNER == 0)
        }
        _ if is_rwlock(wait) => RWLOCK,
        _ => unowned("lock", Kind::Mutex, Role::Lock),
    }
}

/// The tid of the thread whose end a wait may be for: musl waits at the joined thread's `detach_state`, two
/// words behind its tid (`src/internal/pthread_impl.h`).
pub fn joined_tid(wait: Wait<'_>) -> Option<u32> {
    let is_join = wait.call.op == op::WAIT && wait.call.value == 2 && !wait.is_on_own_stack();
    wait.around(-2).filter(|&tid| is_join && is_tid(tid))
}
