//! The musl C library, `src/thread`. Run against 1.2.3, dynamic and static.
//!
//! | what | call | expects |
//! |---|---|---|
//! | mutex, `PTHREAD_MUTEX_NORMAL` | `FUTEX_WAIT` | `EBUSY` (16) with bit 31: no owner |
//! | mutex of another type | the same | the owner's tid with bit 31 |
//! | internal lock (`__lock`) | the same | `INT_MIN` and the number of threads |
//! | readers-writer lock | the same | the number of readers with bit 31, all bits if a writer has it |
//! | semaphore | the same | all bits (from 1.2.4 on bit 31 alone) |
//! | once | the same | 3 |
//! | condition variable | the same | 2, on the waiter's own stack |
//! | join | the same | 2 (`DT_JOINABLE`), 8 bytes behind the thread's tid |

use probe_ebpf::lock::{HAS_WAITERS, TID_MASK, is_tid};
use probe_ebpf::waiting::op;

use super::{Protocol, Role, Wait, owned, unowned};
use crate::model::locks::Kind;

/// What a mutex of the ordinary type holds.
const EBUSY: u32 = 16;
/// `_m_type`, 4 bytes before the lock: the type, whether it is robust, of which priority protocol, and whether it is shared.
const TYPES: u32 = 0x8f;

/// What musl's code waits for.
pub fn identify(wait: Wait<'_>) -> Protocol {
    if wait.call.op != op::WAIT {
        return unowned("futex", Kind::Unknown, Role::ByBehaviour);
    }
    match wait.call.value {
        2 => unowned("condition variable", Kind::Condvar, Role::Idle),
        3 => unowned("once", Kind::Mutex, Role::LikelyLock),
        u32::MAX | HAS_WAITERS => unowned("semaphore", Kind::Semaphore, Role::ByBehaviour),
        value if value & HAS_WAITERS != 0 => flagged(wait),
        _ => unowned("futex", Kind::Unknown, Role::ByBehaviour),
    }
}

/// A lock with waiters.
fn flagged(wait: Wait<'_>) -> Protocol {
    let low = wait.call.value & TID_MASK;
    if low == EBUSY {
        return unowned("mutex", Kind::Mutex, Role::Lock);
    }
    if wait.site.is_in(&["__lock", "__wait"]) {
        return unowned("lock inside the C library", Kind::Mutex, Role::Lock);
    }
    let kind = wait.around(-1).filter(|kind| kind & !TYPES == 0);
    match kind {
        // Recursive (1), error-checking (2) or robust (4): those hold the owner's tid.
        Some(kind) if kind & 7 != 0 && is_tid(low) => {
            let now = wait.words()[0];
            let owner = (now & TID_MASK == low && now & 0x4000_0000 == 0).then_some(low);
            owned("mutex", Kind::Mutex, owner, kind & 3 == 0)
        }
        // The number of its waiters stands behind a readers-writer lock, nothing in particular behind an
        // internal one.
        Some(_) if (1..=0xffff).contains(&wait.words()[1]) => {
            unowned("readers-writer lock", Kind::Rwlock, Role::Lock)
        }
        _ => unowned("lock", Kind::Mutex, Role::Lock),
    }
}

/// The tid of the thread whose end a wait may be for: musl waits at the joined thread's `detach_state`, two
/// words behind its tid (`src/internal/pthread_impl.h`).
pub fn joined_tid(wait: Wait<'_>) -> Option<u32> {
    let is_join = wait.call.op == op::WAIT && wait.call.value == 2 && !wait.is_on_own_stack();
    wait.around(-2).filter(|&tid| is_join && is_tid(tid))
}
