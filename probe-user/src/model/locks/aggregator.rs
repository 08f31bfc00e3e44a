//! What happened at locks since the last look, process by process: what the running totals of metrics are
//! made of.

use std::collections::{BTreeMap, HashMap};

use probe_ebpf::lock::LockKey;

use super::classification::classify_all;
use super::deadlock::{self, Deadlock};
use super::delta::Baseline;
use super::evidence::{gather, protocols};
use super::report_builder::{ReportBuilder, sharers};
use super::stall::{self, Stall};
use super::thread_index::{NameCache, ThreadIndex};
use super::{Grade, Kind, LockId, Look, Party, Tables, key_of};
use crate::model::account::Histogram;
use crate::model::event::Event;

/// Follows locks from look to look.
#[derive(Default)]
pub struct LockAggregator {
    baseline: Baseline,
    names: NameCache,
    suspects: Vec<Deadlock>,
}

/// What one process waited at things of one kind since the last look.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KindDelta {
    /// Waits that ended, by duration.
    pub histogram: Histogram,
    /// Nanoseconds of waits that ended.
    pub ended_ns: u64,
    /// Nanoseconds waited since the last look: open waits as far as they lie in between.
    pub lately_ns: u64,
    /// Threads that wait now.
    pub waiters: u64,
}

/// Since the last look.
#[derive(Debug, Default)]
pub struct LockDelta {
    /// By process and kind.
    pub waited: BTreeMap<(u32, Kind), KindDelta>,
    /// Deadlocks there are now, confirmed.
    pub deadlocks: Vec<Deadlock>,
    /// Stalls there are now.
    pub stalls: Vec<Stall>,
    /// Waits at contended locks that ended, by who waited and for whom.
    pub edges: Vec<EdgeDelta>,
}

/// What one thread waited for another at one lock since the last look, waits that ended.
#[derive(Clone, Debug)]
pub struct EdgeDelta {
    /// Who waited.
    pub waiter: Party,
    /// For whom, and how that is known; `None` if it is not.
    pub holder: Option<(Party, Grade)>,
    /// At which lock.
    pub lock: LockId,
    /// A process that knows the lock, and its address there.
    pub place: (u32, u64),
    /// What it is.
    pub kind: Kind,
    /// For how long, nanoseconds.
    pub wait_ns: u64,
}

impl LockAggregator {
    /// Takes an event into account.
    pub fn event(&mut self, event: &Event) {
        self.names.event(event);
    }

    /// Whether a look shows a deadlock that no look before it has shown, so that another is needed to confirm
    /// it.
    pub fn needs_second_look(&mut self, look: Look<'_>) -> bool {
        let now = deadlock::candidates(look, &ThreadIndex::new(look.snapshot));
        let confirmed = deadlock::confirmed(now.clone(), &self.suspects).len();
        let more = confirmed < now.len();
        self.suspects = now;
        more
    }

    /// Takes into account what was deleted after the last look.
    pub fn forget(&mut self, deleted: &Tables) {
        self.baseline.forget(deleted);
    }

    /// Tells what happened since the last look. The first look tells what there was before it.
    pub fn advance(&mut self, look: Look<'_>) -> LockDelta {
        self.names.learn(look.snapshot);
        let index = ThreadIndex::new(look.snapshot);
        let gained = self.baseline.gained(look.tables);
        let lately = Look {
            tables: &gained,
            ..look
        };
        let known = &self.baseline.protocols;
        let (whole, part) = (gather(look, &index, known), gather(lately, &index, known));
        let window_ns = look.snapshot.began_ns.saturating_sub(self.baseline.at_ns);
        let classes = classify_all(&whole, &part, window_ns);
        let kind_of = |id: LockId| classes.get(&id).map_or(Kind::Unknown, |class| class.kind);
        let candidates = deadlock::candidates(look, &index);
        let builder = ReportBuilder {
            index: &index,
            names: &self.names,
            classes: &classes,
            tables: look.tables,
            window_ns,
            sharers: sharers(look.tables),
        };
        let news = LockDelta {
            edges: builder.ended_waits(&gained, &part),
            waited: self.waited(lately, kind_of),
            stalls: stall::stalls(look, &index, &candidates),
            deadlocks: deadlock::confirmed(candidates.clone(), &self.suspects),
        };
        self.suspects = candidates;
        self.baseline = Baseline::new(look).knowing(protocols(look, &index));
        news
    }

    fn waited(&self, lately: Look<'_>, kind_of: impl Fn(LockId) -> Kind) -> BTreeMap<(u32, Kind), KindDelta> {
        let mut all: BTreeMap<(u32, Kind), KindDelta> = BTreeMap::new();
        // Since the last look by key: waits that ended and open ones, less what of them lay before it.
        let mut by_key: HashMap<LockKey, (u32, Kind, u64)> = HashMap::new();
        for (key, stats) in &lately.tables.locks {
            let kind = kind_of(lately.tables.id(*key));
            let entry = all.entry((stats.pid, kind)).or_default();
            for (sum, &count) in entry.histogram.iter_mut().zip(&stats.histogram) {
                *sum += u64::from(count);
            }
            entry.ended_ns += stats.wait_ns;
            by_key.insert(*key, (stats.pid, kind, stats.wait_ns));
        }
        for (thread, open, id) in lately.open_waits() {
            let kind = kind_of(id);
            all.entry((thread.pid, kind)).or_default().waiters += 1;
            let key = key_of(thread, open);
            by_key.entry(key).or_insert((thread.pid, kind, 0)).2 += open.counted_ns;
        }
        for (key, (pid, kind, ns)) in by_key {
            let before = self.baseline.open.get(&key).copied().unwrap_or(0);
            let entry = all.entry((pid, kind)).or_default();
            entry.lately_ns += ns.saturating_sub(before);
        }
        all
    }
}
