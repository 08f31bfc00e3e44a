//! Tests of the groups: bounded, exact, never lower than before, and the places go to those that matter.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::model::locks::stall::{Reason, Stall, Stalled};
use crate::model::locks::{Kind, LockId, Party};
use crate::model::tracker::tests::{NoUnits, account, exit, snapshot, thread};
use crate::model::waits::NoFiles;

pub(super) const RUNNING: usize = State::Running as usize;
pub(super) const SECOND: u64 = 1_000_000_000;

/// Time on a CPU by group.
pub(super) fn running(groups: &GroupAggregator) -> BTreeMap<String, u64> {
    let group =
        |(key, totals): (&GroupKey, &GroupTotals)| (key.comm.to_string(), totals.usage.time_ns[RUNNING]);
    groups.groups().map(group).collect()
}

/// A look at processes of a thread each: pid, name, and how long it ran so far.
fn look(groups: &mut GroupAggregator, at_ns: u64, processes: &[(u32, &str, u64)]) {
    let threads = processes
        .iter()
        .map(|&(pid, comm, ran_ns)| thread(pid, pid, comm, Some(account(pid, at_ns, ran_ns, 1)), ran_ns));
    let snapshot = snapshot(at_ns, threads.collect());
    groups.snapshot(&snapshot, &mut NoUnits, &mut NoFiles);
}

pub(super) fn groups(max_groups: usize) -> GroupAggregator {
    GroupAggregator::new(Grouping {
        max_groups,
        ..Grouping::default()
    })
}

/// Whether a group has a place.
fn has_place(groups: &GroupAggregator, comm: &str) -> bool {
    groups.groups().any(|(key, _)| &*key.comm == comm)
}

#[test]
fn the_dead_give_way_to_the_living_and_come_back_as_they_were() {
    let mut groups = groups(2);
    look(&mut groups, 1, &[(1, "a", 100), (2, "b", 10), (3, "c", 7)]);
    assert_eq!(groups.folded(), 1);
    assert_eq!(
        running(&groups),
        BTreeMap::from([("a".into(), 100), ("b".into(), 10), (OTHER.into(), 7)])
    );
    let death = Event {
        comm: Comm::new("a"),
        ..exit(1, 2, account(1, 2, 150, 1), 150)
    };
    groups.event(&death, &mut NoUnits);
    look(&mut groups, 3, &[(2, "b", 20), (3, "c", 8)]);
    assert!(has_place(&groups, "a"), "the last of it is seen");
    look(&mut groups, 4, &[(2, "b", 20), (3, "c", 8)]);
    look(&mut groups, 5, &[(2, "b", 20), (3, "c", 10)]);
    let now = running(&groups);
    assert!(!now.contains_key("a"), "{now:?}");
    assert_eq!(
        (now["c"], now[OTHER]),
        (2, 8),
        "c has a place of its own from here on"
    );
    assert_eq!(groups.folded(), 0);
    look(&mut groups, 6, &[(2, "b", 23)]);
    look(&mut groups, 7, &[(2, "b", 23), (5, "a", 3)]);
    look(&mut groups, 8, &[(2, "b", 23), (5, "a", 3)]);
    look(&mut groups, 9, &[(2, "b", 23), (5, "a", 5)]);
    assert_eq!(running(&groups)["a"], 152, "a goes on where it was");
}

#[test]
fn the_dead_are_shown_for_a_while_if_nobody_needs_the_place() {
    let linger_ns = u64::try_from(LINGER.as_nanos()).unwrap();
    let mut groups = groups(2);
    look(&mut groups, 1, &[(1, "a", 100), (2, "b", 10)]);
    look(&mut groups, linger_ns, &[(2, "b", 20)]);
    assert!(has_place(&groups, "a"));
    look(&mut groups, linger_ns + 1, &[(2, "b", 20)]);
    look(&mut groups, linger_ns + 2, &[(2, "b", 20)]);
    assert!(!has_place(&groups, "a"));
}

#[test]
fn at_the_start_places_go_to_those_that_did_most() {
    let mut groups = groups(2);
    let threads = [(1, "idle"), (2, "busy"), (3, "busier")].map(|(pid, comm)| {
        let mut thread = thread(pid, pid, comm, Some(account(pid, 1, 0, 1)), 0);
        thread.lifetime_running_ns = Some(u64::from(pid) * SECOND);
        thread
    });
    groups.begin(&snapshot(100 * SECOND, threads.into()), &mut NoUnits);
    let there: Vec<_> = running(&groups).into_keys().collect();
    assert_eq!(there, [OTHER, "busier", "busy"]);
}

/// Looks every ten seconds; each process runs for its share of them.
fn minutes(
    groups: &mut GroupAggregator,
    now_ns: &mut u64,
    minutes: u32,
    processes: &mut [(u32, &str, u64)],
    share: &[u64],
) {
    for _ in 0..6 * minutes {
        *now_ns += 10 * SECOND;
        for (process, percent) in processes.iter_mut().zip(share) {
            process.2 += percent * SECOND / 10;
        }
        look(groups, *now_ns, processes);
    }
}

