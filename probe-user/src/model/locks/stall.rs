//! Threads that wait for what no thread is left to end, where memory names no owner: never called a deadlock.
//!
//! Three rules, none of which a healthy program can meet:
//! - *refused*: the kernel refused a thread its priority-inheriting mutex, and the C library sleeps for ever instead.
//! - *nobody can wake it*: every thread of an address space waits, without a timeout, at futexes of that space. Only a thread of the
//!   space can wake those, and none runs. A signal handler could (`sem_post()` is allowed there), so a process with handlers of its own
//!   counts only if all of its threads wait for locks, which handlers must not release: one at a semaphore may be woken, and hold what
//!   the others want.
//! - *each last took what the other wants*: the last thread that ran on after a wait at a lock waits itself, at a lock that the other
//!   one took last. Whatever else the process does does not matter.
//!
//! That nothing else has run for a while proves nothing: a thread that waits for the network may come back
//! and release its lock.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use probe_ebpf::state::State;
use probe_ebpf::waiting::{flag, op};

use super::deadlock::Deadlock;
use super::memory::SignalHandlers;
use super::protocol::{self, Protocol, Role};
use super::thread_index::{ThreadIndex, protocol_of, wait_of};
use super::{Kind, LockId, Look, Party, key_of};
use crate::model::blocked::syscall_name;
use crate::model::thread::{Comm, Condition, OpenWait, Thread};

/// Waits shorter than this are no stall.
pub const STALL_AFTER_NS: u64 = 1_000_000_000;

/// A wait of a stall.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stalled {
    /// Who.
    pub party: Party,
    /// At which lock.
    pub lock: LockId,
    /// Its address.
    pub address: u64,
    /// What it is.
    pub kind: Kind,
    /// For how long, nanoseconds.
    pub age_ns: u64,
}

/// How it is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// The C library sleeps for ever, since the kernel refused it the lock.
    Refused,
    /// Every thread that could end the waits waits itself.
    NobodyCanWake,
    /// Each waits at a lock that another of them took last.
    TookEachOthers,
}

impl Reason {
    /// The name used in JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Refused => "refused",
            Self::NobodyCanWake => "nobody_can_wake",
            Self::TookEachOthers => "took_each_others",
        }
    }
}

/// Threads of a process that wait in vain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stall {
    /// The process.
    pub pid: u32,
    /// Its name.
    pub comm: Comm,
    /// How it is known.
    pub reason: Reason,
    /// The waits, longest first.
    pub waits: Vec<Stalled>,
    /// Other threads of the process: those that only wait for these to end, or do something else.
    pub others: u64,
    /// Nanoseconds since the last of the waits began.
    pub age_ns: u64,
}

/// Stalls of a snapshot, none of a process that has a proven deadlock: what waits there waits because of
/// that.
pub fn stalls(look: Look<'_>, index: &ThreadIndex<'_>, deadlocks: &[Deadlock]) -> Vec<Stall> {
    let members = deadlocks.iter().flat_map(|deadlock| &deadlock.members);
    let known: HashSet<u32> = members.map(|member| member.party.pid).collect();
    let mut found: BTreeMap<u32, Stall> = BTreeMap::new();
    let all = [refused(look), unwakeable(look, index), took_each_others(look)];
    for stall in all.into_iter().flatten() {
        if !known.contains(&stall.pid) {
            found.entry(stall.pid).or_insert(stall);
        }
    }
    found.into_values().collect()
}

/// Threads that the C library has put to sleep for ever.
fn refused(look: Look<'_>) -> Vec<Stall> {
    let mut stalls: BTreeMap<u32, Stall> = BTreeMap::new();
    for (thread, open, _) in look.open_waits() {
        if is_long(open) && protocol::is_endless(wait_of(thread, open)) {
            let of_process = stalls
                .entry(thread.pid)
                .or_insert_with(|| stall(look, thread.pid, Reason::Refused));
            of_process.waits.push(stalled(look, thread, open, Kind::PiMutex));
        }
    }
    stalls
        .into_values()
        .filter_map(|stall| finish(look, stall))
        .collect()
}

