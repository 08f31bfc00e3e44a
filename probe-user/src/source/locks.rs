//! The kernel's tables of locks, with the locks of several processes told: the kernel side keys them by address space and
//! address, which differ between processes; here the mapping says which file and byte an address means.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use probe_ebpf::lock::{FutexWait, LockKey};

use super::address_space::{Answer, Request};
use super::bpf::BpfSource;
use super::reader::questions;
use crate::kernel::snapshot::{Detail, Futexes, SnapshotError};
use crate::kernel::tables::TableError;
use crate::model::locks::{LockId, Look, Tables, is_pair, is_shared, key_of};
use crate::model::snapshot::Snapshot;

/// Snapshots for windows on locks read the memory of every futex that is waited at.
pub const DETAIL: Detail = Detail {
    histograms: false,
    open_ledgers: false,
    futexes: Futexes::All,
};

/// Between a look that shows a deadlock and the one that confirms it.
const SECOND_LOOK: Duration = Duration::from_millis(20);
/// Locks nobody has waited at for so long are forgotten …
const IDLE_NS: u64 = 600 * 1_000_000_000;
/// … much sooner when the tables run full.
const IDLE_WHEN_FULL_NS: u64 = 10 * 1_000_000_000;

impl BpfSource {
    /// Threads and tables.
    ///
    /// # Errors
    /// [`SnapshotError`] if either cannot be read.
    pub fn look(&mut self, detail: Detail) -> Result<(Snapshot, Tables), SnapshotError> {
        self.spaces.begin_look();
        self.look_on(detail)
    }

    /// The same, with what is left of the time of the look that it is part of.
    fn look_on(&mut self, detail: Detail) -> Result<(Snapshot, Tables), SnapshotError> {
        let mut snapshot = self.snapshot_of_look(detail)?;
        let tables = self.tables(&snapshot)?;
        self.count_losses(&mut snapshot)?;
        Ok((snapshot, tables))
    }

