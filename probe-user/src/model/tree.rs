//! Processes with their threads, children under their parents.

use std::collections::{BTreeMap, HashMap, HashSet};

use probe_ebpf::state::State;

use super::snapshot::Snapshot;
use super::thread::{Condition, Thread};

/// One process.
pub struct Process<'a> {
    /// Its first thread, which carries the process's name and state.
    pub leader: &'a Thread,
    /// All its threads, the leader first, then by tid.
    pub threads: Vec<&'a Thread>,
}

impl Process<'_> {
    /// Process id.
    pub fn pid(&self) -> u32 {
        self.leader.pid
    }

    /// The thread whose state is the process's: its first, or if that has ended before the others, the one of
    /// them that does most.
    pub fn face(&self) -> &Thread {
        let lives_on = self.leader.condition == Condition::Zombie && self.leader.live_threads > 0;
        let others = self.threads.iter().copied().filter(|_| lives_on);
        busiest(others).unwrap_or(self.leader)
    }

    /// Whether the freezer of its cgroup holds all its living threads; `None` if that is unknown.
    pub fn frozen(&self) -> Option<bool> {
        let alive = |thread: &&&Thread| matches!(thread.condition, Condition::Alive(_));
        let mut living = self.threads.iter().filter(alive).peekable();
        let is_alive = living.peek().is_some();
        let all = living.try_fold(true, |all, thread| Some(all && thread.frozen?));
        all.map(|all| all && is_alive)
    }
}

/// The living thread that does most; of several the one with the lowest tid.
pub fn busiest<'a>(threads: impl Iterator<Item = &'a Thread>) -> Option<&'a Thread> {
    let rank = |thread: &Thread| match thread.condition {
        Condition::Alive(State::Running) => Some(0),
        Condition::Alive(State::Runnable) => Some(1),
        Condition::Alive(State::Uninterruptible) => Some(2),
        Condition::Alive(State::Sleeping) => Some(3),
        Condition::Alive(_) => Some(4),
        Condition::Zombie | Condition::Dead => None,
    };
    let ranked = threads.filter_map(|thread| Some((rank(thread)?, thread.id.tid, thread)));
    ranked
        .min_by_key(|&(rank, tid, _)| (rank, tid))
        .map(|(_, _, thread)| thread)
}

/// Processes that live on although their first thread has ended, with the condition of [`Process::face`].
pub fn headless(snapshot: &Snapshot) -> HashMap<u32, Condition> {
    let lives_on = |thread: &&Thread| {
        thread.is_leader() && thread.condition == Condition::Zombie && thread.live_threads > 0
    };
    let mut faces: HashMap<u32, Vec<&Thread>> = HashMap::new();
    for leader in snapshot.threads.iter().filter(lives_on) {
        faces.insert(leader.pid, Vec::new());
    }
    if faces.is_empty() {
        return HashMap::new();
    }
    for thread in &snapshot.threads {
        if let Some(threads) = faces.get_mut(&thread.pid) {
            threads.push(thread);
        }
    }
    let faces = faces.into_iter();
    faces
        .filter_map(|(pid, threads)| Some((pid, busiest(threads.into_iter())?.condition)))
        .collect()
}

/// A process's place in the tree.
pub struct Node<'a> {
    /// The process.
    pub process: Process<'a>,
    /// How many ancestors are above it in this tree.
    pub depth: usize,
    /// Whether no sibling follows it.
    pub is_last: bool,
}

/// The processes of a snapshot by pid.
///
/// A process whose leader the snapshot lacks (it died between two reads) is represented by its lowest thread.
pub fn processes(snapshot: &Snapshot) -> BTreeMap<u32, Process<'_>> {
    let mut by_pid: BTreeMap<u32, Vec<&Thread>> = BTreeMap::new();
    for thread in &snapshot.threads {
        by_pid.entry(thread.pid).or_default().push(thread);
    }
    by_pid
        .into_iter()
        .filter_map(|(pid, mut threads)| {
            threads.sort_by_key(|thread| (!thread.is_leader(), thread.id.tid));
            let leader = threads.first().copied()?;
            Some((pid, Process { leader, threads }))
        })
        .collect()
}

/// The tree in the order it is printed: parents before children, siblings by pid.
///
/// With `root` only that process and what descends from it; empty if there is no such process. Processes whose parent
/// is not in the snapshot are roots of their own; no process is left out and none shown twice, whatever the parents say.
pub fn layout(snapshot: &Snapshot, root: Option<u32>) -> Vec<Node<'_>> {
    let mut processes = processes(snapshot);
    let mut children: HashMap<u32, Vec<u32>> = HashMap::new();
    let mut roots = Vec::new();
    for (&pid, process) in &processes {
        let ppid = process.leader.ppid;
        if ppid != pid && processes.contains_key(&ppid) {
            children.entry(ppid).or_default().push(pid);
        } else {
            roots.push(pid);
        }
    }
    if let Some(root) = root {
        roots = processes
            .contains_key(&root)
            .then_some(root)
            .into_iter()
            .collect();
    }
    let mut nodes = Vec::with_capacity(processes.len());
    place(&roots, &children, &mut processes, &mut nodes);
    if root.is_none() {
        // Two snapshots' worth of parents can form a loop, which no root leads to; others may hang from it.
        while let Some(&pid) = processes.keys().next() {
            place(
                &[in_loop_above(&processes, pid)],
                &children,
                &mut processes,
                &mut nodes,
            );
        }
    }
    nodes
}

/// Follows the parents of a process that no root leads to until they repeat.
fn in_loop_above(processes: &BTreeMap<u32, Process<'_>>, pid: u32) -> u32 {
    let mut seen = HashSet::new();
    let mut next = pid;
    while seen.insert(next) {
        next = processes.get(&next).map_or(pid, |process| process.leader.ppid);
    }
    next
}

fn place<'a>(
    roots: &[u32],
    children: &HashMap<u32, Vec<u32>>,
    processes: &mut BTreeMap<u32, Process<'a>>,
    nodes: &mut Vec<Node<'a>>,
) {
    // An explicit stack: a chain of 30,000 parents must not overflow ours.
    let mut stack: Vec<(u32, usize, bool)> = Vec::new();
    let push = |stack: &mut Vec<(u32, usize, bool)>, pids: &[u32], depth: usize| {
        let siblings = pids.iter().enumerate().rev();
        stack.extend(siblings.map(|(position, &pid)| (pid, depth, position + 1 == pids.len())));
    };
    push(&mut stack, roots, 0);
    while let Some((pid, depth, is_last)) = stack.pop() {
        let Some(process) = processes.remove(&pid) else {
            continue;
        };
        if let Some(pids) = children.get(&pid) {
            push(&mut stack, pids, depth + 1);
        }
        nodes.push(Node {
            process,
            depth,
            is_last,
        });
    }
}

/// The pids of a process's ancestors, nearest first.
pub fn ancestors(snapshot: &Snapshot, pid: u32) -> Vec<u32> {
    let parents: HashMap<u32, u32> = snapshot
        .threads
        .iter()
        .filter(|thread| thread.is_leader())
        .map(|thread| (thread.pid, thread.ppid))
        .collect();
    let mut seen = HashSet::from([pid]);
    let mut chain = Vec::new();
    let mut next = pid;
    while let Some(&ppid) = parents.get(&next) {
        if !parents.contains_key(&ppid) || !seen.insert(ppid) {
            break;
        }
        chain.push(ppid);
        next = ppid;
    }
    chain
}

#[cfg(test)]
#[path = "tree_tests.rs"]
mod tests;