/// Address spaces none of whose threads can wake any other.
fn unwakeable(look: Look<'_>, index: &ThreadIndex<'_>) -> Vec<Stall> {
    let spaces: HashSet<u64> = look
        .open_waits()
        .filter(|(_, open, _)| is_long(open))
        .map(|(thread, _, _)| thread.space)
        .collect();
    let mut of_space: BTreeMap<u64, Vec<&Thread>> = BTreeMap::new();
    for thread in look.snapshot.threads.iter().filter(|thread| is_living(thread)) {
        if spaces.contains(&thread.space) {
            of_space.entry(thread.space).or_default().push(thread);
        }
    }
    // Kernel threads that work for a process (io_uring) have its pid and no address space.
    let helped: HashSet<u32> = look
        .snapshot
        .threads
        .iter()
        .filter(|thread| is_living(thread) && thread.space == 0)
        .map(|thread| thread.pid)
        .collect();
    let stalls = of_space.values().filter_map(|threads| {
        let all_wait = threads.iter().all(|thread| waits_in_vain(look, thread));
        let helped = threads.iter().any(|thread| helped.contains(&thread.pid));
        (all_wait && !helped)
            .then(|| of_threads(look, index, threads))
            .flatten()
    });
    stalls.collect()
}

fn is_living(thread: &Thread) -> bool {
    matches!(thread.condition, Condition::Alive(_)) && !thread.kernel
}

/// Whether a wait is old enough, and has no end of its own.
fn is_long(open: &OpenWait) -> bool {
    open.age_ns >= STALL_AFTER_NS && open.wait.flags & flag::TIMED == 0
}

/// Whether a thread waits for a signal and for nothing else (`pause(2)`).
pub fn waits_for_signal(thread: &Thread) -> bool {
    let call = thread.blocked_on.as_ref().and_then(syscall_name);
    call.is_some_and(|call| call == "pause" || call == "rt_sigsuspend")
}

/// Whether a thread waits without a timeout at a futex that only its own address space knows, or for a signal
/// that would end it.
fn waits_in_vain(look: Look<'_>, thread: &Thread) -> bool {
    let asleep = thread.condition == Condition::Alive(State::Sleeping);
    if asleep && waits_for_signal(thread) {
        return look.snapshot.memory.signal_handlers(thread.pid) == SignalHandlers::None;
    }
    let Some(open) = thread.futex.as_ref().filter(|open| asleep && is_long(open)) else {
        return false;
    };
    let place = look.snapshot.memory.place(&key_of(thread, open));
    let private = open.wait.flags & flag::PRIVATE != 0;
    matches!(place, Some(None)) || (private && place.is_none())
}

/// What all threads of an address space wait for; `None` if that is what idle programs do.
fn of_threads(look: Look<'_>, index: &ThreadIndex<'_>, threads: &[&Thread]) -> Option<Stall> {
    let handlers = look.snapshot.memory.signal_handlers(threads.first()?.pid);
    // What ends a wait of the main thread, and it may wait for just that, wakes none of the others.
    let wakes = |thread: &&&Thread| handlers == SignalHandlers::MainThread && thread.is_leader();
    let waits = threads
        .iter()
        .filter(|thread| !wakes(thread))
        .filter_map(|thread| {
            let open = thread.futex.as_ref()?;
            let joins = index.joined(thread, open).is_some();
            (!joins).then(|| (*thread, open, protocol_of(thread, open)))
        });
    let waits: Vec<_> = waits.collect();
    let is_lock = |role| matches!(role, Role::Lock | Role::LikelyLock);
    let locks = waits.iter().any(|(_, _, protocol)| is_lock(protocol.role));
    let nothing_else = waits.iter().all(|(_, _, protocol)| is_lock(protocol.role));
    // An idle pool waits at one semaphore or condition variable while main joins it: that is no stall.
    // Semaphores used as locks are several, or the only thing that the only thread waits for that does not
    // wait for the end of another.
    let semaphores: Vec<LockId> = waits
        .iter()
        .filter(|(_, open, protocol)| is_count(open, protocol))
        .map(|(thread, open, _)| look.tables.id(key_of(thread, open)))
        .collect();
    let distinct: BTreeSet<&LockId> = semaphores.iter().collect();
    let joining = threads.iter().filter(|thread| {
        let open = thread.futex.as_ref();
        open.is_some_and(|open| index.joined(thread, open).is_some())
    });
    let alone = joining.count() + 1 == threads.len() && handlers == SignalHandlers::None;
    let wants = distinct.len() > 1 || (alone && !semaphores.is_empty());
    let woken_by_handler = handlers == SignalHandlers::Any && !nothing_else;
    if woken_by_handler || (!locks && !wants) {
        return None;
    }
    let mut stall = stall(look, threads.first()?.pid, Reason::NobodyCanWake);
    for (thread, open, protocol) in waits {
        let in_question = if locks {
            is_lock(protocol.role)
        } else {
            is_count(open, &protocol)
        };
        if in_question {
            stall.waits.push(stalled(look, thread, open, protocol.kind));
        }
    }
    finish(look, stall)
}

