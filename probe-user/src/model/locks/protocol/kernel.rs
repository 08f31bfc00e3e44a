//! Priority-inheriting futexes: the kernel writes and checks the word itself (`kernel/futex/pi.c`), whoever's
//! code waits.

use probe_ebpf::lock::{OWNER_DIED, TID_MASK, is_tid};
use probe_ebpf::waiting::op;

use super::{Protocol, Role, Wait, owned, unowned};
use crate::model::locks::Kind;

/// `FUTEX_LOCK_PI` and the condition variables around it.
pub fn identify(wait: Wait<'_>) -> Option<Protocol> {
    match wait.call.op {
        op::LOCK_PI => {
            let word = wait.words()[0];
            let owner = word & TID_MASK;
            let owner = (is_tid(owner) && word & OWNER_DIED == 0).then_some(owner);
            // The kernel refuses a second lock by its owner (EDEADLK).
            Some(owned("priority-inheriting mutex", Kind::PiMutex, owner, false))
        }
        op::WAIT_REQUEUE_PI => Some(unowned("condition variable", Kind::Condvar, Role::Idle)),
        _ => None,
    }
}
