//! Who waits in a circle, or for somebody who is dead.
//!
//! Only edges that memory proves count: a thread waits at a lock whose memory, read just now, names the holder (or for the
//! end of a thread, which its tid word names). One look is not enough, since memory and threads are read one after the
//! other: what a second look does not confirm unchanged is not reported.

use std::collections::{BTreeMap, HashSet};

use probe_ebpf::waiting::flag;

use super::thread_index::{Owner, Target, ThreadIndex};
use super::{LockId, Look, Party};
use crate::model::thread::{OpenWait, Thread, ThreadId};

/// How it came to be that nobody can go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Shape {
    /// Each waits for the next.
    Cycle,
    /// A thread waits for itself.
    Itself,
    /// The holder has ended without releasing.
    DeadOwner,
}

impl Shape {
    /// The name used in JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Cycle => "cycle",
            Self::Itself => "self",
            Self::DeadOwner => "dead_owner",
        }
    }
}

/// One thread of a deadlock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Member {
    /// Who waits.
    pub party: Party,
    /// At which lock.
    pub waits_for: LockId,
    /// The lock of its own that the one before it waits for; `None` if nobody in the circle does.
    pub holds: Option<LockId>,
    /// Address of [`Self::waits_for`] as the thread has it.
    pub address: u64,
    /// Whether it waits for the end of a thread, not for a lock.
    pub joins: bool,
    /// Its identity.
    id: ThreadId,
    /// Switches until now: unchanged, it has not run since.
    switches: u64,
}

/// Threads that wait for each other for ever.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Deadlock {
    /// How.
    pub shape: Shape,
    /// Each waits for the next, the last for the first; of a dead owner, everybody who waits for it.
    pub members: Vec<Member>,
    /// Tid of an owner that has ended, as memory has it, if it still has it.
    pub dead_owner: Option<u32>,
    /// The thread of the parent process that held the lock when the waiters' process was forked: there it
    /// lives, here it never did.
    pub forked_from: Option<Party>,
    /// Whether one of them gives up some time: it waits with a timeout.
    pub until_timeout: bool,
    /// Nanoseconds since the last of them began to wait.
    pub age_ns: u64,
}

/// A circle with a timeout in it is a deadlock only if it has stood for so long: some programs avoid
/// deadlocks by taking turns at giving up.
const TIMED_AFTER_NS: u64 = 8_000_000_000;

/// An edge that memory proves.
struct Proof<'a> {
    waiter: &'a Thread,
    open: &'a OpenWait,
    lock: LockId,
    target: Target<'a>,
}

/// Everything in one snapshot that may be a deadlock.
pub fn candidates(look: Look<'_>, index: &ThreadIndex<'_>) -> Vec<Deadlock> {
    let proofs: BTreeMap<ThreadId, Proof<'_>> = look
        .open_waits()
        .filter_map(|(waiter, open, lock)| {
            let proof = Proof {
                waiter,
                open,
                lock,
                target: index.target(waiter, open)?,
            };
            Some((waiter.id, proof))
        })
        .collect();
    let mut found = cycles(&proofs);
    found.extend(dead_owners(&proofs));
    found.sort_by_key(|deadlock| std::cmp::Reverse(deadlock.age_ns));
    found
}

/// Walks each waiter's owner chain. Each waits for one other at most, so every circle is walked once.
fn cycles(proofs: &BTreeMap<ThreadId, Proof<'_>>) -> Vec<Deadlock> {
    let mut done: HashSet<ThreadId> = HashSet::new();
    let mut found = Vec::new();
    for &start in proofs.keys() {
        let mut path: Vec<ThreadId> = Vec::new();
        let mut at = start;
        while let Some(proof) = proofs.get(&at) {
            if let Some(begin) = path.iter().position(|&id| id == at) {
                found.extend(circle(proofs, &path[begin..]));
                break;
            }
            if !done.insert(at) {
                break;
            }
            path.push(at);
            let Owner::Live(owner) = proof.target.owner else {
                break;
            };
            at = owner.id;
        }
    }
    found
}

