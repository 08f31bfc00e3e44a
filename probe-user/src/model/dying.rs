//! What holds up processes that were told to end.
//!
//! A file of its own, since it is about living threads, where [`super::zombies`] is about dead ones. A
//! process is over when its last thread is. A thread in uninterruptible sleep takes no signal, not even
//! `SIGKILL`, and the first process of a pid namespace ends only after all others in there have
//! (`zap_pid_ns_processes()` in the kernel).

use std::collections::HashMap;

use probe_ebpf::state::State;

use super::snapshot::Snapshot;
use super::thread::{Condition, Thread};
use super::zombies::GRACE_NS;

/// See the module.
pub struct Holders<'a> {
    /// Threads of processes that were told to end and may be held up.
    threads: HashMap<u32, Vec<&'a Thread>>,
    /// First processes of pid namespaces that are ending, with what is left in there.
    namespaces: HashMap<u64, Vec<&'a Thread>>,
}

impl<'a> Holders<'a> {
    /// Looks through a snapshot; costs next to nothing where nobody is dying.
    pub fn new(snapshot: &'a Snapshot) -> Self {
        let mut threads: HashMap<u32, Vec<&Thread>> = HashMap::new();
        let mut namespaces: HashMap<u64, Vec<&Thread>> = HashMap::new();
        for leader in snapshot.threads.iter().filter(|thread| is_ending(thread)) {
            threads.insert(leader.pid, Vec::new());
            if is_leaving_namespace(leader) {
                namespaces.insert(leader.pid_namespace, Vec::new());
            }
        }
        if threads.is_empty() {
            return Self { threads, namespaces };
        }
        for thread in &snapshot.threads {
            if let Some(of) = threads.get_mut(&thread.pid) {
                of.push(thread);
            }
            if let Some(of) = namespaces.get_mut(&thread.pid_namespace) {
                of.push(thread);
            }
        }
        Self { threads, namespaces }
    }

    /// The thread that a process which was told to end waits for; `None` if it was not, or will be over in a
    /// moment.
    pub fn of(&self, leader: &Thread) -> Option<&'a Thread> {
        let threads = self.threads.get(&leader.pid)?;
        if is_leaving_namespace(leader) && is_waiting(leader) {
            let left = self.namespaces.get(&leader.pid_namespace)?.iter().copied();
            let others = left.filter(|thread| thread.pid != leader.pid);
            // The dead are held by whoever does not reap them; nothing else in there can be.
            if let Some(holder) = others.min_by_key(|thread| (rank(thread), thread.id.tid)) {
                return Some(holder);
            }
        }
        let stuck = threads.iter().copied().filter(|thread| is_waiting(thread));
        stuck.min_by_key(|thread| (rank(thread), thread.id.tid))
    }
}

/// Whether a first thread says that its process was told to end, and is not over.
fn is_ending(thread: &Thread) -> bool {
    let alive = matches!(thread.condition, Condition::Alive(_));
    // A zombie that is alone waits for its parent, and there can be very many of them.
    thread.is_leader() && thread.ends_with.is_some() && (alive || thread.threads > 1)
}

/// Whether it is the first process of a pid namespace, in its last act.
fn is_leaving_namespace(leader: &Thread) -> bool {
    leader.ns_tids.last() == Some(&1)
        && leader.live_threads == 0
        && matches!(leader.condition, Condition::Alive(_))
}

/// Long enough in a wait that it will not be over in a moment.
fn is_waiting(thread: &Thread) -> bool {
    let waits = matches!(thread.condition, Condition::Alive(state) if state.is_blocked());
    waits && thread.condition_ns.is_none_or(|ns| ns >= GRACE_NS)
}

/// Whom to name first.
fn rank(thread: &Thread) -> u32 {
    match thread.condition {
        Condition::Alive(State::Uninterruptible) => 0,
        Condition::Alive(State::Traced | State::Stopped) => 1,
        Condition::Zombie => 2,
        Condition::Alive(_) => 3,
        Condition::Dead => 4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::tracker::tests::{snapshot, thread};
    use crate::model::zombies::{Kind, report};

    const LONG_NS: u64 = 2 * GRACE_NS;

    fn stuck(pid: u32, tid: u32, state: State) -> Thread {
        let mut thread = thread(pid, tid, "stuck", None, 0);
        (thread.condition, thread.condition_ns) = (Condition::Alive(state), Some(LONG_NS));
        (thread.ends_with, thread.live_threads, thread.threads) = (Some(9), 1, 2);
        thread
    }

    #[test]
    fn the_killed_wait_for_their_thread_in_uninterruptible_sleep() {
        let mut leader = stuck(7, 7, State::Sleeping);
        leader.condition = Condition::Zombie;
        let writer = stuck(7, 8, State::Uninterruptible);
        let alone = stuck(9, 9, State::Uninterruptible);
        let mut prompt = stuck(11, 11, State::Uninterruptible);
        prompt.condition_ns = Some(1);
        let snapshot = snapshot(1, vec![leader, writer, alone, prompt]);
        let report = report(&snapshot, None, None);
        let found: Vec<_> = report
            .zombies
            .iter()
            .map(|zombie| {
                let holder = zombie.held_up_by.map(|thread| thread.id.tid);
                (zombie.thread.pid, zombie.kind, zombie.status(), holder)
            })
            .collect();
        assert_eq!(
            found,
            [
                (7, Kind::Dying, Some(9), Some(8)),
                (9, Kind::Dying, Some(9), Some(9))
            ]
        );
        assert!(report.culprits.is_empty(), "no parent is at fault");
    }

    #[test]
    fn the_first_process_of_a_namespace_waits_for_all_others() {
        let mut init = stuck(7, 7, State::Sleeping);
        (init.live_threads, init.pid_namespace) = (0, 5);
        init.ns_tids = smallvec::SmallVec::from_slice(&[1]);
        let mut left = thread(8, 8, "left", None, 0);
        (left.condition, left.condition_ns, left.live_threads) = (Condition::Zombie, Some(LONG_NS), 0);
        (left.pid_namespace, left.ppid) = (5, 3);
        let snapshot = snapshot(1, vec![init, left]);
        let report = report(&snapshot, None, None);
        let dying = report
            .zombies
            .iter()
            .find(|zombie| zombie.thread.pid == 7)
            .unwrap();
        assert_eq!(
            (dying.kind, dying.held_up_by.map(|thread| thread.pid)),
            (Kind::Dying, Some(8))
        );
        let left = report
            .zombies
            .iter()
            .find(|zombie| zombie.thread.pid == 8)
            .unwrap();
        assert_eq!((left.kind, left.at_fault), (Kind::Unreaped, Some(3)));
    }
}
