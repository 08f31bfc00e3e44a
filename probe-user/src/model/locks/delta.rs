//! What the tables gained since an earlier snapshot.

use std::collections::HashMap;

use probe_ebpf::histogram::upper_bound_ns;
use probe_ebpf::lock::{EdgeKey, EdgeStats, LockKey, LockStats};

use super::protocol::Protocol;
use super::{LockId, Look, Tables, key_of};

/// An earlier look, as far as it is needed to tell growth.
#[derive(Default)]
pub struct Baseline {
    /// CLOCK_MONOTONIC of the look.
    pub at_ns: u64,
    locks: HashMap<LockKey, LockStats>,
    edges: HashMap<EdgeKey, EdgeStats>,
    /// Nanoseconds of the waits that were open then, as far as they will be booked.
    pub open: HashMap<LockKey, u64>,
    /// What entries had gained that are in the tables no more.
    gone: Tables,
    /// What locks were whose memory was read then.
    pub protocols: HashMap<LockId, Protocol>,
}

impl Baseline {
    /// Remembers a look.
    pub fn new(look: Look<'_>) -> Self {
        let mut open = HashMap::new();
        for thread in &look.snapshot.threads {
            if let Some(wait) = &thread.futex {
                *open.entry(key_of(thread, wait)).or_default() += wait.counted_ns;
            }
        }
        Self {
            at_ns: look.snapshot.began_ns,
            locks: look.tables.locks.iter().copied().collect(),
            edges: look.tables.edges.iter().copied().collect(),
            open,
            gone: Tables::default(),
            protocols: HashMap::new(),
        }
    }

    /// Remembers what the locks were whose memory was read.
    #[must_use]
    pub fn knowing(self, protocols: HashMap<LockId, Protocol>) -> Self {
        Self { protocols, ..self }
    }

    /// Takes entries into account that were deleted from the tables: what they had gained is kept, and what
    /// comes again under their keys counts from zero.
    pub fn forget(&mut self, deleted: &Tables) {
        let gained = self.grown(deleted);
        self.gone.locks.extend(gained.locks);
        self.gone.edges.extend(gained.edges);
        self.gone.aliases.extend(gained.aliases);
        self.gone.sites.extend(gained.sites);
        self.gone.callers.extend(gained.callers);
        for (key, _) in &deleted.locks {
            self.locks.remove(key);
        }
        for (key, _) in &deleted.edges {
            self.edges.remove(key);
        }
    }

    /// How many entries are kept that are in the tables no more.
    pub fn kept(&self) -> usize {
        self.gone.locks.len() + self.gone.edges.len()
    }

    /// What was gained since: entries without growth are left out. One that was deleted and made anew is
    /// there more than once, the oldest first.
    pub fn gained(&self, tables: &Tables) -> Tables {
        let mut all = self.gone.clone();
        let grown = self.grown(tables);
        all.locks.extend(grown.locks);
        all.edges.extend(grown.edges);
        all.aliases.extend(grown.aliases);
        all.sites.extend(grown.sites);
        all.callers.extend(grown.callers);
        all
    }

    /// What is left of tables after what they held at the mark is taken off. An entry that was made anew
    /// counts from zero.
    fn grown(&self, tables: &Tables) -> Tables {
        let locks = tables.locks.iter().filter_map(|(key, now)| {
            let before = self.locks.get(key).filter(|before| goes_on(now, before));
            let gained = before.map_or(*now, |before| since(now, before));
            (gained.histogram.iter().any(|&count| count > 0)).then_some((*key, gained))
        });
        let edges = tables.edges.iter().filter_map(|(key, now)| {
            let before = self.edges.get(key).filter(|before| before.waits <= now.waits);
            let before = before.copied().unwrap_or_default();
            let gained = EdgeStats {
                wait_ns: now.wait_ns.saturating_sub(before.wait_ns),
                waits: now.waits - before.waits,
                ..*now
            };
            (gained.waits > 0).then_some((*key, gained))
        });
        Tables {
            locks: locks.collect(),
            edges: edges.collect(),
            aliases: tables.aliases.clone(),
            sites: tables.sites.clone(),
            callers: tables.callers.clone(),
        }
    }

    /// Nanoseconds of each lock's waits that lay before the mark, and are booked when they end.
    pub fn open_by_lock(&self, tables: &Tables) -> HashMap<LockId, u64> {
        let mut all: HashMap<LockId, u64> = HashMap::new();
        for (key, ns) in &self.open {
            *all.entry(tables.id(*key)).or_default() += ns;
        }
        all
    }
}

