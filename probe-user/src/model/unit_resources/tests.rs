//! Tests of what units may take: never lower than before, never zero where nothing is known.

use super::*;

const SECOND: u64 = 1_000_000_000;

fn quota(id: u64, cores: f64, throttled_ns: u64) -> CpuQuota {
    CpuQuota {
        id,
        cores: Some(cores),
        throttled_ns,
    }
}

fn cgroup(id: u64, quotas: &[CpuQuota], oom_kills: Option<u64>) -> CgroupReading {
    CgroupReading {
        id,
        quotas: quotas.to_vec(),
        has_own_quota: !quotas.is_empty(),
        oom_kills,
        ..CgroupReading::default()
    }
}

fn reading(unit: &str, cgroups: Vec<CgroupReading>) -> UnitReading {
    UnitReading {
        unit: unit.into(),
        cgroups,
    }
}

fn shown(resources: &UnitResources, unit: &str, now_ns: u64) -> Shown {
    let all = resources.shown(&[unit.into()], 50, now_ns);
    all.iter()
        .find(|(name, _)| &**name == unit)
        .map(|(_, shown)| *shown)
        .unwrap_or_default()
}

#[test]
fn counters_go_on_when_a_cgroup_is_made_anew() {
    let mut resources = UnitResources::default();
    let mut last = (0, 0);
    // By number of the cgroup, time throttled and kills as its files have them: the second begins at 0, the
    // third has more than the one before it when it is first seen.
    let steps = [
        (10, 500, 1, (500, 1)),
        (10, 700, 1, (700, 1)),
        (11, 0, 0, (700, 1)),
        (11, 100, 2, (800, 3)),
        (12, 900, 5, (1700, 8)),
    ];
    for (at, (id, throttled_ns, kills, expected)) in steps.into_iter().enumerate() {
        let at_ns = at as u64 * SECOND;
        let own = cgroup(id, &[quota(100 + id, 0.5, throttled_ns)], Some(kills));
        resources.read(&[reading("a.service", vec![own])], at_ns);
        let now = shown(&resources, "a.service", at_ns);
        let now = (now.throttled_ns.unwrap(), now.oom_kills.unwrap());
        assert_eq!(now, expected);
        assert!(now.0 >= last.0 && now.1 >= last.1);
        last = now;
    }
}

#[test]
fn a_slice_throttles_who_is_in_it_from_when_they_are_seen() {
    let mut resources = UnitResources::default();
    let in_slice = |unit: &str, id, throttled_ns| {
        let mut one = cgroup(id, &[quota(1, 2.0, throttled_ns)], None);
        one.has_own_quota = false;
        reading(unit, vec![one])
    };
    resources.read(&[in_slice("a.service", 10, 5_000)], 0);
    assert_eq!(
        shown(&resources, "a.service", 0).throttled_ns,
        Some(0),
        "before it was looked at"
    );
    resources.read(
        &[in_slice("a.service", 10, 5_300), in_slice("b.service", 11, 5_300)],
        SECOND,
    );
    resources.read(
        &[in_slice("a.service", 10, 5_400), in_slice("b.service", 11, 5_400)],
        2 * SECOND,
    );
    let at = |unit| shown(&resources, unit, 2 * SECOND);
    assert_eq!(at("a.service").throttled_ns, Some(400));
    assert_eq!(
        at("b.service").throttled_ns,
        Some(400),
        "what all of the slice lost"
    );
    assert_eq!(at("a.service").cores, Some(2.0));
}

#[test]
fn what_is_not_known_is_not_zero() {
    let mut resources = UnitResources::default();
    resources.read(&[reading("a.service", vec![cgroup(1, &[], None)])], 0);
    assert_eq!(shown(&resources, "a.service", 0), Shown::default());
    resources.read(&[reading("a.service", vec![cgroup(1, &[], Some(0))])], 0);
    assert_eq!(
        shown(&resources, "a.service", 0).oom_kills,
        Some(0),
        "a zero that the kernel says"
    );
    assert!(resources.shown(&["b.service".into()], 0, 0).is_empty());
}

