//! Tests of zombies: who is at fault, and when the pids run out.

use super::*;
use crate::model::tracker::tests::{snapshot, thread};

fn dead(pid: u32, ppid: u32, age_ns: u64) -> Thread {
    let mut thread = thread(pid, pid, "dead", None, 0);
    thread.ppid = ppid;
    thread.condition = Condition::Zombie;
    thread.condition_ns = Some(age_ns);
    thread.live_threads = 0;
    thread
}

#[test]
fn the_one_who_has_to_wait_is_at_fault() {
    let mut traced = dead(11, 2, 5_000_000_000);
    traced.tracer = Some(3);
    let mut leader = dead(12, 2, 5_000_000_000);
    leader.live_threads = 2;
    let young = dead(13, 2, GRACE_NS - 1);
    let threads = vec![
        thread(2, 2, "parent", None, 0),
        dead(10, 2, 6_000_000_000),
        traced,
        leader,
        young,
    ];
    let snapshot = snapshot(100, threads);
    let report = report(&snapshot, None, Some(100));
    let kinds: Vec<_> = report
        .zombies
        .iter()
        .map(|z| (z.thread.pid, z.kind, z.at_fault))
        .collect();
    assert_eq!(
        kinds,
        [
            (10, Kind::Unreaped, Some(2)),
            (11, Kind::Traced, Some(3)),
            (12, Kind::LeaderExited, None)
        ]
    );
    let culprits: Vec<_> = report
        .culprits
        .iter()
        .map(|c| (c.pid, c.count, c.thread.is_some()))
        .collect();
    assert_eq!(culprits, [(2, 1, true), (3, 1, false)]);
}

#[test]
fn the_rate_tells_when_the_pids_run_out() {
    let mut threads = vec![thread(2, 2, "parent", None, 0)];
    threads.extend((0..60).map(|n| dead(100 + n, 2, u64::from(n + 1) * 1_000_000_000)));
    let snapshot = snapshot(100, threads);
    let report = report(&snapshot, None, Some(1061));
    assert_eq!(report.culprits[0].count, 60);
    assert!((report.culprits[0].per_second.unwrap() - 1.0).abs() < 0.01);
    assert_eq!(report.full_in_ns.unwrap() / 1_000_000_000, 1000);
}

#[test]
fn the_limit_that_is_reached_first_counts() {
    let mut parent = thread(2, 2, "parent", None, 0);
    parent.cgroup_id = 7;
    let mut threads = vec![parent];
    threads.extend((0..60).map(|n| dead(100 + n, 2, u64::from(n + 1) * 1_000_000_000)));
    let snapshot = snapshot(100, threads);
    let mut report = report(&snapshot, None, Some(1061));
    let unit = Pids {
        used: 61,
        limit: Some(71),
    };
    report.limit_units(|cgroup| (cgroup == 7).then_some(unit));
    let culprit = &report.culprits[0];
    assert_eq!(culprit.unit_pids, Some(unit));
    assert_eq!(culprit.full_in_ns.unwrap() / 1_000_000_000, 10);
    report.limit_units(|_| None);
    assert_eq!(report.culprits[0].full_in_ns, report.full_in_ns);
}
