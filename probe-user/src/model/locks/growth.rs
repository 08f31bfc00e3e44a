//! What the tables gained since an earlier look.

use std::collections::HashMap;

use probe_ebpf::histogram::upper_bound_ns;
use probe_ebpf::lock::{EdgeKey, EdgeStats, LockKey, LockStats};

use super::{LockId, Look, Tables, key_of};

/// An earlier look, as far as it is needed to tell growth.
#[derive(Default)]
pub struct Mark {
    /// CLOCK_MONOTONIC of the look.
    pub at_ns: u64,
    locks: HashMap<LockKey, LockStats>,
    edges: HashMap<EdgeKey, EdgeStats>,
    /// Nanoseconds of the waits that were open then, as far as they will be booked.
    pub open: HashMap<LockKey, u64>,
}

impl Mark {
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
        }
    }

    /// What the tables gained since: entries without growth are left out. An entry that was deleted and made anew counts
    /// from zero.
    pub fn gained(&self, tables: &Tables) -> Tables {
        let locks = tables.locks.iter().filter_map(|(key, now)| {
            let before = self.locks.get(key).filter(|before| before.wait_ns <= now.wait_ns);
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
        }
    }

    /// Nanoseconds of a lock's waits that lay before the mark, and are booked when they end.
    pub fn open_at(&self, tables: &Tables, id: LockId) -> u64 {
        let before = self.open.iter().filter(|(key, _)| tables.id(**key) == id);
        before.map(|(_, ns)| ns).sum()
    }
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
    for (count, before) in gained.layouts.iter_mut().zip(before.layouts) {
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
