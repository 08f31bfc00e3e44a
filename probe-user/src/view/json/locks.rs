//! Payload of `locks`: contention, who waits on whom, deadlocks, stalls.

use std::collections::BTreeMap;

use probe_ebpf::histogram::upper_bound_ns;
use serde::Serialize;

use super::states::BucketJson;
use super::{BlockedOnJson, MemoryGapJson, blocked_on_json, memory_gaps};
use crate::model::locks::deadlock::{Deadlock, Member};
use crate::model::locks::report::{Code, Edge, Holder, Lock, Parallelism, Report};
use crate::model::locks::site::Runtime;
use crate::model::locks::stall::Stall;
use crate::model::locks::{LockId, Party};
use crate::model::thread::Comm;

/// Payload of `locks`.
#[derive(Debug, Serialize)]
pub struct Locks {
    pub(super) locks: Vec<LockJson>,
    pub(super) edges: Vec<EdgeJson>,
    pub(super) deadlocks: Vec<DeadlockJson>,
    pub(super) stalls: Vec<StallJson>,
    pub(super) not_contention: Vec<IdleJson>,
    pub(super) processes: Vec<ProcessJson>,
    pub(super) runtimes: Vec<RuntimeJson>,
    pub(super) memory_gaps: Vec<MemoryGapJson>,
}

/// A process whose run-time system has locks that no futex shows.
#[derive(Debug, Serialize)]
pub(super) struct RuntimeJson {
    pub(super) pid: u32,
    pub(super) comm: Option<String>,
    pub(super) runtime: &'static str,
    pub(super) command: String,
}

#[derive(Debug, Serialize)]
pub(super) struct LockJson {
    pub(super) id: String,
    pub(super) pid: u32,
    pub(super) comm: Option<String>,
    pub(super) address: Option<String>,
    pub(super) symbol: Option<String>,
    pub(super) kind: &'static str,
    pub(super) shared: bool,
    pub(super) waiters_now: u64,
    pub(super) waits: u64,
    pub(super) wait_ns_total: u64,
    pub(super) wait_ns_max: u64,
    pub(super) holder: Option<HolderJson>,
    pub(super) pattern: Option<&'static str>,
    pub(super) code: Option<CodeJson>,
    pub(super) histogram: Vec<BucketJson>,
}

#[derive(Debug, Serialize)]
pub(super) struct CodeJson {
    pub(super) frames: Vec<String>,
    pub(super) cut: bool,
}

#[derive(Debug, Serialize)]
pub(super) struct HolderJson {
    pub(super) pid: Option<u32>,
    pub(super) tid: u32,
    pub(super) comm: Option<String>,
    pub(super) evidence: &'static str,
    /// `null` if it does not hold the lock now.
    pub(super) state: Option<&'static str>,
    pub(super) state_ns: Option<u64>,
    pub(super) blocked_on: Option<BlockedOnJson>,
}

#[derive(Debug, Serialize)]
pub(super) struct PartyJson {
    pub(super) pid: Option<u32>,
    pub(super) tid: u32,
    pub(super) comm: Option<String>,
}

#[derive(Debug, Serialize)]
pub(super) struct EdgeJson {
    pub(super) waiter: PartyJson,
    pub(super) holder: PartyJson,
    pub(super) lock: String,
    pub(super) waits: u64,
    pub(super) wait_ns_total: u64,
    pub(super) evidence: &'static str,
}

#[derive(Debug, Serialize)]
pub(super) struct DeadlockJson {
    pub(super) kind: &'static str,
    pub(super) since_ns: u64,
    pub(super) threads: Vec<MemberJson>,
    /// Tid of a holder that has ended, as its mutex has it, if it still has it.
    pub(super) dead_owner: Option<u32>,
    /// The thread of the parent process that held the lock when this process was forked.
    pub(super) forked_from: Option<PartyJson>,
    /// One of them gives up some time: it waits with a timeout.
    pub(super) until_timeout: bool,
}

