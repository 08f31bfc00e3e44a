//! Numbers that look random and are the same in every run with the same seed, which is printed.

use super::note;

/// A generator (`SplitMix64`).
pub struct Random(u64);

impl Random {
    /// Begins with `PROCPROBE_SEED`, or with the time.
    pub fn new() -> Self {
        let given = std::env::var("PROCPROBE_SEED")
            .ok()
            .and_then(|seed| seed.parse().ok());
        let seed = given.unwrap_or_else(|| {
            let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
            now.map_or(0, |since| since.as_secs() ^ u64::from(since.subsec_nanos()))
        });
        note(&format!("PROCPROBE_SEED={seed}"));
        Self(seed)
    }

    /// The next number.
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// One below `limit`.
    pub fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit.max(1)
    }

    /// One of these.
    pub fn one_of<'a>(&mut self, all: &[&'a str]) -> &'a str {
        let index = usize::try_from(self.below(all.len() as u64)).expect("an index");
        all[index]
    }
}