/// A circle as a deadlock. `pthread_join()` refuses two threads that join each other (EDEADLK), but not
/// three.
fn circle(proofs: &BTreeMap<ThreadId, Proof<'_>>, ids: &[ThreadId]) -> Option<Deadlock> {
    let ring: Vec<&Proof<'_>> = ids.iter().filter_map(|id| proofs.get(id)).collect();
    let age_ns = ring.iter().map(|proof| proof.open.age_ns).min().unwrap_or(0);
    let is_timed = |proof: &Proof<'_>| proof.open.wait.flags & flag::TIMED != 0;
    let until_timeout = ring.iter().any(|proof| is_timed(proof));
    if until_timeout && age_ns < TIMED_AFTER_NS {
        return None;
    }
    let before = ring.iter().cycle().skip(ring.len().checked_sub(1)?);
    let members = ring
        .iter()
        .zip(before)
        .map(|(proof, before)| member(proof, (!before.target.joins).then_some(before.lock)));
    Some(Deadlock {
        shape: if ring.len() == 1 {
            Shape::Itself
        } else {
            Shape::Cycle
        },
        members: members.collect(),
        dead_owner: None,
        forked_from: None,
        until_timeout,
        age_ns,
    })
}

/// Locks whose owner has ended or never was in this process, with all threads that wait for them.
fn dead_owners(proofs: &BTreeMap<ThreadId, Proof<'_>>) -> Vec<Deadlock> {
    let mut by_lock: BTreeMap<LockId, Deadlock> = BTreeMap::new();
    for proof in proofs.values().filter(|proof| !proof.target.joins) {
        let (tid, forked_from) = match proof.target.owner {
            Owner::Exited(tid) => (tid, None),
            Owner::Parent(thread) => (Some(thread.inner_tid()), Some(Party::of(thread))),
            Owner::Live(_) | Owner::Ambiguous => continue,
        };
        let found = by_lock.entry(proof.lock).or_insert_with(|| Deadlock {
            shape: Shape::DeadOwner,
            members: Vec::new(),
            dead_owner: tid,
            forked_from,
            until_timeout: false,
            age_ns: 0,
        });
        found.members.push(member(proof, None));
        found.age_ns = found.age_ns.max(proof.open.age_ns);
    }
    by_lock.into_values().collect()
}

fn member(proof: &Proof<'_>, holds: Option<LockId>) -> Member {
    let switches = proof.waiter.switches;
    Member {
        party: Party::of(proof.waiter),
        waits_for: proof.lock,
        holds,
        address: proof.open.wait.address,
        joins: proof.target.joins,
        id: proof.waiter.id,
        switches: switches.voluntary + switches.involuntary,
    }
}

/// Those of `now` that an earlier look has as well, member by member, nobody having run in between.
pub fn confirmed(now: Vec<Deadlock>, earlier: &[Deadlock]) -> Vec<Deadlock> {
    let key = |deadlock: &Deadlock| {
        let mut members = deadlock.members.clone();
        members.sort();
        (deadlock.shape, members)
    };
    let circles: HashSet<_> = earlier.iter().map(key).collect();
    let dead = earlier
        .iter()
        .filter(|deadlock| deadlock.shape == Shape::DeadOwner);
    let waiting: HashSet<_> = dead
        .flat_map(|deadlock| {
            deadlock
                .members
                .iter()
                .map(|member| (deadlock.dead_owner, member))
        })
        .collect();
    now.into_iter()
        .filter(|deadlock| match deadlock.shape {
            // More may have come to wait for the dead: those who were there before prove it.
            Shape::DeadOwner => deadlock
                .members
                .iter()
                .any(|member| waiting.contains(&(deadlock.dead_owner, member))),
            Shape::Cycle | Shape::Itself => circles.contains(&key(deadlock)),
        })
        .collect()
}
