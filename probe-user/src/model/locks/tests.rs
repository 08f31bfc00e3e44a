//! Tests of the whole way from tables and open waits to a report, and of its laws.

use std::collections::{BTreeMap, BTreeSet};

use probe_ebpf::lock::{
    EXPECTED, Expected, FutexWait, HAS_WAITERS, LIVE_BEFORE, LockKey, OUTCOMES, OWNER_DIED, Outcome,
};
use probe_ebpf::state::State;
use probe_ebpf::waiting::{flag, op};
use proptest::prelude::*;

use super::deadlock::{Shape, candidates, confirmed};
use super::memory::SignalHandlers;
use super::report::{Pattern, Report};
use super::stall::{Reason, stalls};
use super::testing::{PID, SPACE, World, look, no_tables};
use super::thread_index::ThreadIndex;
use super::window::LockWindow;
use super::{Grade, Kind, LockId};
use crate::model::thread::{Comm, Condition};
use crate::model::tracker::tests::NoUnits;

const SECOND: u64 = 1_000_000_000;
const MU: u64 = 0x1000;
const OTHER: u64 = 0x2000;

/// What is reported of a world over ten seconds that begin with nothing.
fn report(world: &World) -> Report {
    let empty = no_tables();
    let first = World::default().snapshot(SECOND, 0);
    let mut window = LockWindow::begin(look(&first, &empty), None);
    let early = world.snapshot(10 * SECOND, 5);
    window.needs_second_look(look(&early, &world.tables));
    let last = world.snapshot(11 * SECOND, 5);
    window.end(look(&last, &world.tables), &mut NoUnits)
}

fn kind_of(world: &World) -> (Kind, bool) {
    let report = report(world);
    match (report.locks.as_slice(), report.idle.as_slice()) {
        ([lock], []) => (lock.kind, true),
        ([], [lock]) => (lock.kind, false),
        other => panic!("one lock, not {other:?}"),
    }
}

#[test]
fn a_mutex_names_its_holder_and_what_it_does() {
    let mut world = World::default();
    world.runs(100, "main").waits(101, "worker", "glibc", MU, 102);
    world.runs(102, "holder").last().condition = Condition::Alive(State::Runnable);
    world
        .waited("glibc", MU, 10, SECOND / 2, Outcome::WokenOne)
        .edge(MU, 101, 102, true, 10, 5 * SECOND);
    let report = report(&world);
    let lock = &report.locks[0];
    assert_eq!((lock.kind, lock.waits, lock.pid), (Kind::Mutex, 11, PID));
    assert_eq!(
        lock.wait_ns,
        7 * SECOND,
        "waits that ended, and the open one since accounting began"
    );
    assert_eq!(lock.max_ns, 5 * SECOND, "the open one is the longest");
    let holder = lock.holder.unwrap();
    assert_eq!((holder.party.tid, holder.grade), (102, Grade::Owner));
    assert_eq!(holder.doing.unwrap().condition, Condition::Alive(State::Runnable));
    let edge = report.edges[0];
    assert_eq!(
        (edge.waits, edge.wait_ns, edge.grade),
        (11, 7 * SECOND, Grade::Owner)
    );
}

#[test]
fn kinds_by_site_call_and_value() {
    let cases: [(&str, Outcome, Kind, bool); 8] = [
        ("rust", Outcome::WokenOne, Kind::Mutex, true),
        ("pi", Outcome::WokenOne, Kind::PiMutex, true),
        ("musl", Outcome::WokenOne, Kind::Mutex, true),
        ("rwlock", Outcome::WokenOne, Kind::Rwlock, true),
        ("condvar", Outcome::WokenOne, Kind::Condvar, false),
        ("timed", Outcome::Unmatched, Kind::Condvar, false),
        ("barrier", Outcome::WokenMany, Kind::Barrier, false),
        ("parker", Outcome::WokenMany, Kind::Parker, false),
    ];
    for (name, outcome, kind, contended) in cases {
        let mut world = World::default();
        world
            .waited(name, MU, 20, 1_000_000, outcome)
            .edge(MU, 101, 110, false, 10, 10_000_000)
            .edge(MU, 102, 110, false, 10, 10_000_000);
        assert_eq!(kind_of(&world), (kind, contended), "{name}");
    }
}

