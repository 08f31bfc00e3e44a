//! The graph of lock contention as counters: which threads waited for which, at which lock, by name.
//!
//! Names are without number and series are not: [`MOST`] edges are told apart, the heaviest of late; all
//! others are added up in one counter. Nothing is moved from one counter to another, so sums of rates stay
//! exact and none falls: an edge that leaves goes on in the other one, and where it stood if it returns. What
//! a lock is called has to be asked for, once; until then its waits count as the others'.

use std::collections::BTreeSet;

use foldhash::HashMap;

use super::GroupKey;
use super::weight::Weight;
use crate::model::locks::aggregator::EdgeDelta;
use crate::model::locks::{Grade, Kind, LockId};
use crate::model::thread::Comm;

/// Edges that are told apart.
pub const MOST: usize = 50;
/// Edges without one that are weighed, those that have left, and locks whose names are remembered.
const REMEMBERED: usize = 5_000;
/// An edge that takes another's place has to weigh this many times as much.
const HEAVIER: f64 = 2.0;
/// Locks whose names are asked for at a time.
const ASKED: usize = 10;

/// What makes an edge: no numbers, so that the same program makes the same edges tomorrow.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LockEdge {
    /// The waiter's group.
    pub group: GroupKey,
    /// Name of the thread that waited.
    pub waiter: Comm,
    /// Name of the one that it waited for; empty if that is not known.
    pub holder: Comm,
    /// Name of the lock; `None` if it has none.
    pub lock: Option<Box<str>>,
    /// What it is.
    pub kind: Kind,
    /// How the holder is known.
    pub grade: Grade,
}

struct Row {
    ns: u64,
    weight: Weight,
    /// Shown once more.
    leaving: bool,
}

/// A lock whose name is to be asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Nameless {
    /// Which.
    pub lock: LockId,
    /// A process that knows it.
    pub pid: u32,
    /// Its address there.
    pub address: u64,
}

/// See the module.
#[derive(Default)]
pub struct LockEdges {
    rows: HashMap<LockEdge, Row>,
    candidates: HashMap<LockEdge, Weight>,
    left: HashMap<LockEdge, u64>,
    other_ns: u64,
    names: HashMap<LockId, Option<Box<str>>>,
    nameless: HashMap<LockId, (Nameless, u64)>,
    now_ns: u64,
}

impl LockEdges {
    /// Before what a look brings is added: who was shown once more leaves.
    pub fn turn(&mut self, now_ns: u64) {
        self.now_ns = self.now_ns.max(now_ns);
        self.nameless.clear();
        let leaving: Vec<_> = self.rows.extract_if(|_, row| row.leaving).collect();
        forget_if_full(&mut self.left);
        self.left
            .extend(leaving.into_iter().map(|(edge, row)| (edge, row.ns)));
        while self.rows.len() < MOST {
            let Some(heaviest) = self.heaviest() else { break };
            self.admit(heaviest);
        }
    }

    /// Adds waits that ended, of a thread of that group.
    pub fn add(&mut self, group: GroupKey, edge: &EdgeDelta) {
        let Some(name) = self.names.get(&edge.lock) else {
            self.other_ns += edge.wait_ns;
            let (pid, address) = edge.place;
            let nameless = Nameless {
                lock: edge.lock,
                pid,
                address,
            };
            self.nameless.entry(edge.lock).or_insert((nameless, 0)).1 += edge.wait_ns;
            return;
        };
        let key = LockEdge {
            group,
            waiter: edge.waiter.comm,
            holder: edge.holder.map(|(holder, _)| holder.comm).unwrap_or_default(),
            lock: name.clone(),
            kind: edge.kind,
            grade: edge.holder.map_or(Grade::None, |(_, grade)| grade),
        };
        if !self.rows.contains_key(&key) && self.rows.len() < MOST {
            self.admit(key.clone());
        }
        let seconds = edge.wait_ns as f64 / 1e9;
        match self.rows.get_mut(&key) {
            Some(row) if !row.leaving => {
                row.ns += edge.wait_ns;
                row.weight.add(seconds, self.now_ns);
            }
            _ => {
                self.other_ns += edge.wait_ns;
                forget_if_full(&mut self.candidates);
                self.candidates.entry(key).or_default().add(seconds, self.now_ns);
            }
        }
    }

    /// After it: the lightest leaves if one without a place weighs much more.
    pub fn settle(&mut self) {
        if self.rows.len() < MOST {
            return;
        }
        let now_ns = self.now_ns;
        let Some(heaviest) = self.heaviest().and_then(|edge| self.candidates.get(&edge)) else {
            return;
        };
        let heaviest = heaviest.at(now_ns);
        let staying = self.rows.values_mut().filter(|row| !row.leaving);
        let lightest = staying.min_by(|a, b| a.weight.at(now_ns).total_cmp(&b.weight.at(now_ns)));
        if let Some(row) = lightest {
            row.leaving = heaviest > row.weight.at(now_ns) * HEAVIER;
        }
    }

