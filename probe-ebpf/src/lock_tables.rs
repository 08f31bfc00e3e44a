//! The tables of locks, and of waiters and holders, as the end of a futex wait adds to them.

use core::arch::asm;
use core::ptr;

use aya_ebpf::bindings::{BPF_ANY, BPF_NOEXIST};
use probe_ebpf::histogram::{BUCKETS, bucket_of};
use probe_ebpf::lock::{
    EXPECTED, EdgeKey, EdgeStats, Expected, FutexWait, LockKey, LockStats, OUTCOMES, Outcome, SEVERAL,
};
use probe_ebpf::waiting::flag;

use crate::maps::{self, EDGES, LOCKS, NO_WAITS};
use crate::task::Task;
use crate::words::copy_words;

/// False if the table is full.
#[inline(always)]
pub fn add_to_lock(
    lock: &LockKey,
    wait: &FutexWait,
    outcome: Outcome,
    moved: bool,
    duration_ns: u64,
    task: Task,
    now_ns: u64,
) -> bool {
    let Some(stats) = lock_entry(lock) else {
        return false;
    };
    // SAFETY: a valid map value. Sums are atomic; the rest are samples of which the last one counts.
    let stats = unsafe { &mut *stats };
    add(&raw mut stats.wait_ns, duration_ns);
    let bucket = bucket_of(duration_ns);
    if bucket < BUCKETS {
        increment(&raw mut stats.histogram[bucket]);
    }
    increment(&raw mut stats.outcomes[outcome as usize & (OUTCOMES - 1)]);
    // LLVM compares one copy of the byte and indexes with another, and 6.1's verifier does not see that they are the same.
    // Masked, either is inside the value; volatile keeps the mask.
    // SAFETY: a valid reference.
    let expected = usize::from(unsafe { ptr::read_volatile(&raw const wait.expected) }) & EXPECTED_MASK;
    if expected < EXPECTED {
        increment(&raw mut stats.expected[expected]);
    }
    if wait.flags & flag::TIMED != 0 {
        increment(&raw mut stats.timed);
    }
    if moved {
        increment(&raw mut stats.requeued);
    }
    if duration_ns > stats.max_ns {
        stats.max_ns = duration_ns;
    }
    let tid = task.tid();
    if stats.waiter != tid {
        stats.waiter = if stats.waiter == 0 { tid } else { SEVERAL };
    }
    if outcome as u8 != Outcome::Unmatched as u8 {
        stats.acquirer = tid;
    }
    stats.pid = task.pid();
    stats.last_ns = now_ns;
    copy_words(wait, &mut stats.sample);
    true
}

/// The lock's entry, made if there is none; `None` if the table is full.
#[inline(always)]
fn lock_entry(lock: &LockKey) -> Option<*mut LockStats> {
    if let Some(stats) = LOCKS.get_ptr_mut(lock) {
        return Some(stats);
    }
    let zeros = NO_WAITS.get(0)?;
    // Another CPU may have made it just now, which is as good.
    let _ = LOCKS.insert(lock, zeros, u64::from(BPF_NOEXIST));
    LOCKS.get_ptr_mut(lock)
}

#[inline(always)]
pub fn add_to_edge(key: &EdgeKey, duration_ns: u64, now_ns: u64) {
    if let Some(stats) = EDGES.get_ptr_mut(key) {
        // SAFETY: a valid map value; the waiter, which is here, alone writes it.
        let stats = unsafe { &mut *stats };
        stats.wait_ns += duration_ns;
        stats.waits += 1;
        stats.last_ns = now_ns;
        if duration_ns > stats.max_ns {
            stats.max_ns = duration_ns;
        }
        return;
    }
    let first = EdgeStats {
        wait_ns: duration_ns,
        waits: 1,
        max_ns: duration_ns,
        last_ns: now_ns,
    };
    if EDGES.insert(key, first, u64::from(BPF_ANY)).is_err() {
        maps::count(|totals| totals.lost_edges += 1);
    }
}

/// Adds atomically: two CPUs may end waits for one lock at the same moment. The target claims no atomics to rustc, since it
/// lacks some; this one (`BPF_ATOMIC | BPF_ADD`) every kernel has.
#[inline(always)]
fn add(cell: *mut u64, value: u64) {
    // SAFETY: a valid, aligned cell of a map value.
    unsafe { asm!("lock *(u64 *)({0} + 0) += {1}", in(reg) cell, in(reg) value, options(nostack)) };
}

/// As [`add`], by one.
#[inline(always)]
fn increment(cell: *mut u32) {
    // SAFETY: a valid, aligned cell of a map value.
    unsafe { asm!("lock *(u32 *)({0} + 0) += {1}", in(reg) cell, in(reg) 1_u64, options(nostack)) };
}

/// The bits that a kind of expected value can have.
const EXPECTED_MASK: usize = EXPECTED.next_power_of_two() - 1;

// The byte indexes the counters.
const _: () = assert!(Expected::AllOnes as usize + 1 == EXPECTED);
