//! The clocks that kernel records are stamped with.
//!
//! Ledgers use `bpf_ktime_get_ns()`, which is CLOCK_MONOTONIC. `start_boottime` is CLOCK_BOOTTIME. `exec_start` and
//! `last_arrival` are the scheduler clock, which no system call reads: its distance to CLOCK_MONOTONIC is measured on
//! our own thread, right after it was switched in.

use std::fs;
use std::sync::OnceLock;
use std::time::Duration;

use super::load::Probe;
use super::snapshot::{Detail, SnapshotError};

/// CLOCK_MONOTONIC of the host in nanoseconds.
pub fn monotonic_ns() -> u64 {
    read(libc::CLOCK_MONOTONIC).wrapping_add_signed(ahead().monotonic_ns.wrapping_neg())
}

/// CLOCK_BOOTTIME of the host in nanoseconds.
pub fn boottime_ns() -> u64 {
    read(libc::CLOCK_BOOTTIME).wrapping_add_signed(ahead().boottime_ns.wrapping_neg())
}

/// How far our clocks are ahead of the host's, which is what the kernel stamps its records with: some containers have a
/// time namespace of their own (see `time_namespaces(7)`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Ahead {
    monotonic_ns: i64,
    boottime_ns: i64,
}

/// Read once: a process cannot enter another time namespace while it has more than one thread.
fn ahead() -> Ahead {
    static AHEAD: OnceLock<Ahead> = OnceLock::new();
    *AHEAD.get_or_init(|| Ahead::parse(&fs::read_to_string("/proc/self/timens_offsets").unwrap_or_default()))
}

impl Ahead {
    /// Lines of clock, seconds and nanoseconds. Nothing, without such a file or in the host's own namespace.
    fn parse(text: &str) -> Self {
        let of = |clock: &str| {
            let line = text.lines().map(str::split_ascii_whitespace);
            let mut fields = line.filter_map(|mut fields| (fields.next() == Some(clock)).then_some(fields));
            let mut numbers = fields.next()?.map_while(|field| field.parse::<i64>().ok());
            let seconds = numbers.next()?.checked_mul(1_000_000_000)?;
            seconds.checked_add(numbers.next()?)
        };
        Self {
            monotonic_ns: of("monotonic").unwrap_or(0),
            boottime_ns: of("boottime").unwrap_or(0),
        }
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offsets_of_a_time_namespace() {
        let offsets = Ahead::parse("monotonic    2000000         0\nboottime          -3 500000000\n");
        let expected = Ahead {
            monotonic_ns: 2_000_000_000_000_000,
            boottime_ns: -2_500_000_000,
        };
        assert_eq!(offsets, expected);
        for text in [
            "",
            "monotonic\n",
            "monotonic x 0\n",
            "boottime 9223372036854775807 0\n",
            "\n\n",
        ] {
            assert_eq!(Ahead::parse(text), Ahead::default(), "{text:?}");
        }
    }

    #[test]
    fn the_hosts_clocks_are_not_before_its_boot() {
        assert!(monotonic_ns() > 0 && monotonic_ns() <= boottime_ns());
    }
}
