//! Users whose files cost the others time: their processes come last when names are looked up.
//!
//! There are two seconds for all names of an answer, and a file that was made for it takes the namer's nine
//! tenths of one.

use std::collections::HashMap;
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How long it is held against a user.
const MEMORY: Duration = Duration::from_secs(600);
/// Users that are remembered; beyond that all are forgotten.
const REMEMBERED: usize = 1_024;

/// Remembers that a file of this user's process took the namer along.
pub fn suspect(user: u32) {
    let mut known = known();
    if known.len() >= REMEMBERED {
        known.clear();
    }
    known.insert(user, Instant::now());
}

/// Whether that was so lately.
pub fn is_suspect(user: u32) -> bool {
    known().get(&user).is_some_and(|since| since.elapsed() < MEMORY)
}

fn known() -> MutexGuard<'static, HashMap<u32, Instant>> {
    static KNOWN: LazyLock<Mutex<HashMap<u32, Instant>>> = LazyLock::new(Mutex::default);
    KNOWN.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_suspected_is_by_user() {
        assert!(!is_suspect(4_000_000_001));
        suspect(4_000_000_001);
        assert!(is_suspect(4_000_000_001) && !is_suspect(4_000_000_002));
    }
}
