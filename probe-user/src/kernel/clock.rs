//! The clocks that kernel records are stamped with.
//!
//! Ledgers use `bpf_ktime_get_ns()`, which is CLOCK_MONOTONIC. `start_boottime` is CLOCK_BOOTTIME. `exec_start` and
//! `last_arrival` are the scheduler clock, which no system call reads: its distance to CLOCK_MONOTONIC is measured on
//! our own thread, right after it was switched in.

use std::time::Duration;

/// CLOCK_MONOTONIC in nanoseconds.
pub fn monotonic_ns() -> u64 {
    read(libc::CLOCK_MONOTONIC)
}

/// CLOCK_BOOTTIME in nanoseconds.
pub fn boottime_ns() -> u64 {
    read(libc::CLOCK_BOOTTIME)
}

fn read(clock: libc::clockid_t) -> u64 {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `now` is valid for writing. The call cannot fail for these clocks.
    unsafe { libc::clock_gettime(clock, &raw mut now) };
    now.tv_sec.unsigned_abs() * 1_000_000_000 + now.tv_nsec.unsigned_abs()
}

/// Sleeps briefly, so that this thread has just been switched in; returns CLOCK_MONOTONIC right after.
pub fn switch_in_ns() -> u64 {
    std::thread::sleep(Duration::from_micros(200));
    monotonic_ns()
}

/// This thread's tid.
pub fn own_tid() -> u32 {
    // SAFETY: no arguments, no failure.
    unsafe { libc::gettid() }.unsigned_abs()
}
