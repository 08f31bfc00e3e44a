//! Users of the exported `syscall()` of a C library. None of them has the memory of glibc's locks, and none
//! names an owner.
//!
//! | what | call | expects | run against |
//! |---|---|---|---|
//! | Rust: mutex | `FUTEX_WAIT_BITSET`, private | 2 | 1.95 |
//! | Rust: readers-writer lock | the same | a count with bits 30 or 31 | |
//! | Rust: parked thread | the same | all bits | |
//! | Rust: condition variable | the same | a count | |
//! | libstdc++: `atomic::wait` and what is made of it | `FUTEX_WAIT` | anything | 12 |
//! | libstdc++, libc++abi: `__cxa_guard_acquire` | `FUTEX_WAIT` | bits 8 and 16 | 12 |
//! | `parking_lot` | `FUTEX_WAIT`, private | 1 | – |
//! | `InnoDB` latches | `FUTEX_WAIT`, private | a count with bit 31 | – |

use probe_ebpf::lock::HAS_WAITERS;
use probe_ebpf::waiting::{flag, op};

use super::{Protocol, Role, Wait, unowned};
use crate::model::locks::Kind;

/// Readers wait, writers wait.
const RUST_QUEUED: u32 = 0xc000_0000;
/// Rust's `Once`: running (1 or 2 by version), with the bit that says that others wait.
const RUST_ONCE: [u32; 2] = [5, 6];
/// `__cxa_guard`: the initialiser runs, and others wait (`_GLIBCXX_GUARD_PENDING_BIT`, `_GLIBCXX_GUARD_WAITING_BIT`).
const GUARD_WAITING: u32 = 0x1_0100;

/// What a caller of `syscall()` waits for.
pub fn identify(wait: Wait<'_>) -> Protocol {
    match wait.call.op {
        op::WAIT_BITSET if !wait.flag(flag::REALTIME) => rust(wait),
        op::WAIT => others(wait),
        _ => unowned("futex", Kind::Unknown, Role::ByBehaviour),
    }
}

fn rust(wait: Wait<'_>) -> Protocol {
    let value = wait.call.value;
    if value == u32::MAX {
        return unowned("parked thread", Kind::Parker, Role::Idle);
    }
    if value & RUST_QUEUED != 0 {
        return unowned("readers-writer lock", Kind::Rwlock, Role::Lock);
    }
    let timed = wait.flag(flag::TIMED);
    match value {
        2 if !timed => unowned("mutex", Kind::Mutex, Role::LikelyLock),
        _ if !timed && RUST_ONCE.contains(&value) => unowned("once", Kind::Mutex, Role::LikelyLock),
        _ if !timed && is_writer(wait) => unowned("readers-writer lock", Kind::Rwlock, Role::Lock),
        _ => unowned("condition variable", Kind::Condvar, Role::ByBehaviour),
    }
}

/// Writers of a readers-writer lock wait at a count behind its state, which says that a writer waits, and how
/// many have it.
fn is_writer(wait: Wait<'_>) -> bool {
    const WRITE_LOCKED: u32 = 0x3fff_ffff;
    const MOST_READERS: u32 = 0xffff;
    let state = wait.around(-1).unwrap_or(0);
    let holders = state & WRITE_LOCKED;
    let held = holders == WRITE_LOCKED || (1..=MOST_READERS).contains(&holders);
    state & HAS_WAITERS != 0 && held && wait.call.address & 7 == 4
}

fn others(wait: Wait<'_>) -> Protocol {
    if wait.call.value == GUARD_WAITING {
        return unowned("initialiser of a static variable", Kind::Mutex, Role::Lock);
    }
    unowned("futex", Kind::Unknown, Role::ByBehaviour)
}