/// With short holds the word has changed by the time it is read: neither it nor the owner says anything.
#[test]
fn a_contended_mutex_needs_no_word() {
    let mut world = World::default();
    world.waited("glibc", MU, 20, 1_000_000, Outcome::WokenOne);
    world.last_stats().sample.word = 0;
    assert_eq!(kind_of(&world), (Kind::Mutex, true));
}

/// The same call and value from code that is not known is a lock only if its waiters wake each other.
#[test]
fn unknown_code_is_judged_by_behaviour() {
    let mut world = World::default();
    world.waited("glibc", MU, 20, 1_000_000, Outcome::WokenOne);
    world.tables.sites.clear();
    world
        .edge(MU, 101, 110, false, 10, 10_000_000)
        .edge(MU, 102, 110, false, 10, 10_000_000);
    assert!(
        !kind_of(&world).1,
        "a producer wakes them: workers that idle at a counter of 2"
    );
    world
        .edge(MU, 101, 102, false, 10, 10_000_000)
        .edge(MU, 102, 101, false, 10, 10_000_000);
    assert_eq!(kind_of(&world), (Kind::Mutex, true));
}

/// Python's and multiprocessing's locks, `binary_semaphore`: who waits gives it back.
#[test]
fn a_semaphore_whose_waiters_post_is_a_lock() {
    let mut world = World::default();
    world
        .waited("semaphore", MU, 20, 1_000_000, Outcome::WokenOne)
        .edge(MU, 101, 110, false, 10, 10_000_000)
        .edge(MU, 102, 110, false, 10, 10_000_000)
        .waits(103, "c", "semaphore", MU, 0);
    assert_eq!(
        kind_of(&world),
        (Kind::Semaphore, false),
        "another posts: work to do"
    );
    world
        .edge(MU, 101, 102, false, 10, 10_000_000)
        .edge(MU, 102, 101, false, 10, 10_000_000);
    assert_eq!(kind_of(&world), (Kind::Semaphore, true));
}

/// C++20's semaphores wait for zero to pass, in the program's own code: no lock that is taken is 0.
#[test]
fn a_count_of_zero_that_its_waiters_post_is_a_semaphore() {
    let mut world = World::default();
    world
        .waited("rust", MU, 20, 1_000_000, Outcome::WokenOne)
        .edge(MU, 101, 102, false, 10, 10_000_000)
        .edge(MU, 102, 101, false, 10, 10_000_000);
    world.tables.sites.clear();
    let stats = world.last_stats();
    (stats.sample.op, stats.sample.value, stats.sample.word) = (op::WAIT, 0, 0);
    stats.sample.expected = Expected::Zero as u8;
    stats.expected = [0; EXPECTED];
    stats.expected[Expected::Zero as usize] = 20;
    assert_eq!(kind_of(&world), (Kind::Semaphore, true));
}

/// musl's ordinary mutex holds `EBUSY` with the bit of waiters: 16 is no thread, whoever has that tid.
#[test]
fn a_mutex_without_an_owner_names_nobody() {
    let mut world = World::default();
    world
        .runs(16, "innocent")
        .runs(102, "holder")
        .waits(101, "a", "musl", MU, 0);
    let report = report(&world);
    assert_eq!(
        (
            report.deadlocks.len(),
            report.stalls.len(),
            report.locks[0].holder
        ),
        (0, 0, None)
    );
}

/// A tid that lives, but not in the waiter's address space: nothing is proved.
#[test]
fn an_owner_elsewhere_is_not_an_owner_that_ended() {
    let mut world = World::default();
    world.runs(102, "elsewhere").last().space = 99;
    world.waits(101, "a", "glibc", MU, 102);
    let found = report(&world);
    assert!(found.deadlocks.is_empty() && found.locks[0].holder.is_none());
    // Its process maps the same file: it holds the lock.
    let key = LockKey {
        space: SPACE,
        address: MU,
    };
    world.places.insert(
        key,
        LockId::Shared {
            device: 1,
            inode: 2,
            offset: 0,
        },
    );
    world.mapped.push((PID, 1, 2));
    let found = report(&world);
    assert_eq!(found.locks[0].holder.unwrap().party.tid, 102);
    // A second thread of that tid, in another namespace, that maps it as well.
    world.runs(202, "other").last().ns_tids.push(102);
    assert!(
        report(&world).locks[0].holder.is_none(),
        "which of them, nobody knows"
    );
}

