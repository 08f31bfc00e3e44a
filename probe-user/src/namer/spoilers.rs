//! Files that a namer died of, or took too long over: they are not given to the next for a while, longer each
//! time.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use super::protocol::FileKey;

/// Files that are kept away at most; beyond that all may be tried again.
const MOST: usize = 1_024;
/// How long a file is kept away the first time …
const FIRST: Duration = Duration::from_secs(5);
/// … and at most.
const LONGEST: Duration = Duration::from_secs(600);

/// See the module.
#[derive(Default)]
pub struct Spoilers(HashMap<FileKey, Spoiler>);

#[derive(Clone, Copy)]
struct Spoiler {
    times: u32,
    until: Instant,
}

impl Spoilers {
    /// Whether a file is kept away at this time.
    pub fn has(&self, key: &FileKey, now: Instant) -> bool {
        self.0.get(key).is_some_and(|spoiler| now < spoiler.until)
    }

    /// Keeps a file away.
    pub fn add(&mut self, key: FileKey, now: Instant) {
        if self.0.len() >= MOST {
            self.0.clear();
        }
        let spoiler = self.0.entry(key).or_insert(Spoiler { times: 0, until: now });
        let rest = FIRST * 4_u32.pow(spoiler.times);
        spoiler.until = now + rest.min(LONGEST);
        spoiler.times = (spoiler.times + 1).min(8);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_kept_away_longer_each_time() {
        let key = FileKey {
            device: 1,
            inode: 2,
            size: 3,
            modified: (4, 5),
            changed: (6, 7),
        };
        let mut spoilers = Spoilers::default();
        let mut now = Instant::now();
        assert!(!spoilers.has(&key, now));
        for rest in [5, 20, 80, 320, 600, 600] {
            spoilers.add(key, now);
            assert!(spoilers.has(&key, now + Duration::from_secs(rest - 1)));
            now += Duration::from_secs(rest);
            assert!(!spoilers.has(&key, now), "{rest}");
        }
        spoilers.add(key, now);
        let other = FileKey {
            changed: (8, 0),
            ..key
        };
        assert!(!spoilers.has(&other, now), "it was written to");
    }
}
