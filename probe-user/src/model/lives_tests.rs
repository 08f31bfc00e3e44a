//! Tests of process lives: chains of losses, execs that swap threads, pids that come again.

use super::*;
use crate::model::event::Exit;
use crate::model::thread::{Switches, ThreadId};
use crate::model::tracker::tests::{snapshot, thread};

const INIT: ProcessId = ProcessId { pid: 1, start_ns: 1 };

fn pid(pid: u32) -> ProcessId {
    ProcessId {
        pid,
        start_ns: u64::from(pid) * 10,
    }
}

fn event(kind: EventKind, at_ns: u64, id: ProcessId, tid: u32, parent: ProcessId) -> Event {
    Event {
        at_ns,
        kind,
        id: ThreadId {
            tid,
            start_ns: id.start_ns,
        },
        pid: id.pid,
        ppid: parent.pid,
        parent_start_ns: parent.start_ns,
        namespace_init: false,
        comm: Comm::new(&format!("p{}", id.pid)),
        kernel: false,
        cgroup_id: 0,
    }
}

fn fork(id: ProcessId, parent: ProcessId) -> Event {
    event(EventKind::Fork { caller: parent.pid }, 100, id, id.pid, parent)
}

fn exit_of(last: bool, zombie: bool) -> EventKind {
    EventKind::Exit(Box::new(Exit {
        status: 0x300,
        last,
        zombie,
        killer: None,
        oom: false,
        switches: Switches::default(),
        account: None,
    }))
}

fn exit(id: ProcessId, at_ns: u64, parent: ProcessId) -> Event {
    event(exit_of(true, true), at_ns, id, id.pid, parent)
}

fn lives() -> Lives {
    let mut lives = Lives::new(Retention::default());
    let mut init = thread(1, 1, "init", None, 0);
    init.id.start_ns = 1;
    init.ppid = 0;
    lives.snapshot(&snapshot(50, vec![init]));
    lives
}

fn losses(happened: &[Happening]) -> Vec<(u32, u32, u32, AdopterKind)> {
    happened
        .iter()
        .filter_map(|happening| match happening {
            Happening::Orphaned { id, loss, .. } => {
                Some((id.pid, loss.original.pid, loss.adopter.pid, loss.kind))
            }
            Happening::Reaped { .. } => None,
        })
        .collect()
}

#[test]
fn an_orphan_keeps_its_first_parent_through_every_adopter() {
    let mut lives = lives();
    for (child, parent) in [(pid(2), INIT), (pid(3), pid(2)), (pid(4), pid(3))] {
        lives.event(&fork(child, parent));
    }
    // 3 dies, 2 is a subreaper; then 2 dies as well.
    lives.event(&exit(pid(3), 200, pid(2)));
    assert_eq!(lives.children(pid(3)), [4]);
    let happened: Vec<_> = lives.reparented(4, pid(2), 201).into_iter().collect();
    assert_eq!(losses(&happened), [(4, 3, 2, AdopterKind::Subreaper)]);
    lives.event(&exit(pid(2), 300, INIT));
    let happened = lives.event(&exit(pid(4), 400, INIT));
    assert_eq!(losses(&happened), [(4, 3, 1, AdopterKind::Init)]);
    assert_eq!(
        lives.get(pid(4)).unwrap().orphan.unwrap().original_comm,
        Comm::new("p3")
    );
}

#[test]
fn a_child_may_speak_before_its_parents_death_is_told() {
    let mut lives = lives();
    lives.event(&fork(pid(2), INIT));
    lives.event(&fork(pid(3), pid(2)));
    let mut exec = event(EventKind::Exec { old_tid: 3 }, 150, pid(3), 3, INIT);
    exec.comm = Comm::new("late");
    let happened = lives.event(&exec);
    assert_eq!(losses(&happened), [(3, 2, 1, AdopterKind::Init)]);
    lives.event(&exit(pid(2), 151, INIT));
    assert_eq!(lives.orphans().count(), 1);
}

