//! What each futex of a snapshot is, and whether waiting at it is contention.
//!
//! The protocol decides first. Where a futex is used either way (a semaphore as a lock, a condition variable
//! around a flag), or its protocol is not known, behaviour that every lock shares decides: threads that wait
//! there also wake others there, one at a time, and wait for one value. Threads that are only ever woken by
//! others are idle.

use std::collections::BTreeMap;

use probe_ebpf::lock::{Expected, Outcome};
use probe_ebpf::waiting::{flag, op};

use super::evidence::Evidence;
use super::protocol::Role;
use super::thread_index::{ThreadIndex, protocol_of};
use super::{Kind, LockId};
use crate::model::thread::{OpenWait, Thread};

/// What a lock turned out to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Classification {
    /// What it is.
    pub kind: Kind,
    /// Whether there is evidence that threads wait here for each other's turns.
    pub contended: bool,
    /// Whether memory of this protocol can name an owner.
    pub has_owner: bool,
}

/// Waits for one value that make a lock rather than a coincidence: a count passes through every value once.
const SAME_VALUE: u64 = 3;
/// Waits after which the share of time that a thread held a turn means something.
const ENOUGH: u64 = 10;

/// Classifies every lock of `part` by what is known of it in all (`whole`) and over the last `window_ns`.
pub fn classify_all(
    whole: &BTreeMap<LockId, Evidence<'_>>,
    part: &BTreeMap<LockId, Evidence<'_>>,
    window_ns: u64,
) -> BTreeMap<LockId, Classification> {
    let classify_one = |(&id, recent): (&LockId, &Evidence<'_>)| {
        if is_inside_condvar(id, whole, part) {
            return (id, classification(Kind::Condvar, false, false));
        }
        // Of an entry that was deleted meanwhile, the tables do not have all that the window has.
        let more = whole.get(&id).filter(|all| all.waits() >= recent.waits());
        (id, classify(more.unwrap_or(recent), recent, window_ns))
    };
    part.iter().map(classify_one).collect()
}

const fn classification(kind: Kind, contended: bool, has_owner: bool) -> Classification {
    Classification {
        kind,
        contended,
        has_owner,
    }
}

/// Classifies a lock by everything known about it, and by what it did over the last `window_ns`.
pub fn classify(evidence: &Evidence<'_>, recent: &Evidence<'_>, window_ns: u64) -> Classification {
    let protocol = evidence.protocol;
    let joins = evidence.ended_by(Outcome::Exit) * 2 > evidence.ended();
    if protocol.kind != Kind::Join && joins && protocol.role != Role::Lock {
        return classification(Kind::Join, false, false);
    }
    let contended = match protocol.role {
        Role::Lock => true,
        Role::Idle | Role::MemoryWouldTell => false,
        Role::LikelyLock => is_one_value(evidence) || takes_turns(evidence, 1),
        Role::ByBehaviour => behaves_as_lock(evidence, recent, window_ns),
    };
    let kind = match protocol.kind {
        // No lock that is taken is 0: who waits for that to pass waits for a count.
        Kind::Unknown if contended && waits_for_a_count(evidence) => Kind::Semaphore,
        Kind::Unknown if contended => Kind::Mutex,
        Kind::Unknown => idle_kind(evidence),
        // A count that passes through the value of a lock.
        Kind::Mutex if !contended && protocol.role != Role::Lock => idle_kind(evidence),
        kind => kind,
    };
    classification(kind, contended, protocol.has_owner)
}

/// Every wait is for the same value, and there were a few.
fn is_one_value(evidence: &Evidence<'_>) -> bool {
    let two = evidence
        .waits_for(Expected::Two)
        .max(evidence.waits_for(Expected::Other));
    two >= SAME_VALUE && two == evidence.waits() && evidence.ended() > 0
}

/// Threads that wait here wake others here, one at a time.
fn takes_turns(evidence: &Evidence<'_>, least: usize) -> bool {
    let many = evidence.ended_by(Outcome::WokenMany);
    evidence.take_turns() >= least && many * 10 <= evidence.ended_by(Outcome::WokenOne)
}

/// Whether a futex of any protocol is used as a lock.
fn behaves_as_lock(evidence: &Evidence<'_>, recent: &Evidence<'_>, window_ns: u64) -> bool {
    let exclusive = recent.take_turns() >= 2 && recent.ended() >= ENOUGH && is_exclusive(recent, window_ns);
    match evidence.kind() {
        // A semaphore whose waiters give it back is a lock, or a pool of some.
        Kind::Semaphore => takes_turns(evidence, 2) && evidence.timed * 2 <= evidence.waits(),
        // An interpreter's lock is one: its waiters give up waiting now and then to ask for it (CPython's
        // take_gil), or there are several. Two threads that play ping-pong take turns just so.
        Kind::Condvar => {
            let asks = evidence.timed * 2 > evidence.waits();
            exclusive && takes_turns(evidence, 2) && (asks || evidence.take_turns() > 2)
        }
        _ => {
            let locked = evidence.waits_for(Expected::Two) + evidence.waits_for(Expected::Flagged);
            // libstdc++'s wakes all who share a word of its pool.
            let count = waits_for_a_count(evidence) && evidence.take_turns() >= 2;
            // Whoever comes last at a barrier is out, too, and wakes all the others: no lock does that. And a
            // lock that is taken has one value; a generation that workers park at, and wake each other at,
            // has ever new ones.
            let counts = evidence.waits_for(Expected::Other) * 2 > evidence.waits();
            let exclusive = exclusive && takes_turns(evidence, 2) && !counts;
            exclusive || count || (is_most(evidence, locked) && takes_turns(evidence, 1))
        }
    }
}