#[derive(Debug, Serialize)]
pub(super) struct MemberJson {
    pub(super) pid: u32,
    pub(super) tid: u32,
    pub(super) comm: Option<String>,
    pub(super) waits_for: String,
    pub(super) holds: Option<String>,
    pub(super) address: Option<String>,
    pub(super) code: Option<CodeJson>,
}

#[derive(Debug, Serialize)]
pub(super) struct StallJson {
    pub(super) pid: u32,
    pub(super) comm: Option<String>,
    pub(super) reason: &'static str,
    pub(super) since_ns: u64,
    pub(super) other_threads: u64,
    pub(super) threads: Vec<StalledJson>,
}

#[derive(Debug, Serialize)]
pub(super) struct StalledJson {
    pub(super) tid: u32,
    pub(super) comm: Option<String>,
    pub(super) waits_for: String,
    pub(super) kind: &'static str,
    pub(super) wait_ns: u64,
    pub(super) code: Option<CodeJson>,
}

#[derive(Debug, Serialize)]
pub(super) struct IdleJson {
    pub(super) id: String,
    pub(super) pid: u32,
    pub(super) comm: Option<String>,
    pub(super) address: Option<String>,
    pub(super) kind: &'static str,
    pub(super) shared: bool,
    pub(super) waiters_now: u64,
    pub(super) waits: u64,
    pub(super) wait_ns_total: u64,
}

#[derive(Debug, Serialize)]
pub(super) struct ProcessJson {
    pub(super) pid: u32,
    pub(super) comm: Option<String>,
    pub(super) threads: u64,
    pub(super) running: f64,
    pub(super) runnable: f64,
    pub(super) lock_blocked: f64,
    pub(super) futex_blocked: f64,
}

/// A finished window.
pub fn locks(report: &Report) -> Locks {
    Locks {
        locks: report.locks.iter().map(lock).collect(),
        edges: report.edges.iter().map(edge).collect(),
        deadlocks: report
            .deadlocks
            .iter()
            .map(|found| deadlock(found, &report.codes))
            .collect(),
        stalls: report
            .stalls
            .iter()
            .map(|found| stall(found, &report.codes))
            .collect(),
        not_contention: report.idle.iter().map(idle).collect(),
        processes: report.processes.iter().map(process).collect(),
        runtimes: runtimes(report),
        memory_gaps: memory_gaps(&report.memory_gaps),
    }
}

/// How locks are named: by process-local address, or by file and byte.
pub fn lock_id(id: LockId) -> String {
    match id {
        LockId::Private(space, address) => format!("{space:x}:{address:#x}"),
        LockId::Shared {
            device,
            inode,
            offset,
        } => format!("{}:{}:{inode}+{offset:#x}", device >> 32, device & 0xffff_ffff),
    }
}

fn name(comm: Comm) -> Option<String> {
    (!comm.bytes().is_empty()).then(|| comm.to_string())
}

fn known(pid: u32) -> Option<u32> {
    (pid != 0).then_some(pid)
}

fn lock(lock: &Lock) -> LockJson {
    let histogram = lock.histogram.iter().enumerate();
    LockJson {
        id: lock_id(lock.id),
        pid: lock.pid,
        comm: name(lock.comm),
        address: Some(format!("{:#x}", lock.address)),
        symbol: lock.symbol.clone(),
        kind: lock.kind.name(),
        shared: lock.shared,
        waiters_now: lock.waiters.len() as u64,
        waits: lock.waits,
        wait_ns_total: lock.wait_ns,
        wait_ns_max: lock.max_ns,
        holder: lock.holder.as_ref().map(holder),
        pattern: lock.pattern.map(crate::model::locks::report::Pattern::name),
        code: lock.code.as_ref().map(code),
        histogram: histogram
            .filter(|(_, count)| **count > 0)
            .map(|(bucket, &count)| BucketJson {
                le_ns: upper_bound_ns(bucket),
                count,
            })
            .collect(),
    }
}