/// A place in a file that the waiter's process maps.
fn in_shared_memory(world: &mut World) {
    let (space, address) = (SPACE, MU);
    let place = LockId::Shared {
        device: 1,
        inode: 2,
        offset: 0,
    };
    world.places.insert(LockKey { space, address }, place);
    world.mapped.push((PID, 1, 2));
}

#[test]
fn an_owner_that_has_unmapped_the_lock_has_not_ended() {
    let mut world = World::default();
    world.waits(101, "a", "glibc", MU, 102);
    in_shared_memory(&mut world);
    assert_eq!(report(&world).deadlocks.len(), 1, "nobody has the tid");
    world.runs(102, "unmapped").last().space = 99;
    world.last().pid = 50;
    let found = report(&world);
    assert!(found.deadlocks.is_empty() && found.locks[0].holder.is_none());
}

#[test]
fn a_restarted_container_does_not_wait_for_itself() {
    let mut world = World::default();
    world.waits(101, "a", "glibc", MU, 101);
    in_shared_memory(&mut world);
    assert_eq!(report(&world).deadlocks[0].shape, Shape::Itself);
    // Pid 1, as the one was that had the lock when its container was killed.
    let mut world = World::default();
    world.waits(101, "a", "glibc", MU, 1).last().ns_tids.push(1);
    in_shared_memory(&mut world);
    let found = report(&world);
    assert!(found.deadlocks.is_empty() && found.locks[0].holder.is_none());
}

#[test]
fn who_was_born_during_the_wait_is_not_its_cause() {
    let mut world = World::default();
    world.waits(101, "a", "glibc", MU, 102);
    world.runs(102, "innocent").last().id.start_ns = 7 * SECOND;
    let found = report(&world);
    let deadlock = &found.deadlocks[0];
    assert_eq!(
        (deadlock.shape, deadlock.dead_owner),
        (Shape::DeadOwner, Some(102))
    );
    let held = found.locks[0].holder.unwrap();
    assert_eq!(
        (held.party.tid, held.doing.unwrap().condition),
        (102, Condition::Dead)
    );
    world.last().id.start_ns = 4 * SECOND;
    assert_eq!(report(&world).locks[0].holder.unwrap().party.tid, 102);
}

#[test]
fn a_circle_that_a_timeout_ends_has_to_stand() {
    let mut world = World::default();
    world
        .waits(101, "a", "glibc", MU, 102)
        .waits(102, "b", "glibc", OTHER, 101);
    assert!(!report(&world).deadlocks[0].until_timeout);
    world.last().futex.as_mut().unwrap().wait.flags |= flag::TIMED;
    world.last().futex.as_mut().unwrap().wait.op = op::WAIT_BITSET;
    assert!(report(&world).deadlocks.is_empty(), "it may give up");
    world.all_wait_for(9 * SECOND);
    assert!(report(&world).deadlocks[0].until_timeout);
}

#[test]
fn a_child_waits_for_a_lock_that_was_held_when_it_was_forked() {
    let mut world = World::default();
    world.runs(102, "logger").last().space = 99;
    world.last().pid = 50;
    world.waits(101, "child", "glibc", MU, 102).last().ppid = 50;
    let found = report(&world).deadlocks;
    assert_eq!(
        (found[0].shape, found[0].forked_from.unwrap().tid),
        (Shape::DeadOwner, 102)
    );
}

