//! The clocks that kernel records are stamped with.
//!
//! Ledgers use `bpf_ktime_get_ns()`, which is CLOCK_MONOTONIC. `start_boottime` is CLOCK_BOOTTIME. `exec_start` and
//! `last_arrival` are the scheduler clock, which no system call reads: its distance to CLOCK_MONOTONIC is measured on
//! our own thread, right after it was switched in.

use std::time::Duration;

use super::load::Probe;
use super::snapshot::{Detail, SnapshotError};

/// CLOCK_MONOTONIC in nanoseconds.
pub fn monotonic_ns() -> u64 {
    read(libc::CLOCK_MONOTONIC)
}

/// CLOCK_BOOTTIME in nanoseconds.
pub fn boottime_ns() -> u64 {
    read(libc::CLOCK_BOOTTIME)
}

fn read(clock: libc::clockid_t) -> u64 {
    let mut now = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: `now` is valid for writing. The call cannot fail for these clocks.
    unsafe { libc::clock_gettime(clock, &raw mut now) };
    now.tv_sec.unsigned_abs() * 1_000_000_000 + now.tv_nsec.unsigned_abs()
}

/// How often the distance of the clocks is measured; the smallest is the one with the least delay in it.
const TRIALS: usize = 3;

/// CLOCK_MONOTONIC minus the scheduler clock, wrapping. `None` without `CONFIG_SCHED_INFO`.
///
/// This thread sleeps a moment, reads CLOCK_MONOTONIC the instant it is back, and then asks the iterator when it got
/// the CPU.
///
/// # Errors
/// [`SnapshotError`] if the iterator cannot be read.
pub fn measure_offset(probe: &mut Probe) -> Result<Option<u64>, SnapshotError> {
    // SAFETY: no arguments, no failure.
    let own_tid = unsafe { libc::gettid() }.unsigned_abs();
    let mut smallest: Option<u64> = None;
    for _ in 0..TRIALS {
        std::thread::sleep(Duration::from_micros(200));
        let back_ns = monotonic_ns();
        let mut arrival_ns = 0;
        probe.read_snapshot(Detail::default(), |task| {
            if task.record.facts.tid == own_tid {
                arrival_ns = task.record.last_arrival_ns;
            }
        })?;
        if arrival_ns != 0 {
            let offset = back_ns.wrapping_sub(arrival_ns);
            smallest = Some(smallest.map_or(offset, |smallest| smallest.min(offset)));
        }
    }
    Ok(smallest)
}