#[test]
fn who_does_much_more_gets_the_place_of_who_does_little_and_not_at_once() {
    let mut groups = groups(2);
    let mut processes = [(1, "web", 0), (2, "idle", 0), (3, "late", 0)];
    let mut now_ns = SECOND;
    minutes(&mut groups, &mut now_ns, 4, &mut processes, &[50, 0, 40]);
    assert!(has_place(&groups, "idle"), "a place is for a while");
    minutes(&mut groups, &mut now_ns, 3, &mut processes, &[50, 0, 40]);
    assert!(has_place(&groups, "late") && has_place(&groups, "web"));
    assert!(!has_place(&groups, "idle"));
    minutes(&mut groups, &mut now_ns, 10, &mut processes, &[50, 60, 40]);
    assert!(
        !has_place(&groups, "idle"),
        "not much more than another is not enough"
    );
}

#[test]
fn kernel_threads_take_no_place_of_a_service() {
    let mut groups = groups(10);
    let mut threads: Vec<Thread> = (0..640)
        .map(|number| {
            let comm = format!("kind{}x/{}", (b'a' + (number % 26) as u8) as char, number / 26);
            let mut thread = thread(
                10 + number,
                10 + number,
                &comm,
                Some(account(10 + number, 1, 1_000, 1)),
                1,
            );
            thread.kernel = true;
            thread
        })
        .collect();
    threads.push(thread(9_000, 9_000, "web", Some(account(9_000, 1, 1, 1)), 1));
    groups.begin(&snapshot(SECOND, threads.clone()), &mut NoUnits);
    groups.snapshot(&snapshot(2 * SECOND, threads), &mut NoUnits, &mut NoFiles);
    assert!(has_place(&groups, "web") && has_place(&groups, KERNEL));
    let of_kernel = groups.groups().filter(|(key, _)| key.comm.starts_with("kind"));
    assert_eq!(of_kernel.count(), 2, "a fifth of the places");
    let threads: u64 = groups.groups().flat_map(|(_, totals)| totals.threads).sum();
    assert_eq!(threads, 641);
}

/// A stall of a thread of a process.
pub(super) fn stall(pid: u32) -> Stall {
    let party = Party {
        pid,
        tid: pid,
        comm: Comm::new("thread"),
    };
    Stall {
        pid,
        comm: Comm::new("stuck"),
        reason: Reason::NobodyCanWake,
        waits: vec![Stalled {
            party,
            lock: LockId::Private(1, 2),
            address: 2,
            kind: Kind::Mutex,
            age_ns: 3,
        }],
        others: 0,
        age_ns: 3,
    }
}

#[test]
fn what_is_stuck_keeps_its_name_in_a_full_table() {
    let mut groups = groups(1);
    look(&mut groups, 1, &[(1, "web", 5), (2, "stuck", 1)]);
    assert!(!has_place(&groups, "stuck"));
    let news = LockDelta {
        stalls: vec![stall(2)],
        ..LockDelta::default()
    };
    groups.locks(&news, &mut NoUnits);
    let afflicted: Vec<_> = groups
        .afflicted()
        .map(|(key, group)| (&*key.comm, group.stalled_threads))
        .collect();
    assert_eq!(afflicted, [("stuck", 1)]);
    groups.locks(&LockDelta::default(), &mut NoUnits);
    assert_eq!(groups.afflicted().count(), 0);
}

#[test]
fn who_is_stuck_first_keeps_its_name_when_there_are_many() {
    let mut groups = groups(1);
    let names: Vec<String> = (1..=60).map(|pid| format!("p{:02}", 60 - pid)).collect();
    let processes: Vec<_> = (1..=60)
        .zip(&names)
        .map(|(pid, comm)| (pid, comm.as_str(), 1))
        .collect();
    look(&mut groups, 1, &processes);
    let stuck = |pids: std::ops::RangeInclusive<u32>| LockDelta {
        stalls: pids.map(stall).collect(),
        ..LockDelta::default()
    };
    groups.locks(&stuck(1..=1), &mut NoUnits);
    groups.locks(&stuck(1..=60), &mut NoUnits);
    let afflicted: BTreeMap<_, _> = groups
        .afflicted()
        .map(|(key, group)| (key.comm.to_string(), group.stalled_threads))
        .collect();
    assert_eq!(afflicted.len(), AFFLICTED + 1);
    assert_eq!((afflicted["p59"], afflicted[OTHER]), (1, 10));
}

proptest! {
    /// Whoever lives, dies and comes back, with more names than room: sums are exact, and no counter of a
    /// group falls.
    #[test]
    fn sums_are_exact_and_no_counter_falls(
        turns in proptest::collection::vec((0..12_u32, 1..1000_u64, any::<bool>()), 1..60),
    ) {
        let mut groups = groups(4);
        let mut alive: BTreeMap<u32, u64> = BTreeMap::new();
        let (mut ran, mut highest, mut now_ns) = (0, BTreeMap::<String, u64>::new(), 1);
        for (pid, ran_ns, dies) in turns {
            now_ns += 100 * SECOND;
            if dies {
                alive.remove(&pid);
            } else {
                *alive.entry(pid).or_default() += ran_ns * SECOND;
                ran += ran_ns * SECOND;
            }
            let names: Vec<_> = alive.iter().map(|(&pid, &ran)| (pid, format!("p{pid}"), ran)).collect();
            let processes: Vec<_> = names.iter().map(|(pid, comm, ran)| (*pid, comm.as_str(), *ran)).collect();
            look(&mut groups, now_ns, &processes);
            let shown = running(&groups);
            prop_assert!(shown.len() <= 4 + 2);
            for (comm, value) in shown {
                let before = highest.entry(comm.clone()).or_default();
                prop_assert!(value >= *before, "{comm} falls from {before} to {value}");
                *before = value;
            }
            let total: u64 = highest.values().sum();
            prop_assert_eq!(total, ran);
        }
    }
}