/// Whether an entry is the one there was, and not one made anew under its key: nothing of it went down. A
/// count that wraps goes up by little.
fn goes_on(now: &LockStats, before: &LockStats) -> bool {
    let mut counts = now.histogram.iter().zip(before.histogram);
    before.wait_ns <= now.wait_ns && counts.all(|(now, before)| now.wrapping_sub(before) <= u32::MAX / 2)
}

/// What a lock gained. Counts are 32 bits wide and may wrap.
fn since(now: &LockStats, before: &LockStats) -> LockStats {
    let mut gained = *now;
    gained.wait_ns = now.wait_ns - before.wait_ns;
    for (count, before) in gained.histogram.iter_mut().zip(before.histogram) {
        *count = count.wrapping_sub(before);
    }
    for (count, before) in gained.outcomes.iter_mut().zip(before.outcomes) {
        *count = count.wrapping_sub(before);
    }
    for (count, before) in gained.expected.iter_mut().zip(before.expected) {
        *count = count.wrapping_sub(before);
    }
    gained.timed = now.timed.wrapping_sub(before.timed);
    if now.max_ns == before.max_ns {
        // The longest may have been before: bounded by the longest bucket that gained.
        let top = gained.histogram.iter().rposition(|&count| count > 0);
        let bound = top.and_then(upper_bound_ns).unwrap_or(now.max_ns);
        gained.max_ns = now.max_ns.min(bound);
    }
    gained
}

#[cfg(test)]
mod tests {
    use probe_ebpf::lock::Outcome;

    use super::*;
    use crate::model::locks::testing::{World, look};

    const NS: u64 = 1_000_000;

    fn waited(count: u32, each_ns: u64) -> World {
        let mut world = World::default();
        world.waited("glibc", 0x1000, count, each_ns, Outcome::WokenOne);
        world
    }

    fn gained(mark: &Baseline, world: &World) -> u64 {
        let gained = mark.gained(&world.tables).locks;
        let counts = gained.iter().flat_map(|(_, stats)| stats.histogram);
        counts.map(u64::from).sum()
    }

    #[test]
    fn what_was_made_anew_counts_from_zero_whatever_it_waited() {
        let before = waited(5, NS);
        let mark = Baseline::new(look(&before.snapshot(1, 0), &before.tables));
        assert_eq!(gained(&mark, &waited(8, NS)), 3, "the same entry");
        // KindDelta longer than the one before it, but never as long as that one did each time.
        assert_eq!(gained(&mark, &waited(2, 100 * NS)), 2);
        assert_eq!(gained(&mark, &waited(2, NS / 100)), 2);
    }

    #[test]
    fn what_was_deleted_is_kept_and_counts_from_zero_when_it_comes_again() {
        let world = waited(5, NS);
        let mut mark = Baseline::new(look(&world.snapshot(1, 0), &world.tables));
        mark.forget(&waited(7, NS).tables);
        assert_eq!(mark.kept(), 1);
        assert_eq!(
            gained(&mark, &World::default()),
            2,
            "what it had gained until then"
        );
        assert_eq!(gained(&mark, &waited(6, NS)), 2 + 6, "even if it looks the same");
        mark.forget(&waited(6, NS).tables);
        assert_eq!(gained(&mark, &waited(1, NS)), 2 + 6 + 1);
    }

    #[test]
    fn what_gained_nothing_until_it_was_deleted_is_not_kept() {
        let world = waited(5, NS);
        let mut mark = Baseline::new(look(&world.snapshot(1, 0), &world.tables));
        mark.forget(&world.tables);
        assert_eq!(mark.kept(), 0);
        assert_eq!(gained(&mark, &waited(5, NS)), 5);
    }

    #[test]
    fn a_lock_that_was_deleted_goes_by_the_name_it_had() {
        let mut world = waited(5, NS);
        let mut mark = Baseline::new(look(&World::default().snapshot(1, 0), &Tables::default()));
        let key = world.tables.locks[0].0;
        let first = LockId::Private(key.space, key.address - 4);
        world.tables.aliases.insert(key, first);
        mark.forget(&world.tables);
        assert_eq!(mark.gained(&Tables::default()).id(key), first);
    }

    #[test]
    fn counts_may_wrap() {
        let mut before = waited(1, NS);
        let bucket = before.last_stats().histogram.iter().position(|&count| count > 0);
        before.last_stats().histogram[bucket.unwrap()] = u32::MAX;
        let mark = Baseline::new(look(&before.snapshot(1, 0), &before.tables));
        assert_eq!(gained(&mark, &waited(4, NS)), 5);
    }
}
