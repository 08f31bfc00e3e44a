//! The JSON shapes that scripts rely on: `procprobe/v1`.
//!
//! Every answer is one object: the envelope ([`Answer`]) and a payload beside it. Times are integer nanoseconds in fields
//! ending `_ns`. What is not known is `null`, never 0 or "". Adding fields is fine; renaming or removing is not.

use std::collections::{BTreeMap, HashMap};

use probe_ebpf::histogram::upper_bound_ns;
use probe_ebpf::state::State;
use serde::Serialize;

use crate::model::account::Histogram;
use crate::model::blocked;
use crate::model::snapshot::{Losses, Snapshot};
use crate::model::thread::{Condition, ReadFrom, Switches, Thread, state_name};
use crate::model::tree::{Node, Process};
use crate::model::window::{Group, Report, Transition};
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
    orphan: Option<()>,
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
    descriptions: &HashMap<u32, Description>,
    cgroups: &mut Cgroups,
) -> Answer<Tree> {
    let processes = nodes
        .iter()
        .map(|node| process(&node.process, descriptions, cgroups))
        .collect();
    Answer::new(snapshot, 0, &snapshot.losses, Tree { processes })
}

/// One process with its threads.
pub fn process(
    process: &Process<'_>,
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
        orphan: None,
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
        blocked_on: thread.blocked_on.as_ref().and_then(|blocked_on| {
            let futex = blocked::futex(blocked_on);
            Some(BlockedOnJson {
                syscall: blocked::syscall_name(blocked_on)?,
                futex: futex.map(|wait| FutexJson {
                    address: format!("{:#x}", wait.address),
                    op: wait.op,
                    shared: wait.shared,
                }),
            })
        }),
        times_ns: thread.account.as_ref().map(|account| {
            State::ALL
                .into_iter()
                .map(|state| (state_name(state), account.time_ns[state.index()]))
                .collect()
        }),
        switches: thread.switches.into(),
        cpu_ns: thread.lifetime_running_ns,
        exit_status: (thread.condition == Condition::Zombie).then_some(thread.exit_code),
    }
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
