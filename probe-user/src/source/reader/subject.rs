//! Whom a question is about.

use std::collections::HashMap;

use probe_ebpf::state::State;

use crate::model::locks::memory::MemoryGap;
use crate::model::snapshot::Snapshot;
use crate::model::thread::{Condition, Thread};

/// A process, told from another one that gets its pid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Subject {
    /// Its pid.
    pub pid: u32,
    /// The tid under which /proc shows its memory: once its first thread has ended, that of another. Such a
    /// directory is in no list, but opens.
    pub door: u32,
    /// When its oldest thread that is known began.
    pub start_ns: u64,
    /// Its user, if that is known.
    pub uid: Option<u32>,
    /// Why it had better not be asked.
    pub leave: Option<MemoryGap>,
}

impl Subject {
    /// One of which nothing is known that speaks against asking it.
    pub const fn of(pid: u32, start_ns: u64) -> Self {
        Self {
            pid,
            door: pid,
            start_ns,
            uid: None,
            leave: None,
        }
    }
}

/// The processes with a wanted pid, as a snapshot has them.
pub fn subjects(snapshot: &Snapshot, wanted: impl Fn(u32) -> bool) -> HashMap<u32, Subject> {
    let mut found: HashMap<u32, Subject> = HashMap::new();
    for thread in snapshot.threads.iter().filter(|thread| wanted(thread.pid)) {
        let subject = found.entry(thread.pid).or_insert_with(|| Subject {
            uid: thread.uid,
            leave: snapshot.memory.gaps.get(&thread.pid).copied(),
            door: 0,
            ..Subject::of(thread.pid, thread.id.start_ns)
        });
        subject.start_ns = subject.start_ns.min(thread.id.start_ns);
        let is_first = thread.id.tid == thread.pid;
        match thread.condition {
            Condition::Alive(_) if is_first => subject.door = thread.pid,
            Condition::Alive(_) if subject.door == 0 => subject.door = thread.id.tid,
            _ => {}
        }
        subject.leave = subject.leave.or_else(|| stuck(thread));
    }
    for (pid, subject) in &mut found {
        if subject.door == 0 {
            subject.door = *pid;
        }
    }
    found
}

/// Questions by pid, with the processes that they are about. Whoever is not in the snapshot is gone: under
/// its pid may be another by now.
pub fn questions<Q>(snapshot: &Snapshot, mut by_pid: HashMap<u32, Q>) -> Vec<(Subject, Q)> {
    if by_pid.is_empty() {
        return Vec::new();
    }
    let subjects = subjects(snapshot, |pid| by_pid.contains_key(&pid));
    let found = subjects.into_iter();
    found
        .filter_map(|(pid, subject)| Some((subject, by_pid.remove(&pid)?)))
        .collect()
}

/// Waiting for a disk for less than this is nothing special.
const LONG_NS: u64 = 1_000_000_000;

/// A thread that has long been in uninterruptible sleep, while the memory map of its process is locked, or
/// may be: whoever asks sleeps beside it.
fn stuck(thread: &Thread) -> Option<MemoryGap> {
    let sleeps = thread.condition == Condition::Alive(State::Uninterruptible)
        && thread.condition_ns.is_none_or(|ns| ns >= LONG_NS);
    match thread.map_locked {
        _ if !sleeps => None,
        Some(true) => Some(MemoryGap::Locked),
        Some(false) => None,
        None => Some(MemoryGap::Asleep),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::locks::testing::World;

    #[test]
    fn memory_is_seen_through_a_thread_that_lives() {
        for (first, second, door) in [
            (
                Condition::Alive(State::Sleeping),
                Condition::Alive(State::Sleeping),
                100,
            ),
            (Condition::Zombie, Condition::Alive(State::Sleeping), 101),
            (Condition::Zombie, Condition::Zombie, 100),
        ] {
            let mut world = World::default();
            world.runs(101, "second").last().condition = second;
            world.runs(100, "first").last().condition = first;
            let found = subjects(&world.snapshot(1, 1), |pid| pid == 100);
            assert_eq!(found[&100].door, door);
        }
    }

    #[test]
    fn who_sleeps_long_with_its_map_locked_is_not_asked() {
        for (map_locked, long, leave) in [
            (Some(true), true, Some(MemoryGap::Locked)),
            (None, true, Some(MemoryGap::Asleep)),
            (Some(false), true, None),
            (Some(true), false, None),
        ] {
            let mut world = World::default();
            world.runs(100, "sleeps");
            world.runs(101, "other");
            let mut snapshot = world.snapshot(1, 1);
            let thread = snapshot
                .threads
                .iter_mut()
                .find(|thread| thread.pid == 100)
                .unwrap();
            thread.condition = Condition::Alive(State::Uninterruptible);
            thread.condition_ns = Some(if long { 2_000_000_000 } else { 1_000 });
            thread.map_locked = map_locked;
            let found = subjects(&snapshot, |pid| pid == 100);
            assert_eq!(found.len(), 1);
            assert_eq!(found[&100].leave, leave, "{map_locked:?} {long}");
        }
    }
}