/// The first thread of a process that was forked goes on where a thread of the parent was, whose tid stands
/// in the locks that it had: whoever waits for one may well get it.
#[test]
fn a_copy_of_the_owner_may_release_the_lock() {
    for parent_lives in [true, false] {
        let mut world = World::default();
        if parent_lives {
            world.runs(52, "parent").last().space = 99;
            world.last().pid = 50;
        }
        world.runs(PID, "copy").last().ppid = 50;
        world.last().executed = Some(false);
        world.waits(101, "worker", "glibc", MU, 52);
        world.last().ppid = 50;
        world.last().executed = Some(false);
        let found = report(&world);
        assert!(found.deadlocks.is_empty(), "{:?}", found.deadlocks);
        assert_eq!(found.locks[0].holder, None);
        world.last().executed = Some(true);
        assert_eq!(report(&world).deadlocks.len(), 1, "no copy: {parent_lives}");
    }
    let mut world = World::default();
    world.waits(PID, "copy", "glibc", MU, 52).last().executed = Some(false);
    world.waits(101, "worker", "glibc", MU, 52).last().executed = Some(false);
    assert_eq!(report(&world).deadlocks.len(), 1, "it waits itself");
}

/// By a bare `clone(CLONE_VM)`; its C library has the tid of its maker for its own.
#[test]
fn in_memory_of_two_processes_a_tid_is_of_either() {
    let mut world = World::default();
    world.waits(101, "a", "glibc", MU, 101);
    assert_eq!(report(&world).deadlocks[0].shape, Shape::Itself);
    world.runs(200, "clone").last().pid = 200;
    assert!(report(&world).deadlocks.is_empty());
}

#[test]
fn threads_that_join_each_other_in_a_ring_are_a_deadlock() {
    let mut world = World::default();
    for (tid, joined) in [(101, 102), (102, 103), (103, 101)] {
        world.waits(tid, "t", "join", MU + 64 * u64::from(joined), joined);
    }
    assert_eq!(report(&world).deadlocks.len(), 1);
}

/// A signal that waits until the waiters of the group before have left (glibc 2.25 to 2.40), and a barrier elsewhere.
#[test]
fn what_a_signal_waits_for_is_part_of_its_condition_variable() {
    let mut world = World::default();
    world.waited("condvar", MU + 24, 20, 1_000_000, Outcome::WokenOne);
    world.waited("barrier", MU, 20, 1_000_000, Outcome::WokenMany);
    world.waited("barrier", MU + 4, 20, 1_000_000, Outcome::WokenMany);
    world.waited("barrier", MU + 8, 20, 1_000_000, Outcome::WokenMany);
    let report = report(&world);
    let kinds: BTreeMap<u64, Kind> = report.idle.iter().map(|lock| (lock.address, lock.kind)).collect();
    let expected = [
        (MU, Kind::Condvar),
        (MU + 4, Kind::Condvar),
        (MU + 8, Kind::Barrier),
        (MU + 24, Kind::Condvar),
    ];
    assert_eq!(kinds, BTreeMap::from(expected));
}

#[test]
fn one_waiter_that_others_wake_is_a_parker() {
    let mut world = World::default();
    world
        .waited("parker", MU, 20, 1_000_000, Outcome::WokenOne)
        .last_stats()
        .waiter = 101;
    world.edge(MU, 101, 110, false, 20, 20_000_000);
    assert_eq!(kind_of(&world), (Kind::Parker, false));
}

/// A semaphore counts its waiters behind its value; so do the groups of a condition variable their signals.
/// Which of the two it is stands in memory, of those that somebody waits at.
#[test]
fn without_memory_a_semaphore_may_be_a_condition_variable() {
    let mut world = World::default();
    world
        .waited("semaphore", MU, 20, 1_000_000, Outcome::WokenOne)
        .edge(MU, 101, 102, false, 10, 10_000_000)
        .edge(MU, 102, 101, false, 10, 10_000_000);
    assert_eq!(kind_of(&world), (Kind::Condvar, false));
    // Not even an open wait whose memory was not read says more.
    let mut unread = world.clone();
    unread.waits(103, "c", "semaphore", MU, 0);
    unread.last().futex.as_mut().unwrap().live = None;
    assert_eq!(kind_of(&unread), (Kind::Condvar, false));
    // One at the beginning of the window does.
    let mut first = World::default();
    first.waits(101, "a", "semaphore", MU, 0);
    let empty = no_tables();
    let window = LockWindow::begin(look(&first.snapshot(SECOND, 0), &empty), None);
    let last = world.snapshot(11 * SECOND, 5);
    let report = window.end(look(&last, &world.tables), &mut NoUnits);
    assert_eq!(report.locks[0].kind, Kind::Semaphore);
}

