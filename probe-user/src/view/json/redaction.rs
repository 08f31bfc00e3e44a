//! What of an answer a door does not tell. The only place that decides it.
//!
//! Every user of a host can see who runs there, under which name, user and parent, and in which state. Where
//! programs, locks and code lie in memory, what the files of other users' processes are and which arguments
//! they were given, the kernel tells nobody but the user they belong to and root (`ptrace(2)`). The agent
//! sees it all, and must not become the way around that.
//!
//! Every structure is taken apart field by field, without `..`: a field that is added does not compile until
//! somebody has said here whether it may be told.

use std::collections::HashMap;

use super::locks::{
    CodeJson, DeadlockJson, EdgeJson, HolderJson, IdleJson, LockJson, Locks, MemberJson, StallJson,
    StalledJson,
};
use super::orphans::Orphans;
use super::states::States;
use super::tree::{ProcessJson, ThreadJson, Tree};
use super::zombies::{ParentJson, Zombies};
use super::{Answer, BlockedOnJson, FutexJson, MemoryGapJson};

/// What may be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Disclosure {
    /// Addresses, executables, code and symbols of everybody's processes.
    pub details: bool,
    /// Command lines.
    pub cmdline: bool,
}

impl Disclosure {
    /// For who may see everything.
    pub const ALL: Self = Self {
        details: true,
        cmdline: true,
    };

    /// Takes out of an answer what may not be told, and says in it what that was.
    #[must_use]
    pub fn apply<T: Withhold>(self, mut answer: Answer<T>) -> Answer<T> {
        let named = [(self.details, T::DETAILS), (self.cmdline, T::CMDLINE)];
        for (is_told, fields) in named {
            if !is_told {
                answer.withheld.extend(fields.iter().map(|&field| field.into()));
            }
        }
        answer.payload.withhold(self);
        answer
    }
}

/// A payload that knows what in it is not for everybody.
pub trait Withhold {
    /// The fields that go without [`Disclosure::details`].
    const DETAILS: &'static [&'static str];
    /// The fields that go without [`Disclosure::cmdline`].
    const CMDLINE: &'static [&'static str];

    /// Takes them out.
    fn withhold(&mut self, told: Disclosure);
}

fn withhold_blocked_on(blocked_on: Option<&mut BlockedOnJson>) {
    let Some(BlockedOnJson { syscall: _, futex }) = blocked_on else {
        return;
    };
    if let Some(FutexJson {
        address,
        op: _,
        shared: _,
    }) = futex
    {
        *address = None;
    }
}

impl Withhold for Tree {
    const DETAILS: &'static [&'static str] = &["exe", "address"];
    const CMDLINE: &'static [&'static str] = &["cmdline"];

    fn withhold(&mut self, told: Disclosure) {
        let Self {
            boottime_ns: _,
            processes,
            memory_gaps,
        } = self;
        memory_gaps.iter().for_each(tell_memory_gap);
        for process in processes {
            withhold_process(process, told);
        }
    }
}

fn withhold_process(process: &mut ProcessJson, told: Disclosure) {
    let ProcessJson {
        pid: _,
        ppid: _,
        start_ns: _,
        comm: _,
        exe,
        cmdline,
        uid: _,
        nspid: _,
        cgroup: _,
        unit: _,
        state: _,
        state_of: _,
        frozen: _,
        ends_with: _,
        nice: _,
        policy: _,
        kernel: _,
        read_from: _,
        cpu_ns: _,
        orphan: _,
        threads,
    } = process;
    if !told.cmdline {
        *cmdline = None;
    }
    if !told.details {
        *exe = None;
        for ThreadJson {
            tid: _,
            start_ns: _,
            comm: _,
            state: _,
            frozen: _,
            state_ns: _,
            state_ns_is_lower_bound: _,
            blocked_on,
            waiting_on: _,
            times_ns: _,
            blocked_ns: _,
            switches: _,
            cpu_ns: _,
            exit_status: _,
        } in threads
        {
            withhold_blocked_on(blocked_on.as_mut());
        }
    }
}

impl Withhold for States {
    const DETAILS: &'static [&'static str] = &[];
    const CMDLINE: &'static [&'static str] = &[];

    /// Times of groups by name: nothing to take out.
    fn withhold(&mut self, _: Disclosure) {
        let Self {
            groups: _,
            transitions: _,
        } = self;
    }
}

impl Withhold for Orphans {
    const DETAILS: &'static [&'static str] = &[];
    const CMDLINE: &'static [&'static str] = &[];

    /// Pids and names: nothing to take out.
    fn withhold(&mut self, _: Disclosure) {
        let Self { orphans: _ } = self;
    }
}

