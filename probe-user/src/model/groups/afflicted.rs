//! Groups that something is wrong with now, under their own names, whether or not they have a place in the
//! table: an alert has to name its cause from beginning to end.

use std::collections::BTreeMap;

use super::{GroupKey, OTHER};

/// So many groups with zombies, deadlocks or stalls are named; the rest is in [`OTHER`].
pub const AFFLICTED: usize = 50;

/// What is wrong with a group now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Afflictions {
    /// Deadlocks.
    pub deadlocks: u64,
    /// Threads in them.
    pub deadlocked_threads: u64,
    /// For how long the oldest of them has stood, nanoseconds.
    pub oldest_ns: u64,
    /// Threads in stalls.
    pub stalled_threads: u64,
}

impl Afflictions {
    /// Adds another's.
    pub fn add(&mut self, other: Self) {
        self.deadlocks += other.deadlocks;
        self.deadlocked_threads += other.deadlocked_threads;
        self.oldest_ns = self.oldest_ns.max(other.oldest_ns);
        self.stalled_threads += other.stalled_threads;
    }
}

/// Deadlocks and stalls by the group's own name.
#[derive(Default)]
pub struct Afflicted(BTreeMap<GroupKey, Afflictions>);

impl Afflicted {
    /// Takes what another look found. A group that had a name keeps it, so that no alert changes its labels
    /// while it lasts.
    pub fn replace(&mut self, now: BTreeMap<GroupKey, Afflictions>) {
        let before = std::mem::take(&mut self.0);
        let mut order: Vec<_> = now.into_iter().collect();
        order.sort_by_key(|(key, _)| !before.contains_key(key));
        for (position, (key, group)) in order.into_iter().enumerate() {
            let named = position < AFFLICTED;
            let key = if named { key } else { GroupKey::named(OTHER) };
            self.0.entry(key).or_default().add(group);
        }
    }

    /// At most [`AFFLICTED`], and [`OTHER`].
    pub fn iter(&self) -> impl Iterator<Item = (&GroupKey, &Afflictions)> {
        self.0.iter()
    }
}
