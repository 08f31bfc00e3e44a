//! Makes of evidence what reports say: locks, their holders, edges, patterns.

use std::collections::{BTreeMap, BTreeSet};

use probe_ebpf::lock::{BY_OWNER, EdgeKey, EdgeStats};

use super::aggregator::EdgeDelta;
use super::classification::{Classification, classify_single_wait};
use super::evidence::Evidence;
use super::protocol::python;
use super::report::{Doing, Edge, Holder, Lock, Pattern, WaitsFor};
use super::thread_index::{NameCache, Owner, ThreadIndex};
use super::{Grade, LockId, Look, Party, Tables, is_shared, key_of};
use crate::model::thread::{Comm, Condition, OpenWait, Thread};

/// See the module.
pub struct ReportBuilder<'a, 'p> {
    /// Threads that live.
    pub index: &'a ThreadIndex<'p>,
    /// Names of those that have ended.
    pub names: &'a NameCache,
    /// What each lock is.
    pub classes: &'a BTreeMap<LockId, Classification>,
    /// Which locks there are.
    pub tables: &'a Tables,
    /// Length of the window, nanoseconds.
    pub window_ns: u64,
    /// Processes that waited at locks that several share.
    pub sharers: BTreeMap<LockId, BTreeSet<u32>>,
}

/// Processes that waited at each of the locks that several share.
pub fn sharers(tables: &Tables) -> BTreeMap<LockId, BTreeSet<u32>> {
    let mut all: BTreeMap<LockId, BTreeSet<u32>> = BTreeMap::new();
    for (key, stats) in &tables.locks {
        if let Some(&lock) = tables.aliases.get(key) {
            all.entry(lock).or_default().insert(stats.pid);
        }
    }
    all
}

impl ReportBuilder<'_, '_> {
    fn party(&self, tid: u32) -> Party {
        self.index
            .get(tid)
            .map(Party::of)
            .or_else(|| self.names.get(tid))
            .unwrap_or(Party {
                pid: 0,
                tid,
                comm: Comm::default(),
            })
    }

    /// The holder an edge names; `None` if it names none, or if memory of this protocol cannot name one.
    fn holder_of(&self, key: &EdgeKey, lock: LockId) -> Option<(Party, Grade)> {
        let tid = key.holder & !BY_OWNER;
        if tid == 0 {
            return None;
        }
        if key.holder & BY_OWNER == 0 {
            return Some((self.party(tid), Grade::Waker));
        }
        let has_owner = self.classes.get(&lock).is_some_and(|class| class.has_owner);
        if !has_owner {
            return None;
        }
        if let LockId::Shared { .. } = lock {
            return Some((self.owner_of_shared(lock, tid)?, Grade::Owner));
        }
        let party = match self.index.get(key.waiter) {
            // Of which wait that is, and when that began, nobody knows any more.
            Some(waiter) => match self.index.owner(waiter, key.lock, tid, u64::MAX) {
                Owner::Live(owner) => Party::of(owner),
                Owner::Parent(_) => return None,
                // The holder of then may have ended; its tid is the host's, unless the waiter has a namespace
                // of its own.
                Owner::Exited(_) | Owner::Ambiguous => {
                    self.ended(waiter.pid, tid, waiter.ns_tids.is_empty())?
                }
            },
            None => self.ended(self.names.get(key.waiter)?.pid, tid, true)?,
        };
        Some((party, Grade::Owner))
    }

    /// The owner of a lock that several processes share, as memory named it when a wait began: a thread of
    /// one of those that waited there. The tid is one of its own pid namespace.
    fn owner_of_shared(&self, lock: LockId, tid: u32) -> Option<Party> {
        let pids = self.sharers.get(&lock)?;
        let mut living = self
            .index
            .named(tid)
            .iter()
            .filter(|thread| pids.contains(&thread.pid));
        match (living.next(), living.next()) {
            (Some(owner), None) => Some(Party::of(owner)),
            (Some(_), Some(_)) => None,
            (None, _) => self.names.get(tid).filter(|party| pids.contains(&party.pid)),
        }
    }

