//! What was waited between two moments.

use std::collections::BTreeSet;

use super::deadlock::{self, Deadlock};
use super::evidence::gather;
use super::growth::Mark;
use super::parallelism;
use super::people::{Names, Owner, People};
use super::report::{Lock, Report};
use super::teller::Teller;
use super::verdicts::verdicts;
use super::{Grade, Kind, LockId, Look, Tables, stall};
use crate::model::event::Event;
use crate::model::tracker::Units;
use crate::model::window::{By, Window};

/// Gathers a window: begin with a look, feed events, end with a look.
pub struct LockWindow {
    pid: Option<u32>,
    mark: Mark,
    names: Names,
    candidates: Vec<Deadlock>,
    usage: Window,
}

impl LockWindow {
    /// Begins at a look; with `pid` only locks that concern that process are reported.
    pub fn begin(look: Look<'_>, pid: Option<u32>) -> Self {
        let mut names = Names::default();
        names.learn(look.snapshot);
        Self {
            pid,
            mark: Mark::new(look),
            names,
            candidates: deadlock::candidates(look, &People::new(look.snapshot)),
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
        self.mark.forget(deleted);
    }

    /// How many entries it keeps that are in the tables no more.
    pub fn kept(&self) -> usize {
        self.mark.kept()
    }

    /// Whether a look shows deadlocks that no look before it has shown: another one is needed to confirm them. It is
    /// remembered as having been seen.
    pub fn needs_second_look(&mut self, look: Look<'_>) -> bool {
        let now = deadlock::candidates(look, &People::new(look.snapshot));
        let confirmed = deadlock::confirmed(now.clone(), &self.candidates).len();
        let more = confirmed < now.len();
        self.candidates.extend(now);
        more
    }

    /// Ends at a look.
    pub fn end(mut self, look: Look<'_>, units: &mut dyn Units) -> Report {
        self.names.learn(look.snapshot);
        let gained = self.mark.gained(look.tables);
        let people = People::new(look.snapshot);
        let mut report = Report {
            window_ns: look.snapshot.began_ns.saturating_sub(self.mark.at_ns),
            deadlocks: deadlock::confirmed(deadlock::candidates(look, &people), &self.candidates),
            ..Report::default()
        };
        let contended = self.tell(look, &people, &gained, &mut report);
        report.stalls = stall::stalls(look, &contended, &owned(&report.locks));
        let blocked = parallelism::blocked(look, &gained, &contended, &self.mark.open);
        let usage = self.usage.end(look.snapshot, units);
        report.processes = parallelism::of(&usage, &blocked, self.pid);
        narrow(&mut report, self.pid);
        report
    }

    /// Fills in the locks that were waited at and who waited for whom; returns which of them are contended.
    fn tell<'a>(
        &self,
        look: Look<'a>,
        people: &People<'a>,
        gained: &'a Tables,
        report: &mut Report,
    ) -> BTreeSet<LockId> {
        let known = |waiter: u32, owner: u32| known(people, &self.names, waiter, owner);
        let whole = gather(look, people, known);
        let lately = Look {
            tables: gained,
            ..look
        };
        let part = gather(lately, people, known);
        let verdicts = verdicts(&whole, &part, report.window_ns);
        let proven = proven(&report.deadlocks);
        let contended: BTreeSet<LockId> = verdicts
            .iter()
            .filter(|(id, verdict)| verdict.contended || proven.contains(id))
            .map(|(id, _)| *id)
            .collect();
        let teller = Teller {
            people,
            names: &self.names,
            tables: look.tables,
            window_ns: report.window_ns,
        };
        report.edges = teller.edges(look, gained, &contended);
        for (id, evidence) in &part {
            let mut lock = teller.lock(evidence, verdicts[id], &report.edges);
            if lock.kind == Kind::Unknown && proven.contains(id) {
                lock.kind = Kind::Mutex;
            }
            lock.wait_ns = lock.wait_ns.saturating_sub(self.mark.open_at(gained, *id));
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

/// Those whose memory names who holds them.
fn owned(locks: &[Lock]) -> BTreeSet<LockId> {
    let by_owner = |lock: &&Lock| lock.holder.is_some_and(|holder| holder.grade == Grade::Owner);
    locks.iter().filter(by_owner).map(|lock| lock.id).collect()
}

/// Whether a tid that `waiter`'s memory named is or was a thread that could own its lock.
pub(super) fn known(people: &People<'_>, names: &Names, waiter: u32, owner: u32) -> bool {
    let alive = people
        .get(waiter)
        .map(|thread| people.owner(thread, owner, false));
    if matches!(alive, Some(Owner::Alive(_))) {
        return true;
    }
    match (names.get(waiter), names.get(owner)) {
        // A mutex that processes share is owned by a thread of another one.
        (Some(_), Some(_)) => true,
        _ => false,
    }
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
}
