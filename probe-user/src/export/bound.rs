//! How many series there can be: the buckets of the histograms, and the bound that `--max-groups` sets.

use probe_ebpf::state::{STATES, State};

use super::catalog::{
    ALL, DEADLOCK_AGE, DEADLOCKED_THREADS, DEADLOCKS, ENDED_STAYS, EXITS, GROUP, Grain, LOCK_EDGES,
    LOCK_WAIT, Metric, OF_UNITS, PRESSURE, PROCESS, REAP_BUCKETS, REAP_DELAY, SNAPSHOT_BUCKETS,
    SNAPSHOT_DURATION, STALLED_THREADS, STATE_DURATION, STATE_SECONDS, SWITCHES, TRANSITIONS, TREE_EDGES,
    ZOMBIE_AGE, ZOMBIES,
};
use crate::model::event::Reason;
use crate::model::groups::{AFFLICTED, KERNEL, LINGER, LOCK_EDGES_SHOWN, LOST, OTHER, parents};
use crate::model::life::AdopterKind;
use crate::model::locks;
use crate::model::snapshot::Losses;
use crate::model::thread::Condition;
use crate::model::waits;
use crate::source::pressure;

/// The part of the reference about buckets.
pub(super) fn buckets() -> String {
    let list = |bounds: &mut dyn Iterator<Item = f64>| {
        let bounds: Vec<String> = bounds.map(|seconds| seconds.to_string()).collect();
        bounds.join(", ")
    };
    format!(
        "\n## Buckets\n\nAll chosen in one place, the catalogue; in seconds.\n\n\
         | metric | upper bounds | why these |\n|---|---|---|\n\
         | `{}` of `runnable` and `uninterruptible`; `{}` of `mutex`, `pi_mutex` and `rwlock` | {} | waits, whose quantiles are read: \
         powers of two of a nanosecond count, which the kernel side's log2 buckets fall into without remainder |\n\
         | the same of other states and kinds | {} | every second one of those: half the series, and sums over states and kinds are \
         right at these bounds |\n\
         | `{}` | {} | nothing below what it is read late by |\n\
         | `{}` | {} | from a host with few threads to one with 100,000 |\n\n\
         A state that no stay has ended in has no `{}`.\n",
        STATE_DURATION.name,
        LOCK_WAIT.name,
        list(&mut Grain::Fine.bounds().map(|(_, seconds)| seconds)),
        list(&mut Grain::Coarse.bounds().map(|(_, seconds)| seconds)),
        REAP_DELAY.name,
        list(&mut REAP_BUCKETS.into_iter()),
        SNAPSHOT_DURATION.name,
        list(&mut SNAPSHOT_BUCKETS.into_iter()),
        STATE_DURATION.name,
    )
}

/// The part about how many series there are.
pub(super) fn series() -> String {
    // Between one group and two: the first brings those along that have a name and no place.
    let (group, unit) = (
        max_series(2, 0) - max_series(1, 0),
        max_series(0, 1) - max_series(0, 0),
    );
    let host = max_series(1, 0) - group;
    format!(
        "\n## How many series\n\nAt most {host} for the host, {group} for each group and {unit} for each unit whose durations are shown; \
         groups are at most `--max-groups` (200), `{OTHER}`, `{KERNEL}` and `{LOST}`, units at most `[metrics.units] max` (64) and the \
         same three. That is {} with the defaults, if every group has been in every state; a tenth of it is usual: docs/sizing.md has \
         what was measured. With `[metrics] durations = \"group\"` each group has the series of a unit as well, with `\"host\"` there \
         is one such set.\n\n\
         What never happened has no series, but for what a rate has to see the first of: the time in the four common states, and \
         exits other than `success`, of groups of processes; those begin at 0.\n\n\
         The places go to the groups that run, wait for a CPU, are stuck or wait at locks most. In a full table a living \
         group takes the place of a dead one at the next look, and that of a living one that has weighed less than half as \
         much for a minute. Without need of its place, a group whose processes are all gone is shown for {} minutes. \
         Kernel threads are grouped by kind (`kworker`, `ksoftirqd`) and have a fifth of the places, at most 19; the rest of \
         them is in `{KERNEL}`, as all their durations by unit are. Zombies, deadlocks and stalls have their own names whether or not \
         their group has a place ({AFFLICTED} groups at most, those that have been stuck for longest).\n\n\
         The counters of a group that leaves are not moved into `{OTHER}`, where they would look like a burst; they continue \
         from where they were if the group returns. `procprobe_process_exits_total` and the other counts without labels have everything. \
         Units get and lose their places for durations in the same way. What comes of the files of cgroups (`procprobe_unit_*`) is of \
         `--max-groups` units at most, which keep their places as long as they have processes, and of {AFFLICTED} that are gone.\n",
        host + (200 + COLLECTIVE) * group + (64 + COLLECTIVE) * unit,
        LINGER.as_secs() / 60,
    )
}