    /// A thread of a process that has ended since.
    fn ended(&self, pid: u32, tid: u32, same_namespace: bool) -> Option<Party> {
        let party = self.names.get(tid)?;
        (same_namespace && party.pid == pid).then_some(party)
    }

    /// Who waited for whom; open waits count as well.
    pub fn edges(&self, look: Look<'_>, gained: &Tables, contended: &BTreeSet<LockId>) -> Vec<Edge> {
        let mut all: BTreeMap<(Party, Party, LockId, Grade), (u64, u64)> = BTreeMap::new();
        for (key, stats) in &gained.edges {
            let lock = gained.id(key.lock);
            if !contended.contains(&lock) {
                continue;
            }
            let Some((holder, grade)) = self.holder_of(key, lock) else {
                continue;
            };
            let entry = all
                .entry((self.party(key.waiter), holder, lock, grade))
                .or_default();
            entry.0 += stats.waits;
            entry.1 += stats.wait_ns.min(self.window_ns);
        }
        for (thread, open, lock) in look.open_waits() {
            if !contended.contains(&lock) {
                continue;
            }
            let Some(holder) = self.owner_of(thread, open) else {
                continue;
            };
            let key = (Party::of(thread), holder.party, lock, Grade::Owner);
            let entry = all.entry(key).or_default();
            entry.0 += 1;
            entry.1 += open.counted_ns.min(self.window_ns);
        }
        let mut edges: Vec<Edge> = all
            .into_iter()
            .map(|((waiter, holder, lock, grade), (waits, wait_ns))| Edge {
                waiter,
                holder,
                lock,
                waits,
                wait_ns,
                grade,
            })
            .collect();
        edges.sort_by_key(|edge| (std::cmp::Reverse(edge.wait_ns), edge.waiter, edge.holder));
        edges
    }

    /// Who waited for whom at contended locks, waits that ended alone, those for nobody who is known as well.
    pub fn ended_waits(&self, gained: &Tables, evidence: &BTreeMap<LockId, Evidence<'_>>) -> Vec<EdgeDelta> {
        let edge = |(key, stats): &(EdgeKey, EdgeStats)| {
            let lock = gained.id(key.lock);
            let class = self.classes.get(&lock).filter(|class| class.contended)?;
            let known = evidence.get(&lock)?;
            Some(EdgeDelta {
                waiter: self.party(key.waiter),
                holder: self.holder_of(key, lock),
                lock,
                place: (known.pid, known.address),
                kind: class.kind,
                wait_ns: stats.wait_ns,
            })
        };
        gained.edges.iter().filter_map(edge).collect()
    }

    /// The owner of the lock of an open wait, as memory names it now.
    fn owner_of(&self, thread: &Thread, open: &OpenWait) -> Option<Holder> {
        let target = self.index.target(thread, open)?;
        match target.owner {
            Owner::Live(owner) if !target.joins => Some(self.holding(Party::of(owner), Grade::Owner)),
            Owner::Exited(tid) => tid.map(|tid| Holder {
                party: self.names.get(tid).unwrap_or(Party {
                    pid: 0,
                    tid,
                    comm: Comm::default(),
                }),
                grade: Grade::Owner,
                doing: Some(Doing {
                    condition: Condition::Dead,
                    frozen: false,
                    ns: None,
                    blocked_on: None,
                    waits_for: None,
                }),
            }),
            Owner::Live(_) | Owner::Parent(_) | Owner::Ambiguous => None,
        }
    }