/// Whether nearly all of the waits are of some sort, and there were a few.
fn is_most(evidence: &Evidence<'_>, waits: u64) -> bool {
    waits * 10 >= evidence.waits() * 9 && evidence.ended() >= SAME_VALUE
}

/// Whether the waits are those at a semaphore in a program's own code: for zero to pass, of a semaphore of
/// atomics, or for all bits, of musl's. Ping-pong over an atomic waits for one value and the other, a barrier
/// for ever new ones.
fn waits_for_a_count(evidence: &Evidence<'_>) -> bool {
    let nothing = evidence.waits_for(Expected::Zero);
    let all_bits = evidence.waits_for(Expected::AllOnes);
    is_most(evidence, nothing) || (evidence.sample.op == op::WAIT && is_most(evidence, all_bits))
}

/// Whether of the threads that take turns here about one is not waiting, all the time: what an exclusive lock
/// under load looks like, and neither a busy pool of workers (several are not) nor an idle one (none is).
fn is_exclusive(evidence: &Evidence<'_>, window_ns: u64) -> bool {
    if window_ns == 0 {
        return false;
    }
    let mut turns = 0_u64;
    let mut waited_ns = 0;
    for tid in evidence.waiters.intersection(&evidence.wakers) {
        turns += 1;
        let open = evidence.open.iter().find(|(thread, _)| thread.id.tid == *tid);
        let ended_ns = evidence.by_waiter.get(tid).copied().unwrap_or(0);
        waited_ns += (ended_ns + open.map_or(0, |(_, open)| open.counted_ns)).min(window_ns);
    }
    let others_ns = turns.saturating_mul(window_ns).saturating_sub(waited_ns);
    let holders = others_ns as f64 / window_ns as f64;
    (0.6..=1.6).contains(&holders)
}

/// What a futex of no known protocol looks like while it is idle.
fn idle_kind(evidence: &Evidence<'_>) -> Kind {
    if evidence.ended() == 0 {
        // Nobody has seen how such a wait ends.
        return Kind::Unknown;
    }
    if !evidence.several_waiters {
        return Kind::Parker;
    }
    // Whoever comes last wakes all, every time, for a count that is new every time.
    let together = evidence.ended_by(Outcome::WokenMany) > 0 && evidence.ended_by(Outcome::WokenOne) == 0;
    let counts = evidence.waits_for(Expected::Other) * 10 >= evidence.waits() * 9;
    if together && counts && evidence.take_turns() >= 2 && evidence.sample.op == op::WAIT {
        return Kind::Barrier;
    }
    if evidence.sample.op == op::WAIT_BITSET {
        return Kind::Condvar;
    }
    Kind::Unknown
}

/// Where the words that waiters sleep at (`__g_signals`) stand behind those that a signal waits at
/// (`__g_refs`, until the last waiter of a group has left), both a pair: `struct __pthread_cond_s` of glibc
/// 2.25 to 2.40.
const SIGNALS_BEHIND_REFS: [u64; 2] = [24, 20];

/// Whether a word, which by itself looks like a barrier's or a once, is where a signal waits in a condition
/// variable.
fn is_inside_condvar(
    id: LockId,
    whole: &BTreeMap<LockId, Evidence<'_>>,
    part: &BTreeMap<LockId, Evidence<'_>>,
) -> bool {
    let LockId::Private(space, address) = id else {
        return false;
    };
    let sample = |id: &LockId| whole.get(id).or_else(|| part.get(id)).map(|found| found.sample);
    // Twice the number of waiters, and the bit by which the signal asks to be woken.
    let signal_waits =
        sample(&id).is_some_and(|wait| wait.op == op::WAIT && wait.value & 1 != 0 && wait.value > 1);
    let signals = SIGNALS_BEHIND_REFS.map(|behind| LockId::Private(space, address.wrapping_add(behind)));
    let of_condvar = |id: &LockId| {
        sample(id).is_some_and(|wait| {
            wait.op == op::WAIT_BITSET && wait.flags & (flag::REALTIME | flag::TIMED) != 0
        })
    };
    signal_waits && signals.iter().any(of_condvar)
}

/// What a single open wait is for, with nothing known of others.
pub fn classify_single_wait(index: &ThreadIndex<'_>, thread: &Thread, open: &OpenWait) -> Kind {
    if index.joined(thread, open).is_some() {
        return Kind::Join;
    }
    let found = protocol_of(thread, open);
    match found.role {
        Role::LikelyLock | Role::ByBehaviour if found.kind == Kind::Mutex => Kind::Unknown,
        _ => found.kind,
    }
}
