//! Payload of `tree`: processes with their threads.

use std::collections::{BTreeMap, HashMap};

use probe_ebpf::state::State;
use serde::Serialize;

use super::orphans::{OrphanMark, orphan_mark};
use super::{Answer, BlockedOnJson, SwitchesJson, blocked_ns, blocked_on};
use crate::model::orphans::Orphan;
use crate::model::snapshot::Snapshot;
use crate::model::thread::{ReadFrom, Thread, state_name};
use crate::model::tracker::Units;
use crate::model::tree::{Node, Process};
use crate::source::cgroup::Cgroups;
use crate::source::describe::Description;

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
    /// Whether the freezer of its cgroup holds all its living threads; `null` if unknown.
    frozen: Option<bool>,
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
    frozen: Option<bool>,
    state_ns: Option<u64>,
    state_ns_is_lower_bound: bool,
    blocked_on: Option<BlockedOnJson>,
    times_ns: Option<BTreeMap<&'static str, u64>>,
    /// Time sleeping and in uninterruptible sleep by what it waited in.
    blocked_ns: Option<BTreeMap<&'static str, u64>>,
    switches: SwitchesJson,
    cpu_ns: Option<u64>,
    exit_status: Option<u32>,
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
    orphans: &[Orphan<'_>],
    descriptions: &HashMap<u32, Description>,
    cgroups: &mut Cgroups,
) -> Answer<Tree> {
    let orphans: HashMap<u32, &Orphan<'_>> =
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
    orphan: Option<&Orphan<'_>>,
    descriptions: &HashMap<u32, Description>,
    cgroups: &mut Cgroups,
) -> ProcessJson {
    let leader = process.leader;
    let description = descriptions.get(&leader.pid);
    let cgroup = cgroups.path(leader.cgroup_id);
    let unit = cgroups.unit(leader.cgroup_id);
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
        unit: (!unit.is_empty()).then(|| unit.to_string()),
        state: process.face().condition.name(),
        frozen: process.frozen(),
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
        frozen: thread.frozen,
        state_ns: thread.condition_ns,
        state_ns_is_lower_bound: thread.is_lower_bound,
        blocked_on: blocked_on(thread),
        times_ns: thread.account.as_ref().map(|account| {
            State::ALL
                .into_iter()
                .map(|state| (state_name(state), account.time_ns[state.index()]))
                .collect()
        }),
        blocked_ns: thread
            .account
            .as_ref()
            .map(|account| blocked_ns(&account.blocked_ns)),
        switches: thread.switches.into(),
        cpu_ns: thread.lifetime_running_ns,
        exit_status: thread.exit_status,
    }
}