#[test]
fn the_end_of_a_thread_is_no_contention() {
    let mut world = World::default();
    world.runs(101, "worker").waits(100, "main", "join", MU, 101);
    assert_eq!(kind_of(&world), (Kind::Join, false));
}

/// Two counters that stand at 2 are no evidence; a pool that waits for work is none either.
#[test]
fn an_idle_pool_is_no_contention() {
    let mut world = World::default();
    // It may hand out work.
    world.runs(100, "main");
    for tid in 101..117 {
        world.waits(tid, "worker", "condvar", MU, 0);
    }
    let report = report(&world);
    assert!(report.locks.is_empty() && report.deadlocks.is_empty() && report.stalls.is_empty());
    assert_eq!(report.idle[0].waiters.len(), 16);
}

/// Four threads that take turns at a condition variable, one of them always out: an interpreter lock.
fn turns(waited_each_ns: u64) -> World {
    let mut world = World::default();
    world.waited("timed", MU, 400, waited_each_ns / 100, Outcome::WokenOne);
    for waiter in 101..105 {
        for holder in (101..105).filter(|holder| *holder != waiter) {
            world.edge(MU, waiter, holder, false, 33, waited_each_ns / 3);
        }
    }
    world
}

#[test]
fn threads_that_take_turns_wait_for_a_lock() {
    // Ten seconds, four threads, each waiting three quarters of it.
    let report = report(&turns(7 * SECOND + SECOND / 2));
    assert_eq!(report.locks.len(), 1, "one thread is out at any time");
    assert_eq!(report.locks[0].pattern, Some(Pattern::Convoy));
    // Hardly ever waiting: workers of a busy pool, which wake each other. Nearly always: an idle one.
    for waited_each_ns in [SECOND, 10 * SECOND] {
        let report = super::tests::report(&turns(waited_each_ns));
        assert!(report.locks.is_empty(), "{waited_each_ns}");
    }
}

/// C++20's, which waits at a count: the one that comes last never waits, so one of the four is always out.
#[test]
fn a_barrier_of_counts_is_no_lock() {
    let rounds = |outcome| {
        let mut world = turns(7 * SECOND + SECOND / 2);
        let stats = world.last_stats();
        stats.sample = FutexWait {
            op: op::WAIT,
            value: 17,
            ip: 2,
            flags: flag::PRIVATE,
            ..stats.sample
        };
        stats.expected = [0; EXPECTED];
        stats.expected[Expected::Other as usize] = 400;
        stats.timed = 0;
        stats.outcomes = [0; OUTCOMES];
        stats.outcomes[outcome as usize] = 400;
        kind_of(&world)
    };
    assert_eq!(rounds(Outcome::WokenMany), (Kind::Barrier, false));
    // A pool that parks at a generation, and whose workers wake each other.
    assert!(!rounds(Outcome::WokenOne).1, "ever new values");
}

#[test]
fn two_threads_hand_a_lock_to_and_fro() {
    let mut world = World::default();
    world
        .waited("rust", MU, 1_000, 5_000_000, Outcome::WokenOne)
        .edge(MU, 101, 102, false, 500, 2 * SECOND)
        .edge(MU, 102, 101, false, 500, 3 * SECOND);
    assert_eq!(report(&world).locks[0].pattern, Some(Pattern::HandOver));
}

#[test]
fn a_circle_is_a_deadlock_once_a_second_look_confirms_it() {
    let mut world = World::default();
    world
        .waits(101, "a", "glibc", MU, 102)
        .waits(102, "b", "glibc", OTHER, 101)
        .waits(103, "c", "glibc", MU, 102);
    let (tables, early, late) = (
        no_tables(),
        world.snapshot(SECOND, 5),
        world.snapshot(2 * SECOND, 5),
    );
    let index = ThreadIndex::new(&early);
    let first = candidates(look(&early, &tables), &index);
    assert_eq!(confirmed(first.clone(), &[]), [], "one look proves nothing");
    let index = ThreadIndex::new(&late);
    let found = confirmed(candidates(look(&late, &tables), &index), &first);
    assert_eq!(found.len(), 1);
    let members: Vec<_> = found[0].members.iter().map(|member| member.party.tid).collect();
    assert_eq!((found[0].shape, members), (Shape::Cycle, vec![101, 102]));
    assert_eq!(found[0].members[0].holds, Some(found[0].members[1].waits_for));
    let moved = world.snapshot(3 * SECOND, 6);
    let index = ThreadIndex::new(&moved);
    let after = confirmed(candidates(look(&moved, &tables), &index), &first);
    assert_eq!(after, [], "they have run in between");
}

