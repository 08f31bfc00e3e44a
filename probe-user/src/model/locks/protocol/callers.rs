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
/// `__cxa_guard`: the initialiser runs, and others wait (`_GLIBCXX_GUARD_PENDING_BIT`,
/// `_GLIBCXX_GUARD_WAITING_BIT`).
const GUARD_WAITING: u32 = 0x1_0100;

/// What a caller of `syscall()` waits for.
pub fn identify(wait: Wait<'_>) -> Protocol {
    if let Some(protocol) = by_caller(wait) {
        return protocol;
    }
    match wait.call.op {
        op::WAIT_BITSET if !wait.flag(flag::REALTIME) => rust(wait),
        op::WAIT => others(wait),
        _ => unowned("futex", Kind::Unknown, Role::ByBehaviour),
    }
}

/// Parts of names of functions that wait, as rustc mangles them (both schemes), from 1.62 to 1.95 and in
/// `parking_lot`.
const OF_RUST: [(&str, Protocol); 9] = [
    ("lock_contended", unowned("Rust mutex", Kind::Mutex, Role::Lock)),
    ("read_contended", RUST_RWLOCK),
    ("write_contended", RUST_RWLOCK),
    ("condvar5futex", RUST_CONDVAR),
    ("futex_condvar", RUST_CONDVAR),
    ("4once5futex", unowned("Rust once", Kind::Mutex, Role::Lock)),
    ("thread_parking", PARKED),
    ("futex_parker", PARKED),
    ("thread_parker", PARKED),
];
const RUST_RWLOCK: Protocol = unowned("Rust readers-writer lock", Kind::Rwlock, Role::Lock);
const RUST_CONDVAR: Protocol = unowned("Rust condition variable", Kind::Condvar, Role::ByBehaviour);
const PARKED: Protocol = unowned("parked thread", Kind::Parker, Role::Idle);

/// How the names of functions of libstdc++ and libc++ begin, where the compiler left one.
const OF_CPP: [(&str, Protocol); 9] = [
    ("_ZNSt18counting_semaphore", CPP_SEMAPHORE),
    ("_ZNSt18__atomic_semaphore", CPP_SEMAPHORE),
    ("_ZNSt3__118counting_semaphore", CPP_SEMAPHORE),
    ("_ZNSt7barrier", CPP_BARRIER),
    ("_ZNKSt7barrier", CPP_BARRIER),
    ("_ZNSt3__17barrier", CPP_BARRIER),
    ("_ZNSt5latch", CPP_BARRIER),
    ("_ZNKSt5latch", CPP_BARRIER),
    ("_ZNKSt3__15latch", CPP_BARRIER),
];
const CPP_SEMAPHORE: Protocol = unowned("C++ semaphore", Kind::Semaphore, Role::ByBehaviour);
const CPP_BARRIER: Protocol = unowned("C++ barrier", Kind::Barrier, Role::Idle);

/// What a function waits for that calls `syscall()`, by its mangled name; `None` for all others. None of
/// those of Rust is inlined: they are cold, or stand in a library compiled before.
pub fn wait_of(function: &str) -> Option<Protocol> {
    if let Some(semaphore) = semaphore_of(function) {
        return Some(semaphore);
    }
    let rust = OF_RUST.iter().find(|(part, _)| function.contains(part));
    let cpp = || OF_CPP.iter().find(|(start, _)| function.starts_with(start));
    rust.or_else(cpp).map(|(_, protocol)| *protocol)
}

/// Functions of a program that wait at a semaphore for a lock of their own.
///
/// A process of `PostgreSQL` sleeps at its own semaphore whenever it has to wait for an `LWLock`, and for
/// nothing else (its callers in 9.6 to 17: `LWLockAcquire` and its like, and the group updates of transaction
/// ends).
const OF_SEMAPHORES: [(&str, Protocol); 1] = [(
    "PGSemaphoreLock",
    unowned("LWLock of PostgreSQL", Kind::Semaphore, Role::Lock),
)];

/// What a semaphore is used for, by the function of the program that waits at it.
pub fn semaphore_of(function: &str) -> Option<Protocol> {
    let found = OF_SEMAPHORES.iter().find(|(name, _)| *name == function);
    found.map(|(_, protocol)| *protocol)
}

/// By the function that made the call.
fn by_caller(wait: Wait<'_>) -> Option<Protocol> {
    if let Some(known) = wait.site.calling_function().and_then(wait_of) {
        return Some(known);
    }
    // A function that is not one of Rust's waits by a protocol of its own.
    let unnamed = wait.site.has_other_caller() && wait.call.op == op::WAIT_BITSET && wait.call.value == 2;
    unnamed.then(|| unowned("futex", Kind::Unknown, Role::ByBehaviour))
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

/// Latches of `MariaDB` (`storage/innobase/include/srw_lock.h`): the writers' mutex counts its waiters in
/// twos, bit 0 says that it is taken; behind it stands the number of readers, with bit 31 while a writer has
/// it or waits.
fn is_innodb_writer(wait: Wait<'_>) -> bool {
    const MOST: u32 = 0xffff;
    let readers = wait.call.next;
    let held = wait.call.value & 1 == 1 && wait.call.value <= MOST;
    let private = wait.flag(flag::PRIVATE) && !wait.flag(flag::TIMED);
    private && held && readers & HAS_WAITERS != 0 && readers & !HAS_WAITERS <= MOST
}

fn others(wait: Wait<'_>) -> Protocol {
    if wait.call.value == GUARD_WAITING {
        return unowned("initialiser of a static variable", Kind::Mutex, Role::Lock);
    }
    if is_innodb_writer(wait) {
        return unowned("InnoDB latch", Kind::Rwlock, Role::Lock);
    }
    unowned("futex", Kind::Unknown, Role::ByBehaviour)
}
