//! What was waited between two moments.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use probe_ebpf::state::State;
use probe_ebpf::waiting::Class;

use super::deadlock::{self, Deadlock};
use super::evidence::gather;
use super::growth::{Deleted, Mark};
use super::people::{Names, Owner, People};
use super::report::{Lock, Parallelism, Report};
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

    /// Takes into account what was deleted meanwhile.
    pub fn forget(&mut self, deleted: &Deleted) {
        self.mark.forget(deleted);
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
        let people = People::new(look.snapshot);
        let window_ns = look.snapshot.began_ns.saturating_sub(self.mark.at_ns);
        let gained = self.mark.gained(look.tables);
        let known = |waiter: u32, owner: u32| known(&people, &self.names, waiter, owner);
        let whole = gather(look, &people, known);
        let part = gather(
            Look {
                tables: &gained,
                ..look
            },
            &people,
            known,
        );
        let verdicts = verdicts(&whole, &part, window_ns);
        let mut report = Report {
            window_ns,
            deadlocks: deadlock::confirmed(deadlock::candidates(look, &people), &self.candidates),
            ..Report::default()
        };
        // A deadlock proves its locks to be locks.
        let proven: BTreeSet<LockId> = report
            .deadlocks
            .iter()
            .flat_map(|deadlock| deadlock.members.iter())
            .filter(|member| !member.joins)
            .map(|member| member.waits_for)
            .collect();
        let contended: BTreeSet<LockId> = verdicts
            .iter()
            .filter(|(id, verdict)| verdict.contended || proven.contains(id))
            .map(|(id, _)| *id)
            .collect();
        let teller = Teller {
            people: &people,
            names: &self.names,
            tables: look.tables,
            window_ns,
        };
        report.edges = teller.edges(look, &gained, &contended);
        for (id, evidence) in &part {
            let mut lock = teller.lock(evidence, verdicts[id], &report.edges);
            if lock.kind == Kind::Unknown && proven.contains(id) {
                lock.kind = Kind::Mutex;
            }
            lock.wait_ns = lock.wait_ns.saturating_sub(self.mark.open_at(look.tables, *id));
            if contended.contains(id) {
                report.locks.push(lock);
            } else {
                report.idle.push(lock);
            }
        }
        let owned: BTreeSet<LockId> = report
            .locks
            .iter()
            .filter(|lock| lock.holder.is_some_and(|holder| holder.grade == Grade::Owner))
            .map(|lock| lock.id)
            .collect();
        report.stalls = stall::stalls(look, &contended, &owned);
        report.processes = self.parallelism(look, &gained, &contended, units);
        narrow(&mut report, self.pid);
        report
    }

    /// How parallel the processes were that wait at contended locks, or the one that was asked for.
    fn parallelism(
        &mut self,
        look: Look<'_>,
        gained: &Tables,
        contended: &BTreeSet<LockId>,
        units: &mut dyn Units,
    ) -> Vec<Parallelism> {
        let mut blocked: BTreeMap<u32, u64> = BTreeMap::new();
        for (key, stats) in &gained.locks {
            if contended.contains(&gained.id(*key)) {
                *blocked.entry(stats.pid).or_default() += stats.wait_ns;
            }
        }
        for (thread, open, id) in look.open_waits() {
            if contended.contains(&id) {
                *blocked.entry(thread.pid).or_default() += open.counted_ns;
            }
        }
        let pid_of: HashMap<u64, u32> = look
            .snapshot
            .threads
            .iter()
            .map(|thread| (thread.space, thread.pid))
            .collect();
        for (key, ns) in &self.mark.open {
            let pid = pid_of.get(&key.space);
            if let Some(sum) = pid.and_then(|pid| blocked.get_mut(pid)) {
                *sum = sum.saturating_sub(*ns);
            }
        }
        let usage = std::mem::replace(
            &mut self.usage,
            Window::begin(look.snapshot, By::Process, Some(0)),
        );
        let report = usage.end(look.snapshot, units);
        let window_ns = report.window_ns.max(1) as f64;
        let average = |ns: u64| ns as f64 / window_ns;
        let wanted = |pid: &u32| blocked.contains_key(pid) || self.pid == Some(*pid);
        let mut all: Vec<Parallelism> = report
            .groups
            .iter()
            .filter_map(|group| {
                let (pid, comm) = group.process.filter(|(pid, _)| wanted(pid))?;
                Some(Parallelism {
                    pid,
                    comm,
                    threads: group.threads,
                    running: average(group.usage.time_ns[State::Running.index()]),
                    runnable: average(group.usage.time_ns[State::Runnable.index()]),
                    lock_blocked: average(blocked.get(&pid).copied().unwrap_or(0)),
                    futex_blocked: average(group.usage.blocked_ns[Class::Futex as usize]),
                })
            })
            .collect();
        all.sort_by(|a, b| b.lock_blocked.total_cmp(&a.lock_blocked));
        all
    }
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