#[test]
fn a_thread_can_wait_for_itself_or_for_the_dead() {
    let mut world = World::default();
    world
        .waits(101, "a", "glibc", MU, 101)
        .waits(102, "b", "glibc", OTHER, 999);
    let found = report(&world).deadlocks;
    let shapes: BTreeSet<_> = found
        .iter()
        .map(|deadlock| (deadlock.shape, deadlock.dead_owner))
        .collect();
    assert_eq!(
        shapes,
        BTreeSet::from([(Shape::Itself, None), (Shape::DeadOwner, Some(999))])
    );
}

#[test]
fn joining_a_thread_that_waits_for_the_joiner_is_a_deadlock() {
    let mut world = World::default();
    world
        .waits(100, "main", "join", OTHER, 101)
        .waits(101, "worker", "glibc", MU, 100);
    let found = report(&world).deadlocks;
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].members.iter().filter(|member| member.joins).count(), 1);
}

#[test]
fn what_memory_no_longer_says_is_no_edge() {
    let mut world = World::default();
    world.waits(101, "a", "glibc", MU, 101);
    let open = world.last().futex.as_mut().unwrap();
    // Released: the word is 0, the waiter is about to be woken.
    open.live.as_mut().unwrap().words = [0; 16];
    assert!(report(&world).deadlocks.is_empty());
    open_without_memory(&mut world);
    assert!(
        report(&world).deadlocks.is_empty(),
        "unread memory proves nothing"
    );
}

fn open_without_memory(world: &mut World) {
    world.last().futex.as_mut().unwrap().live = None;
}

#[test]
fn unknown_owners_make_a_stall_never_a_deadlock() {
    let mut world = World::default();
    world
        .waits(101, "a", "rust", MU, 0)
        .waits(102, "b", "rust", OTHER, 0)
        .waits(100, "main", "join", 0x3000, 101);
    let stuck = report(&world);
    assert!(stuck.deadlocks.is_empty());
    assert_eq!(stuck.stalls.len(), 1);
    let stall = &stuck.stalls[0];
    assert_eq!(
        (stall.waits.len(), stall.others, stall.reason),
        (2, 1, Reason::NobodyCanWake)
    );
    assert_eq!(
        stall.comm,
        Comm::new("main"),
        "the process, not the thread that waits"
    );
    world.runs(103, "another");
    assert!(
        report(&world).stalls.is_empty(),
        "a thread runs that may release them"
    );
    // Whatever else runs, if each has taken last what the other waits for.
    for (lock, acquirer) in [(MU, 102), (OTHER, 101)] {
        world
            .waited("rust", lock, 5, 1_000, Outcome::WokenOne)
            .last_stats()
            .acquirer = acquirer;
    }
    assert_eq!(report(&world).stalls[0].reason, Reason::TookEachOthers);
}

/// A semaphore that only one thread wants, whose end the others wait for: none is left to post it.
#[test]
fn who_waits_alone_at_a_semaphore_is_stalled() {
    let mut world = World::default();
    world
        .waits(101, "a", "semaphore", MU, 0)
        .waits(100, "main", "join", 0x3000, 101);
    let stuck = report(&world);
    assert_eq!(
        (
            stuck.stalls.len(),
            stuck.stalls[0].waits.len(),
            stuck.stalls[0].others
        ),
        (1, 1, 1)
    );
    world.waits(102, "b", "semaphore", MU, 0);
    assert!(report(&world).stalls.is_empty(), "a pool without work");
}

