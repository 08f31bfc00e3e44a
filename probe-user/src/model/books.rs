//! Running totals per group, for as long as the agent runs: what the counters of `/metrics` show.
//!
//! A group is a unit and a process name. Its totals keep what its dead threads did. The number of groups is bounded:
//! once the bound is reached, whatever is new is added up in `comm="(other)"`, so sums over all groups stay exact and
//! no counter ever falls. A group that is gone makes room for another ([`super::gone`]).

use std::collections::BTreeMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;

use foldhash::{HashMap, HashSet};
use probe_ebpf::state::{STATES, State};
use probe_ebpf::waiting::Class;

use super::account::Usage;
use super::event::{Event, EventKind};
use super::gone::Gone;
use super::locks::Kind;
use super::locks::aggregator::LockDelta;
use super::snapshot::Snapshot;
use super::thread::{Comm, Condition, Switches};
use super::together::Together;
use super::tracker::{ProcessName, Tracker, Units};
use super::tree::headless;
use super::waits::{Files, Waits};

/// Name of the group that takes what exceeds the bound.
pub const OTHER: &str = "(other)";
/// Name of the group that takes the times of threads whose exit event was lost.
pub const LOST: &str = "(lost)";

/// Names of cgroups and processes that are remembered with their group.
const MAX_KEYS: usize = 10_000;

/// A process that lived less than this is short-lived: what it did was mostly to begin and to end.
pub const SHORT_LIVED_NS: u64 = 1_000_000_000;

/// A group's labels.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GroupKey {
    /// Container, pod or service; "" if none.
    pub unit: Arc<str>,
    /// Process name, escaped.
    pub comm: Arc<str>,
}

impl GroupKey {
    fn named(comm: &str) -> Self {
        Self {
            unit: "".into(),
            comm: comm.into(),
        }
    }
}

/// A group's totals.
#[derive(Clone, Debug, Default)]
pub struct GroupTotals {
    /// Time and durations since the agent went live, the dead included.
    pub usage: Usage,
    /// Switches since then.
    pub switches: Switches,
    /// Processes that ended, by reason, in the order of [`super::event::Reason::ALL`].
    pub exits: [u64; 5],
    /// Processes that the group's processes forked.
    pub forks: u64,
    /// Processes that lived less than [`SHORT_LIVED_NS`].
    pub short_lived: u64,
    /// Time on a CPU of their first threads, nanoseconds.
    pub short_lived_running_ns: u64,
    /// Threads in each condition at the last snapshot, in the order of [`Condition::ALL`].
    pub threads: [u64; 10],
    /// What its threads waited in.
    pub waits: Waits,
}

/// Processes and threads by condition, of the whole host.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HostCounts {
    /// Processes by the condition of their leader, in the order of [`Condition::ALL`].
    pub processes: [u64; 10],
    /// Threads.
    pub threads: [u64; 10],
}

/// See the module.
pub struct Books {
    max_groups: usize,
    tracker: Tracker,
    groups: HashMap<GroupKey, GroupTotals>,
    keys: HashMap<(u64, Comm), GroupKey>,
    /// How many of the groups are [`OTHER`] or [`LOST`].
    collective: usize,
    gone: Gone,
    /// Distinct groups that went into [`OTHER`] since the last snapshot.
    folded: HashSet<(u64, Comm)>,
    /// How many there were at the last one.
    folded_count: usize,
    host: HostCounts,
    began_ns: u64,
    /// Processes that ended since the last look at locks: what they waited there is still to come.
    departed: HashMap<u32, ProcessName>,
}

impl Books {
    /// Empty books for at most `max_groups` groups (and [`OTHER`] and [`LOST`]).
    pub fn new(max_groups: usize) -> Self {
        Self {
            max_groups,
            tracker: Tracker::default(),
            groups: HashMap::default(),
            keys: HashMap::default(),
            collective: 0,
            gone: Gone::default(),
            folded: HashSet::default(),
            folded_count: 0,
            host: HostCounts::default(),
            began_ns: 0,
            departed: HashMap::default(),
        }
    }

    /// The first snapshot: switches from before it are not ours to count; times are (they began with the programs).
    pub fn begin(&mut self, snapshot: &Snapshot) {
        self.tracker.begin(snapshot);
        self.began_ns = snapshot.began_ns;
    }

