//! One look at the engine as metric families.
//!
//! Families are built anew for every scrape from what the engine shows, so there is no registry that grows and no series
//! that outlives its group.

use probe_ebpf::histogram::BUCKETS;
use probe_ebpf::state::State;
use std::collections::BTreeMap;

use prometheus::proto::{Bucket, Counter, Gauge, Histogram, LabelPair, Metric as Point, MetricFamily};

use super::catalog::{self, Grain, Kind, Metric};
use super::engine::View;
use super::graphs;
use super::units;
use crate::model::event::Reason;
use crate::model::groups::{AFFLICTED, GroupTotals, OTHER};
use crate::model::life::AdopterKind;
use crate::model::thread::{Condition, state_name};
use crate::model::zombies;

/// The version and revision this binary was built from.
const VERSION: &str = env!("CARGO_PKG_VERSION");
const REVISION: &str = match option_env!("PROCPROBE_REVISION") {
    Some(revision) => revision,
    None => "unknown",
};

/// All families but the ones that `prometheus` keeps itself (`process_*`, snapshot durations).
pub fn families(view: &View<'_>) -> Vec<MetricFamily> {
    let mut families = vec![family(
        catalog::BUILD_INFO,
        vec![point(catalog::BUILD_INFO, &[VERSION, REVISION], 1.0)],
    )];
    families.extend(host(view));
    families.extend(groups(view));
    families.extend(durations(view));
    families.extend(waits(view));
    families.extend(blame(view));
    families.extend(graphs::families(view));
    families.extend(units::families(view));
    families.extend(own(view));
    families
}

fn host(view: &View<'_>) -> Vec<MetricFamily> {
    let by_state = |metric: Metric, counts: &[u64; 10]| {
        let points = Condition::ALL
            .iter()
            .zip(counts)
            .map(|(state, &count)| point(metric, &[state.name()], count as f64));
        family(metric, points.collect())
    };
    let counter = |metric: Metric, value: u64| family(metric, vec![point(metric, &[], value as f64)]);
    let totals = &view.totals;
    let pressure = view.pressure.iter().map(|pressure| {
        let labels = [pressure.resource, pressure.kind];
        point(catalog::PRESSURE, &labels, pressure.total.as_secs_f64())
    });
    vec![
        family(catalog::CPUS, vec![point(catalog::CPUS, &[], view.cpus as f64)]),
        family(catalog::PRESSURE, pressure.collect()),
        by_state(catalog::PROCESSES, &view.groups.host().processes),
        by_state(catalog::THREADS, &view.groups.host().threads),
        counter(catalog::FORKS, totals.forks),
        counter(catalog::THREADS_CREATED, totals.threads),
        counter(catalog::EXECS, totals.execs),
        counter(catalog::PROCESS_EXITS, totals.process_exits),
        counter(catalog::THREAD_EXITS, totals.thread_exits),
    ]
}

fn groups(view: &View<'_>) -> Vec<MetricFamily> {
    let mut processes = Vec::default();
    let mut threads = Vec::default();
    let mut seconds = Vec::default();
    let mut ended = Vec::default();
    let mut switches = Vec::default();
    for (key, group) in view.groups.groups() {
        let labels: [&str; 2] = [&key.unit, &key.comm];
        if group.processes > 0 {
            processes.push(point(catalog::GROUP_PROCESSES, &labels, group.processes as f64));
        }
        for (condition, &count) in Condition::ALL.iter().zip(&group.threads) {
            if count > 0 {
                let labels = with(labels, condition.name());
                threads.push(point(catalog::GROUP_THREADS, &labels, count as f64));
            }
        }
        for state in State::ALL {
            let labels = with(labels, state_name(state));
            let time_ns = group.usage.time_ns[state.index()];
            if time_ns > 0 || !group.kernel && COMMON.contains(&state) {
                seconds.push(point(catalog::STATE_SECONDS, &labels, time_ns as f64 / 1e9));
            }
            // From the first stay on, so that its end is seen: the rule subtracts one from the other.
            if time_ns > 0 && state == State::Uninterruptible {
                let closed_ns = group.usage.closed_ns[state.index()];
                ended.push(point(catalog::ENDED_STAYS, &labels, closed_ns as f64 / 1e9));
            }
        }
        for (kind, count) in [
            ("voluntary", group.switches.voluntary),
            ("involuntary", group.switches.involuntary),
        ] {
            switches.push(point(catalog::SWITCHES, &with(labels, kind), count as f64));
        }
    }
    vec![
        family(catalog::GROUP_PROCESSES, processes),
        family(catalog::GROUP_THREADS, threads),
        family(catalog::STATE_SECONDS, seconds),
        family(catalog::ENDED_STAYS, ended),
        family(catalog::SWITCHES, switches),
    ]
}

