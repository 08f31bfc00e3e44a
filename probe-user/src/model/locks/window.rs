//! What was waited between two moments.

use std::collections::{BTreeSet, HashMap};

use super::classification::classify_all;
use super::deadlock::{self, Deadlock};
use super::delta::Baseline;
use super::evidence::{gather, protocols};
use super::parallelism;
use super::report::{Edge, Lock, Report};
use super::report_builder::{ReportBuilder, sharers};
use super::thread_index::{NameCache, ThreadIndex};
use super::{Kind, LockId, Look, Tables, stall};
use crate::model::event::Event;
use crate::model::tracker::Units;
use crate::model::window::{By, Window};

/// Gathers a window: begin with a look, feed events, end with a look.
pub struct LockWindow {
    pid: Option<u32>,
    baseline: Baseline,
    names: NameCache,
    candidates: Vec<Deadlock>,
    usage: Window,
}

impl LockWindow {
    /// Begins at a look; with `pid` only locks that concern that process are reported.
    pub fn begin(look: Look<'_>, pid: Option<u32>) -> Self {
        let mut names = NameCache::default();
        names.learn(look.snapshot);
        let index = ThreadIndex::new(look.snapshot);
        Self {
            pid,
            baseline: Baseline::new(look).knowing(protocols(look, &index)),
            names,
            candidates: deadlock::candidates(look, &index),
            usage: Window::begin(look.snapshot, By::Process, pid),
        }
    }

    /// Takes an event of the window into account.
    pub fn event(&mut self, event: &Event, units: &mut dyn Units) {
        self.names.event(event);
        self.usage.event(event, units);
    }

    /// Takes into account what was deleted from the tables meanwhile.
    pub fn forget(&mut self, deleted: &Tables) {
        self.baseline.forget(deleted);
    }

    /// How many entries it keeps that are in the tables no more.
    pub fn kept(&self) -> usize {
        self.baseline.kept()
    }

    /// Whether a look shows deadlocks that no look before it has shown: another one is needed to confirm them. It is
    /// remembered as having been seen.
    pub fn needs_second_look(&mut self, look: Look<'_>) -> bool {
        let now = deadlock::candidates(look, &ThreadIndex::new(look.snapshot));
        let confirmed = deadlock::confirmed(now.clone(), &self.candidates).len();
        let more = confirmed < now.len();
        self.candidates.extend(now);
        more
    }

    /// Ends at a look.
    pub fn end(mut self, look: Look<'_>, units: &mut dyn Units) -> Report {
        self.names.learn(look.snapshot);
        let gained = self.baseline.gained(look.tables);
        let index = ThreadIndex::new(look.snapshot);
        let mut report = Report {
            window_ns: look.snapshot.began_ns.saturating_sub(self.baseline.at_ns),
            deadlocks: deadlock::confirmed(deadlock::candidates(look, &index), &self.candidates),
            ..Report::default()
        };
        let contended = self.build(look, &index, &gained, &mut report);
        report.stalls = stall::stalls(look, &index, &report.deadlocks);
        let blocked = parallelism::blocked(look, &gained, &contended, &self.baseline.open);
        let usage = self.usage.end(look.snapshot, units);
        report.processes = parallelism::of(&usage, &blocked, self.pid);
        report.runtimes = look.snapshot.named(&look.snapshot.memory.runtimes);
        report.memory_gaps = look.snapshot.named(&look.snapshot.memory.gaps);
        narrow(&mut report, self.pid);
        report
    }

    /// Fills in the locks that were waited at and who waited for whom; returns which of them are contended.
    fn build<'a>(
        &self,
        look: Look<'a>,
        index: &ThreadIndex<'a>,
        gained: &'a Tables,
        report: &mut Report,
    ) -> BTreeSet<LockId> {
        let recent = Look {
            tables: gained,
            ..look
        };
        let known = &self.baseline.protocols;
        let (whole, part) = (gather(look, index, known), gather(recent, index, known));
        let classes = classify_all(&whole, &part, report.window_ns);
        let proven = proven(&report.deadlocks);
        let is_contended = |id: &LockId| classes[id].contended || proven.contains(id);
        let contended: BTreeSet<LockId> = classes.keys().copied().filter(is_contended).collect();
        let builder = ReportBuilder {
            index,
            names: &self.names,
            classes: &classes,
            tables: look.tables,
            window_ns: report.window_ns,
            sharers: sharers(look.tables),
        };
        report.edges = builder.edges(look, gained, &contended);
        // Both by lock, once: there may be as many locks as threads.
        let open_before = self.baseline.open_by_lock(gained);
        let mut edges: HashMap<LockId, Vec<&Edge>> = HashMap::new();
        for edge in &report.edges {
            edges.entry(edge.lock).or_default().push(edge);
        }
        for (id, evidence) in &part {
            let own = edges.get(id).map_or(&[][..], Vec::as_slice);
            let mut lock = builder.lock(evidence, classes[id], own);
            if proven.contains(id) && matches!(lock.kind, Kind::Unknown | Kind::Parker) {
                lock.kind = Kind::Mutex;
            }
            lock.wait_ns = lock
                .wait_ns
                .saturating_sub(open_before.get(id).copied().unwrap_or(0));
            if contended.contains(id) {
                report.locks.push(lock);
            } else {
                report.idle.push(lock);
            }
        }
        contended
    }
}

/// A deadlock proves its locks to be locks.
fn proven(deadlocks: &[Deadlock]) -> BTreeSet<LockId> {
    let members = deadlocks.iter().flat_map(|deadlock| &deadlock.members);
    let at_locks = members.filter(|member| !member.joins);
    at_locks.map(|member| member.waits_for).collect()
}

/// Keeps what concerns one process.
fn narrow(report: &mut Report, pid: Option<u32>) {
    report
        .locks
        .sort_by_key(|lock| (std::cmp::Reverse((lock.wait_ns, lock.waiters.len())), lock.id));
    report
        .idle
        .sort_by_key(|lock| (std::cmp::Reverse((lock.waiters.len(), lock.wait_ns)), lock.id));
    let Some(pid) = pid else { return };
    let concerned: BTreeSet<LockId> = report
        .edges
        .iter()
        .filter(|edge| edge.waiter.pid == pid || edge.holder.pid == pid)
        .map(|edge| edge.lock)
        .collect();
    let keep = |lock: &Lock| {
        lock.pid == pid
            || concerned.contains(&lock.id)
            || lock.waiters.iter().any(|(party, _)| party.pid == pid)
    };
    report.locks.retain(keep);
    report.idle.retain(keep);
    report.edges.retain(|edge| concerned.contains(&edge.lock));
    report
        .deadlocks
        .retain(|deadlock| deadlock.members.iter().any(|member| member.party.pid == pid));
    report.stalls.retain(|stall| stall.pid == pid);
    report.runtimes.retain(|runtime, _| *runtime == pid);
    report.memory_gaps.retain(|sick, _| *sick == pid);
}