fn holder(holder: &Holder) -> HolderJson {
    let doing = holder.doing.as_ref();
    HolderJson {
        pid: known(holder.party.pid),
        tid: holder.party.tid,
        comm: name(holder.party.comm),
        evidence: holder.grade.name(),
        state: doing.map(|doing| doing.condition.name()),
        state_ns: doing.and_then(|doing| doing.ns),
        blocked_on: doing
            .and_then(|doing| doing.blocked_on.as_ref())
            .and_then(blocked_on_json),
    }
}

fn party(party: &Party) -> PartyJson {
    PartyJson {
        pid: known(party.pid),
        tid: party.tid,
        comm: name(party.comm),
    }
}

fn edge(edge: &Edge) -> EdgeJson {
    EdgeJson {
        waiter: party(&edge.waiter),
        holder: party(&edge.holder),
        lock: lock_id(edge.lock),
        waits: edge.waits,
        wait_ns_total: edge.wait_ns,
        evidence: edge.grade.name(),
    }
}

fn code(code: &Code) -> CodeJson {
    CodeJson {
        frames: code.frames.clone(),
        cut: code.cut,
    }
}

fn deadlock(deadlock: &Deadlock, codes: &BTreeMap<u32, Code>) -> DeadlockJson {
    let member = |member: &Member| MemberJson {
        pid: member.party.pid,
        tid: member.party.tid,
        comm: name(member.party.comm),
        waits_for: lock_id(member.waits_for),
        holds: member.holds.map(lock_id),
        address: Some(format!("{:#x}", member.address)),
        code: codes.get(&member.party.tid).map(code),
    };
    DeadlockJson {
        kind: deadlock.shape.name(),
        since_ns: deadlock.age_ns,
        threads: deadlock.members.iter().map(member).collect(),
        dead_owner: deadlock.dead_owner,
        forked_from: deadlock.forked_from.as_ref().map(party),
        until_timeout: deadlock.until_timeout,
    }
}

fn stall(stall: &Stall, codes: &BTreeMap<u32, Code>) -> StallJson {
    let threads = stall.waits.iter().map(|wait| StalledJson {
        tid: wait.party.tid,
        comm: name(wait.party.comm),
        waits_for: lock_id(wait.lock),
        kind: wait.kind.name(),
        wait_ns: wait.age_ns,
        code: codes.get(&wait.party.tid).map(code),
    });
    StallJson {
        pid: stall.pid,
        comm: name(stall.comm),
        reason: stall.reason.name(),
        since_ns: stall.age_ns,
        other_threads: stall.others,
        threads: threads.collect(),
    }
}

fn idle(lock: &Lock) -> IdleJson {
    IdleJson {
        id: lock_id(lock.id),
        pid: lock.pid,
        comm: name(lock.comm),
        address: Some(format!("{:#x}", lock.address)),
        kind: lock.kind.name(),
        shared: lock.shared,
        waiters_now: lock.waiters.len() as u64,
        waits: lock.waits,
        wait_ns_total: lock.wait_ns,
    }
}

fn runtimes(report: &Report) -> Vec<RuntimeJson> {
    let runtime = |(&pid, (runtime, comm)): (&u32, &(Runtime, Comm))| RuntimeJson {
        pid,
        comm: name(*comm),
        runtime: runtime.name(),
        command: runtime.command(pid),
    };
    report.runtimes.iter().map(runtime).collect()
}

fn process(process: &Parallelism) -> ProcessJson {
    let rounded = |value: f64| (value * 1_000.0).round() / 1_000.0;
    ProcessJson {
        pid: process.pid,
        comm: name(process.comm),
        threads: process.threads,
        running: rounded(process.running),
        runnable: rounded(process.runnable),
        lock_blocked: rounded(process.lock_blocked),
        futex_blocked: rounded(process.futex_blocked),
    }
}
