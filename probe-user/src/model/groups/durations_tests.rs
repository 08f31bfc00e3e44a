//! Tests of durations: of units, groups or the host, bounded, exact, never lower than before.

use proptest::prelude::*;

use super::tests::{RUNNING, SECOND, groups, running, stall};
use super::*;
use crate::model::tracker::tests::{account, snapshot, thread};
use crate::model::waits::NoFiles;

/// Units by the number of a cgroup.
struct Numbered;

impl Units for Numbered {
    fn unit(&mut self, cgroup_id: u64) -> Arc<str> {
        match cgroup_id {
            0 => "".into(),
            id => format!("u{id}").into(),
        }
    }
}

/// A look at processes of a thread each: pid, name, cgroup, and how often it ran for a microsecond so far.
fn look_in_units(groups: &mut GroupAggregator, at_ns: u64, processes: &[(u32, &str, u64, u32)]) {
    let threads = processes.iter().map(|&(pid, comm, cgroup_id, turns)| {
        let mut account = account(pid, at_ns, u64::from(turns) * 1_000, turns);
        account.closed_ns[RUNNING] = u64::from(turns) * 1_000;
        let mut thread = thread(pid, pid, comm, Some(account), u64::from(turns));
        thread.cgroup_id = cgroup_id;
        thread
    });
    let snapshot = snapshot(at_ns, threads.collect());
    groups.snapshot(&snapshot, &mut Numbered, &mut NoFiles);
}

/// Turns on a CPU that ended, by unit and name, as the histograms count them.
fn turns(groups: &GroupAggregator) -> BTreeMap<(String, String), u64> {
    let counted = groups.durations().filter_map(|(key, totals)| {
        let count = totals.usage.count(State::Running);
        (count > 0).then(|| ((key.unit.to_string(), key.comm.to_string()), count))
    });
    counted.collect()
}

fn of(unit: &str, comm: &str) -> (String, String) {
    (unit.to_owned(), comm.to_owned())
}

fn with_durations(durations: Durations) -> GroupAggregator {
    GroupAggregator::new(Grouping {
        max_groups: 1,
        durations,
        max_units: 2,
        ..Grouping::default()
    })
}

/// The two names of a unit, one of which has no place among the groups, come to the same unit.
#[test]
fn durations_are_of_units_whoever_has_a_place() {
    let processes = [(1, "a", 7, 10), (2, "b", 7, 5), (3, "c", 0, 2)];
    let mut groups = with_durations(Durations::Unit);
    look_in_units(&mut groups, 1, &processes);
    assert_eq!(
        turns(&groups),
        BTreeMap::from([(of("u7", ""), 15), (of("", ""), 2)])
    );
    let mut groups = with_durations(Durations::Host);
    look_in_units(&mut groups, 1, &processes);
    assert_eq!(turns(&groups), BTreeMap::from([(of("", ""), 17)]));
    let mut groups = with_durations(Durations::Group);
    look_in_units(&mut groups, 1, &processes);
    assert_eq!(
        turns(&groups),
        BTreeMap::from([(of("u7", "a"), 10), (of("", OTHER), 7)])
    );
}

#[test]
fn a_unit_that_goes_and_comes_back_goes_on_where_it_was() {
    let linger_ns = u64::try_from(LINGER.as_nanos()).unwrap();
    let mut groups = with_durations(Durations::Unit);
    look_in_units(&mut groups, 1, &[(1, "a", 7, 10), (2, "b", 8, 1)]);
    for step in 1..4 {
        look_in_units(&mut groups, step * linger_ns, &[(2, "b", 8, 1)]);
    }
    assert!(
        !turns(&groups).contains_key(&of("u7", "")),
        "it has been dead for long"
    );
    look_in_units(&mut groups, 4 * linger_ns, &[(2, "b", 8, 1), (9, "a", 7, 3)]);
    assert_eq!(turns(&groups)[&of("u7", "")], 13);
}

#[test]
fn units_beyond_their_bound_add_up_in_other() {
    let mut groups = with_durations(Durations::Unit);
    look_in_units(
        &mut groups,
        1,
        &[(1, "a", 7, 1), (2, "a", 8, 2), (3, "a", 9, 4), (4, "a", 10, 8)],
    );
    assert_eq!(groups.units_folded(), 2);
    let counted = turns(&groups);
    assert_eq!(counted.len(), 3);
    assert_eq!((counted[&of("", OTHER)], counted.values().sum::<u64>()), (12, 15));
}