impl Withhold for Zombies {
    const DETAILS: &'static [&'static str] = &["exe", "address"];
    const CMDLINE: &'static [&'static str] = &[];

    fn withhold(&mut self, told: Disclosure) {
        let Self {
            zombies: _,
            parents,
            pids: _,
            memory_gaps,
        } = self;
        memory_gaps.iter().for_each(tell_memory_gap);
        if told.details {
            return;
        }
        for ParentJson {
            pid: _,
            comm: _,
            exe,
            unit: _,
            state: _,
            state_ns: _,
            blocked_on,
            count: _,
            oldest_age_ns: _,
            per_minute: _,
            last_wait_ns: _,
            reaped: _,
            unit_pids: _,
            full_in_ns: _,
        } in parents
        {
            *exe = None;
            withhold_blocked_on(blocked_on.as_mut());
        }
    }
}

impl Withhold for Locks {
    const DETAILS: &'static [&'static str] = &["address", "symbol", "code"];
    const CMDLINE: &'static [&'static str] = &[];

    fn withhold(&mut self, told: Disclosure) {
        let Self {
            locks,
            edges,
            deadlocks,
            stalls,
            not_contention,
            processes: _,
            runtimes: _,
            memory_gaps,
        } = self;
        if told.details {
            return;
        }
        memory_gaps.iter().for_each(tell_memory_gap);
        let names = &mut LockNames::default();
        for lock in locks {
            withhold_lock(lock, names);
        }
        for edge in edges {
            withhold_edge(edge, names);
        }
        for deadlock in deadlocks {
            withhold_deadlock(deadlock, names);
        }
        for stall in stalls {
            withhold_stall(stall, names);
        }
        for idle in not_contention {
            withhold_idle(idle, names);
        }
    }
}

/// A gap is told to everybody: without it, a lock whose holder could not be read looks like one that has
/// none. Why it could not be read says neither where in memory nor which file.
fn tell_memory_gap(gap: &MemoryGapJson) {
    let MemoryGapJson {
        pid: _,
        comm: _,
        reason: _,
    } = gap;
}

/// Ids are made of addresses, or of files' numbers. In their place come numbers that hold for one answer, so
/// that edges still point at locks.
#[derive(Default)]
struct LockNames(HashMap<String, String>);

impl LockNames {
    fn replace(&mut self, id: &mut String) {
        let next = self.0.len() + 1;
        let name = self.0.entry(std::mem::take(id));
        name.or_insert_with(|| format!("lock-{next}")).clone_into(id);
    }
}

fn withhold_lock(lock: &mut LockJson, names: &mut LockNames) {
    let LockJson {
        id,
        pid: _,
        comm: _,
        address,
        symbol,
        kind: _,
        shared: _,
        waiters_now: _,
        waits: _,
        wait_ns_total: _,
        wait_ns_max: _,
        holder,
        pattern: _,
        code,
        histogram: _,
    } = lock;
    names.replace(id);
    (*address, *symbol) = (None, None);
    withhold_code(code);
    if let Some(HolderJson {
        pid: _,
        tid: _,
        comm: _,
        evidence: _,
        state: _,
        state_ns: _,
        blocked_on,
    }) = holder
    {
        withhold_blocked_on(blocked_on.as_mut());
    }
}

fn withhold_code(code: &mut Option<CodeJson>) {
    *code = None;
}

fn withhold_edge(edge: &mut EdgeJson, names: &mut LockNames) {
    let EdgeJson {
        waiter: _,
        holder: _,
        lock,
        waits: _,
        wait_ns_total: _,
        evidence: _,
    } = edge;
    names.replace(lock);
}

fn withhold_deadlock(deadlock: &mut DeadlockJson, names: &mut LockNames) {
    let DeadlockJson {
        kind: _,
        since_ns: _,
        threads,
        dead_owner: _,
        forked_from: _,
        until_timeout: _,
    } = deadlock;
    for MemberJson {
        pid: _,
        tid: _,
        comm: _,
        waits_for,
        holds,
        address,
        code,
    } in threads
    {
        names.replace(waits_for);
        if let Some(held) = holds {
            names.replace(held);
        }
        *address = None;
        withhold_code(code);
    }
}

fn withhold_stall(stall: &mut StallJson, names: &mut LockNames) {
    let StallJson {
        pid: _,
        comm: _,
        reason: _,
        since_ns: _,
        other_threads: _,
        threads,
    } = stall;
    for StalledJson {
        tid: _,
        comm: _,
        waits_for,
        kind: _,
        wait_ns: _,
        code,
    } in threads
    {
        names.replace(waits_for);
        withhold_code(code);
    }
}

fn withhold_idle(idle: &mut IdleJson, names: &mut LockNames) {
    let IdleJson {
        id,
        pid: _,
        comm: _,
        address,
        kind: _,
        shared: _,
        waiters_now: _,
        waits: _,
        wait_ns_total: _,
    } = idle;
    names.replace(id);
    *address = None;
}