    /// Threads and tables; a second time if the first look shows something that only another one can confirm, as a deadlock.
    ///
    /// # Errors
    /// As [`Self::look`].
    pub fn look_until(
        &mut self,
        detail: Detail,
        unconfirmed: impl FnOnce(Look<'_>) -> bool,
    ) -> Result<(Snapshot, Tables), SnapshotError> {
        let (snapshot, tables) = self.look(detail)?;
        let look = Look {
            snapshot: &snapshot,
            tables: &tables,
        };
        if !unconfirmed(look) {
            return Ok((snapshot, tables));
        }
        std::thread::sleep(SECOND_LOOK);
        self.look_on(detail)
    }

    /// Keeps the tables from running full; returns what was taken out of them. While somebody gathers what is waited (`watched`),
    /// only what has to go goes.
    ///
    /// # Errors
    /// [`TableError`] if a table cannot be written.
    pub fn make_room(
        &mut self,
        snapshot: &Snapshot,
        tables: &Tables,
        watched: bool,
    ) -> Result<Tables, TableError> {
        let options = self.probe.options();
        let crowded = |entries: usize, most: u32| entries * 4 > most as usize * 3;
        let full =
            crowded(tables.locks.len(), options.max_locks) || crowded(tables.edges.len(), options.max_edges);
        if watched && !full {
            return Ok(Tables::default());
        }
        let deleted = over(snapshot, tables, if full { IDLE_WHEN_FULL_NS } else { IDLE_NS });
        self.probe.locks.delete(&keys(&deleted.locks))?;
        self.probe.edges.delete(&keys(&deleted.edges))?;
        Ok(deleted)
    }

    /// Reads the tables, and tells which of the snapshot's locks several processes share.
    ///
    /// # Errors
    /// [`TableError`] if a table cannot be read.
    fn tables(&mut self, snapshot: &Snapshot) -> Result<Tables, TableError> {
        let locks = self.probe.locks.read()?;
        let edges = self.probe.edges.read()?;
        let open = snapshot.threads.iter().filter_map(|thread| {
            let open = thread.futex.as_ref()?;
            Some((key_of(thread, open), (open.wait, thread.pid)))
        });
        let ended = locks.iter().map(|(key, stats)| (*key, (stats.sample, stats.pid)));
        let seen: HashMap<LockKey, (FutexWait, u32)> = ended.chain(open).collect();
        let mut aliases = self.look_up(snapshot, &seen);
        for (key, (wait, _)) in &seen {
            let first = LockKey {
                address: key.address.wrapping_sub(4),
                ..*key
            };
            if seen.get(&first).is_some_and(|(other, _)| is_pair(other, wait)) {
                let private = LockId::Private(first.space, first.address);
                aliases.insert(*key, aliases.get(&first).copied().unwrap_or(private));
            }
        }
        let of_seen = |(key, (wait, _)): (&LockKey, &(FutexWait, u32))| (key.space, wait.ip);
        let sites = seen.iter().map(of_seen);
        let sites = sites
            .filter_map(|key| Some((key, Arc::clone(self.spaces.sites.get(&key)?))))
            .collect();
        self.spaces.keep_callers(|key| seen.contains_key(key));
        let special = |(key, (wait, _)): (&LockKey, &(FutexWait, u32))| {
            let site = self.spaces.site_at(key, wait.ip)?;
            let plain = self.spaces.sites.get(&(key.space, wait.ip));
            let is_plain = plain.is_some_and(|plain| Arc::ptr_eq(plain, &site));
            (!is_plain).then_some((*key, site))
        };
        let callers = seen.iter().filter_map(special).collect();
        Ok(Tables {
            locks,
            edges,
            aliases,
            sites,
            callers,
        })
    }

    /// Looks up the code of waits that ended, and the files that futexes of several processes lie in; returns
    /// what those are called.
    fn look_up(
        &mut self,
        snapshot: &Snapshot,
        seen: &HashMap<LockKey, (FutexWait, u32)>,
    ) -> HashMap<LockKey, LockId> {
        let mut requests: HashMap<u32, Request> = HashMap::new();
        let spaces: HashSet<u64> = snapshot.threads.iter().map(|thread| thread.space).collect();
        for (key, (wait, pid)) in seen {
            if !spaces.contains(&key.space) {
                continue;
            }
            let known = snapshot.memory.places.contains_key(key) || self.places.contains_key(key);
            let site = (key.space, wait.ip);
            if is_shared(wait) && !known {
                requests.entry(*pid).or_default().places.insert(*key);
            }
            if self.spaces.asks_for_site(&site) {
                requests.entry(*pid).or_default().sites.insert(site);
            }
        }
        self.places.retain(|key, _| seen.contains_key(key));
        self.places.extend(&snapshot.memory.places);
        for answer in self.spaces.ask(questions(snapshot, requests)) {
            if let Answer::Place(key, place) = answer {
                self.places.insert(key, place);
            }
        }
        let shared = self.places.iter().filter(|(key, _)| seen.contains_key(key));
        shared
            .filter_map(|(key, place)| Some((*key, (*place)?)))
            .collect()
    }
}

fn keys<K: Copy, V>(entries: &[(K, V)]) -> Vec<K> {
    entries.iter().map(|(key, _)| *key).collect()
}

/// Locks of address spaces that are gone, and those nobody has waited at for `idle_ns`.
fn over(snapshot: &Snapshot, tables: &Tables, idle_ns: u64) -> Tables {
    let spaces: HashSet<u64> = snapshot.threads.iter().map(|thread| thread.space).collect();
    let is_over = |key: &LockKey, last_ns: u64| {
        // A process may have been born between the reading of the threads and that of the tables.
        let gone = !spaces.contains(&key.space) && last_ns < snapshot.began_ns;
        gone || snapshot.ended_ns.saturating_sub(last_ns) > idle_ns
    };
    let locks = tables.locks.iter().copied();
    let edges = tables.edges.iter().copied();
    let locks: Vec<_> = locks.filter(|(key, stats)| is_over(key, stats.last_ns)).collect();
    let names = locks
        .iter()
        .filter_map(|(key, _)| Some((*key, *tables.aliases.get(key)?)));
    Tables {
        aliases: names.collect(),
        sites: tables.sites.clone(),
        callers: tables.callers.clone(),
        edges: edges
            .filter(|(key, stats)| is_over(&key.lock, stats.last_ns))
            .collect(),
        locks,
    }
}

#[cfg(test)]
mod tests {
    use probe_ebpf::lock::Outcome;

    use super::*;
    use crate::model::locks::testing::World;

    /// Which of three locks is over: waited at by a process that lives, one that has ended, and one that was born after the
    /// threads were read; each lately, or long ago.
    fn deleted(lately_ns: u64) -> Vec<u64> {
        let mut world = World::default();
        world.runs(100, "lives");
        for (number, last_ns) in [(1, lately_ns), (2, lately_ns), (3, 1001)] {
            let address = number * 0x1000;
            world.waited("glibc", address, 1, 1, Outcome::WokenOne);
            world.last_stats().last_ns = last_ns;
            if number > 1 {
                world.tables.locks.last_mut().unwrap().0.space += number;
            }
        }
        let deleted = over(&world.snapshot(1000, 0), &world.tables, 500);
        deleted.locks.iter().map(|(key, _)| key.address).collect()
    }

    #[test]
    fn locks_of_the_newborn_stay() {
        assert_eq!(deleted(999), [0x2000], "whose process is gone");
        assert_eq!(deleted(400), [0x1000, 0x2000], "and those that are idle");
    }
}