/// Whatever else the process does: nobody wakes who sleeps for ever.
#[test]
fn who_was_refused_a_lock_is_stalled() {
    let mut world = World::default();
    world.runs(100, "main").waits(101, "a", "timed", 0x1000_0044, 0);
    let thread = world.last();
    thread.sp = 0x1000_0000;
    let open = thread.futex.as_mut().unwrap();
    open.wait.flags &= !flag::TIMED;
    let stuck = report(&world);
    assert_eq!(stuck.stalls.len(), 1);
    assert_eq!(
        (stuck.stalls[0].reason, stuck.stalls[0].waits[0].kind),
        (Reason::Refused, Kind::PiMutex)
    );
    world.last().sp = 0x2000_0000;
    assert!(report(&world).stalls.is_empty(), "elsewhere somebody may wake it");
}

/// musl's word of a recursive mutex whose owner has ended says just that.
#[test]
fn an_owner_that_left_no_name() {
    let mut world = World::default();
    world.runs(100, "main").waits(101, "a", "musl", MU, 0);
    let open = world.last().futex.as_mut().unwrap();
    let live = open.live.as_mut().unwrap();
    let first = (LIVE_BEFORE / 4) as usize;
    open.wait.value = HAS_WAITERS | OWNER_DIED;
    (live.words[first - 1], live.words[first]) = (1, open.wait.value);
    let found = report(&world).deadlocks;
    assert_eq!(found.len(), 1);
    assert_eq!((found[0].shape, found[0].dead_owner), (Shape::DeadOwner, None));
}

/// What idles by design: parked threads, and conditions that a signal handler may bring about.
#[test]
fn idle_programs_are_not_stalled() {
    let mut world = World::default();
    world.waits(100, "main", "parker", MU, 0);
    assert!(report(&world).stalls.is_empty(), "parked until a signal ends it");
    let mut world = World::default();
    world.waits(100, "main", "semaphore", MU, 0);
    assert_eq!(report(&world).stalls.len(), 1, "nobody can post it");
    assert_eq!(stalls_with(&world, Some(SignalHandlers::Any)), 0, "a handler may");
    assert_eq!(stalls_with(&world, None), 0, "nobody knows");
    assert_eq!(
        stalls_with(&world, Some(SignalHandlers::MainThread)),
        0,
        "parked until Ctrl-C"
    );
    world.waits(101, "worker", "semaphore", OTHER, 0);
    assert_eq!(
        stalls_with(&world, Some(SignalHandlers::MainThread)),
        0,
        "one worker is idle"
    );
    world.waits(102, "worker", "semaphore", OTHER + 64, 0);
    assert_eq!(
        stalls_with(&world, Some(SignalHandlers::MainThread)),
        1,
        "two wait for each other"
    );
}

/// A handler may wake the one at the semaphore, who may have what the others wait for.
#[test]
fn a_signal_may_wake_who_holds_what_others_want() {
    let mut world = World::default();
    world
        .waits(100, "main", "rust", MU, 0)
        .waits(101, "holder", "semaphore", OTHER, 0);
    assert_eq!(stalls_with(&world, Some(SignalHandlers::None)), 1);
    assert_eq!(stalls_with(&world, Some(SignalHandlers::Any)), 0);
    let mut world = World::default();
    world
        .waits(100, "main", "rust", MU, 0)
        .waits(101, "holder", "rust", OTHER, 0);
    assert_eq!(
        stalls_with(&world, Some(SignalHandlers::Any)),
        1,
        "no handler releases a lock"
    );
}

/// How many stalls there are if the process handles signals so.
fn stalls_with(world: &World, handlers: Option<SignalHandlers>) -> usize {
    let mut snapshot = world.snapshot(11 * SECOND, 5);
    snapshot.memory.signal_handlers.clear();
    snapshot
        .memory
        .signal_handlers
        .extend(handlers.map(|handlers| (PID, handlers)));
    let index = ThreadIndex::new(&snapshot);
    stalls(look(&snapshot, &world.tables), &index, &[]).len()
}

