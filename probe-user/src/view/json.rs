//! The JSON shapes that scripts rely on: `procprobe/v1`.
//!
//! Every answer is one object: the envelope ([`Answer`]) and a payload beside it. Times are integer nanoseconds in fields
//! ending `_ns`. What is not known is `null`, never 0 or "". Adding fields is fine; renaming or removing is not.

use std::collections::{BTreeMap, HashMap};

use probe_ebpf::histogram::upper_bound_ns;
use probe_ebpf::state::State;
use serde::Serialize;

use crate::model::account::Histogram;
use crate::model::event::{exit_code, exit_signal};
use crate::model::snapshot::{Losses, Snapshot};
use crate::model::thread::{Comm, Condition, ReadFrom, Switches, Thread, state_name};
use crate::model::tracker::Units;
use crate::model::tree::{Node, Process};
use crate::model::window::{Group, Report, Transition};
use crate::model::{blocked, orphans, zombies};
use crate::source::cgroup::Cgroups;
use crate::source::describe::Description;

/// The version of the shapes.
pub const SCHEMA: &str = "procprobe/v1";

/// What every answer begins with.
#[derive(Debug, Serialize)]
pub struct Answer<T: Serialize> {
    schema: &'static str,
    taken_at: String,
    window_ns: u64,
    source: &'static str,
    complete: bool,
    lost: BTreeMap<&'static str, u64>,
    #[serde(flatten)]
    payload: T,
}

impl<T: Serialize> Answer<T> {
    /// Wraps a payload that was drawn from a snapshot, over a window (0 for one look).
    pub fn new(snapshot: &Snapshot, window_ns: u64, losses: &Losses, payload: T) -> Self {
        Self {
            schema: SCHEMA,
            taken_at: humantime::format_rfc3339_nanos(snapshot.taken_at).to_string(),
            window_ns,
            source: snapshot.source.name(),
            complete: losses.is_empty(),
            lost: losses.iter().collect(),
            payload,
        }
    }
}

/// Payload of `tree`.
#[derive(Debug, Serialize)]
pub struct Tree {
    /// Parents before children.
    pub processes: Vec<ProcessJson>,
}

/// One process.
#[derive(Debug, Serialize)]
pub struct ProcessJson {
    pid: u32,
    ppid: u32,
    start_ns: u64,
    comm: String,
    exe: Option<String>,
    cmdline: Option<Vec<String>>,
    uid: Option<u32>,
    nspid: Vec<u32>,
    cgroup: Option<String>,
    unit: Option<String>,
    state: &'static str,
    nice: i32,
    policy: &'static str,
    kernel: bool,
    read_from: &'static str,
    cpu_ns: Option<u64>,
    orphan: Option<OrphanMark>,
    threads: Vec<ThreadJson>,
}

/// One thread.
#[derive(Debug, Serialize)]
pub struct ThreadJson {
    tid: u32,
    comm: String,
    state: &'static str,
    state_ns: Option<u64>,
    state_ns_is_lower_bound: bool,
    blocked_on: Option<BlockedOnJson>,
    times_ns: Option<BTreeMap<&'static str, u64>>,
    switches: SwitchesJson,
    cpu_ns: Option<u64>,
    exit_status: Option<u32>,
}

/// What a thread is blocked in.
#[derive(Debug, Serialize)]
pub struct BlockedOnJson {
    syscall: String,
    futex: Option<FutexJson>,
}

/// A futex wait.
#[derive(Debug, Serialize)]
pub struct FutexJson {
    address: String,
    op: &'static str,
    shared: bool,
}

/// Context switches.
#[derive(Debug, Serialize)]
pub struct SwitchesJson {
    voluntary: u64,
    involuntary: u64,
}

impl From<Switches> for SwitchesJson {
    fn from(switches: Switches) -> Self {
        Self {
            voluntary: switches.voluntary,
            involuntary: switches.involuntary,
        }
    }
}

