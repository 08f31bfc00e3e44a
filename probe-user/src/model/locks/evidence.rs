//! What is known about one lock: the sums of its waits, who took part, and the waits that are open.

use std::collections::{BTreeMap, HashMap, HashSet};

use probe_ebpf::histogram::BUCKETS;
use probe_ebpf::lock::{BY_OWNER, EXPECTED, Expected, FutexWait, LockStats, OUTCOMES, Outcome, SEVERAL};
use probe_ebpf::waiting::flag;

use super::protocol::{self, Protocol, Wait};
use super::site::Site;
use super::thread_index::{ThreadIndex, protocol_of};
use super::{Kind, LockId, Look};
use crate::model::thread::{OpenWait, Thread};

/// Everything about one lock.
#[derive(Clone, Debug)]
pub struct Evidence<'a> {
    /// Which.
    pub id: LockId,
    /// A process that waits or waited at it, and the address there.
    pub pid: u32,
    /// See [`Self::pid`].
    pub address: u64,
    /// Nanoseconds of waits that ended.
    pub wait_ns: u64,
    /// The longest of them.
    pub max_ns: u64,
    /// Their durations.
    pub histogram: [u64; BUCKETS],
    /// Waits that ended, by [`Outcome`].
    pub outcomes: [u64; OUTCOMES],
    /// All waits, the open ones included, by [`Expected`].
    pub expected: [u64; EXPECTED],
    /// Waits with a timeout.
    pub timed: u64,
    /// A wait as it began: the latest, or an open one.
    pub sample: FutexWait,
    /// Whether more than one thread has waited.
    pub several_waiters: bool,
    /// Who ran on last after a wait: the likely holder.
    pub acquirer: u32,
    /// Tids of those who waited.
    pub waiters: HashSet<u32>,
    /// Tids of those who woke.
    pub wakers: HashSet<u32>,
    /// What it is, by its latest wait, an open one if there is one.
    pub protocol: Protocol,
    /// Open waits, longest first.
    pub open: Vec<(&'a Thread, &'a OpenWait)>,
    /// Nanoseconds waited by each waiter, ended waits.
    pub by_waiter: BTreeMap<u32, u64>,
}

impl<'a> Evidence<'a> {
    fn new(id: LockId, address: u64) -> Self {
        Self {
            id,
            pid: 0,
            // Of a pair of words the first.
            address: if let LockId::Private(_, first) = id {
                first
            } else {
                address
            },
            wait_ns: 0,
            max_ns: 0,
            histogram: [0; BUCKETS],
            outcomes: [0; OUTCOMES],
            expected: [0; EXPECTED],
            timed: 0,
            sample: FutexWait::default(),
            several_waiters: false,
            acquirer: 0,
            waiters: HashSet::new(),
            wakers: HashSet::new(),
            protocol: protocol::UNKNOWN,
            open: Vec::new(),
            by_waiter: BTreeMap::new(),
        }
    }

    fn add_stats(&mut self, stats: &LockStats, site: &Site) {
        self.wait_ns += stats.wait_ns;
        self.max_ns = self.max_ns.max(stats.max_ns);
        for (sum, &count) in self.histogram.iter_mut().zip(&stats.histogram) {
            *sum += u64::from(count);
        }
        for (sum, &count) in self.outcomes.iter_mut().zip(&stats.outcomes) {
            *sum += u64::from(count);
        }
        for (sum, &count) in self.expected.iter_mut().zip(&stats.expected) {
            *sum += u64::from(count);
        }
        self.timed += u64::from(stats.timed);
        self.several_waiters |= stats.waiter == SEVERAL;
        if self.pid == 0 {
            self.pid = stats.pid;
        }
        self.sample = stats.sample;
        self.acquirer = stats.acquirer;
        self.protocol = protocol::identify(Wait {
            call: &stats.sample,
            site,
            memory: None,
            sp: 0,
        });
    }

    fn add_open(&mut self, thread: &'a Thread, open: &'a OpenWait, index: &ThreadIndex<'_>) {
        self.open.push((thread, open));
        self.waiters.insert(thread.id.tid);
        self.expected[usize::from(open.wait.expected) % EXPECTED] += 1;
        self.timed += u64::from(open.wait.flags & flag::TIMED != 0);
        if self.pid == 0 {
            self.pid = thread.pid;
        }
        if self.sample.address == 0 {
            self.sample = open.wait;
        }
        self.protocol = if index.joined(thread, open).is_some() {
            protocol::JOIN
        } else {
            protocol_of(thread, open)
        };
    }

    /// Waits for a value of that kind.
    pub fn waits_for(&self, expected: Expected) -> u64 {
        self.expected[expected as usize]
    }

    /// What kind of thing it is.
    pub fn kind(&self) -> Kind {
        self.protocol.kind
    }

    /// Waits that ended.
    pub fn ended(&self) -> u64 {
        self.outcomes.iter().sum()
    }

    /// Waits, the open ones included.
    pub fn waits(&self) -> u64 {
        self.ended() + self.open.len() as u64
    }

    /// Waits that ended one way.
    pub fn ended_by(&self, outcome: Outcome) -> u64 {
        self.outcomes[outcome as usize]
    }

    /// Those who both waited here and woke others here: what threads that take turns do.
    pub fn take_turns(&self) -> usize {
        self.waiters.intersection(&self.wakers).count()
    }
}

/// What the locks are whose memory was read in a look: those that somebody waits at.
pub fn protocols(look: Look<'_>, index: &ThreadIndex<'_>) -> HashMap<LockId, Protocol> {
    let read = look.open_waits().filter(|(_, open, _)| open.live.is_some());
    let told = read.filter(|(thread, open, _)| index.joined(thread, open).is_none());
    told.map(|(thread, open, id)| (id, protocol_of(thread, open)))
        .collect()
}

/// Gathers what is known about every lock of a snapshot. `before` is what locks were at an earlier look, for
/// those that nobody waits at now.
pub fn gather<'a>(
    look: Look<'a>,
    index: &ThreadIndex<'a>,
    before: &HashMap<LockId, Protocol>,
) -> BTreeMap<LockId, Evidence<'a>> {
    let mut all: BTreeMap<LockId, Evidence<'a>> = BTreeMap::new();
    for (key, stats) in &look.tables.locks {
        let id = look.tables.id(*key);
        let entry = all.entry(id).or_insert_with(|| Evidence::new(id, key.address));
        entry.add_stats(stats, look.tables.site(*key, &stats.sample));
    }
    for (key, stats) in &look.tables.edges {
        let id = look.tables.id(key.lock);
        let Some(entry) = all.get_mut(&id) else { continue };
        entry.waiters.insert(key.waiter);
        *entry.by_waiter.entry(key.waiter).or_default() += stats.wait_ns;
        if key.holder & BY_OWNER == 0 && key.holder != 0 {
            entry.wakers.insert(key.holder);
        }
    }
    for (thread, open, id) in look.open_waits() {
        let entry = all
            .entry(id)
            .or_insert_with(|| Evidence::new(id, open.wait.address));
        entry.add_open(thread, open, index);
    }
    for entry in all.values_mut() {
        if entry.protocol.is_either
            && let Some(known) = before.get(&entry.id)
        {
            entry.protocol = *known;
        }
        entry.several_waiters |= entry.waiters.len() > 1;
        entry
            .open
            .sort_by_key(|(thread, open)| (std::cmp::Reverse(open.age_ns), thread.id));
    }
    all
}