/// The part of an open wait that lies before the window is not of the window.
#[test]
fn a_window_has_only_its_own_time() {
    let mut world = World::default();
    world.runs(102, "holder").waits(101, "a", "glibc", MU, 102);
    let tables = no_tables();
    let first = world.snapshot(10 * SECOND, 5);
    let mut window = LockWindow::begin(look(&first, &tables), None);
    world.last().futex.as_mut().unwrap().counted_ns += 3 * SECOND;
    let last = world.snapshot(13 * SECOND, 5);
    window.needs_second_look(look(&last, &tables));
    let report = window.end(look(&last, &tables), &mut NoUnits);
    assert_eq!(
        (report.window_ns, report.locks[0].wait_ns),
        (3 * SECOND, 3 * SECOND)
    );
}

/// Room is made in the tables while a window is open: what went is part of its answer, as often as it went.
#[test]
fn a_window_has_what_was_deleted_while_it_was_open() {
    let mut world = World::default();
    world.runs(100, "main").runs(101, "a").runs(102, "b");
    world
        .waited("glibc", MU, 10, SECOND / 10, Outcome::WokenOne)
        .edge(MU, 101, 102, true, 10, SECOND);
    let empty = no_tables();
    let mut window = LockWindow::begin(look(&world.snapshot(SECOND, 0), &empty), None);
    window.forget(&world.tables);
    window.forget(&world.tables);
    let last = world.snapshot(11 * SECOND, 0);
    let report = window.end(look(&last, &empty), &mut NoUnits);
    let lock = &report.locks[0];
    assert_eq!(
        (lock.kind, lock.waits, lock.wait_ns),
        (Kind::Mutex, 20, 2 * SECOND)
    );
    let edge = report.edges[0];
    assert_eq!((edge.waits, edge.wait_ns), (20, 2 * SECOND));
    assert!((report.processes[0].lock_blocked - 0.2).abs() < 0.01);
}

proptest! {
    /// Whoever waits for whom: each circle is found, once, and nothing that is none.
    #[test]
    fn exactly_the_circles_are_found(owners in proptest::collection::vec(0_usize..14, 1..14)) {
        let count = owners.len();
        let tid = |index: usize| 101 + u32::try_from(index).unwrap();
        let mut world = World::default();
        for (index, &owner) in owners.iter().enumerate() {
            if owner < count {
                world.waits(tid(index), "t", "glibc", MU + 64 * index as u64, tid(owner));
            } else {
                world.runs(tid(index), "t");
            }
        }
        let mut expected = BTreeSet::new();
        for start in 0..count {
            let mut path = vec![start];
            while let Some(&next) = owners.get(path[path.len() - 1]).filter(|&&next| next < count) {
                if let Some(begin) = path.iter().position(|&seen| seen == next) {
                    expected.insert(path[begin..].iter().map(|&index| tid(index)).collect::<BTreeSet<u32>>());
                    break;
                }
                path.push(next);
            }
        }
        let found = report(&world).deadlocks;
        let members: Vec<BTreeSet<u32>> = found
            .iter()
            .map(|deadlock| deadlock.members.iter().map(|member| member.party.tid).collect())
            .collect();
        prop_assert_eq!(members.len(), expected.len());
        prop_assert_eq!(members.into_iter().collect::<BTreeSet<_>>(), expected);
        for deadlock in &found {
            let next: BTreeMap<u32, u32> = owners.iter().enumerate().map(|(index, &owner)| (tid(index), tid(owner))).collect();
            let ring = &deadlock.members;
            for (at, member) in ring.iter().enumerate() {
                prop_assert_eq!(next[&member.party.tid], ring[(at + 1) % ring.len()].party.tid);
            }
        }
    }
}

/// A user may have 30,000 threads, each at a lock of its own. What is looked up for each of them by going
/// through all of them took an agent more than half a minute.
#[test]
fn a_crowd_costs_each_of_its_threads_once() {
    const THREADS: u32 = 30_000;
    let mut world = World::default();
    world.runs(102, "holder");
    for number in 0..THREADS {
        let address = MU + u64::from(number) * 64;
        world.waits(1_000 + number, "crowd", "glibc", address, 102);
        world.waited("glibc", address, 2, 1, Outcome::WokenOne);
        world.edge(address, 1_000 + number, 102, true, 2, 1);
    }
    let began = std::time::Instant::now();
    let report = report(&world);
    assert_eq!(report.locks.len(), THREADS as usize);
    assert!(began.elapsed().as_secs() < 30, "{:?}", began.elapsed());
}
