//! How many series there can be: the buckets of the histograms, and the bound that `--max-groups` sets.

use probe_ebpf::state::STATES;

use super::catalog::{
    ALL, DEADLOCKED_THREADS, DEADLOCKS, EXITS, GROUP, Kind, LOCK_WAIT, Metric, PROCESS, REAP_BUCKETS,
    REAP_DELAY, SNAPSHOT_BUCKETS, SNAPSHOT_DURATION, STALLED_THREADS, STATE_DURATION, STATE_SECONDS,
    SWITCHES, ZOMBIE_AGE, ZOMBIES, duration_bounds,
};
use crate::model::event::Reason;
use crate::model::groups::{AFFLICTED, KERNEL, LINGER, LOST, OTHER};
use crate::model::life::AdopterKind;
use crate::model::locks;
use crate::model::snapshot::Losses;
use crate::model::thread::Condition;
use crate::model::waits;

/// The part of the reference about buckets.
pub(super) fn buckets() -> String {
    let list = |bounds: &mut dyn Iterator<Item = f64>| {
        let bounds: Vec<String> = bounds.map(|seconds| seconds.to_string()).collect();
        bounds.join(", ")
    };
    format!(
        "\n## Buckets\n\nAll chosen in one place, the catalogue; in seconds.\n\n\
         | metric | upper bounds | why these |\n|---|---|---|\n\
         | `{}` | {} | every second power of two of a nanosecond count, which the kernel side's log2 buckets fall into without remainder |\n\
         | `{}` | the same | the same |\n\
         | `{}` | {} | nothing below what it is read late by |\n\
         | `{}` | {} | from a host with few threads to one with 100,000 |\n\n\
         A state that no stay of the group has ended in has no `{}`.\n",
        STATE_DURATION.name,
        list(&mut duration_bounds().map(|(_, seconds)| seconds)),
        LOCK_WAIT.name,
        REAP_DELAY.name,
        list(&mut REAP_BUCKETS.into_iter()),
        SNAPSHOT_DURATION.name,
        list(&mut SNAPSHOT_BUCKETS.into_iter()),
        STATE_DURATION.name,
    )
}

/// The part about how many series there are.
pub(super) fn series() -> String {
    let (host, group) = (max_series(0), max_series(1) - max_series(0));
    format!(
        "\n## How many series\n\nAt most {host} for the host and {group} for each group; groups are at most `--max-groups` (200), `{OTHER}`, \
         `{KERNEL}` and `{LOST}`. That is {} with the defaults, if every group has been in every state; a quarter of it is usual.\n\n\
         The places go to the groups that run, wait for a CPU, are stuck or wait at locks most. In a full table a living \
         group takes the place of a dead one at the next look, and that of a living one that has weighed less than half as \
         much for a minute. Without need of its place, a group whose processes are all gone is shown for {} minutes. \
         Kernel threads are grouped by kind (`kworker`, `ksoftirqd`) and have a fifth of the places, at most 19; the rest of \
         them is in `{KERNEL}`. Zombies, deadlocks and stalls have their own names whether or not their group has a place \
         ({AFFLICTED} groups at most, those that have been stuck for longest).\n\n\
         The counters of a group that leaves are not moved into `{OTHER}`, where they would look like a burst; they continue \
         from where they were if the group returns. `procprobe_process_exits_total` and the other counts without labels have everything.\n",
        host + (200 + COLLECTIVE) * group,
        LINGER.as_secs() / 60,
    )
}

/// Groups that add up others: `(other)`, `(kernel)` and `(lost)`.
pub const COLLECTIVE: usize = 3;

/// The most series there can be with that many groups, those that add up others among them.
pub fn max_series(groups: usize) -> usize {
    let of_metric = |metric: &Metric| {
        let buckets = match metric.name {
            name if name == REAP_DELAY.name => REAP_BUCKETS.len(),
            name if name == SNAPSHOT_DURATION.name => SNAPSHOT_BUCKETS.len(),
            _ => duration_bounds().count(),
        };
        // The bucket without end, the sum and the count.
        let points = if metric.kind == Kind::Histogram {
            buckets + 3
        } else {
            1
        };
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

/// What groups without a place have as well.
const APART: [&str; 5] = [
    ZOMBIES.name,
    ZOMBIE_AGE.name,
    DEADLOCKS.name,
    DEADLOCKED_THREADS.name,
    STALLED_THREADS.name,
];

/// How many values a label has, beside `unit` and `comm`.
fn values(metric: &Metric, label: &str) -> usize {
    match label {
        "state" if [STATE_SECONDS.name, STATE_DURATION.name].contains(&metric.name) => STATES,
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