#[test]
fn a_kill_counts_once_whether_event_or_file_says_it() {
    let mut resources = UnitResources::default();
    let unit: Arc<str> = "a.service".into();
    let read = |resources: &mut UnitResources, id, kills| {
        resources.read(
            &[reading("a.service", vec![cgroup(id, &[], Some(kills))])],
            SECOND,
        );
    };
    let kills = |resources: &UnitResources| shown(resources, "a.service", SECOND).oom_kills;
    resources.oom_kill(&unit, 1, SECOND);
    assert_eq!(kills(&resources), Some(1), "before any file was read");
    read(&mut resources, 1, 1);
    assert_eq!(kills(&resources), Some(1), "the same");
    read(&mut resources, 1, 3);
    assert_eq!(kills(&resources), Some(3), "two whose events were lost");
    resources.oom_kill(&unit, 2, SECOND);
    assert_eq!(kills(&resources), Some(4), "in a cgroup that went with it");
    read(&mut resources, 3, 5);
    resources.oom_kill(&unit, 3, SECOND);
    assert_eq!(
        kills(&resources),
        Some(10),
        "five before anybody looked, and one more"
    );
    read(&mut resources, 3, 6);
    assert_eq!(kills(&resources), Some(10), "the same");
}

#[test]
fn limits_are_those_of_now_and_counters_stay_a_while() {
    let mut resources = UnitResources::default();
    let mut own = cgroup(1, &[quota(1, 0.5, 7)], Some(1));
    own.pids = Some(3);
    own.limited_pids = Some(Pids {
        used: 8,
        limit: Some(9),
    });
    resources.read(&[reading("a.service", vec![own])], 0);
    let all = shown(&resources, "a.service", 0);
    assert_eq!(
        (all.pids_used, all.pids_limit),
        (Some(8), Some(9)),
        "of the one that is full soonest"
    );
    assert_eq!(
        shown(&resources, "a.service", FRESH_NS).cores,
        None,
        "not read for a minute"
    );
    let gone = resources.shown(&[], 50, SECOND);
    assert_eq!(gone[0].1.pids_used, None);
    assert_eq!((gone[0].1.throttled_ns, gone[0].1.oom_kills), (Some(7), Some(1)));
    assert!(
        resources.shown(&[], 0, SECOND).is_empty(),
        "so many of them at most"
    );
    let linger_ns = u64::try_from(LINGER.as_nanos()).unwrap();
    assert!(resources.shown(&[], 50, linger_ns).is_empty());
}

#[test]
fn pids_of_several_cgroups_add_up_where_none_has_a_limit() {
    let with = |pids| CgroupReading {
        pids,
        ..CgroupReading::default()
    };
    let sum = |pids: &[Option<u64>]| super::pids(&pids.iter().map(|&pids| with(pids)).collect::<Vec<_>>());
    let all = Pids { used: 5, limit: None };
    assert_eq!(sum(&[Some(2), Some(3)]), Some(all));
    assert_eq!(sum(&[Some(2), None]), None);
}

#[test]
fn what_is_remembered_is_bounded_and_nothing_counts_twice() {
    let mut resources = UnitResources::default();
    let count = 3 * MOST as u64;
    for id in 1..=count {
        let own = cgroup(id, &[quota(id, 0.5, 10)], Some(1));
        resources.read(&[reading(&format!("{id}.service"), vec![own])], id);
    }
    assert!(
        resources.units.len() <= MOST && resources.cgroups.len() <= MOST && resources.quotas.len() <= MOST
    );
    let own = |throttled_ns, kills| cgroup(1, &[quota(1, 0.5, throttled_ns)], Some(kills));
    resources.read(&[reading("back.service", vec![own(10, 1)])], count + 1);
    let back = shown(&resources, "back.service", count + 1);
    assert_eq!((back.throttled_ns, back.oom_kills), (Some(0), Some(0)));
    resources.read(&[reading("back.service", vec![own(15, 2)])], count + 2);
    let back = shown(&resources, "back.service", count + 2);
    assert_eq!((back.throttled_ns, back.oom_kills), (Some(5), Some(1)));
}