#[test]
fn units_that_are_left_out_add_up_and_keep_their_names_for_alerts() {
    let config: crate::config::Metrics = toml::from_str("units.exclude = ['u7']").unwrap();
    let mut groups = GroupAggregator::new(Grouping {
        units: config.units.filter(),
        ..Grouping::default()
    });
    look_in_units(&mut groups, 1, &[(1, "stuck", 7, 10), (2, "b", 8, 5)]);
    assert_eq!(
        turns(&groups),
        BTreeMap::from([(of("", OTHER), 10), (of("u8", ""), 5)])
    );
    assert_eq!(
        running(&groups),
        BTreeMap::from([(OTHER.into(), 10_000), ("b".into(), 5_000)])
    );
    let news = LockDelta {
        stalls: vec![stall(1)],
        ..LockDelta::default()
    };
    groups.locks(&news, &mut Numbered);
    let (key, _) = groups.afflicted().next().unwrap();
    assert_eq!((&*key.unit, &*key.comm), ("u7", "stuck"));
}

/// Waits at locks go to units, too, with those of who died before the look.
#[test]
fn waits_at_locks_are_of_units() {
    let mut groups = with_durations(Durations::Unit);
    look_in_units(&mut groups, 1, &[(1, "a", 7, 1), (2, "b", 7, 1)]);
    let mut waited = crate::model::locks::aggregator::KindDelta::default();
    waited.histogram[5] = 2;
    waited.ended_ns = 40_000;
    let news = LockDelta {
        waited: [1, 2, 3].map(|pid| ((pid, Kind::Mutex), waited.clone())).into(),
        ..LockDelta::default()
    };
    groups.locks(&news, &mut Numbered);
    let waits: BTreeMap<_, _> = groups
        .durations()
        .filter_map(|(key, totals)| {
            let at = totals.waits.kinds.get(&Kind::Mutex)?;
            Some((of(&key.unit, &key.comm), (at.histogram[5], at.wait_ns)))
        })
        .collect();
    assert_eq!(
        waits,
        BTreeMap::from([(of("u7", ""), (4, 80_000)), (of("", LOST), (2, 40_000))])
    );
}

/// Threads whose exits were lost are dead: nothing of theirs is under way.
#[test]
fn what_was_lost_does_not_look_stuck() {
    let mut groups = groups(2);
    let mut time_ns = [0; STATES];
    time_ns[State::Uninterruptible.index()] = 600 * SECOND;
    groups.lost(time_ns, Switches::default());
    let (_, lost) = groups.groups().find(|(key, _)| &*key.comm == LOST).unwrap();
    assert_eq!(lost.usage.closed_ns, lost.usage.time_ns);
}

proptest! {
    /// Whatever comes, goes, comes back or moves to another unit, durations of units, of groups and of the
    /// host have the same sum, and none falls.
    #[test]
    fn durations_add_up_however_they_are_counted(
        steps in proptest::collection::vec((1..10_u32, 0..6_u64, 1..50_u32, any::<bool>()), 1..50),
    ) {
        let mut all = [Durations::Host, Durations::Unit, Durations::Group].map(with_durations);
        let mut alive: BTreeMap<u32, (u64, u32)> = BTreeMap::new();
        let mut highest = [const { BTreeMap::new() }; 3];
        let (mut counted, mut now_ns) = (0_u64, 1);
        for (pid, cgroup_id, turns_more, dies) in steps {
            now_ns += 100 * SECOND;
            if dies {
                alive.remove(&pid);
            } else {
                let process = alive.entry(pid).or_default();
                *process = (cgroup_id, process.1 + turns_more);
                counted += u64::from(turns_more);
            }
            let names: Vec<_> = alive.keys().map(|pid| format!("p{pid}")).collect();
            let processes: Vec<_> = alive.iter().zip(&names)
                .map(|((&pid, &(cgroup_id, turns)), comm)| (pid, comm.as_str(), cgroup_id, turns))
                .collect();
            for (groups, highest) in all.iter_mut().zip(&mut highest) {
                look_in_units(groups, now_ns, &processes);
                for (key, count) in turns(groups) {
                    let before = highest.entry(key).or_insert(0);
                    prop_assert!(count >= *before);
                    *before = count;
                }
                prop_assert_eq!(highest.values().sum::<u64>(), counted);
            }
        }
    }
}
