//! Groups that have no series any more, and what is kept of them.
//!
//! Their counters are not moved to another group: a sum of rates would then show all that a group ever did
//! once more, in a single moment. They are parked instead, and a group that returns continues from where it
//! was.

use foldhash::HashMap;

use super::{GroupKey, GroupTotals};

/// At most this many retired groups are kept (about 2 KB each); beyond that the oldest is dropped and
/// restarts from zero if it returns.
const KEPT: usize = 500;

/// See the module.
#[derive(Default)]
pub struct Retired {
    parked: HashMap<GroupKey, (u64, GroupTotals)>,
}

impl Retired {
    /// Parks the totals of a group.
    pub fn park(&mut self, key: GroupKey, totals: GroupTotals, now_ns: u64) {
        if self.parked.len() >= KEPT {
            let oldest = self.parked.iter().min_by_key(|(_, (since_ns, _))| *since_ns);
            if let Some(oldest) = oldest.map(|(key, _)| key.clone()) {
                self.parked.remove(&oldest);
            }
        }
        self.parked.insert(key, (now_ns, totals));
    }

    /// The totals of a group that returns; zero if it is new.
    pub fn restore(&mut self, key: &GroupKey) -> GroupTotals {
        self.parked
            .remove(key)
            .map(|(_, totals)| totals)
            .unwrap_or_default()
    }
}
