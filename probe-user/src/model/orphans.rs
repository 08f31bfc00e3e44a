//! Processes that lost their parent: known from watching, or guessed from what the kernel still has.
//!
//! A process that was adopted before anybody looked still has its session and process group. If those are led by
//! somebody else than its present parent, and that parent is one that adopts, then it was not born there.

use std::collections::HashMap;

use super::life::{AdopterKind, id_of};
use super::lives::Lives;
use super::snapshot::Snapshot;
use super::thread::{Comm, Condition, Thread};

/// One orphan.
#[derive(Clone, Debug)]
pub struct Orphan<'a> {
    /// Its first thread.
    pub thread: &'a Thread,
    /// Pid of the parent it lost.
    pub original_pid: u32,
    /// That parent's name; `None` if it was gone before we looked.
    pub original_comm: Option<Comm>,
    /// Pids and names of that parent's own ancestors, nearest first, as far as they are known.
    pub ancestry: Vec<(u32, Comm)>,
    /// Pid of the parent it has now.
    pub adopter_pid: u32,
    /// That parent's name.
    pub adopter_comm: Option<Comm>,
    /// What that parent is.
    pub kind: AdopterKind,
    /// Whether the adopter has reaped or waited since we look; `None` if we have not been looking.
    pub adopter_reaps: Option<bool>,
    /// Zombies the adopter has not reaped.
    pub adopter_zombies: u64,
    /// How long ago; `None` for a guess.
    pub orphaned_ns: Option<u64>,
    /// Whether this is a guess from session and process group.
    pub guess: bool,
}

/// Ancestors to name at most.
const MAX_ANCESTRY: usize = 16;

/// All orphans of a snapshot, by pid. Without `lives` all are guesses.
pub fn report<'a>(snapshot: &'a Snapshot, lives: Option<&Lives>) -> Vec<Orphan<'a>> {
    let leaders: HashMap<u32, &Thread> = snapshot
        .threads
        .iter()
        .filter(|thread| thread.is_leader())
        .map(|thread| (thread.pid, thread))
        .collect();
    let mut zombies: HashMap<u32, u64> = HashMap::new();
    for thread in leaders
        .values()
        .filter(|thread| thread.condition == Condition::Zombie && thread.live_threads == 0)
    {
        *zombies.entry(thread.ppid).or_default() += 1;
    }
    let mut orphans: Vec<Orphan<'a>> = snapshot
        .threads
        .iter()
        .filter(|thread| thread.is_leader() && !thread.kernel && thread.condition != Condition::Zombie)
        .filter_map(|thread| {
            let known = lives.and_then(|lives| known(snapshot, lives, thread));
            known.or_else(|| guessed(thread, &leaders))
        })
        .collect();
    for orphan in &mut orphans {
        let adopter = leaders.get(&orphan.adopter_pid);
        orphan.adopter_comm = adopter.map(|adopter| adopter.comm);
        orphan.adopter_zombies = zombies.get(&orphan.adopter_pid).copied().unwrap_or(0);
        orphan.adopter_reaps = lives.and_then(|lives| {
            let life = lives.get(id_of(adopter?))?;
            let waited = snapshot
                .threads
                .iter()
                .any(|t| t.pid == orphan.adopter_pid && t.last_wait_ns.is_some());
            Some(life.children_reaped > 0 || waited)
        });
    }
    orphans.sort_by_key(|orphan| orphan.thread.pid);
    orphans
}

fn known<'a>(snapshot: &Snapshot, lives: &Lives, thread: &'a Thread) -> Option<Orphan<'a>> {
    let loss = lives.get(id_of(thread))?.orphan?;
    let mut ancestry = Vec::new();
    let mut next = lives.get(loss.original).map(|life| life.parent);
    while let Some(life) = next.and_then(|id| lives.get(id)) {
        if ancestry.len() == MAX_ANCESTRY {
            break;
        }
        ancestry.push((life.id.pid, life.comm));
        next = Some(life.parent);
    }
    Some(Orphan {
        thread,
        original_pid: loss.original.pid,
        original_comm: (!loss.original_comm.bytes().is_empty()).then_some(loss.original_comm),
        ancestry,
        adopter_pid: loss.adopter.pid,
        adopter_comm: None,
        kind: loss.kind,
        adopter_reaps: None,
        adopter_zombies: 0,
        orphaned_ns: Some(snapshot.ended_ns.saturating_sub(loss.at_ns)),
        guess: false,
    })
}

fn guessed<'a>(thread: &'a Thread, leaders: &HashMap<u32, &Thread>) -> Option<Orphan<'a>> {
    let adopter = leaders.get(&thread.ppid)?;
    let kind = if adopter.pid == 1 {
        AdopterKind::Init
    } else if adopter.ns_tids.last() == Some(&1) {
        AdopterKind::PidnsInit
    } else if adopter.subreaper != Some(false) {
        // From /proc it is not known who adopts; a child in a session that its parent is not in was born elsewhere.
        AdopterKind::Subreaper
    } else {
        return None;
    };
    let lost = |leader: u32| {
        leader != 0 && leader != thread.pid && leader != adopter.pid && !leaders.contains_key(&leader)
    };
    // Born to the adopter, it would share the adopter's session unless it leads one of its own.
    if thread.sid == adopter.sid || thread.sid == 0 {
        return None;
    }
    let original_pid = [thread.pgid, thread.sid]
        .into_iter()
        .find(|&leader| lost(leader))?;
    Some(Orphan {
        thread,
        original_pid,
        original_comm: None,
        ancestry: Vec::new(),
        adopter_pid: adopter.pid,
        adopter_comm: None,
        kind,
        adopter_reaps: None,
        adopter_zombies: 0,
        orphaned_ns: None,
        guess: true,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::tracker::tests::{snapshot, thread};

    fn process(pid: u32, ppid: u32, sid: u32, pgid: u32) -> Thread {
        let mut thread = thread(pid, pid, "p", None, 0);
        (thread.ppid, thread.sid, thread.pgid) = (ppid, sid, pgid);
        thread
    }

    #[test]
    fn a_stray_session_betrays_an_orphan() {
        let threads = vec![
            process(1, 0, 1, 1),
            // A daemon that leads its own session, and its child: nothing wrong.
            process(10, 1, 10, 10),
            process(11, 10, 10, 10),
            // A parent that does not adopt, and went to a session of its own after it forked.
            process(40, 10, 40, 40),
            process(41, 40, 39, 39),
            // Forked twice: its session leader 20 is gone.
            process(21, 1, 20, 20),
            // Started in the background of a shell, 30, that is gone.
            process(31, 1, 30, 31),
        ];
        let snapshot = snapshot(100, threads);
        let found: Vec<_> = report(&snapshot, None)
            .iter()
            .map(|orphan| (orphan.thread.pid, orphan.original_pid, orphan.kind, orphan.guess))
            .collect();
        assert_eq!(
            found,
            [
                (21, 20, AdopterKind::Init, true),
                (31, 30, AdopterKind::Init, true)
            ]
        );
    }
}
