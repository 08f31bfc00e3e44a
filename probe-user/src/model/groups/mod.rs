//! Running totals per group, for as long as the agent runs: what the counters of `/metrics` show.
//!
//! A group is a unit and a process name ([`key`]). Its totals keep what its dead threads did. The number of
//! groups is bounded ([`table`]): what has no place is added up in `comm="(other)"`, so sums over all groups
//! stay exact and no counter ever falls.
//!
//! Durations are counted beside that, from the same growth, of units or of the host ([`Durations`]): what a
//! group left in [`OTHER`] when it had no place has lost its unit, so they cannot be added up afterwards.

mod afflicted;
mod batch;
mod grouping;
mod key;
mod lock_edges;
pub mod parents;
mod retired;
mod table;
mod totals;
mod weight;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use foldhash::HashMap;
use probe_ebpf::state::{STATES, State};
use probe_ebpf::waiting::Class;

use super::event::{Event, EventKind};
use super::locks::aggregator::LockDelta;
use super::locks::{Kind, LockId};
use super::snapshot::Snapshot;
use super::thread::{Comm, Condition, Switches, Thread};
use super::tracker::{ProcessName, Tracker, Units};
use super::transitions::{Transition, Transitions};
use super::tree::headless;
use super::waits::Files;
use afflicted::Afflicted;
pub use afflicted::{AFFLICTED, Afflictions};
use batch::GroupBatch;
use grouping::Names;
pub use grouping::{Durations, Grouping};
pub use key::{GroupBy, GroupKey, KERNEL, LOST, OTHER};
pub use lock_edges::{LockEdge, LockEdges, MOST as LOCK_EDGES_SHOWN, Nameless};
pub use table::LINGER;
use table::{GroupTable, Living};
pub use totals::{GroupTotals, SHORT_LIVED_NS};

/// Cgroups and process names that are remembered with their group.
const MAX_KEYS: usize = 10_000;

/// Processes and threads by condition, of the whole host.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HostCounts {
    /// Processes by the condition of their leader, in the order of [`Condition::ALL`].
    pub processes: [u64; 10],
    /// Threads.
    pub threads: [u64; 10],
}

/// Who lives, as of one look.
#[derive(Default)]
struct Census {
    groups: HashMap<GroupKey, Living>,
    durations: HashMap<GroupKey, Living>,
}

/// See the module.
pub struct GroupAggregator {
    grouping: Grouping,
    tracker: Tracker,
    table: GroupTable,
    /// Durations, unless the groups have them: of these totals, the durations alone are shown.
    durations: Option<GroupTable>,
    /// A cache: what each process is counted under, by its name.
    keys: HashMap<(u64, Comm, bool), Arc<Names>>,
    host: HostCounts,
    began_ns: u64,
    looked_ns: u64,
    /// Processes that ended since the last look at locks: what they waited there is still to come.
    departed: HashMap<u32, ProcessName>,
    /// Deadlocks and stalls by the group's own name.
    afflicted: Afflicted,
    transitions: Transitions,
    lock_edges: LockEdges,
}

impl GroupAggregator {
    /// No groups yet.
    pub fn new(grouping: Grouping) -> Self {
        Self {
            tracker: Tracker::default(),
            table: GroupTable::new(grouping.max_groups),
            durations: grouping.table_of_durations(),
            grouping,
            keys: HashMap::default(),
            host: HostCounts::default(),
            began_ns: 0,
            looked_ns: 0,
            departed: HashMap::default(),
            afflicted: Afflicted::default(),
            transitions: Transitions::default(),
            lock_edges: LockEdges::default(),
        }
    }

    /// The first snapshot: switches from before it are not ours to count; times are (they began with the
    /// programs). Who gets a place is judged by what the processes did so far.
    pub fn begin(&mut self, snapshot: &Snapshot, units: &mut dyn Units) {
        self.tracker.begin(snapshot);
        self.began_ns = snapshot.began_ns;
        self.looked_ns = snapshot.began_ns;
        self.turn(snapshot.began_ns);
        self.recount(snapshot, Duration::ZERO, units);
        for thread in &snapshot.threads {
            let names = self.names_of(self.tracker.name_of(thread), units);
            self.weigh(&names, minute_of(thread, snapshot.boottime_ns));
        }
        self.turn(snapshot.began_ns);
    }

    fn turn(&mut self, now_ns: u64) {
        self.table.turn(now_ns);
        if let Some(durations) = &mut self.durations {
            durations.turn(now_ns);
        }
    }

    fn weigh(&mut self, names: &Names, seconds: f64) {
        self.table.weigh(&names.shown, seconds);
        if let Some(durations) = &mut self.durations {
            durations.weigh(&names.durations, seconds);
        }
    }