/// Groups that add up others: `(other)`, `(kernel)` and `(lost)`.
pub const COLLECTIVE: usize = 3;

/// The most series there can be with that many groups, and with that many units (or groups, or one host) with
/// durations; those that add up others among both.
pub fn max_series(groups: usize, with_durations: usize) -> usize {
    let of_metric = |metric: &Metric| {
        if let Some(points) = points_of_durations(metric) {
            return points * with_durations;
        }
        let points = match metric.name {
            name if name == REAP_DELAY.name => REAP_BUCKETS.len() + BESIDE_BUCKETS,
            name if name == SNAPSHOT_DURATION.name => SNAPSHOT_BUCKETS.len() + BESIDE_BUCKETS,
            _ => 1,
        };
        if let Some(series) = of_graphs(metric) {
            return series;
        }
        if OF_UNITS.contains(&metric.name) {
            // Those that are gone and not yet forgotten, too.
            return if groups > 0 { groups + AFFLICTED } else { 0 };
        }
        let values: usize = metric.labels.iter().map(|label| values(metric, label)).product();
        let groups = match metric.name {
            // Under their own names in a full table, too.
            name if groups > 0 && APART.contains(&name) => groups + AFFLICTED,
            _ if metric.labels.starts_with(GROUP) => groups,
            _ => 1,
        };
        points * values * groups
    };
    ALL.iter().map(of_metric).sum::<usize>() + PROCESS.len()
}

/// The bucket without end, the sum and the count.
const BESIDE_BUCKETS: usize = 3;

/// The series of a unit in all states or of all kinds, if it is a metric of durations.
fn points_of_durations(metric: &Metric) -> Option<usize> {
    let points = |grain: Grain| grain.bounds().count() + BESIDE_BUCKETS;
    match metric.name {
        name if name == STATE_DURATION.name => {
            Some(State::ALL.into_iter().map(Grain::of_state).map(points).sum())
        }
        name if name == LOCK_WAIT.name => {
            Some(locks::Kind::ALL.into_iter().map(Grain::of_kind).map(points).sum())
        }
        _ => None,
    }
}

/// The series of a metric whose labels have a bound together, whatever groups there are.
fn of_graphs(metric: &Metric) -> Option<usize> {
    let blocked = State::ALL.into_iter().filter(|state| state.is_blocked()).count();
    match metric.name {
        // And that of the others.
        name if name == LOCK_EDGES.name => Some(LOCK_EDGES_SHOWN + 1),
        name if name == TREE_EDGES.name => Some(parents::MOST),
        // There and back, and those of threads that are born, run, are preempted and die.
        name if name == TRANSITIONS.name => Some(2 * blocked + 4),
        name if name == PRESSURE.name => Some(pressure::RESOURCES.len() * pressure::KINDS.len()),
        _ => None,
    }
}

/// What groups without a place have as well.
const APART: [&str; 6] = [
    ZOMBIES.name,
    ZOMBIE_AGE.name,
    DEADLOCKS.name,
    DEADLOCK_AGE.name,
    DEADLOCKED_THREADS.name,
    STALLED_THREADS.name,
];

/// How many values a label has, beside `unit` and `comm`.
fn values(metric: &Metric, label: &str) -> usize {
    match label {
        "state" if metric.name == ENDED_STAYS.name => 1,
        "state" if metric.name == STATE_SECONDS.name => STATES,
        "state" => Condition::ALL.len(),
        "kind" if metric.name == SWITCHES.name => 2,
        "kind" => locks::Kind::ALL.len(),
        "on" => waits::labels().count(),
        "adopter" => AdopterKind::ALL.len(),
        "reason" if metric.name == EXITS.name => Reason::ALL.len(),
        "reason" => Losses::REASONS.len(),
        "program" => PROGRAMS,
        _ => 1,
    }
}

/// More than there are programs in the eBPF object.
const PROGRAMS: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::export::catalog::BUILD_INFO;

    /// A metric with labels that nobody counted would have one series, by this bound.
    #[test]
    fn labels_that_are_not_of_groups_are_counted() {
        for metric in ALL {
            let counted = of_graphs(metric).is_some()
                || points_of_durations(metric).is_some()
                || OF_UNITS.contains(&metric.name);
            let rest = metric.labels.iter().filter(|label| !GROUP.contains(label));
            let known = |label: &&&str| values(metric, label) > 1 || metric.name == ENDED_STAYS.name;
            // One value each, always.
            let is_info = metric.name == BUILD_INFO.name;
            assert!(
                counted || is_info || rest.into_iter().all(|label| known(&label)),
                "{}",
                metric.name
            );
        }
    }
}
