//! Follows every account from reading to reading, so that what it gained is counted exactly once.
//!
//! Shared by [`super::window`] (one window, then forgotten) and [`super::groups`] (as long as the agent
//! runs).
//!
//! The order that keeps it exact: read a snapshot, then hand over every event that has arrived by then, then
//! [`Tracker::advance`] over the snapshot. A thread may then be in the snapshot alive and in the events dead, or dead in
//! both (a zombie stays in every snapshot until it is reaped); an older reading after a newer one counts for nothing.

use std::sync::Arc;

use foldhash::{HashMap, HashSet};

use super::account::{Account, AccountId, HighWater, Usage};
use super::event::{Event, EventKind};
use super::snapshot::Snapshot;
use super::thread::{Comm, Condition, ReadFrom, Switches, Thread};
use probe_ebpf::state::STATES;

/// Names the unit (container, pod, service) of a cgroup. Outside the model, since it needs the file system.
pub trait Units {
    /// The unit of a cgroup id, "" if it has none.
    fn unit(&mut self, cgroup_id: u64) -> Arc<str>;
}

/// What a process is called, which is what its threads are grouped by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProcessName {
    /// Process id.
    pub pid: u32,
    /// `start_boottime` of its leader.
    pub start_ns: u64,
    /// Name of its leader.
    pub comm: Comm,
    /// Its cgroup.
    pub cgroup_id: u64,
    /// A thread of the kernel's own.
    pub kernel: bool,
}

/// What one account, or several of one group, gained since it was last looked at.
#[derive(Default)]
pub struct Growth {
    /// Time and durations.
    pub usage: Usage,
    /// Switches.
    pub switches: Switches,
}

impl Growth {
    /// Adds another account's.
    pub fn add(&mut self, other: &Self) {
        self.usage.add(&other.usage);
        self.switches.add(other.switches);
    }
}

struct Followed {
    mark: HighWater,
    switches: Switches,
    /// CLOCK_MONOTONIC of the latest reading.
    read_ns: u64,
    /// Number of the last snapshot it was seen in.
    seen: u64,
}

/// See the module.
#[derive(Default)]
pub struct Tracker {
    accounts: HashMap<AccountId, Followed>,
    /// Accounts that ended, with the time, until a snapshot no longer shows them: a zombie's stays.
    ended: HashMap<AccountId, u64>,
    /// Accounts that ended without an exit event, with the snapshot that showed it: the event was lost, or is late.
    missing: HashMap<AccountId, (Followed, u64)>,
    counted: Counted,
    processes: HashMap<u32, ProcessName>,
    snapshots: u64,
}

/// What was counted of accounts whose exit event was lost. The kernel's totals of what was lost have all of their lives,
/// so this much of it is known already.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counted {
    /// Nanoseconds per state.
    pub time_ns: [u64; STATES],
    /// Switches.
    pub switches: Switches,
}

impl Counted {
    fn change(&mut self, followed: &Followed, change: impl Fn(u64, u64) -> u64) {
        for (sum, time) in self.time_ns.iter_mut().zip(followed.mark.time_ns()) {
            *sum = change(*sum, *time);
        }
        let Switches {
            voluntary,
            involuntary,
        } = followed.switches;
        self.switches.voluntary = change(self.switches.voluntary, voluntary);
        self.switches.involuntary = change(self.switches.involuntary, involuntary);
    }
}

impl Tracker {
    /// Takes a snapshot as the starting point: nothing in it counts as growth.
    pub fn begin(&mut self, snapshot: &Snapshot) {
        self.learn_names(snapshot);
        self.snapshots += 1;
        let mut ignored = Usage::default();
        for thread in &snapshot.threads {
            let Some(account) = &thread.account else { continue };
            let mut mark = HighWater::new(account.id);
            mark.advance(account, &mut ignored);
            let followed = Followed {
                mark,
                switches: thread.switches,
                read_ns: account.read_ns,
                seen: self.snapshots,
            };
            if is_over(thread) {
                self.ended.insert(account.id, snapshot.began_ns);
            } else {
                self.accounts.insert(account.id, followed);
            }
        }
    }

    /// Counts what every account gained; calls `grew` with the thread, its process's name and the growth.
    pub fn advance(&mut self, snapshot: &Snapshot, mut grew: impl FnMut(&Thread, ProcessName, Growth)) {
        self.learn_names(snapshot);
        self.snapshots += 1;
        let mut torn = false;
        let mut still_there = HashSet::default();
        let mut latest = None;
        for thread in &snapshot.threads {
            let Some(account) = &thread.account else {
                // What is read from /proc never has one.
                torn |= thread.read_from == ReadFrom::Iterator;
                continue;
            };
            if self.ended.contains_key(&account.id) {
                still_there.insert(account.id);
                continue;
            }
            let growth = self.growth_of(account, thread.switches);
            grew(thread, self.name_after(&mut latest, thread), growth);
            if is_over(thread) {
                still_there.insert(account.id);
                self.ended.insert(account.id, snapshot.began_ns);
                self.miss(account.id);
            }
        }
        if !torn {
            self.forget(snapshot.began_ns, &still_there);
        }
    }

    /// Forgets what the snapshot that was just read no longer shows.
    fn forget(&mut self, began_ns: u64, still_there: &HashSet<AccountId>) {
        // What the snapshot does not show is gone, and its exit event was handed over before. Not so a thread whose ledger
        // was torn: it has not been seen, but is there. Nor what ended after the snapshot began: born and dead since, it
        // may be a zombie in the next one.
        let current = self.snapshots;
        let is_gone = |followed: &Followed| followed.seen != current && followed.read_ns < began_ns;
        let gone: Vec<AccountId> = self
            .accounts
            .iter()
            .filter_map(|(id, followed)| is_gone(followed).then_some(*id))
            .collect();
        for id in gone {
            self.miss(id);
        }
        self.missing.retain(|_, (_, noticed)| *noticed + 1 >= current);
        self.ended
            .retain(|id, &mut at_ns| at_ns >= began_ns || still_there.contains(id));
    }