    fn heaviest(&self) -> Option<LockEdge> {
        let heavier = |a: &(&LockEdge, &Weight), b: &(&LockEdge, &Weight)| {
            a.1.at(self.now_ns).total_cmp(&b.1.at(self.now_ns))
        };
        let heaviest = self.candidates.iter().max_by(heavier)?;
        Some(heaviest.0.clone())
    }

    fn admit(&mut self, edge: LockEdge) {
        let row = Row {
            ns: self.left.remove(&edge).unwrap_or(0),
            weight: self.candidates.remove(&edge).unwrap_or_default(),
            leaving: false,
        };
        self.rows.insert(edge, row);
    }

    /// Locks of the last look whose names are to be asked for, those waited at for longest first.
    pub fn nameless(&self) -> Vec<Nameless> {
        let mut all: Vec<_> = self.nameless.values().copied().collect();
        all.sort_by_key(|(nameless, ns)| (std::cmp::Reverse(*ns), nameless.lock));
        all.truncate(ASKED);
        all.into_iter().map(|(nameless, _)| nameless).collect()
    }

    /// A lock has this name, or none.
    pub fn name(&mut self, lock: LockId, name: Option<Box<str>>) {
        forget_if_full(&mut self.names);
        self.names.insert(lock, name);
    }

    /// The edges with their nanoseconds, in the order of their names, and those of all others.
    pub fn counters(&self) -> (impl Iterator<Item = (&LockEdge, u64)>, u64) {
        let order: BTreeSet<&LockEdge> = self.rows.keys().collect();
        let rows = order.into_iter().map(|edge| (edge, self.rows[edge].ns));
        (rows, self.other_ns)
    }
}

/// Memory has a limit; what is forgotten is weighed, or asked for, anew.
fn forget_if_full<K, V>(map: &mut HashMap<K, V>) {
    if map.len() >= REMEMBERED {
        map.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::locks::Party;

    const SECOND: u64 = 1_000_000_000;

    fn party(comm: &str) -> Party {
        Party {
            pid: 1,
            tid: 2,
            comm: Comm::new(comm),
        }
    }

    fn edge(waiter: &str, lock: u64, wait_ns: u64) -> EdgeDelta {
        EdgeDelta {
            waiter: party(waiter),
            holder: Some((party("holder"), Grade::Waker)),
            lock: LockId::Private(1, lock),
            place: (1, lock),
            kind: Kind::Mutex,
            wait_ns,
        }
    }

    fn shown(edges: &LockEdges) -> (HashMap<String, u64>, u64) {
        let (rows, other) = edges.counters();
        (
            rows.map(|(edge, ns)| (edge.waiter.to_string(), ns)).collect(),
            other,
        )
    }

    fn group() -> GroupKey {
        GroupKey::named("g")
    }

    #[test]
    fn a_lock_is_asked_for_once_and_its_waits_count_meanwhile() {
        let mut edges = LockEdges::default();
        edges.turn(SECOND);
        edges.add(group(), &edge("a", 0x10, 5));
        edges.add(group(), &edge("a", 0x20, 7));
        let asked = edges.nameless();
        assert_eq!(
            asked.iter().map(|one| one.address).collect::<Vec<_>>(),
            [0x20, 0x10]
        );
        assert_eq!(shown(&edges), (HashMap::default(), 12));
        edges.name(asked[0].lock, Some("pool".into()));
        edges.name(asked[1].lock, None);
        edges.turn(2 * SECOND);
        edges.add(group(), &edge("a", 0x10, 1));
        edges.add(group(), &edge("a", 0x20, 2));
        assert!(edges.nameless().is_empty());
        let (rows, other) = edges.counters();
        let rows: Vec<_> = rows.map(|(edge, ns)| (edge.lock.as_deref(), ns)).collect();
        assert_eq!((rows, other), (vec![(None, 1), (Some("pool"), 2)], 12));
    }

    #[test]
    fn the_heaviest_have_counters_and_sums_of_growth_stay_exact() {
        let mut edges = LockEdges::default();
        edges.name(LockId::Private(1, 0), None);
        // Who comes back goes on where it was.
        let (mut last, mut last_other): (HashMap<String, u64>, u64) = Default::default();
        for round in 1..200_u64 {
            edges.turn(round * SECOND);
            let mut added = 0;
            for number in 0..1_000_u64 {
                // Later names wait longer; from the middle on, the earlier ones do.
                let rank = if round < 100 { number } else { 1_000 - number };
                added += rank * 1_000_000;
                edges.add(group(), &edge(&format!("t{number}"), 0, rank * 1_000_000));
            }
            edges.settle();
            let (rows, other) = shown(&edges);
            assert!(rows.len() <= MOST);
            let mut grown = other - last_other;
            for (name, ns) in rows {
                grown += ns - last.insert(name, ns).unwrap_or(0);
            }
            assert_eq!(grown, added, "round {round}");
            last_other = other;
        }
        let (rows, _) = shown(&edges);
        let first = rows
            .keys()
            .filter(|name| name[1..].parse::<u64>().unwrap() < 100)
            .count();
        assert!(first >= MOST / 2, "{first} of those that wait longest now");
    }
}
