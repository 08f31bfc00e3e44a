//! Who waits long for a lock while nobody is left who could release it, as far as one can tell without knowing the owner.
//!
//! Never called a deadlock: memory does not name the holder, so there is no proof. What speaks for it: the process's other
//! threads have not run since the wait began, and none of them waits for something from outside that would wake it.

use std::collections::{BTreeMap, BTreeSet};

use probe_ebpf::lock::Layout;
use probe_ebpf::state::State;
use probe_ebpf::waiting::flag;

use super::{LockId, Look, Party};
use crate::model::thread::{Condition, OpenWait, Thread};

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
    /// For how long, nanoseconds.
    pub age_ns: u64,
}

/// A process whose locks nobody seems to be left to release.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stall {
    /// The process.
    pub pid: u32,
    /// Who waits, longest first.
    pub waits: Vec<Stalled>,
    /// Its other threads, which have not run since either.
    pub others: u64,
    /// Nanoseconds since the last of the waits began.
    pub age_ns: u64,
    /// Whether one of the locks has behaved as one before. Else they only look like locks: counters of condition variables
    /// that stand at 2 do, too, and the code that waits has to tell.
    pub proven: bool,
}

/// Stalls of a look. `contended` are the locks that behaved as locks before, `owned` those with a known holder.
pub fn stalls(look: Look<'_>, contended: &BTreeSet<LockId>, owned: &BTreeSet<LockId>) -> Vec<Stall> {
    let mut by_process: BTreeMap<u32, Vec<(&Thread, &OpenWait, LockId)>> = BTreeMap::new();
    for (thread, open, lock) in look.open_waits() {
        let may_be = contended.contains(&lock) || open.wait.layout == Layout::Contended as u8;
        let endless = open.wait.flags & flag::TIMED == 0;
        if may_be && endless && open.age_ns >= STALL_AFTER_NS && !owned.contains(&lock) {
            by_process
                .entry(thread.pid)
                .or_default()
                .push((thread, open, lock));
        }
    }
    by_process
        .into_iter()
        .filter_map(|(pid, waits)| stall(look, pid, &waits, contended))
        .collect()
}

fn stall(
    look: Look<'_>,
    pid: u32,
    waits: &[(&Thread, &OpenWait, LockId)],
    contended: &BTreeSet<LockId>,
) -> Option<Stall> {
    let locks: BTreeSet<LockId> = waits.iter().map(|(_, _, lock)| *lock).collect();
    // A counter that stands at 2 looks like one contended mutex. Two of them at once are worth a second look.
    if locks.len() < 2 && locks.is_disjoint(contended) {
        return None;
    }
    let age_ns = waits.iter().map(|(_, open, _)| open.age_ns).min()?;
    let waiting: BTreeSet<u32> = waits.iter().map(|(thread, _, _)| thread.id.tid).collect();
    let others: Vec<&Thread> = look
        .snapshot
        .threads
        .iter()
        .filter(|thread| thread.pid == pid && !waiting.contains(&thread.id.tid))
        .collect();
    if others.iter().any(|thread| may_release(thread, age_ns)) {
        return None;
    }
    let mut waits: Vec<Stalled> = waits
        .iter()
        .map(|(thread, open, lock)| Stalled {
            party: Party::of(thread),
            lock: *lock,
            address: open.wait.address,
            age_ns: open.age_ns,
        })
        .collect();
    waits.sort_by_key(|wait| std::cmp::Reverse(wait.age_ns));
    Some(Stall {
        pid,
        waits,
        others: others.len() as u64,
        age_ns,
        proven: !locks.is_disjoint(contended),
    })
}

/// Whether a thread that does not wait for the locks has run since, or will.
fn may_release(thread: &Thread, age_ns: u64) -> bool {
    match thread.condition {
        Condition::Alive(State::Sleeping | State::Uninterruptible) => {}
        Condition::Alive(State::Stopped | State::Traced) | Condition::Zombie | Condition::Dead => {
            return false;
        }
        Condition::Alive(_) => return true,
    }
    let ran_since = thread.condition_ns.is_none_or(|ns| ns < age_ns);
    let timed = thread
        .futex
        .as_ref()
        .is_some_and(|open| open.wait.flags & flag::TIMED != 0);
    ran_since || timed
}
