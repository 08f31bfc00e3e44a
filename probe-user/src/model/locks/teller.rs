//! Turns evidence into what reports say: locks, their holders, edges, patterns.

use std::collections::{BTreeMap, BTreeSet};

use probe_ebpf::lock::{BY_OWNER, EdgeKey};

use super::classify::Verdict;
use super::deadlock::proven_owner;
use super::evidence::Evidence;
use super::people::{Names, Owner, People};
use super::report::{Doing, Edge, Holder, Lock, Pattern};
use super::{Grade, LockId, Look, Party, Tables, is_shared, key_of};
use crate::model::thread::{Comm, OpenWait, Thread};

/// Turns evidence into lines.
pub struct Teller<'a, 'p> {
    /// Who is there.
    pub people: &'a People<'p>,
    /// Who was.
    pub names: &'a Names,
    /// Which locks there are.
    pub tables: &'a Tables,
    /// Length of the window, nanoseconds.
    pub window_ns: u64,
}

impl Teller<'_, '_> {
    fn party(&self, tid: u32) -> Party {
        self.people
            .get(tid)
            .map(Party::of)
            .or_else(|| self.names.get(tid))
            .unwrap_or(Party {
                pid: 0,
                tid,
                comm: Comm::default(),
            })
    }

    /// The holder an edge names; `None` if it names none, or one that never was.
    fn holder_of(&self, key: &EdgeKey) -> Option<(Party, Grade)> {
        let tid = key.holder & !BY_OWNER;
        if tid == 0 {
            return None;
        }
        if key.holder & BY_OWNER == 0 {
            return Some((self.party(tid), Grade::Waker));
        }
        let waiter = self.people.get(key.waiter);
        if let Some(Owner::Alive(owner)) = waiter.map(|waiter| self.people.owner(waiter, tid, true)) {
            return Some((Party::of(owner), Grade::Owner));
        }
        self.names.get(tid).map(|party| (party, Grade::Owner))
    }

    /// Who waited for whom; open waits count as well.
    pub fn edges(&self, look: Look<'_>, gained: &Tables, contended: &BTreeSet<LockId>) -> Vec<Edge> {
        let mut all: BTreeMap<(Party, Party, LockId, Grade), (u64, u64)> = BTreeMap::new();
        for (key, stats) in &gained.edges {
            let lock = gained.id(key.lock);
            if !contended.contains(&lock) {
                continue;
            }
            let Some((holder, grade)) = self.holder_of(key) else {
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
            let key = (Party::of(thread), holder, lock, Grade::Owner);
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

    /// Whom an open wait is for: by memory as it is now, else as it was when the wait began.
    fn owner_of(&self, thread: &Thread, open: &OpenWait) -> Option<Party> {
        let now = proven_owner(self.people, thread, open).map(|(owner, _)| owner);
        let begin = || {
            let owner = open.wait.owner;
            let unread = open.live.is_none() && owner != 0;
            unread.then(|| self.people.owner(thread, owner, is_shared(&open.wait)))
        };
        match now.or_else(begin)? {
            Owner::Alive(owner) => Some(Party::of(owner)),
            Owner::Gone(tid) => Some(self.names.get(tid).unwrap_or(Party {
                pid: 0,
                tid,
                comm: Comm::default(),
            })),
            Owner::Unclear => None,
        }
    }

    /// One lock as reports show it.
    pub fn lock(&self, evidence: &Evidence<'_>, verdict: Verdict, edges: &[Edge]) -> Lock {
        let open_ns: u64 = evidence.open.iter().map(|(_, open)| open.counted_ns).sum();
        let longest_ns = evidence.open.first().map_or(0, |(_, open)| open.age_ns);
        let wait_ns = evidence.wait_ns + open_ns;
        let own: Vec<&Edge> = edges.iter().filter(|edge| edge.lock == evidence.id).collect();
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
            kind: verdict.kind,
            shared: is_shared(&evidence.sample),
            waits: evidence.waits(),
            wait_ns,
            max_ns: evidence.max_ns.max(longest_ns),
            histogram: evidence.histogram,
            holder: verdict.contended.then(|| self.holder(evidence, &own)).flatten(),
            pattern: pattern(evidence, wait_ns, self.window_ns, &own),
            waiters,
            symbol: None,
            code: None,
        }
    }

    fn process_comm(&self, pid: u32) -> Comm {
        self.party(pid).comm
    }

    /// Who holds it: memory says, or who ran on last after a wait and has released it before; with nobody waiting, for whom
    /// most time was waited.
    fn holder(&self, evidence: &Evidence<'_>, edges: &[&Edge]) -> Option<Holder> {
        let owner = evidence
            .open
            .iter()
            .find_map(|(thread, open)| self.owner_of(thread, open));
        if let Some(party) = owner {
            return Some(self.holding(party, Grade::Owner));
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

    fn holding(&self, party: Party, grade: Grade) -> Holder {
        let thread = self.people.get(party.tid);
        Holder {
            party,
            grade,
            doing: thread.map(|thread| Doing {
                condition: thread.condition,
                ns: thread.condition_ns,
                blocked_on: thread.blocked_on,
                waits_for: thread
                    .futex
                    .as_ref()
                    .map(|open| self.tables.id(key_of(thread, open))),
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
