//! The tree as it was before parents died: dead ancestors of the living back in their places.

use std::collections::HashSet;

use smallvec::SmallVec;

use super::life::{Life, id_of};
use super::lives::Lives;
use super::snapshot::Snapshot;
use super::thread::{Comm, Condition, ReadFrom, Switches, Thread, ThreadId};

/// A snapshot in which orphans are under the parent they lost, and that one, dead, under its own.
///
/// A pid can stand in the tree once. Where a dead ancestor's pid is somebody else's by now, the orphan stays with its
/// adopter.
pub fn with_ancestry(snapshot: &Snapshot, lives: &Lives) -> Snapshot {
    let mut result = snapshot.clone();
    let taken: HashSet<u32> = snapshot.threads.iter().map(|thread| thread.pid).collect();
    let mut added: HashSet<u32> = HashSet::new();
    let mut dead = Vec::new();
    for thread in result.threads.iter_mut().filter(|thread| thread.is_leader()) {
        let Some(loss) = lives.get(id_of(thread)).and_then(|life| life.orphan) else {
            continue;
        };
        let chain = dead_ancestors(lives, lives.get(loss.original));
        let Some(nearest) = chain.first() else { continue };
        if chain.iter().any(|life| taken.contains(&life.id.pid)) {
            continue;
        }
        thread.ppid = nearest.id.pid;
        for life in chain {
            if added.insert(life.id.pid) {
                dead.push(dead_thread(life, snapshot.ended_ns));
            }
        }
    }
    // The other threads of an orphan go with their leader.
    let parents: std::collections::HashMap<u32, u32> = result
        .threads
        .iter()
        .filter(|thread| thread.is_leader())
        .map(|thread| (thread.pid, thread.ppid))
        .collect();
    for thread in &mut result.threads {
        if let Some(&ppid) = parents.get(&thread.pid) {
            thread.ppid = ppid;
        }
    }
    result.threads.extend(dead);
    result.threads.sort_by_key(|thread| thread.id.tid);
    result
}

/// A dead process and its dead ancestors, up to the first living or unknown one.
fn dead_ancestors<'a>(lives: &'a Lives, first: Option<&'a Life>) -> Vec<&'a Life> {
    let mut chain: Vec<&Life> = Vec::new();
    let mut next = first;
    while let Some(life) = next {
        let is_dead =
            life.death.is_some() && lives.alive(life.id.pid).is_none_or(|alive| alive.id != life.id);
        if !is_dead || chain.iter().any(|seen| seen.id == life.id) {
            break;
        }
        chain.push(life);
        // Where it was when it died: what it lost itself is further up.
        let parent = life.orphan.map_or(life.parent, |loss| loss.original);
        next = lives.get(parent);
    }
    chain
}

fn dead_thread(life: &Life, now_ns: u64) -> Thread {
    let death = life.death.as_ref();
    Thread {
        id: ThreadId {
            tid: life.id.pid,
            start_ns: life.id.start_ns,
        },
        pid: life.id.pid,
        ppid: life.orphan.map_or(life.parent, |loss| loss.original).pid,
        parent_start_ns: life.parent.start_ns,
        tracer: None,
        comm: if life.comm.bytes().is_empty() {
            Comm::new("?")
        } else {
            life.comm
        },
        kernel: false,
        uid: None,
        nice: 0,
        policy: 0,
        ns_tids: SmallVec::new(),
        cgroup_id: life.cgroup_id,
        condition: Condition::Dead,
        frozen: None,
        map_locked: None,
        executed: false,
        ends_with: None,
        condition_ns: death.map(|death| now_ns.saturating_sub(death.at_ns)),
        is_lower_bound: false,
        blocked_on: None,
        page_fault: false,
        descriptor: None,
        futex: None,
        space: 0,
        sp: 0,
        clear_child_tid: 0,
        pid_namespace: 0,
        exit_status: death.and_then(|death| death.status),
        live_threads: 0,
        threads: 0,
        sid: 0,
        pgid: 0,
        subreaper: Some(false),
        last_wait_ns: None,
        lifetime_running_ns: None,
        switches: Switches::default(),
        account: None,
        read_from: ReadFrom::Iterator,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::event::{Event, EventKind, Exit};
    use crate::model::life::ProcessId;
    use crate::model::lives::Retention;
    use crate::model::tracker::tests::{snapshot, thread};
    use crate::model::tree;

    fn process(pid: u32, ppid: u32) -> Thread {
        let mut thread = thread(pid, pid, &format!("p{pid}"), None, 0);
        (thread.ppid, thread.id.start_ns, thread.parent_start_ns) = (ppid, u64::from(pid), u64::from(ppid));
        thread
    }

    fn death(pid: u32, ppid: u32) -> Event {
        Event {
            at_ns: 150,
            kind: EventKind::Exit(Box::new(Exit {
                status: 0x100,
                last: true,
                zombie: false,
                killer: None,
                oom: false,
                switches: Switches::default(),
                account: None,
            })),
            id: ThreadId {
                tid: pid,
                start_ns: u64::from(pid),
            },
            pid,
            ppid,
            parent_start_ns: u64::from(ppid),
            namespace_init: false,
            comm: Comm::new(&format!("p{pid}")),
            kernel: false,
            cgroup_id: 0,
        }
    }

    #[test]
    fn dead_ancestors_are_back_in_their_places() {
        let mut lives = Lives::new(Retention::default());
        let before = [process(1, 0), process(2, 1), process(3, 2), process(4, 3)];
        lives.snapshot(&snapshot(100, before.to_vec()));
        lives.event(&death(3, 2));
        lives.reparented(4, ProcessId { pid: 1, start_ns: 1 }, 150);
        lives.event(&death(2, 1));
        let after = snapshot(200, vec![process(1, 0), process(4, 1)]);
        let whole = with_ancestry(&after, &lives);
        let lines: Vec<_> = tree::layout(&whole, None)
            .iter()
            .map(|node| {
                (
                    node.depth,
                    node.process.pid(),
                    node.process.leader.condition == Condition::Dead,
                )
            })
            .collect();
        assert_eq!(lines, [(0, 1, false), (1, 2, true), (2, 3, true), (3, 4, false)]);
    }
}
