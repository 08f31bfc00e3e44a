//! Groups whose processes are all gone: when their series end, and what is kept of them.
//!
//! Their counters are not moved to another group: whoever sums up rates would see all that a group ever did once more, in a
//! single moment. They are set aside instead, and a group that comes back goes on where it was.

use std::collections::HashMap;
use std::time::Duration;

use super::books::{GroupKey, GroupTotals};

/// How long a group without processes is shown: long enough for every scraper to see its last deeds.
pub const LINGER: Duration = Duration::from_secs(600);
/// So many are kept aside (about 2 KB each); beyond them, the one that has been gone longest begins anew if it comes back.
const KEPT: usize = 500;

/// See the module.
#[derive(Default)]
pub struct Gone {
    /// What each shown group had done when it was last seen to do anything, and when that was.
    seen: HashMap<GroupKey, (u64, u64)>,
    aside: HashMap<GroupKey, (u64, GroupTotals)>,
}

impl Gone {
    /// Whether a group has had no process and done nothing for [`LINGER`].
    pub fn is_over(&mut self, key: &GroupKey, totals: &GroupTotals, now_ns: u64) -> bool {
        let deeds = deeds(totals);
        let is_alive = totals.threads.iter().any(|&count| count > 0);
        if let Some((before, since_ns)) = self.seen.get_mut(key) {
            if is_alive || *before != deeds {
                (*before, *since_ns) = (deeds, now_ns);
            }
            return u128::from(now_ns.saturating_sub(*since_ns)) >= LINGER.as_nanos();
        }
        self.seen.insert(key.clone(), (deeds, now_ns));
        false
    }

    /// Sets a group aside.
    pub fn keep(&mut self, key: GroupKey, totals: GroupTotals, now_ns: u64) {
        self.seen.remove(&key);
        if self.aside.len() >= KEPT {
            let oldest = self.aside.iter().min_by_key(|(_, (since_ns, _))| *since_ns);
            if let Some(oldest) = oldest.map(|(key, _)| key.clone()) {
                self.aside.remove(&oldest);
            }
        }
        self.aside.insert(key, (now_ns, totals));
    }

    /// What a group that comes back had done; nothing if it is new.
    pub fn bring_back(&mut self, key: &GroupKey) -> GroupTotals {
        self.aside
            .remove(key)
            .map(|(_, totals)| totals)
            .unwrap_or_default()
    }
}

/// Grows with whatever a group does: nobody runs or ends without a switch or an exit.
fn deeds(totals: &GroupTotals) -> u64 {
    let switches = totals.switches.voluntary + totals.switches.involuntary;
    switches + totals.forks + totals.exits.iter().sum::<u64>()
}