/// The histograms: of units, of groups or of the host.
fn durations(view: &View<'_>) -> Vec<MetricFamily> {
    let mut stays = Vec::new();
    let mut waits = Vec::new();
    for (key, group) in view.groups.durations() {
        let labels: [&str; 2] = [&key.unit, &key.comm];
        for state in State::ALL {
            if group.usage.count(state) > 0 {
                let labels = with(labels, state_name(state));
                let cells = group.usage.histogram(state);
                let sum_ns = group.usage.closed_ns[state.index()];
                let shape = (catalog::STATE_DURATION, Grain::of_state(state));
                stays.push(histogram(shape, &labels, cells, sum_ns));
            }
        }
        for (&kind, at) in &group.waits.kinds {
            let labels = with(labels, kind.name());
            let shape = (catalog::LOCK_WAIT, Grain::of_kind(kind));
            waits.push(histogram(shape, &labels, &at.histogram, at.wait_ns));
        }
    }
    vec![
        family(catalog::STATE_DURATION, stays),
        family(catalog::LOCK_WAIT, waits),
    ]
}

/// What groups waited in, and at which locks.
fn waits(view: &View<'_>) -> Vec<MetricFamily> {
    let mut blocked = Vec::new();
    let mut waiters = Vec::new();
    let mut deadlocks = Vec::new();
    let mut ages = Vec::new();
    let mut deadlocked = Vec::new();
    let mut stalled = Vec::new();
    for (key, group) in view.groups.groups() {
        let labels: [&str; 2] = [&key.unit, &key.comm];
        for (on, ns) in group.waits.on() {
            blocked.push(point(
                catalog::BLOCKED_SECONDS,
                &with(labels, on),
                ns as f64 / 1e9,
            ));
        }
        for (kind, at) in &group.waits.kinds {
            let labels = with(labels, kind.name());
            waiters.push(point(catalog::LOCK_WAITERS, &labels, at.waiters as f64));
        }
    }
    // Gauges that an alert holds against 0: what is not there is none, as of zombies.
    for (key, group) in view.groups.afflicted() {
        let labels: [&str; 2] = [&key.unit, &key.comm];
        deadlocks.push(point(catalog::DEADLOCKS, &labels, group.deadlocks as f64));
        ages.push(point(
            catalog::DEADLOCK_AGE,
            &labels,
            group.oldest_ns as f64 / 1e9,
        ));
        let threads = group.deadlocked_threads as f64;
        deadlocked.push(point(catalog::DEADLOCKED_THREADS, &labels, threads));
        let threads = group.stalled_threads as f64;
        stalled.push(point(catalog::STALLED_THREADS, &labels, threads));
    }
    vec![
        family(catalog::BLOCKED_SECONDS, blocked),
        family(catalog::LOCK_WAITERS, waiters),
        family(catalog::DEADLOCKS, deadlocks),
        family(catalog::DEADLOCK_AGE, ages),
        family(catalog::DEADLOCKED_THREADS, deadlocked),
        family(catalog::STALLED_THREADS, stalled),
    ]
}

/// States whose time every group of processes shows from the start, 0 included, so that a rate has something
/// to begin with. The others begin when a thread first enters them: most groups never do. Kernel threads
/// sleep in a state of their own.
const COMMON: [State; 4] = [
    State::Running,
    State::Runnable,
    State::Sleeping,
    State::Uninterruptible,
];

