//! What happened between two snapshots, by thread, process, name or unit.

use std::collections::HashMap;

use probe_ebpf::state::{STATES, State};

use super::account::Usage;
use super::event::{Event, EventKind};
use super::snapshot::Snapshot;
use super::thread::{Comm, Condition, Switches, Thread};
use super::tracker::{Growth, ProcessName, Tracker, Units};
use super::transitions::{Transition, ended_stays, transitions};

/// What to group by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    /// Every thread for itself.
    Thread,
    /// Threads of one process.
    Process,
    /// Processes of one name.
    Comm,
    /// Processes of one container, pod or service.
    Unit,
}

impl By {
    /// By the name it has on the command line and in requests.
    pub fn from_name(name: &str) -> Option<Self> {
        match name {
            "thread" => Some(Self::Thread),
            "process" => Some(Self::Process),
            "comm" => Some(Self::Comm),
            "unit" => Some(Self::Unit),
            _ => None,
        }
    }
}

/// One line of the result.
#[derive(Clone, Debug, Default)]
pub struct Group {
    /// What the group is called.
    pub key: String,
    /// The process, if every process is a group.
    pub process: Option<(u32, Comm)>,
    /// Threads at the end of the window.
    pub threads: u64,
    /// How many are in each condition at the end, in the order of [`Condition::ALL`].
    pub now: [u64; 10],
    /// What its threads did, those that died in the window included.
    pub usage: Usage,
    /// Switches in the window.
    pub switches: Switches,
}

/// Gathers a window: begin with a snapshot, feed events, end with a snapshot.
pub struct Window {
    by: By,
    pid: Option<u32>,
    tracker: Tracker,
    groups: HashMap<String, Group>,
    at_start: [u64; STATES],
    births: u64,
    deaths: u64,
    began_ns: u64,
}

/// The finished window.
pub struct Report {
    /// Groups, the most time not asleep first.
    pub groups: Vec<Group>,
    /// State changes, the most frequent first.
    pub transitions: Vec<Transition>,
    /// Length of the window, nanoseconds.
    pub window_ns: u64,
}

impl Window {
    /// Begins at a snapshot; with `pid` only that process is counted.
    pub fn begin(snapshot: &Snapshot, by: By, pid: Option<u32>) -> Self {
        let mut tracker = Tracker::default();
        tracker.begin(snapshot);
        let wanted = |thread: &&Thread| pid.is_none_or(|pid| thread.pid == pid);
        let mut at_start = [0; STATES];
        for thread in snapshot.threads.iter().filter(wanted) {
            if let (Condition::Alive(state), Some(_)) = (thread.condition, &thread.account) {
                at_start[state.index()] += 1;
            }
        }
        Self {
            by,
            pid,
            tracker,
            groups: HashMap::new(),
            at_start,
            births: 0,
            deaths: 0,
            began_ns: snapshot.began_ns,
        }
    }

    /// Takes an event of the window into account. Events from before it or after its end are the caller's to drop.
    pub fn event(&mut self, event: &Event, units: &mut dyn Units) {
        let wanted = self.pid.is_none_or(|pid| event.pid == pid);
        match (&event.kind, self.tracker.event(event)) {
            (EventKind::Fork { .. }, _) if wanted => self.births += 1,
            (EventKind::Exit(_), Some((name, growth))) if wanted => {
                self.deaths += 1;
                let key = key(self.by, event.id.tid, &event.comm.to_string(), name, units);
                add(group(&mut self.groups, self.by, key, name), &growth);
            }
            _ => {}
        }
    }

    /// Ends at a snapshot.
    pub fn end(self, snapshot: &Snapshot, units: &mut dyn Units) -> Report {
        let Self {
            by,
            pid,
            mut tracker,
            mut groups,
            at_start,
            births,
            deaths,
            began_ns,
        } = self;
        let wanted = |thread: &Thread| pid.is_none_or(|pid| thread.pid == pid);
        let mut at_end = [0; STATES];
        tracker.advance(snapshot, |thread, name, growth| {
            if wanted(thread) {
                let key = key(by, thread.id.tid, &thread.comm.to_string(), name, units);
                add(group(&mut groups, by, key, name), &growth);
                if let Condition::Alive(state) = thread.condition {
                    at_end[state.index()] += 1;
                }
            }
        });
        for thread in snapshot.threads.iter().filter(|thread| wanted(thread)) {
            let name = tracker.name_of(thread);
            let key = key(by, thread.id.tid, &thread.comm.to_string(), name, units);
            let group = group(&mut groups, by, key, name);
            group.threads += 1;
            if let Some(position) = Condition::ALL
                .iter()
                .position(|&condition| condition == thread.condition)
            {
                group.now[position] += 1;
            }
        }
        let mut total = Usage::default();
        for (key, group) in &mut groups {
            group.key.clone_from(key);
            total.add(&group.usage);
        }
        Report {
            groups: sorted(groups),
            transitions: transitions(ended_stays(&total), at_start, at_end, births, deaths),
            window_ns: snapshot.began_ns.saturating_sub(began_ns),
        }
    }
}

fn group(groups: &mut HashMap<String, Group>, by: By, key: String, process: ProcessName) -> &mut Group {
    let group = groups.entry(key).or_default();
    if by == By::Process {
        group.process = Some((process.pid, process.comm));
    }
    group
}

fn add(group: &mut Group, growth: &Growth) {
    group.usage.add(&growth.usage);
    group.switches.add(growth.switches);
}

fn key(by: By, tid: u32, thread_comm: &str, process: ProcessName, units: &mut dyn Units) -> String {
    match by {
        By::Thread => format!("{thread_comm} {tid}"),
        By::Process => format!("{} {}", process.comm, process.pid),
        By::Comm => process.comm.to_string(),
        By::Unit => units.unit(process.cgroup_id).to_string(),
    }
}

/// Busiest first: time running, waiting for a CPU or in uninterruptible sleep; then by name.
fn sorted(groups: HashMap<String, Group>) -> Vec<Group> {
    let busy = |group: &Group| -> u64 {
        [State::Running, State::Runnable, State::Uninterruptible]
            .iter()
            .map(|s| group.usage.time_ns[s.index()])
            .sum()
    };
    let mut groups: Vec<Group> = groups.into_values().collect();
    groups.sort_by(|a, b| busy(b).cmp(&busy(a)).then_with(|| a.key.cmp(&b.key)));
    groups
}