    /// Adds what every thread gained since the last snapshot, and recounts who is in which condition.
    pub fn snapshot(&mut self, snapshot: &Snapshot, units: &mut dyn Units, files: &mut dyn Files) {
        // A cache: what is still alive is found again.
        let living = usize::try_from(self.host.processes.iter().sum::<u64>()).unwrap_or(usize::MAX);
        if self.keys.len() > MAX_KEYS.max(living.saturating_mul(2)) {
            self.keys.clear();
        }
        self.turn(snapshot.began_ns);
        let mut tracker = std::mem::take(&mut self.tracker);
        let mut batch = GroupBatch::default();
        tracker.advance(snapshot, |thread, name, growth| {
            let reads_ns = growth.usage.blocked_ns[Class::Read as usize]
                + growth.usage.blocked_ns[Class::Write as usize];
            let descriptor = thread.descriptor.filter(|_| reads_ns > 0);
            let kind = descriptor.and_then(|descriptor| files.kind(thread.pid, descriptor));
            if let Some(before) = batch.add(name, kind, growth) {
                self.add(&before, units);
            }
        });
        self.add(&batch, units);
        self.tracker = tracker;
        let time = Duration::from_nanos(snapshot.began_ns.saturating_sub(self.looked_ns));
        self.looked_ns = snapshot.began_ns;
        self.recount(snapshot, time, units);
    }

    /// Counts who is in which condition. Threads of a process mostly stand together: one lookup of their
    /// group for all.
    fn recount(&mut self, snapshot: &Snapshot, time: Duration, units: &mut dyn Units) {
        self.host = HostCounts::default();
        let mut living = Census::default();
        let mut batch: Option<(ProcessName, Living)> = None;
        let headless = headless(snapshot);
        let position_of = |wanted| Condition::ALL.iter().position(|&condition| condition == wanted);
        let tracker = std::mem::take(&mut self.tracker);
        for (thread, name) in tracker.named(snapshot) {
            let Some(position) = position_of(thread.condition) else {
                continue;
            };
            self.host.threads[position] += 1;
            if thread.is_leader() {
                let face = headless.get(&thread.pid).and_then(|&face| position_of(face));
                self.host.processes[face.unwrap_or(position)] += 1;
            }
            if batch.as_ref().is_none_or(|(of, _)| *of != name)
                && let Some((of, counts)) = batch.replace((name, Living::default()))
            {
                self.count_living(&mut living, of, &counts, units);
            }
            if let Some((_, counts)) = &mut batch {
                counts.threads[position] += 1;
                counts.processes += u64::from(thread.is_leader());
            }
        }
        if let Some((of, counts)) = batch {
            self.count_living(&mut living, of, &counts, units);
        }
        self.tracker = tracker;
        self.table.settle(&living.groups, time);
        if let Some(durations) = &mut self.durations {
            durations.settle(&living.durations, time);
        }
    }

    fn count_living(
        &mut self,
        living: &mut Census,
        name: ProcessName,
        counts: &Living,
        units: &mut dyn Units,
    ) {
        let names = self.names_of(name, units);
        let group = living.groups.entry(names.shown.clone()).or_default();
        group.kernel = name.kernel;
        group.add(counts);
        if self.durations.is_some() {
            let of_durations = living.durations.entry(names.durations.clone());
            of_durations.or_default().add(counts);
        }
    }

    /// Adds an event; an exit brings the last of what its thread did.
    pub fn event(&mut self, event: &Event, units: &mut dyn Units) {
        self.count(event, units);
        if matches!(&event.kind, EventKind::Exit(exit) if exit.last) {
            self.departed.insert(event.pid, self.tracker.process_of(event));
        }
        if let Some((name, growth)) = self.tracker.event(event) {
            let alone = GroupBatch {
                name: Some(name),
                growth,
                ..GroupBatch::default()
            };
            self.add(&alone, units);
        }
    }

