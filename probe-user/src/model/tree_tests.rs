//! Tests of the tree: whatever the parents say, every process has one place.

use proptest::prelude::*;

use super::*;
use crate::model::tracker::tests::{snapshot, thread};

/// A host with these pids and parents.
fn host(parents: &BTreeMap<u32, u32>) -> Snapshot {
    let threads = parents.iter().map(|(&pid, &ppid)| Thread {
        ppid,
        ..thread(pid, pid, "x", None, 0)
    });
    snapshot(0, threads.collect())
}

/// Whether following the parents leads back.
fn is_in_a_loop(parents: &BTreeMap<u32, u32>, pid: u32) -> bool {
    let mut next = pid;
    (0..parents.len()).any(|_| match parents.get(&next) {
        Some(&parent) => {
            next = parent;
            next == pid
        }
        None => false,
    })
}

/// Whether following the parents leads to `root`.
fn descends(parents: &BTreeMap<u32, u32>, pid: u32, root: u32) -> bool {
    let mut next = pid;
    for _ in 0..=parents.len() {
        if next == root {
            return true;
        }
        match parents.get(&next) {
            Some(&parent) => next = parent,
            None => return false,
        }
    }
    false
}

fn any_parents() -> impl Strategy<Value = BTreeMap<u32, u32>> {
    // Few numbers, so that parents often are there, are themselves, or go round in circles.
    proptest::collection::btree_map(1_u32..40, 0_u32..45, 0..40)
}

proptest! {
    #[test]
    fn every_process_is_there_once(parents in any_parents()) {
        let snapshot = host(&parents);
        let mut pids: Vec<u32> = layout(&snapshot, None).iter().map(|node| node.process.pid()).collect();
        pids.sort_unstable();
        prop_assert_eq!(pids, parents.keys().copied().collect::<Vec<_>>());
    }

    #[test]
    fn parents_come_before_their_children(parents in any_parents()) {
        let snapshot = host(&parents);
        let nodes = layout(&snapshot, None);
        let place: HashMap<u32, usize> = nodes.iter().enumerate().map(|(place, node)| (node.process.pid(), place)).collect();
        for (&pid, ppid) in &parents {
            let (Some(&parent), false) = (place.get(ppid), is_in_a_loop(&parents, pid)) else {
                continue;
            };
            prop_assert!(parent < place[&pid], "{} before {}", ppid, pid);
            prop_assert_eq!(nodes[parent].depth + 1, nodes[place[&pid]].depth);
        }
    }

    #[test]
    fn a_root_brings_what_descends_from_it_and_nothing_else(parents in any_parents(), root in 1_u32..40) {
        let snapshot = host(&parents);
        let mut pids: Vec<u32> = layout(&snapshot, Some(root)).iter().map(|node| node.process.pid()).collect();
        prop_assert!(pids.first().is_none_or(|&first| first == root));
        pids.sort_unstable();
        let expected: Vec<u32> = parents
            .keys()
            .copied()
            .filter(|&pid| parents.contains_key(&root) && descends(&parents, pid, root))
            .collect();
        prop_assert_eq!(pids, expected);
    }

    #[test]
    fn ancestors_end(parents in any_parents(), pid in 1_u32..40) {
        let snapshot = host(&parents);
        let chain = ancestors(&snapshot, pid);
        let distinct: HashSet<u32> = chain.iter().copied().collect();
        prop_assert!(distinct.len() == chain.len() && !distinct.contains(&pid));
    }
}

#[test]
fn threads_come_under_their_process_with_the_first_one_first() {
    let threads = vec![
        thread(7, 9, "c", None, 0),
        thread(7, 7, "a", None, 0),
        thread(7, 8, "b", None, 0),
    ];
    let snapshot = snapshot(0, threads);
    let nodes = layout(&snapshot, None);
    let [node] = nodes.as_slice() else {
        panic!("one process")
    };
    let tids: Vec<u32> = node.process.threads.iter().map(|thread| thread.id.tid).collect();
    assert_eq!((node.process.pid(), tids), (7, vec![7, 8, 9]));
}

#[test]
fn a_process_without_its_first_thread_is_what_the_others_do() {
    let mut first = thread(7, 7, "first", None, 0);
    (first.condition, first.live_threads) = (Condition::Zombie, 2);
    let mut asleep = thread(7, 8, "asleep", None, 0);
    asleep.lifetime_running_ns = Some(5);
    let mut busy = thread(7, 9, "busy", None, 0);
    busy.condition = Condition::Alive(State::Running);
    let mut dead = thread(10, 10, "dead", None, 0);
    (dead.condition, dead.live_threads) = (Condition::Zombie, 0);
    let snapshot = snapshot(1, vec![first, asleep, busy, dead]);
    let processes = processes(&snapshot);
    assert_eq!(processes[&7].face().id.tid, 9);
    assert_eq!(processes[&10].face().id.tid, 10);
    assert_eq!(processes[&7].leader.id.tid, 7);
    assert_eq!(
        headless(&snapshot),
        HashMap::from([(7, Condition::Alive(State::Running))])
    );
}