    /// An account ended, and no exit event has said so.
    fn miss(&mut self, id: AccountId) {
        if let Some(followed) = self.accounts.remove(&id) {
            self.counted.change(&followed, u64::saturating_add);
            self.missing.insert(id, (followed, self.snapshots));
        }
    }

    /// What was counted of accounts whose exit event was lost.
    pub fn counted_of_lost(&self) -> Counted {
        self.counted
    }

    /// Takes an event into account. For an exit: the name of the dead thread's process, and what it gained last.
    pub fn event(&mut self, event: &Event) -> Option<(ProcessName, Growth)> {
        match &event.kind {
            EventKind::Fork { .. } => {
                if event.id.tid == event.pid {
                    self.learn_name(event);
                }
                None
            }
            EventKind::Exec { .. } => {
                self.learn_name(event);
                None
            }
            EventKind::Reap => {
                // Not at the death of the last thread: others that ended with it may come behind it in the
                // stream.
                let known = self.processes.get(&event.pid);
                if known.is_some_and(|name| name.start_ns == event.id.start_ns) {
                    self.processes.remove(&event.pid);
                }
                None
            }
            EventKind::Exit(exit) => {
                let name = self.process_of(event);
                if event.id.tid == event.pid {
                    self.processes.insert(event.pid, name);
                }
                let account = exit.account.as_ref()?;
                if let Some((followed, _)) = self.missing.remove(&account.id) {
                    // Late, not lost.
                    self.counted.change(&followed, u64::saturating_sub);
                    self.ended.remove(&account.id);
                    self.accounts.insert(account.id, followed);
                }
                if self.ended.insert(account.id, event.at_ns).is_some() {
                    return None;
                }
                let growth = self.growth_of(account, exit.switches);
                self.accounts.remove(&account.id);
                Some((name, growth))
            }
        }
    }

    /// How many accounts are followed.
    pub fn len(&self) -> usize {
        self.accounts.len()
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.accounts.is_empty()
    }

    /// The name of a thread's process; its own if the process is unknown.
    pub fn name_of(&self, thread: &Thread) -> ProcessName {
        self.processes.get(&thread.pid).copied().unwrap_or(ProcessName {
            pid: thread.pid,
            start_ns: thread.id.start_ns,
            comm: thread.comm,
            cgroup_id: thread.cgroup_id,
            kernel: thread.kernel,
        })
    }

    /// All threads with the names of their processes.
    pub fn named<'a>(&self, snapshot: &'a Snapshot) -> impl Iterator<Item = (&'a Thread, ProcessName)> {
        let mut latest = None;
        let threads = snapshot.threads.iter();
        threads.map(move |thread| (thread, self.name_after(&mut latest, thread)))
    }

    /// [`Self::name_of`], when that of another thread was asked for before: those of a process mostly stand together.
    fn name_after(&self, latest: &mut Option<ProcessName>, thread: &Thread) -> ProcessName {
        match *latest {
            Some(name) if name.pid == thread.pid => name,
            _ => *latest.insert(self.name_of(thread)),
        }
    }

    /// The name of a process by pid.
    pub fn process(&self, pid: u32) -> Option<ProcessName> {
        self.processes.get(&pid).copied()
    }

    /// The name of the process an event is about; the event's own if the process is unknown.
    pub fn process_of(&self, event: &Event) -> ProcessName {
        let mut name = self.process(event.pid).unwrap_or_else(|| name_in(event));
        if event.id.tid == event.pid && matches!(event.kind, EventKind::Exit(_)) {
            // It may have renamed itself since anybody looked.
            name.comm = event.comm;
        }
        name
    }

    fn growth_of(&mut self, account: &Account, switches: Switches) -> Growth {
        let followed = self.accounts.entry(account.id).or_insert_with(|| Followed {
            mark: HighWater::new(account.id),
            switches: Switches::default(),
            read_ns: 0,
            seen: 0,
        });
        let mut growth = Growth::default();
        followed.seen = self.snapshots;
        if account.read_ns >= followed.read_ns {
            followed.mark.advance(account, &mut growth.usage);
            growth.switches = switches.since(followed.switches);
            followed.switches = switches;
            followed.read_ns = account.read_ns;
        }
        growth
    }

    fn learn_names(&mut self, snapshot: &Snapshot) {
        self.processes.clear();
        for thread in snapshot.threads.iter().filter(|thread| thread.is_leader()) {
            let name = ProcessName {
                pid: thread.pid,
                start_ns: thread.id.start_ns,
                comm: thread.comm,
                cgroup_id: thread.cgroup_id,
                kernel: thread.kernel,
            };
            self.processes.insert(thread.pid, name);
        }
    }

    fn learn_name(&mut self, event: &Event) {
        self.processes.insert(event.pid, name_in(event));
    }
}

/// Whether a thread has nothing more to come.
fn is_over(thread: &Thread) -> bool {
    !matches!(thread.condition, Condition::Alive(_))
}

fn name_in(event: &Event) -> ProcessName {
    ProcessName {
        pid: event.pid,
        start_ns: event.id.start_ns,
        comm: event.comm,
        cgroup_id: event.cgroup_id,
        kernel: event.kernel,
    }
}

#[cfg(test)]
#[path = "tracker_tests.rs"]
pub(crate) mod tests;