    /// Books what every thread gained since the last snapshot, and recounts who is in which condition.
    pub fn snapshot(&mut self, snapshot: &Snapshot, units: &mut dyn Units, files: &mut dyn Files) {
        for group in self.groups.values_mut() {
            group.threads = [0; 10];
        }
        self.host = HostCounts::default();
        let mut tracker = std::mem::take(&mut self.tracker);
        let mut together = Together::default();
        tracker.advance(snapshot, |thread, name, growth| {
            let reads_ns = growth.usage.blocked_ns[Class::Read as usize]
                + growth.usage.blocked_ns[Class::Write as usize];
            let descriptor = thread.descriptor.filter(|_| reads_ns > 0);
            let kind = descriptor.and_then(|descriptor| files.kind(thread.pid, descriptor));
            if let Some(before) = together.add(name, kind, growth) {
                self.add(&before, units);
            }
        });
        self.add(&together, units);
        self.recount(snapshot, &tracker, units);
        self.tracker = tracker;
        self.folded_count = self.folded.len();
        self.folded.clear();
        self.make_room(snapshot.began_ns);
    }

    /// Counts who is in which condition. Threads of a process mostly stand together: one look at their group for all of them.
    fn recount(&mut self, snapshot: &Snapshot, tracker: &Tracker, units: &mut dyn Units) {
        let mut together: Option<(ProcessName, [u64; 10])> = None;
        let headless = headless(snapshot);
        let position_of = |wanted| Condition::ALL.iter().position(|&condition| condition == wanted);
        for (thread, name) in tracker.named(snapshot) {
            let Some(position) = position_of(thread.condition) else {
                continue;
            };
            self.host.threads[position] += 1;
            if thread.is_leader() {
                let face = headless.get(&thread.pid).and_then(|&face| position_of(face));
                self.host.processes[face.unwrap_or(position)] += 1;
            }
            if together.as_ref().is_none_or(|(of, _)| *of != name)
                && let Some((of, counts)) = together.replace((name, [0; 10]))
            {
                self.count_threads(of, &counts, units);
            }
            if let Some((_, counts)) = &mut together {
                counts[position] += 1;
            }
        }
        if let Some((of, counts)) = together {
            self.count_threads(of, &counts, units);
        }
    }

    fn count_threads(&mut self, name: ProcessName, counts: &[u64; 10], units: &mut dyn Units) {
        let threads = &mut self.group_of(name, units).threads;
        threads
            .iter_mut()
            .zip(counts)
            .for_each(|(sum, count)| *sum += count);
    }

    /// Sets groups aside whose processes are long gone, and forgets names that nobody may bear any more.
    fn make_room(&mut self, now_ns: u64) {
        let over = self
            .groups
            .extract_if(|key, totals| !is_collective(key) && self.gone.is_over(key, totals, now_ns));
        let over: Vec<(GroupKey, GroupTotals)> = over.collect();
        for (key, totals) in over {
            self.keys.retain(|_, named| *named != key);
            self.gone.keep(key, totals, now_ns);
        }
        // A cache: what is still alive is found again.
        if self.keys.len() > MAX_KEYS.max(4 * self.max_groups) {
            self.keys.clear();
        }
    }

    /// Books an event; an exit brings the last of what its thread did.
    pub fn event(&mut self, event: &Event, units: &mut dyn Units) {
        self.count(event, units);
        if matches!(&event.kind, EventKind::Exit(exit) if exit.last) {
            self.departed.insert(event.pid, self.tracker.process_of(event));
        }
        if let Some((name, growth)) = self.tracker.event(event) {
            let alone = Together {
                name: Some(name),
                growth,
                descriptor: None,
            };
            self.add(&alone, units);
        }
    }

    /// Counts births by who forked, deaths by reason, and lives that were short.
    fn count(&mut self, event: &Event, units: &mut dyn Units) {
        match &event.kind {
            EventKind::Fork { .. } if event.id.tid == event.pid => {
                if let Some(parent) = self.tracker.process(event.ppid) {
                    self.group_of(parent, units).forks += 1;
                }
            }
            EventKind::Exit(exit) if exit.last => {
                let name = self.tracker.process_of(event);
                let began_ns = self.began_ns;
                let group = self.group_of(name, units);
                group.exits[exit.reason() as usize] += 1;
                let account = exit.account.as_ref().filter(|_| event.id.tid == event.pid);
                // An account that began with the programs says nothing about how long the process lived.
                let born = account.filter(|account| account.id.birth_ns > began_ns);
                if let Some(account) =
                    born.filter(|account| event.at_ns.saturating_sub(account.id.birth_ns) < SHORT_LIVED_NS)
                {
                    group.short_lived += 1;
                    group.short_lived_running_ns += account.time_ns[State::Running.index()];
                }
            }
            _ => {}
        }
    }

