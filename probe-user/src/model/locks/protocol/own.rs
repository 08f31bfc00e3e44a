//! Programs with system calls of their own: Go's run-time system, static programs without symbols, code made
//! while running.
//!
//! A static program may contain any library. Two of them can be told without symbols: calls with
//! `FUTEX_CLOCK_REALTIME` are glibc's, and so is memory that follows glibc's mutex in all five words (value,
//! owner, users, kind). All else is judged by who waits and wakes.

use probe_ebpf::lock::{HAS_WAITERS, TID_MASK};
use probe_ebpf::waiting::{flag, op};

use super::{Protocol, Role, Wait, glibc, musl, unowned};
use crate::model::locks::Kind;
use crate::model::locks::site::Library;

/// What such a program waits for.
pub fn identify(wait: Wait<'_>) -> Protocol {
    let value = wait.call.value;
    if wait.site.library == Library::Go {
        // runtime.lock2: 2 is mutex_sleeping; notes wait for 0.
        return match value {
            2 => unowned("lock of the Go run-time system", Kind::Mutex, Role::LikelyLock),
            _ => unowned("parked thread", Kind::Parker, Role::Idle),
        };
    }
    if wait.call.op == op::WAIT_BITSET && wait.flag(flag::REALTIME) {
        return glibc::identify(wait);
    }
    if wait.call.op == op::WAIT && value & HAS_WAITERS != 0 && value & TID_MASK == 16 {
        return musl::identify(wait);
    }
    if wait.call.op == op::WAIT && wait.call.owner != 0 {
        return glibc::identify(wait);
    }
    let untimed = !wait.flag(flag::TIMED);
    if untimed && (value == 2 || value & HAS_WAITERS != 0 && value != u32::MAX) {
        return unowned("lock", Kind::Mutex, Role::ByBehaviour);
    }
    unowned("futex", Kind::Unknown, Role::ByBehaviour)
}