    /// One lock as reports show it, with its own edges.
    pub fn lock(&self, evidence: &Evidence<'_>, class: Classification, own: &[&Edge]) -> Lock {
        let open_ns: u64 = evidence.open.iter().map(|(_, open)| open.counted_ns).sum();
        let longest_ns = evidence.open.first().map_or(0, |(_, open)| open.age_ns);
        let wait_ns = evidence.wait_ns + open_ns;
        let waiters: Vec<(Party, u64)> = evidence
            .open
            .iter()
            .map(|(thread, open)| (Party::of(thread), open.age_ns))
            .collect();
        Lock {
            id: evidence.id,
            pid: evidence.pid,
            comm: self.process_comm(evidence.pid),
            address: evidence.address,
            kind: class.kind,
            shared: is_shared(&evidence.sample),
            waits: evidence.waits(),
            wait_ns,
            max_ns: evidence.max_ns.max(longest_ns),
            histogram: evidence.histogram,
            holder: class.contended.then(|| self.holder(evidence, own)).flatten(),
            pattern: pattern(evidence, wait_ns, self.window_ns, own),
            waiters,
            symbol: (evidence.protocol.name == python::GIL).then(|| python::GIL.to_owned()),
            code: None,
        }
    }

    fn process_comm(&self, pid: u32) -> Comm {
        self.party(pid).comm
    }

    /// Who holds it: memory says, or who ran on last after a wait and has released it before; with nobody
    /// waiting, for whom most time was waited.
    fn holder(&self, evidence: &Evidence<'_>, edges: &[&Edge]) -> Option<Holder> {
        let owner = evidence
            .open
            .iter()
            .find_map(|(thread, open)| self.owner_of(thread, open));
        if owner.is_some() {
            return owner;
        }
        let waits_itself = |tid: u32| evidence.open.iter().any(|(thread, _)| thread.id.tid == tid);
        let acquirer = evidence.acquirer;
        if !evidence.open.is_empty() && evidence.wakers.contains(&acquirer) && !waits_itself(acquirer) {
            return Some(self.holding(self.party(acquirer), Grade::Waker));
        }
        let mut by_holder: BTreeMap<(Party, Grade), u64> = BTreeMap::new();
        for edge in edges {
            *by_holder.entry((edge.holder, edge.grade)).or_default() += edge.wait_ns;
        }
        let ((party, grade), _) = by_holder.into_iter().max_by_key(|(_, ns)| *ns)?;
        Some(Holder {
            party,
            grade,
            doing: None,
        })
    }

    fn waits_for(&self, thread: &Thread, open: &OpenWait) -> WaitsFor {
        WaitsFor {
            lock: self.tables.id(key_of(thread, open)),
            kind: classify_single_wait(self.index, thread, open),
            joined: self.index.joined(thread, open).map(|joined| joined.id.tid),
        }
    }

    fn holding(&self, party: Party, grade: Grade) -> Holder {
        let thread = self.index.get(party.tid);
        Holder {
            party,
            grade,
            doing: thread.map(|thread| Doing {
                condition: thread.condition,
                frozen: thread.frozen == Some(true),
                ns: thread.condition_ns,
                blocked_on: thread.blocked_on,
                waits_for: thread.futex.as_ref().map(|open| self.waits_for(thread, open)),
            }),
        }
    }
}

/// Waits a second from which on a queue is a convoy and a hand-over a pattern.
const OFTEN: u64 = 10;

fn pattern(evidence: &Evidence<'_>, wait_ns: u64, window_ns: u64, edges: &[&Edge]) -> Option<Pattern> {
    let often =
        evidence.ended().saturating_mul(1_000_000_000) >= OFTEN.saturating_mul(window_ns) && window_ns > 0;
    if !often {
        return None;
    }
    let total: u64 = edges.iter().map(|edge| edge.wait_ns).sum();
    let pair = edges.iter().find_map(|edge| {
        let back = edges
            .iter()
            .find(|other| other.waiter == edge.holder && other.holder == edge.waiter)?;
        Some(edge.wait_ns + back.wait_ns)
    });
    if pair.is_some_and(|pair| pair.saturating_mul(10) >= total.saturating_mul(9)) && edges.len() >= 2 {
        return Some(Pattern::HandOver);
    }
    (wait_ns / 2 >= window_ns).then_some(Pattern::Convoy)
}