/// How many zombies each group has left, and the age of the oldest in nanoseconds. Under the group's own
/// name, whether or not it has a place in the table; with too many of them, those with the oldest zombies, so
/// that none that has a name loses it to a newer one.
fn zombies_by_group<'a>(
    view: &'a View<'_>,
    report: &zombies::Report<'_>,
) -> BTreeMap<[&'a str; 2], (u64, u64)> {
    let mut by_group: BTreeMap<[&str; 2], (u64, u64)> = BTreeMap::new();
    for culprit in &report.culprits {
        let group = culprit.thread.and_then(|thread| view.groups.own_group(thread));
        let labels = group.map_or(["", OTHER], |key| [&*key.unit, &*key.comm]);
        let entry = by_group.entry(labels).or_default();
        entry.0 += culprit.count;
        entry.1 = entry.1.max(culprit.oldest_ns.unwrap_or(0));
    }
    let mut order: Vec<_> = by_group.into_iter().collect();
    order.sort_by_key(|(_, (_, age_ns))| std::cmp::Reverse(*age_ns));
    let mut named = BTreeMap::new();
    for (position, (labels, (count, age_ns))) in order.into_iter().enumerate() {
        let labels = if position < AFFLICTED { labels } else { ["", OTHER] };
        let entry: &mut (u64, u64) = named.entry(labels).or_default();
        *entry = (entry.0 + count, entry.1.max(age_ns));
    }
    named
}

/// Zombies, orphans, exits: who is to blame.
fn blame(view: &View<'_>) -> Vec<MetricFamily> {
    let report = zombies::report(&view.snapshot, Some(view.lives), view.pid_limit);
    let by_group = zombies_by_group(view, &report);
    let zombies = by_group
        .iter()
        .map(|(labels, (count, _))| point(catalog::ZOMBIES, labels, *count as f64));
    let ages = by_group
        .iter()
        .map(|(labels, (_, age_ns))| point(catalog::ZOMBIE_AGE, labels, *age_ns as f64 / 1e9));
    let orphans = AdopterKind::ALL.iter().map(|&kind| {
        let count = view.lives.orphans().filter(|(_, loss)| loss.kind == kind).count();
        point(catalog::ORPHANS, &[kind.name()], count as f64)
    });
    let orphaned = AdopterKind::ALL.iter().zip(view.orphaned);
    let mut families = vec![
        family(catalog::ZOMBIES, zombies.collect()),
        family(catalog::ZOMBIE_AGE, ages.collect()),
        family(catalog::ORPHANS, orphans.collect()),
        family(
            catalog::ORPHANED,
            orphaned
                .map(|(kind, count)| point(catalog::ORPHANED, &[kind.name()], count as f64))
                .collect(),
        ),
        family(
            catalog::PIDS_USED,
            vec![point(catalog::PIDS_USED, &[], report.pids.used as f64)],
        ),
    ];
    families.extend(report.pids.limit.map(|limit| {
        family(
            catalog::PIDS_LIMIT,
            vec![point(catalog::PIDS_LIMIT, &[], limit as f64)],
        )
    }));
    families.extend(ends(view));
    families
}

/// How processes ended, and how many were begun only to end.
fn ends(view: &View<'_>) -> Vec<MetricFamily> {
    let mut exits = Vec::new();
    let mut forks = Vec::new();
    let mut short = Vec::new();
    let mut seconds = Vec::new();
    for (key, group) in view.groups.groups() {
        let labels: [&str; 2] = [&key.unit, &key.comm];
        for (&reason, &count) in Reason::ALL.iter().zip(&group.exits) {
            if count > 0 || is_shown_from_zero(reason, group) {
                exits.push(point(catalog::EXITS, &with(labels, reason.name()), count as f64));
            }
        }
        if group.forks > 0 {
            forks.push(point(catalog::GROUP_FORKS, &labels, group.forks as f64));
        }
        if group.short_lived > 0 {
            short.push(point(catalog::SHORT_LIVED, &labels, group.short_lived as f64));
            let running_ns = group.short_lived_running_ns as f64;
            seconds.push(point(catalog::SHORT_LIVED_SECONDS, &labels, running_ns / 1e9));
        }
    }
    vec![
        family(catalog::EXITS, exits),
        family(catalog::GROUP_FORKS, forks),
        family(catalog::SHORT_LIVED, short),
        family(catalog::SHORT_LIVED_SECONDS, seconds),
    ]
}

