//! Payload of `zombies`: the unreaped and the parents at fault.

use serde::Serialize;

use super::{BlockedOnJson, MemoryGapJson, blocked_on, gaps_of};
use crate::model::event::{exit_code, exit_signal};
use crate::model::snapshot::Snapshot;
use crate::model::tracker::Units;
use crate::model::zombies::{Culprit, Report, Zombie};
use crate::source::cgroup::Cgroups;
use crate::source::describe::Descriptions;

/// Payload of `zombies`.
#[derive(Debug, Serialize)]
pub struct Zombies {
    pub(super) zombies: Vec<ZombieJson>,
    pub(super) parents: Vec<ParentJson>,
    pub(super) pids: PidsJson,
    /// Processes that did not answer, and why.
    pub(super) memory_gaps: Vec<MemoryGapJson>,
}

#[derive(Debug, Serialize)]
pub(super) struct ZombieJson {
    pub(super) pid: u32,
    pub(super) comm: String,
    pub(super) ppid: u32,
    pub(super) age_ns: Option<u64>,
    pub(super) kind: &'static str,
    pub(super) at_fault: Option<u32>,
    pub(super) exit: ExitStatusJson,
    pub(super) held_up_by: Option<HolderJson>,
}

#[derive(Debug, Serialize)]
pub(super) struct HolderJson {
    pub(super) pid: u32,
    pub(super) tid: u32,
    pub(super) state: &'static str,
}

#[derive(Debug, Serialize)]
pub(super) struct ExitStatusJson {
    pub(super) code: Option<u32>,
    pub(super) signal: Option<u32>,
}

#[derive(Debug, Serialize)]
pub(super) struct ParentJson {
    pub(super) pid: u32,
    pub(super) comm: Option<String>,
    pub(super) exe: Option<String>,
    pub(super) unit: Option<String>,
    pub(super) state: Option<&'static str>,
    pub(super) state_ns: Option<u64>,
    pub(super) blocked_on: Option<BlockedOnJson>,
    pub(super) count: u64,
    pub(super) oldest_age_ns: Option<u64>,
    pub(super) per_minute: Option<f64>,
    pub(super) last_wait_ns: Option<u64>,
    pub(super) reaped: Option<u64>,
    pub(super) unit_pids: Option<UnitPidsJson>,
    pub(super) full_in_ns: Option<u64>,
}

#[derive(Debug, Serialize)]
pub(super) struct UnitPidsJson {
    pub(super) used: u64,
    pub(super) limit: Option<u64>,
}

#[derive(Debug, Serialize)]
pub(super) struct PidsJson {
    pub(super) used: u64,
    pub(super) limit: Option<u64>,
    pub(super) full_in_ns: Option<u64>,
}

/// The zombies and who is at fault.
pub fn zombies(
    snapshot: &Snapshot,
    report: &Report<'_>,
    descriptions: &Descriptions,
    cgroups: &mut Cgroups,
) -> Zombies {
    let zombie = |zombie: &Zombie<'_>| ZombieJson {
        pid: zombie.thread.pid,
        comm: zombie.thread.comm.to_string(),
        ppid: zombie.thread.ppid,
        age_ns: zombie.thread.condition_ns,
        kind: zombie.kind.name(),
        at_fault: zombie.at_fault,
        exit: ExitStatusJson {
            code: zombie.status().and_then(exit_code),
            signal: zombie.status().and_then(exit_signal),
        },
        held_up_by: zombie.held_up_by.map(|thread| HolderJson {
            pid: thread.pid,
            tid: thread.id.tid,
            state: thread.condition.name(),
        }),
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
        memory_gaps: gaps_of(snapshot, descriptions),
    }
}

fn parent(culprit: &Culprit<'_>, descriptions: &Descriptions, cgroups: &mut Cgroups) -> ParentJson {
    let thread = culprit.thread;
    let unit = thread
        .map(|thread| cgroups.unit(thread.cgroup_id))
        .filter(|unit| !unit.is_empty());
    ParentJson {
        pid: culprit.pid,
        comm: thread.map(|thread| thread.comm.to_string()),
        exe: descriptions
            .get(culprit.pid)
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
        unit_pids: culprit.unit_pids.map(|pids| UnitPidsJson {
            used: pids.used,
            limit: pids.limit,
        }),
        full_in_ns: culprit.full_in_ns,
    }
}
