//! The process tree by name: which groups are the parents of which.
//!
//! A host has about as many pairs as groups. Somebody who starts programs under ever new names could make
//! more: beyond [`MOST`] the rarest are added up as [`OTHER`] below [`OTHER`], so that the sum stays the
//! number of processes that have a parent.

use std::collections::BTreeMap;

use foldhash::HashMap;

use super::{GroupAggregator, GroupKey, OTHER};
use crate::model::snapshot::Snapshot;
use crate::model::thread::Thread;

/// Pairs that are told apart.
pub const MOST: usize = 500;

/// A parent's group and a child's.
pub type Pair = (GroupKey, GroupKey);

/// How many processes of a group have a parent of another, or of the same: zombies included, as in
/// [`super::GroupTotals::processes`]. Who has no parent here (pid 1, those of whom it lies in another pid
/// namespace) is nobody's child.
pub fn pairs(snapshot: &Snapshot, groups: &GroupAggregator) -> BTreeMap<Pair, u64> {
    let leaders = || snapshot.threads.iter().filter(|thread| thread.is_leader());
    let by_pid: HashMap<u32, &Thread> = leaders().map(|thread| (thread.pid, thread)).collect();
    let mut faces: HashMap<u32, Option<GroupKey>> = HashMap::default();
    let mut face = |thread: &Thread| {
        let found = faces.entry(thread.pid);
        found.or_insert_with(|| groups.shown_group(thread)).clone()
    };
    let mut counts: BTreeMap<Pair, u64> = BTreeMap::new();
    for child in leaders() {
        let Some(parent) = by_pid.get(&child.ppid) else {
            continue;
        };
        if let (Some(above), Some(below)) = (face(parent), face(child)) {
            *counts.entry((above, below)).or_default() += 1;
        }
    }
    bounded(counts)
}

fn bounded(counts: BTreeMap<Pair, u64>) -> BTreeMap<Pair, u64> {
    if counts.len() <= MOST {
        return counts;
    }
    let mut order: Vec<(Pair, u64)> = counts.into_iter().collect();
    order.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
    let rest = order.split_off(MOST - 1);
    let mut kept: BTreeMap<Pair, u64> = order.into_iter().collect();
    let other = (GroupKey::named(OTHER), GroupKey::named(OTHER));
    *kept.entry(other).or_default() += rest.iter().map(|(_, count)| count).sum::<u64>();
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rarest_pairs_are_added_up() {
        let pair = |number: usize| (GroupKey::named("a"), GroupKey::named(&format!("b{number}")));
        let counts: BTreeMap<Pair, u64> = (0..2 * MOST)
            .map(|number| (pair(number), 1 + number as u64))
            .collect();
        let sum: u64 = counts.values().sum();
        let kept = bounded(counts);
        assert_eq!(kept.len(), MOST);
        assert_eq!(kept.values().sum::<u64>(), sum);
        assert_eq!(
            kept[&pair(2 * MOST - 1)],
            2 * MOST as u64,
            "the most frequent stays"
        );
        assert!(!kept.contains_key(&pair(0)));
    }
}