/// The name of a scheduling policy as `ps -o cls` and `man 7 sched` know it.
fn policy_name(policy: u32) -> &'static str {
    ["other", "fifo", "rr", "batch", "iso", "idle", "deadline", "ext"]
        .get((policy & 0x0fff_ffff) as usize)
        .copied()
        .unwrap_or("unknown")
}

/// The whole tree.
pub fn tree(
    snapshot: &Snapshot,
    nodes: &[Node<'_>],
    orphans: &[orphans::Orphan<'_>],
    descriptions: &HashMap<u32, Description>,
    cgroups: &mut Cgroups,
) -> Answer<Tree> {
    let orphans: HashMap<u32, &orphans::Orphan<'_>> =
        orphans.iter().map(|orphan| (orphan.thread.pid, orphan)).collect();
    let processes = nodes.iter().map(|node| {
        process(
            &node.process,
            orphans.get(&node.process.pid()).copied(),
            descriptions,
            cgroups,
        )
    });
    let processes = processes.collect();
    Answer::new(snapshot, 0, &snapshot.losses, Tree { processes })
}

/// One process with its threads.
fn process(
    process: &Process<'_>,
    orphan: Option<&orphans::Orphan<'_>>,
    descriptions: &HashMap<u32, Description>,
    cgroups: &mut Cgroups,
) -> ProcessJson {
    let leader = process.leader;
    let description = descriptions.get(&leader.pid);
    let cgroup = cgroups.path(leader.cgroup_id);
    let unit = crate::model::unit::unit_of(cgroup.as_deref().unwrap_or_default());
    ProcessJson {
        pid: leader.pid,
        ppid: leader.ppid,
        start_ns: leader.id.start_ns,
        comm: leader.comm.to_string(),
        exe: description.and_then(|description| description.exe.clone()),
        cmdline: description
            .map(|description| description.cmdline.clone())
            .filter(|cmdline| !cmdline.is_empty()),
        uid: leader.uid,
        nspid: std::iter::once(leader.pid)
            .chain(leader.ns_tids.iter().copied())
            .collect(),
        cgroup: cgroup.map(|path| path.to_string()),
        unit: (!unit.is_empty()).then_some(unit),
        state: leader.condition.name(),
        nice: leader.nice,
        policy: policy_name(leader.policy),
        kernel: leader.kernel,
        read_from: match leader.read_from {
            ReadFrom::Iterator => "iterator",
            ReadFrom::Proc => "proc",
        },
        cpu_ns: process
            .threads
            .iter()
            .map(|thread| thread.lifetime_running_ns)
            .sum(),
        orphan: orphan.map(orphan_mark),
        threads: process
            .threads
            .iter()
            .map(|thread| self::thread(thread))
            .collect(),
    }
}

fn thread(thread: &Thread) -> ThreadJson {
    ThreadJson {
        tid: thread.id.tid,
        comm: thread.comm.to_string(),
        state: thread.condition.name(),
        state_ns: thread.condition_ns,
        state_ns_is_lower_bound: thread.is_lower_bound,
        blocked_on: blocked_on(thread),
        times_ns: thread.account.as_ref().map(|account| {
            State::ALL
                .into_iter()
                .map(|state| (state_name(state), account.time_ns[state.index()]))
                .collect()
        }),
        switches: thread.switches.into(),
        cpu_ns: thread.lifetime_running_ns,
        exit_status: thread.exit_status,
    }
}

fn blocked_on(thread: &Thread) -> Option<BlockedOnJson> {
    let blocked_on = thread.blocked_on.as_ref()?;
    let futex = blocked::futex(blocked_on).map(|wait| FutexJson {
        address: format!("{:#x}", wait.address),
        op: wait.op,
        shared: wait.shared,
    });
    Some(BlockedOnJson {
        syscall: blocked::syscall_name(blocked_on)?,
        futex,
    })
}

/// Payload of `states`.
#[derive(Debug, Serialize)]
pub struct States {
    groups: Vec<GroupJson>,
    transitions: Option<Vec<TransitionJson>>,
}

#[derive(Debug, Serialize)]
struct GroupJson {
    key: String,
    threads: u64,
    states: BTreeMap<&'static str, StateJson>,
    switches: Option<SwitchesJson>,
}

#[derive(Debug, Serialize)]
struct StateJson {
    now: u64,
    total_ns: Option<u64>,
    count: Option<u64>,
    histogram: Option<Vec<BucketJson>>,
}

#[derive(Debug, Serialize)]
struct BucketJson {
    /// `null` for the last bucket, which has no upper bound.
    le_ns: Option<u64>,
    count: u64,
}

#[derive(Debug, Serialize)]
struct TransitionJson {
    from: &'static str,
    to: &'static str,
    count: u64,
}

/// A finished window. `known` is false for /proc, which knows the current states only.
pub fn states(report: &Report, known: bool) -> States {
    let transition = |transition: &Transition| TransitionJson {
        from: transition.from,
        to: transition.to,
        count: transition.count,
    };
    States {
        groups: report
            .groups
            .iter()
            .map(|group| self::group(group, known))
            .collect(),
        transitions: known.then(|| report.transitions.iter().map(transition).collect()),
    }
}

fn group(group: &Group, known: bool) -> GroupJson {
    let states = Condition::ALL.into_iter().zip(group.now).map(|(condition, now)| {
        let state = match condition {
            Condition::Alive(state) if known => Some(state),
            _ => None,
        };
        let json = StateJson {
            now,
            total_ns: state.map(|state| group.usage.time_ns[state.index()]),
            count: state.map(|state| group.usage.count(state)),
            histogram: state.map(|state| buckets(&group.usage.histograms[state.index()])),
        };
        (condition.name(), json)
    });
    GroupJson {
        key: group.key.clone(),
        threads: group.threads,
        states: states.collect(),
        switches: known.then(|| group.switches.into()),
    }
}

/// The buckets that hold something.
fn buckets(histogram: &Histogram) -> Vec<BucketJson> {
    let all = histogram.iter().enumerate();
    all.filter(|&(_, &count)| count > 0)
        .map(|(bucket, &count)| BucketJson {
            le_ns: upper_bound_ns(bucket),
            count,
        })
        .collect()
}

/// A process by pid and name.
#[derive(Debug, Serialize)]
pub struct Named {
    pid: u32,
    comm: Option<String>,
}

impl Named {
    /// Of a pid and what is known of its name.
    pub fn new(pid: u32, comm: Option<Comm>) -> Self {
        Self {
            pid,
            comm: comm.map(|comm| comm.to_string()),
        }
    }
}

/// Payload of `zombies`.
#[derive(Debug, Serialize)]
pub struct Zombies {
    zombies: Vec<ZombieJson>,
    parents: Vec<ParentJson>,
    pids: PidsJson,
}

#[derive(Debug, Serialize)]
struct ZombieJson {
    pid: u32,
    comm: String,
    ppid: u32,
    age_ns: Option<u64>,
    kind: &'static str,
    at_fault: Option<u32>,
    exit: ExitStatusJson,
}

#[derive(Debug, Serialize)]
struct ExitStatusJson {
    code: Option<u32>,
    signal: Option<u32>,
}

#[derive(Debug, Serialize)]
struct ParentJson {
    pid: u32,
    comm: Option<String>,
    exe: Option<String>,
    unit: Option<String>,
    state: Option<&'static str>,
    state_ns: Option<u64>,
    blocked_on: Option<BlockedOnJson>,
    count: u64,
    oldest_age_ns: Option<u64>,
    per_minute: Option<f64>,
    last_wait_ns: Option<u64>,
    reaped: Option<u64>,
}

#[derive(Debug, Serialize)]
struct PidsJson {
    used: u64,
    limit: Option<u64>,
    full_in_ns: Option<u64>,
}

/// The zombies and who is at fault.
pub fn zombies(
    report: &zombies::Report<'_>,
    descriptions: &HashMap<u32, Description>,
    cgroups: &mut Cgroups,
) -> Zombies {
    let zombie = |zombie: &zombies::Zombie<'_>| ZombieJson {
        pid: zombie.thread.pid,
        comm: zombie.thread.comm.to_string(),
        ppid: zombie.thread.ppid,
        age_ns: zombie.thread.condition_ns,
        kind: zombie.kind.name(),
        at_fault: zombie.at_fault,
        exit: ExitStatusJson {
            code: zombie.thread.exit_status.and_then(exit_code),
            signal: zombie.thread.exit_status.and_then(exit_signal),
        },
    };
    Zombies {
        zombies: report.zombies.iter().map(zombie).collect(),
        parents: report
            .culprits
            .iter()
            .map(|culprit| parent(culprit, descriptions, cgroups))
            .collect(),
        pids: PidsJson {
            used: report.pids.used,
            limit: report.pids.limit,
            full_in_ns: report.full_in_ns,
        },
    }
}

fn parent(
    culprit: &zombies::Culprit<'_>,
    descriptions: &HashMap<u32, Description>,
    cgroups: &mut Cgroups,
) -> ParentJson {
    let thread = culprit.thread;
    let unit = thread
        .map(|thread| cgroups.unit(thread.cgroup_id))
        .filter(|unit| !unit.is_empty());
    ParentJson {
        pid: culprit.pid,
        comm: thread.map(|thread| thread.comm.to_string()),
        exe: descriptions
            .get(&culprit.pid)
            .and_then(|description| description.exe.clone()),
        unit: unit.map(|unit| unit.to_string()),
        state: thread.map(|thread| thread.condition.name()),
        state_ns: thread.and_then(|thread| thread.condition_ns),
        blocked_on: thread.and_then(blocked_on),
        count: culprit.count,
        oldest_age_ns: culprit.oldest_ns,
        per_minute: culprit.per_second.map(|rate| rate * 60.0),
        last_wait_ns: culprit.last_wait_ns,
        reaped: culprit.reaped,
    }
}

/// Payload of `orphans`.
#[derive(Debug, Serialize)]
pub struct Orphans {
    orphans: Vec<OrphanJson>,
}

#[derive(Debug, Serialize)]
struct OrphanJson {
    pid: u32,
    comm: String,
    original_parent: Named,
    ancestry: Vec<Named>,
    adopter: AdopterJson,
    orphaned_ns: Option<u64>,
    guess: bool,
}

/// Who has an orphan now.
#[derive(Debug, Serialize)]
struct AdopterJson {
    pid: u32,
    comm: Option<String>,
    kind: &'static str,
    reaps: Option<bool>,
    zombies: u64,
}

/// The orphans of a process tree, as `tree` shows them.
#[derive(Debug, Serialize)]
pub struct OrphanMark {
    original_parent: Named,
    adopter: AdopterJson,
    guess: bool,
}

fn adopter(orphan: &orphans::Orphan<'_>) -> AdopterJson {
    AdopterJson {
        pid: orphan.adopter_pid,
        comm: orphan.adopter_comm.map(|comm| comm.to_string()),
        kind: orphan.kind.name(),
        reaps: orphan.adopter_reaps,
        zombies: orphan.adopter_zombies,
    }
}

fn orphan_mark(orphan: &orphans::Orphan<'_>) -> OrphanMark {
    OrphanMark {
        original_parent: Named::new(orphan.original_pid, orphan.original_comm),
        adopter: adopter(orphan),
        guess: orphan.guess,
    }
}

/// The orphans.
pub fn orphans(found: &[orphans::Orphan<'_>]) -> Orphans {
    let orphan = |orphan: &orphans::Orphan<'_>| OrphanJson {
        pid: orphan.thread.pid,
        comm: orphan.thread.comm.to_string(),
        original_parent: Named::new(orphan.original_pid, orphan.original_comm),
        ancestry: orphan
            .ancestry
            .iter()
            .map(|&(pid, comm)| Named::new(pid, Some(comm)))
            .collect(),
        adopter: adopter(orphan),
        orphaned_ns: orphan.orphaned_ns,
        guess: orphan.guess,
    };
    Orphans {
        orphans: found.iter().map(orphan).collect(),
    }
}
