//! Payload of `tree`: processes with their threads.

use std::collections::{BTreeMap, HashMap};

use probe_ebpf::state::State;
use serde::{Deserialize, Serialize};

use super::orphans::{OrphanMark, orphan_mark};
use super::{Answer, BlockedOnJson, MemoryGapJson, SwitchesJson, Word, blocked_ns, blocked_on, gaps_of};
use crate::model::locks::thread_index::ThreadIndex;
use crate::model::orphans::Orphan;
use crate::model::snapshot::{Losses, Snapshot};
use crate::model::thread::{ReadFrom, Thread, state_name};
use crate::model::tracker::Units;
use crate::model::tree::{Node, Process};
use crate::source::cgroup::Cgroups;
use crate::source::describe::Descriptions;
use crate::view::number::UNKNOWN;
use crate::view::waiting::waiting_on;

/// Payload of `tree`.
#[derive(Debug, Serialize, Deserialize)]
pub struct Tree {
    /// CLOCK_BOOTTIME of the look: `start_ns` is of the same clock.
    #[serde(default)]
    pub(crate) boottime_ns: u64,
    /// Parents before children.
    pub(crate) processes: Vec<ProcessJson>,
    /// Processes that did not answer, and why.
    #[serde(default)]
    pub(crate) memory_gaps: Vec<MemoryGapJson>,
}

/// One process.
#[derive(Debug, Serialize, Deserialize)]
pub struct ProcessJson {
    pub(crate) pid: u32,
    pub(crate) ppid: u32,
    pub(crate) start_ns: u64,
    pub(crate) comm: String,
    pub(crate) exe: Option<String>,
    pub(crate) cmdline: Option<Vec<String>>,
    pub(crate) uid: Option<u32>,
    pub(crate) nspid: Vec<u32>,
    pub(crate) cgroup: Option<String>,
    pub(crate) unit: Option<String>,
    pub(crate) state: Word,
    /// The thread whose state that is: its first, or if that has ended before the others, the one that does
    /// most.
    pub(crate) state_of: u32,
    /// Whether the freezer of its cgroup holds all its living threads; `null` if unknown.
    pub(crate) frozen: Option<bool>,
    /// What it was told to end with, as `wait(2)` will have it.
    pub(crate) ends_with: Option<u32>,
    pub(crate) nice: i32,
    pub(crate) policy: Word,
    pub(crate) kernel: bool,
    pub(crate) read_from: Word,
    pub(crate) cpu_ns: Option<u64>,
    pub(crate) orphan: Option<OrphanMark>,
    pub(crate) threads: Vec<ThreadJson>,
}

/// One thread.
#[derive(Debug, Serialize, Deserialize)]
pub struct ThreadJson {
    pub(crate) tid: u32,
    pub(crate) start_ns: u64,
    pub(crate) comm: String,
    pub(crate) state: Word,
    pub(crate) frozen: Option<bool>,
    pub(crate) state_ns: Option<u64>,
    pub(crate) state_ns_is_lower_bound: bool,
    pub(crate) blocked_on: Option<BlockedOnJson>,
    /// What it waits for, in a few words for people; `null` if it waits for nothing that is known.
    pub(crate) waiting_on: Option<String>,
    pub(crate) times_ns: Option<BTreeMap<Word, u64>>,
    /// Time sleeping and in uninterruptible sleep by what it waited in.
    pub(crate) blocked_ns: Option<BTreeMap<Word, u64>>,
    pub(crate) switches: SwitchesJson,
    pub(crate) cpu_ns: Option<u64>,
    pub(crate) exit_status: Option<u32>,
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
    descriptions: &Descriptions,
    cgroups: &mut Cgroups,
    losses: &Losses,
) -> Answer<Tree> {
    let orphans: HashMap<u32, &Orphan<'_>> =
        orphans.iter().map(|orphan| (orphan.thread.pid, orphan)).collect();
    let index = ThreadIndex::new(snapshot);
    let processes = nodes.iter().map(|node| {
        process(
            &node.process,
            orphans.get(&node.process.pid()).copied(),
            descriptions,
            cgroups,
            &index,
        )
    });
    let payload = Tree {
        boottime_ns: snapshot.boottime_ns,
        processes: processes.collect(),
        memory_gaps: gaps_of(snapshot, descriptions),
    };
    Answer::new(snapshot, 0, &losses.and(&descriptions.losses), payload)
}

/// One process with its threads.
fn process(
    process: &Process<'_>,
    orphan: Option<&Orphan<'_>>,
    descriptions: &Descriptions,
    cgroups: &mut Cgroups,
    index: &ThreadIndex<'_>,
) -> ProcessJson {
    let leader = process.leader;
    let description = descriptions.get(leader.pid);
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
        state: process.face().condition.name().into(),
        state_of: process.face().id.tid,
        frozen: process.frozen(),
        ends_with: leader.ends_with,
        nice: leader.nice,
        policy: policy_name(leader.policy).into(),
        kernel: leader.kernel,
        read_from: match leader.read_from {
            ReadFrom::Iterator => "iterator".into(),
            ReadFrom::Proc => "proc".into(),
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
            .map(|thread| self::thread(thread, index))
            .collect(),
    }
}

fn thread(thread: &Thread, index: &ThreadIndex<'_>) -> ThreadJson {
    ThreadJson {
        tid: thread.id.tid,
        start_ns: thread.id.start_ns,
        comm: thread.comm.to_string(),
        state: thread.condition.name().into(),
        frozen: thread.frozen,
        state_ns: thread.condition_ns,
        state_ns_is_lower_bound: thread.is_lower_bound,
        blocked_on: blocked_on(thread),
        waiting_on: Some(waiting_on(thread, Some(index))).filter(|words| words != UNKNOWN),
        times_ns: thread.account.as_ref().map(|account| {
            State::ALL
                .into_iter()
                .map(|state| (state_name(state).into(), account.time_ns[state.index()]))
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