    /// Counts births by who forked, deaths by reason, and lives that were short.
    fn count(&mut self, event: &Event, units: &mut dyn Units) {
        match &event.kind {
            EventKind::Fork { .. } if event.id.tid == event.pid => {
                if let Some(parent) = self.tracker.process(event.ppid) {
                    self.totals_of(parent, units).forks += 1;
                }
            }
            EventKind::Exit(exit) if exit.last => {
                let name = self.tracker.process_of(event);
                let began_ns = self.began_ns;
                let group = self.totals_of(name, units);
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

    /// Sets the totals of threads whose exit event was lost, as the kernel had them before the last snapshot.
    /// What was counted of these threads while they lived stays where it was counted; a counter never falls.
    pub fn lost(&mut self, time_ns: [u64; STATES], switches: Switches) {
        if time_ns.iter().all(|&time| time == 0) {
            return;
        }
        let counted = self.tracker.counted_of_lost();
        let group = self.table.totals(&GroupKey::named(LOST), false);
        let rest = time_ns.iter().zip(counted.time_ns);
        for (sum, (time, counted)) in group.usage.time_ns.iter_mut().zip(rest) {
            *sum = (*sum).max(time.saturating_sub(counted));
        }
        // They are dead, so all of it has ended; else it would look like threads that are stuck.
        group.usage.closed_ns = group.usage.time_ns;
        let rest = switches.since(counted.switches);
        group.switches.voluntary = group.switches.voluntary.max(rest.voluntary);
        group.switches.involuntary = group.switches.involuntary.max(rest.involuntary);
    }

    /// All groups with their totals.
    pub fn groups(&self) -> impl Iterator<Item = (&GroupKey, &GroupTotals)> {
        self.table.iter()
    }

    /// Those whose durations are counted, with their totals, of which the durations alone are meant.
    pub fn durations(&self) -> impl Iterator<Item = (&GroupKey, &GroupTotals)> {
        self.durations.as_ref().unwrap_or(&self.table).iter()
    }

    /// The group that a thread's process belongs to by its name, whether or not that has a place in the
    /// table; `None` if the last snapshot did not have it.
    pub fn own_group(&self, thread: &Thread) -> Option<&GroupKey> {
        self.names_of_thread(thread).map(|names| &names.own)
    }

    fn names_of_thread(&self, thread: &Thread) -> Option<&Names> {
        let name = self.tracker.name_of(thread);
        let names = self.keys.get(&(name.cgroup_id, name.comm, name.kernel));
        names.map(|names| &**names)
    }

    /// The name under which a thread's process is shown; `None` if the last snapshot did not have it.
    pub fn shown_group(&self, thread: &Thread) -> Option<GroupKey> {
        let names = self.names_of_thread(thread)?;
        Some(self.table.face(&names.shown, thread.kernel))
    }

    /// How often threads went from state to state.
    pub fn transitions(&self) -> impl Iterator<Item = Transition> {
        self.transitions.iter()
    }

    /// From when on those are counted; births and deaths as below.
    pub fn begin_transitions(&mut self, snapshot: &Snapshot, births: u64, deaths: u64) {
        self.transitions = Transitions::begin(snapshot, births, deaths);
    }

    /// Brings those up to a snapshot, the one that [`Self::snapshot`] had last; births and deaths are of all
    /// threads since the programs went live.
    pub fn look_at_transitions(&mut self, snapshot: &Snapshot, births: u64, deaths: u64) {
        self.transitions.look(snapshot, births, deaths);
    }

    /// Groups with deadlocks and stalls at the last look, under their own names: at most [`AFFLICTED`], the
    /// rest is in [`OTHER`].
    pub fn afflicted(&self) -> impl Iterator<Item = (&GroupKey, &Afflictions)> {
        self.afflicted.iter()
    }

    /// Whole-host counts at the last snapshot.
    pub fn host(&self) -> &HostCounts {
        &self.host
    }

    /// How many groups were added up in [`OTHER`] and [`KERNEL`] between the last two snapshots.
    pub fn folded(&self) -> usize {
        self.table.folded()
    }

    /// How many units were added up in [`OTHER`] between the last two snapshots, durations alone.
    pub fn units_folded(&self) -> usize {
        let units = self
            .durations
            .as_ref()
            .filter(|_| self.grouping.durations == Durations::Unit);
        units.map_or(0, GroupTable::folded)
    }

    /// Adds what happened at locks since the last look at them.
    pub fn locks(&mut self, news: &LockDelta, units: &mut dyn Units) {
        let tables = [Some(&mut self.table), self.durations.as_mut()];
        for (_, group) in tables.into_iter().flatten().flat_map(GroupTable::iter_mut) {
            group.waits.begin_look();
        }
        let mut lately: HashMap<GroupKey, BTreeMap<Kind, u64>> = HashMap::default();
        for (&(pid, kind), waited) in &news.waited {
            let (names, kernel) = self.names_of_pid(pid, units);
            if kind.is_lock() {
                self.weigh(&names, Duration::from_nanos(waited.lately_ns).as_secs_f64());
            }
            let shown = self.table.shown(&names.shown, kernel).clone();
            *lately.entry(shown).or_default().entry(kind).or_default() += waited.lately_ns;
            let group = self.table.totals(&names.shown, kernel);
            group.waits.add_kind(kind, waited);
            if let Some(durations) = &mut self.durations {
                durations
                    .totals(&names.durations, false)
                    .waits
                    .add_kind(kind, waited);
            }
        }
        for (key, group) in self.table.iter_mut() {
            group.waits.divide(lately.get(key).unwrap_or(&BTreeMap::new()));
        }
        self.lock_edges.turn(self.looked_ns);
        for edge in &news.edges {
            let (names, kernel) = self.names_of_pid(edge.waiter.pid, units);
            let shown = self.table.face(&names.shown, kernel);
            self.lock_edges.add(shown, edge);
        }
        self.lock_edges.settle();
        self.afflict(news, units);
        self.departed.clear();
    }

    /// Who waited for whom at which locks.
    pub fn lock_edges(&self) -> &LockEdges {
        &self.lock_edges
    }

    /// A lock of [`LockEdges::nameless`] has this name, or none.
    pub fn name_lock(&mut self, lock: LockId, name: Option<Box<str>>) {
        self.lock_edges.name(lock, name);
    }

    fn afflict(&mut self, news: &LockDelta, units: &mut dyn Units) {
        let mut now: BTreeMap<GroupKey, Afflictions> = BTreeMap::new();
        for deadlock in &news.deadlocks {
            let pid = deadlock.members.first().map_or(0, |member| member.party.pid);
            let group = now.entry(self.own_key_of_pid(pid, units)).or_default();
            group.add(Afflictions {
                deadlocks: 1,
                deadlocked_threads: deadlock.members.len() as u64,
                oldest_ns: deadlock.age_ns,
                stalled_threads: 0,
            });
        }
        for stall in &news.stalls {
            let group = now.entry(self.own_key_of_pid(stall.pid, units)).or_default();
            group.stalled_threads += stall.waits.len() as u64;
        }
        self.afflicted.replace(now);
    }

    fn names_of_pid(&mut self, pid: u32, units: &mut dyn Units) -> (Arc<Names>, bool) {
        let name = self.tracker.process(pid);
        match name.or_else(|| self.departed.get(&pid).copied()) {
            Some(name) => (self.names_of(name, units), name.kernel),
            None => (Arc::new(Names::collective(LOST)), false),
        }
    }

    fn own_key_of_pid(&mut self, pid: u32, units: &mut dyn Units) -> GroupKey {
        self.names_of_pid(pid, units).0.own.clone()
    }

    fn add(&mut self, batch: &GroupBatch, units: &mut dyn Units) {
        let Some(name) = batch.name else { return };
        let growth = &batch.growth;
        self.transitions.add(&growth.usage);
        let names = self.names_of(name, units);
        self.weigh(&names, weight::of_growth(growth));
        let group = self.table.totals(&names.shown, name.kernel);
        group.waits.add(&growth.usage.blocked_ns, batch.descriptor);
        group.switches.add(growth.switches);
        let Some(durations) = &mut self.durations else {
            group.usage.add(&growth.usage);
            return;
        };
        group.usage.add_times(&growth.usage);
        let unit = durations.totals(&names.durations, false);
        unit.usage.add(&growth.usage);
        // What tells the table that it is still at work.
        unit.switches.add(growth.switches);
    }

    /// Asks again for the unit of every cgroup: they are called otherwise from here on. What was counted
    /// stays where it is, so no counter falls.
    pub fn units_changed(&mut self) {
        self.keys.clear();
    }

    fn totals_of(&mut self, name: ProcessName, units: &mut dyn Units) -> &mut GroupTotals {
        let names = self.names_of(name, units);
        self.table.totals(&names.shown, name.kernel)
    }

    fn names_of(&mut self, name: ProcessName, units: &mut dyn Units) -> Arc<Names> {
        let grouping = &self.grouping;
        let names = self.keys.entry((name.cgroup_id, name.comm, name.kernel));
        Arc::clone(names.or_insert_with(|| Arc::new(Names::of(name, grouping, units))))
    }
}

/// What a thread has done in a minute of its life on average, in seconds: what it weighs before anything is
/// known of it.
fn minute_of(thread: &Thread, boottime_ns: u64) -> f64 {
    let age = Duration::from_nanos(boottime_ns.saturating_sub(thread.id.start_ns));
    let ran = Duration::from_nanos(thread.lifetime_running_ns.unwrap_or(0));
    60.0 * ran.div_duration_f64(age.max(Duration::from_secs(1)))
        + weight::of_threads(1, Duration::from_secs(60))
}

#[cfg(test)]
mod durations_tests;
#[cfg(test)]
mod tests;