#[test]
fn a_reaping_has_a_delay_and_a_parent_to_credit() {
    let mut lives = lives();
    lives.event(&fork(pid(2), INIT));
    lives.event(&fork(pid(3), pid(2)));
    lives.event(&exit(pid(3), 1_000, pid(2)));
    let happened = lives.event(&event(
        EventKind::Reap,
        5_000,
        pid(3),
        3,
        ProcessId { pid: 0, start_ns: 0 },
    ));
    assert!(
        matches!(happened.as_slice(), [Happening::Reaped { delay_ns: 4_000, .. }]),
        "{happened:?}"
    );
    assert_eq!(lives.get(pid(2)).unwrap().children_reaped, 1);
    assert!(lives.alive(3).is_none());
    assert_eq!(
        lives.get(pid(3)).unwrap().death.as_ref().unwrap().status,
        Some(0x300)
    );
}

#[test]
fn a_death_nobody_waits_for_is_no_zombie() {
    let mut lives = lives();
    lives.event(&fork(pid(2), INIT));
    lives.event(&event(exit_of(true, false), 200, pid(2), 2, INIT));
    assert!(lives.alive(2).is_none());
    let happened = lives.event(&event(EventKind::Reap, 300, pid(2), 2, INIT));
    assert!(happened.is_empty(), "{happened:?}");
}

#[test]
fn a_leader_that_exits_first_leaves_the_process_alive() {
    let mut lives = lives();
    lives.event(&fork(pid(2), INIT));
    lives.event(&event(exit_of(false, true), 200, pid(2), 2, INIT));
    assert!(lives.alive(2).unwrap().death.is_none());
    let mut last = event(exit_of(true, false), 300, pid(2), 7, INIT);
    last.id.start_ns = 999;
    lives.event(&last);
    assert_eq!(lives.alive(2).unwrap().death.as_ref().unwrap().at_ns, 300);
}

#[test]
fn an_exec_by_another_thread_ends_nothing() {
    let mut lives = lives();
    lives.event(&fork(pid(2), INIT));
    lives.event(&event(exit_of(false, true), 200, pid(2), 2, INIT));
    lives.event(&event(EventKind::Exec { old_tid: 7 }, 201, pid(2), 2, INIT));
    assert!(lives.alive(2).unwrap().death.is_none());
}

#[test]
fn a_pid_that_comes_again_is_somebody_else() {
    let mut lives = lives();
    lives.event(&fork(pid(2), INIT));
    lives.event(&fork(pid(3), pid(2)));
    let again = ProcessId {
        pid: 2,
        start_ns: 7_777,
    };
    lives.event(&fork(again, INIT));
    assert_eq!(lives.alive(2).unwrap().id, again);
    assert_eq!(lives.get(pid(3)).unwrap().parent, pid(2));
    assert!(lives.children(again).is_empty());
}

#[test]
fn the_dead_are_forgotten_in_time_but_not_while_they_are_zombies() {
    let mut lives = lives();
    let (zombie, gone) = (pid(2), pid(3));
    for id in [zombie, gone] {
        lives.event(&fork(id, INIT));
        lives.event(&exit(id, 200, INIT));
    }
    lives.event(&event(EventKind::Reap, 210, gone, 3, INIT));
    let mut left = thread(2, 2, "p2", None, 0);
    left.id.start_ns = zombie.start_ns;
    left.condition = Condition::Zombie;
    left.live_threads = 0;
    let mut later = thread(9, 9, "later", None, 0);
    later.id.start_ns = 1_000_000;
    let mut init = thread(1, 1, "init", None, 0);
    init.ppid = 0;
    lives.snapshot(&snapshot(3_600_000_000_000, vec![init, left, later]));
    assert!(lives.get(gone).is_none());
    assert!(lives.get(zombie).is_some());
}