/// Whether the deaths of a kind are there before the first one. A counter that appears as 1 has no growth for
/// `rate`, and the first bad death of a service may be the only one; nobody forks or ends well just once, and
/// nobody kills kernel threads.
fn is_shown_from_zero(reason: Reason, group: &GroupTotals) -> bool {
    !group.kernel && reason != Reason::Success
}

fn own(view: &View<'_>) -> Vec<MetricFamily> {
    let lost = view
        .losses
        .iter()
        .map(|(reason, count)| point(catalog::EVENTS_LOST, &[reason], count as f64));
    let seconds = view
        .costs
        .iter()
        .map(|(name, cost)| point(catalog::BPF_SECONDS, &[name], cost.0.as_secs_f64()));
    let runs = view
        .costs
        .iter()
        .map(|(name, cost)| point(catalog::BPF_RUNS, &[name], cost.1.round()));
    let single = |metric: Metric, value: f64| family(metric, vec![point(metric, &[], value)]);
    vec![
        single(catalog::GROUPS_FOLDED, view.groups.folded() as f64),
        single(catalog::UNITS_FOLDED, view.groups.units_folded() as f64),
        single(catalog::HIDDEN, view.snapshot.hidden as f64),
        single(catalog::RESYNCED, view.totals.resynced as f64),
        family(catalog::EVENTS_LOST, lost.collect()),
        family(catalog::BPF_SECONDS, seconds.collect()),
        family(catalog::BPF_RUNS, runs.collect()),
    ]
}

/// CPU time of the agent itself. The `prometheus` crate's process collector has it too, in whole seconds only, which hides
/// an agent that takes a thousandth of one.
pub fn cpu_time() -> Option<MetricFamily> {
    // SAFETY: `rusage` is plain data that the call fills in.
    let usage = unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        (libc::getrusage(libc::RUSAGE_SELF, &raw mut usage) == 0).then_some(usage)
    }?;
    let seconds = |time: libc::timeval| time.tv_sec as f64 + time.tv_usec as f64 / 1e6;
    let value = seconds(usage.ru_utime) + seconds(usage.ru_stime);
    Some(family(catalog::CPU, vec![point(catalog::CPU, &[], value)]))
}

fn with<'a>([unit, comm]: [&'a str; 2], third: &'a str) -> [&'a str; 3] {
    [unit, comm, third]
}

pub(super) fn family(metric: Metric, points: Vec<Point>) -> MetricFamily {
    let mut family = MetricFamily::default();
    family.set_name(metric.name.to_owned());
    family.set_help(metric.help.to_owned());
    family.set_field_type(metric.kind.into());
    family.set_metric(points);
    family
}

fn labelled(metric: Metric, values: &[&str]) -> Point {
    debug_assert_eq!(metric.labels.len(), values.len(), "{}", metric.name);
    let mut point = Point::default();
    // A group of no process name in particular has none: to Prometheus an empty label is no label.
    let said = metric.labels.iter().zip(values);
    let said = said.filter(|(name, value)| **name != "comm" || !value.is_empty());
    let labels = said.map(|(name, value)| {
        let mut pair = LabelPair::default();
        pair.set_name((*name).to_owned());
        pair.set_value((*value).to_owned());
        pair
    });
    point.set_label(labels.collect());
    point
}

pub(super) fn point(metric: Metric, labels: &[&str], value: f64) -> Point {
    let mut point = labelled(metric, labels);
    if metric.kind == Kind::Counter {
        let mut counter = Counter::default();
        counter.set_value(value);
        point.set_counter(counter);
    } else {
        let mut gauge = Gauge::default();
        gauge.set_value(value);
        point.set_gauge(gauge);
    }
    point
}

fn histogram(
    (metric, grain): (Metric, Grain),
    labels: &[&str],
    cells: &[u64; BUCKETS],
    sum_ns: u64,
) -> Point {
    let mut histogram = Histogram::default();
    let buckets = grain.bounds().map(|(below, bound)| {
        let mut bucket = Bucket::default();
        bucket.set_cumulative_count(cells[..below].iter().sum());
        bucket.set_upper_bound(bound);
        bucket
    });
    histogram.set_bucket(buckets.collect());
    histogram.set_sample_count(cells.iter().sum());
    histogram.set_sample_sum(sum_ns as f64 / 1e9);
    let mut point = labelled(metric, labels);
    point.set_histogram(histogram);
    point
}
