//! How much a group does or suffers, of late: what a place in the table is given for.

use std::time::Duration;

use probe_ebpf::state::State;

use crate::model::tracker::Growth;

/// After this time without anything new, half of a weight is left.
const HALF_LIFE: Duration = Duration::from_secs(60);
/// A thread that exists weighs as much as this share of a second on a CPU does, each second.
const PER_THREAD: f64 = 1e-3;

/// A sum of seconds that decays.
#[derive(Clone, Copy, Debug, Default)]
pub struct Weight {
    seconds: f64,
    at_ns: u64,
}

impl Weight {
    /// The sum as of now.
    pub fn at(self, now_ns: u64) -> f64 {
        let since = Duration::from_nanos(now_ns.saturating_sub(self.at_ns));
        self.seconds * (-since.div_duration_f64(HALF_LIFE)).exp2()
    }

    /// Adds seconds as of now.
    pub fn add(&mut self, seconds: f64, now_ns: u64) {
        *self = Self {
            seconds: self.at(now_ns) + seconds,
            at_ns: now_ns.max(self.at_ns),
        };
    }
}

/// Seconds of threads that ran, wanted to, or were stuck.
pub fn of_growth(growth: &Growth) -> f64 {
    let states = [State::Running, State::Runnable, State::Uninterruptible];
    let ns: u64 = states
        .iter()
        .map(|state| growth.usage.time_ns[state.index()])
        .sum();
    Duration::from_nanos(ns).as_secs_f64()
}

/// Seconds that so many threads count for by being there so long.
pub fn of_threads(threads: u64, time: Duration) -> f64 {
    threads as f64 * PER_THREAD * time.as_secs_f64()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_done_counts_half_after_a_minute() {
        let mut weight = Weight::default();
        weight.add(8.0, 1_000);
        let minute = u64::try_from(HALF_LIFE.as_nanos()).unwrap();
        assert!((weight.at(1_000 + minute) - 4.0).abs() < 1e-9);
        weight.add(1.0, 1_000 + 2 * minute);
        assert!((weight.at(1_000 + 2 * minute) - 3.0).abs() < 1e-9);
    }

    #[test]
    fn an_older_reading_takes_nothing_away() {
        let mut weight = Weight::default();
        weight.add(1.0, 1_000_000);
        weight.add(1.0, 1_000);
        assert!((weight.at(1_000_000) - 2.0).abs() < 1e-9);
    }
}
