//! Distributions in log2 buckets of two kinds: ours end at 1.024 µs, 2.048 µs and so on; libbpf-tools' at 2 µs, 4 µs and so on.
//!
//! Theirs are the grid on which both are compared. A bound of theirs lies inside one of our buckets, near its upper end; what of
//! the bucket lies below it is not known and taken to be spread evenly on the logarithmic scale.

/// By how much each of our durations may be shorter or longer than theirs, in nanoseconds.
#[derive(Clone, Copy)]
pub struct Shift {
    pub shorter_ns: u64,
    pub longer_ns: u64,
}

impl Shift {
    /// Both are about the same.
    pub const NONE: Self = Self {
        shorter_ns: 0,
        longer_ns: 0,
    };
}

/// Counts by exclusive upper bound in nanoseconds, the bounds rising by a factor of two.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Distribution {
    buckets: Vec<(u64, u64)>,
}

impl Distribution {
    /// From buckets in any order; the same bound may come more than once.
    pub fn new(buckets: impl IntoIterator<Item = (u64, u64)>) -> Self {
        let mut sums = std::collections::BTreeMap::new();
        for (bound, count) in buckets {
            *sums.entry(bound).or_insert(0) += count;
        }
        Self {
            buckets: sums.into_iter().collect(),
        }
    }

    /// Both together.
    pub fn add(&mut self, other: &Self) {
        *self = Self::new(self.buckets.iter().chain(&other.buckets).copied());
    }

    pub fn count(&self) -> u64 {
        self.buckets.iter().map(|(_, count)| count).sum()
    }

    /// How many are shorter.
    fn below(&self, ns: f64) -> f64 {
        let part = |&(bound, count): &(u64, u64)| {
            let (low, high) = (bound as f64 / 2.0, bound as f64);
            count as f64 * ((ns / low).log2() / (high / low).log2()).clamp(0.0, 1.0)
        };
        self.buckets.iter().map(part).sum()
    }

    /// The largest difference of the two cumulative shares at a bound of `theirs` (Kolmogorov and Smirnov's), from 0 to 1, where each
    /// of ours may be shifted by so much. `None` if there is nothing to compare.
    ///
    /// Without that allowance a distribution that is narrow differs by nearly all of it as soon as a bound lies between the two.
    pub fn distance(&self, theirs: &Self, shift: Shift) -> Option<f64> {
        let (ours_all, theirs_all) = (self.count(), theirs.count());
        if ours_all == 0 || theirs_all == 0 {
            return None;
        }
        let ours = |ns: u64| self.below(ns as f64) / ours_all as f64;
        let mut seen = 0;
        let mut largest: f64 = 0.0;
        for &(bound, count) in &theirs.buckets {
            seen += count;
            let theirs = seen as f64 / theirs_all as f64;
            let shorter = ours(bound.saturating_sub(shift.shorter_ns)) - theirs;
            let longer = theirs - ours(bound + shift.longer_ns);
            largest = largest.max(shorter).max(longer);
        }
        Some(largest)
    }

    /// The duration that a share of all is below, in microseconds.
    pub fn quantile_us(&self, share: f64) -> Option<f64> {
        let wanted = self.count() as f64 * share;
        let mut seen = 0.0;
        for &(bound, count) in self.buckets.iter().filter(|(_, count)| *count > 0) {
            let count = count as f64;
            if seen + count >= wanted {
                let part = (wanted - seen) / count;
                return Some(bound as f64 / 2.0 * part.exp2() / 1000.0);
            }
            seen += count;
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_distribution_on_both_grids_is_near() {
        // Even on the logarithmic scale: equal counts in every bucket.
        let ours = Distribution::new((0..12).map(|i| (1024 << i, 1000)));
        let theirs = Distribution::new((0..12).map(|i| (1000 << i, 1000)));
        let distance = ours.distance(&theirs, Shift::NONE).unwrap();
        assert!(distance < 0.01, "{distance}");
        let far = Distribution::new((4..16).map(|i| (1000 << i, 1000)));
        assert!(ours.distance(&far, Shift::NONE).unwrap() > 0.3);
        assert_eq!(ours.distance(&Distribution::default(), Shift::NONE), None);
    }

    #[test]
    fn ours_may_be_shifted_by_so_much_and_no_more() {
        let shift = |shorter_ns, longer_ns| Shift {
            shorter_ns,
            longer_ns,
        };
        // All of some 4.3 µs, all of some 3.8 µs.
        let longer = Distribution::new([(8192, 100)]);
        let shorter = Distribution::new([(4000, 100)]);
        assert!(longer.distance(&shorter, Shift::NONE).unwrap() > 0.9);
        assert!(longer.distance(&shorter, shift(0, 5000)).unwrap() < 0.01);
        assert!(longer.distance(&shorter, shift(5000, 0)).unwrap() > 0.9);
        // None of theirs is below 4 µs, all of ours are.
        let theirs = Distribution::new([(4000, 0), (8000, 100)]);
        assert!(shorter.distance(&theirs, shift(0, 20_000)).unwrap() > 0.9);
        assert!(shorter.distance(&theirs, shift(3000, 0)).unwrap() < 0.01);
    }

    #[test]
    fn quantiles_lie_in_their_bucket() {
        let all = Distribution::new([(2000, 10), (4000, 10), (2000, 10)]);
        assert_eq!(all.count(), 30);
        let median = all.quantile_us(0.5).unwrap();
        assert!((1.0..2.0).contains(&median), "{median}");
        assert!((2.0..4.0).contains(&all.quantile_us(0.9).unwrap()));
        assert_eq!(Distribution::default().quantile_us(0.5), None);
    }
}