/// Whether a thread waits for a count that is not zero: at a semaphore of a C library, or of C++'s atomics.
fn is_count(open: &OpenWait, protocol: &Protocol) -> bool {
    let of_atomics = protocol.kind == Kind::Unknown && open.wait.op == op::WAIT && open.wait.value == 0;
    protocol.kind == Kind::Semaphore || of_atomics
}

/// Threads that wait in a circle of locks which each of them took last.
fn took_each_others(look: Look<'_>) -> Vec<Stall> {
    let mut acquirers: HashMap<LockId, u32> = HashMap::new();
    for (key, stats) in &look.tables.locks {
        if stats.acquirer != 0 {
            acquirers.insert(look.tables.id(*key), stats.acquirer);
        }
    }
    let mut waits: BTreeMap<u32, (&Thread, &OpenWait, LockId)> = BTreeMap::new();
    for (thread, open, lock) in look.open_waits() {
        let role = protocol_of(thread, open).role;
        if is_long(open) && matches!(role, Role::Lock | Role::LikelyLock | Role::ByBehaviour) {
            waits.insert(thread.id.tid, (thread, open, lock));
        }
    }
    let next = |tid: u32| {
        let (_, _, lock) = waits.get(&tid)?;
        acquirers.get(lock).copied().filter(|&holder| holder != tid)
    };
    let mut seen: BTreeSet<u32> = BTreeSet::new();
    let mut stalls = Vec::new();
    for &start in waits.keys() {
        let mut path = Vec::new();
        let mut at = start;
        while waits.contains_key(&at) && seen.insert(at) {
            path.push(at);
            let Some(holder) = next(at) else { break };
            at = holder;
        }
        let begin = path
            .iter()
            .position(|&tid| Some(tid) == path.last().and_then(|&last| next(last)));
        let Some(circle) = begin
            .map(|begin| &path[begin..])
            .filter(|circle| circle.len() > 1)
        else {
            continue;
        };
        stalls.extend(of_circle(look, &waits, circle));
    }
    stalls
}

fn of_circle(
    look: Look<'_>,
    waits: &BTreeMap<u32, (&Thread, &OpenWait, LockId)>,
    circle: &[u32],
) -> Option<Stall> {
    let members: Vec<_> = circle.iter().filter_map(|tid| waits.get(tid)).collect();
    let locks: BTreeSet<LockId> = members.iter().map(|(_, _, lock)| *lock).collect();
    // At one lock the last to take it may well be back in line; two different ones are needed for a circle.
    if locks.len() < members.len() {
        return None;
    }
    let mut stall = stall(look, members.first()?.0.pid, Reason::TookEachOthers);
    for (thread, open, _) in members {
        let kind = match protocol_of(thread, open).kind {
            Kind::Unknown => Kind::Mutex,
            kind => kind,
        };
        stall.waits.push(stalled(look, thread, open, kind));
    }
    finish(look, stall)
}

fn stall(look: Look<'_>, pid: u32, reason: Reason) -> Stall {
    let leader = look.snapshot.threads.iter().find(|thread| thread.id.tid == pid);
    Stall {
        pid,
        comm: leader.map(|leader| leader.comm).unwrap_or_default(),
        reason,
        waits: Vec::new(),
        others: 0,
        age_ns: 0,
    }
}

fn stalled(look: Look<'_>, thread: &Thread, open: &OpenWait, kind: Kind) -> Stalled {
    Stalled {
        party: Party::of(thread),
        lock: look.tables.id(key_of(thread, open)),
        address: open.wait.address,
        kind,
        age_ns: open.age_ns,
    }
}

/// Orders the waits and counts the rest of the process.
fn finish(look: Look<'_>, mut stall: Stall) -> Option<Stall> {
    stall
        .waits
        .sort_by_key(|wait| (std::cmp::Reverse(wait.age_ns), wait.party.tid));
    stall.age_ns = stall.waits.last()?.age_ns;
    let waiting: HashSet<u32> = stall.waits.iter().map(|wait| wait.party.tid).collect();
    let others = look
        .snapshot
        .threads
        .iter()
        .filter(|thread| thread.pid == stall.pid && !waiting.contains(&thread.id.tid));
    stall.others = others.count() as u64;
    Some(stall)
}