    /// Sets the totals of threads whose exit event was lost, as the kernel had them before the last snapshot. What was
    /// counted of these threads while they lived stays where it was counted; a counter never falls.
    pub fn lost(&mut self, time_ns: [u64; STATES], switches: Switches) {
        if time_ns.iter().all(|&time| time == 0) {
            return;
        }
        let counted = self.tracker.counted_of_lost();
        let group = self.entry(GroupKey::named(LOST));
        let rest = time_ns.iter().zip(counted.time_ns);
        for (sum, (time, counted)) in group.usage.time_ns.iter_mut().zip(rest) {
            *sum = (*sum).max(time.saturating_sub(counted));
        }
        let rest = switches.since(counted.switches);
        group.switches.voluntary = group.switches.voluntary.max(rest.voluntary);
        group.switches.involuntary = group.switches.involuntary.max(rest.involuntary);
    }

    /// All groups with their totals.
    pub fn groups(&self) -> impl Iterator<Item = (&GroupKey, &GroupTotals)> {
        self.groups.iter()
    }

    /// The group a process of this cgroup and name is in; `None` if it is in [`OTHER`].
    pub fn group_by_name(&self, cgroup_id: u64, comm: Comm) -> Option<&GroupKey> {
        self.keys.get(&(cgroup_id, comm))
    }

    /// Whole-host counts at the last snapshot.
    pub fn host(&self) -> &HostCounts {
        &self.host
    }

    /// How many groups were added up in [`OTHER`] between the last two snapshots.
    pub fn folded(&self) -> usize {
        self.folded_count
    }

    /// Books what happened at locks since the last look at them.
    pub fn locks(&mut self, news: &LockDelta, units: &mut dyn Units) {
        for group in self.groups.values_mut() {
            group.waits.begin_look();
        }
        let mut lately: HashMap<GroupKey, BTreeMap<Kind, u64>> = HashMap::default();
        for (&(pid, kind), waited) in &news.waited {
            let key = self.group_of_pid(pid, units);
            *lately.entry(key.clone()).or_default().entry(kind).or_default() += waited.lately_ns;
            self.entry(key).waits.add_kind(kind, waited);
        }
        for deadlock in &news.deadlocks {
            let pid = deadlock.members.first().map_or(0, |member| member.party.pid);
            let key = self.group_of_pid(pid, units);
            let waits = &mut self.entry(key).waits;
            waits.deadlocks += 1;
            waits.deadlocked_threads += deadlock.members.len() as u64;
        }
        for stall in &news.stalls {
            let key = self.group_of_pid(stall.pid, units);
            self.entry(key).waits.stalled_threads += stall.waits.len() as u64;
        }
        for (key, group) in &mut self.groups {
            group.waits.divide(lately.get(key).unwrap_or(&BTreeMap::new()));
        }
        self.departed.clear();
    }

    fn group_of_pid(&mut self, pid: u32, units: &mut dyn Units) -> GroupKey {
        let name = self.tracker.process(pid);
        match name.or_else(|| self.departed.get(&pid).copied()) {
            Some(name) => self.key_of(name, units),
            None => GroupKey::named(LOST),
        }
    }

    fn add(&mut self, together: &Together, units: &mut dyn Units) {
        let Some(name) = together.name else { return };
        let growth = &together.growth;
        let group = self.group_of(name, units);
        group.waits.add(&growth.usage.blocked_ns, together.descriptor);
        group.usage.add(&growth.usage);
        group.switches.add(growth.switches);
    }

    /// Asks again for the unit of every cgroup: they are called otherwise from here on. What was counted stays where it is,
    /// so no counter falls.
    pub fn units_changed(&mut self) {
        self.keys.clear();
    }

    fn group_of(&mut self, name: ProcessName, units: &mut dyn Units) -> &mut GroupTotals {
        let key = self.key_of(name, units);
        self.entry(key)
    }

    fn key_of(&mut self, name: ProcessName, units: &mut dyn Units) -> GroupKey {
        let full = self.groups.len() >= self.max_groups + self.collective;
        match self.keys.entry((name.cgroup_id, name.comm)) {
            Entry::Occupied(known) => known.get().clone(),
            Entry::Vacant(new) => {
                let key = GroupKey {
                    unit: units.unit(name.cgroup_id),
                    comm: name.comm.to_string().into(),
                };
                if full && !self.groups.contains_key(&key) {
                    self.folded.insert((name.cgroup_id, name.comm));
                    GroupKey::named(OTHER)
                } else {
                    new.insert(key).clone()
                }
            }
        }
    }

    fn entry(&mut self, key: GroupKey) -> &mut GroupTotals {
        match self.groups.entry(key) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(new) => {
                self.collective += usize::from(is_collective(new.key()));
                let totals = self.gone.bring_back(new.key());
                new.insert(totals)
            }
        }
    }
}

/// Whether a group adds up others.
fn is_collective(key: &GroupKey) -> bool {
    [OTHER, LOST].contains(&&*key.comm)
}

#[cfg(test)]
#[path = "books_tests.rs"]
mod tests;
