//! Every metric the agent exports, in one place. `dashboards/METRICS.md` is generated from here, and a test fails when it
//! is stale.

use std::fmt::Write;

use probe_ebpf::histogram::{BUCKETS, upper_bound_ns};
use probe_ebpf::state::State;
use prometheus::proto::MetricType;

use super::bound;
use crate::model::groups::{LOST, OTHER};
use crate::model::locks;
use crate::model::snapshot::Losses;
use crate::model::thread::Condition;

/// One metric.
#[derive(Clone, Copy, Debug)]
pub struct Metric {
    /// Full name.
    pub name: &'static str,
    /// Prometheus type.
    pub kind: Kind,
    /// What it says, one sentence.
    pub help: &'static str,
    /// Label names.
    pub labels: &'static [&'static str],
}

/// Prometheus types in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Goes up and down.
    Gauge,
    /// Only goes up, until the agent restarts.
    Counter,
    /// Buckets, sum and count.
    Histogram,
}

impl Kind {
    /// The name in the exposition format.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Gauge => "gauge",
            Self::Counter => "counter",
            Self::Histogram => "histogram",
        }
    }
}

impl From<Kind> for MetricType {
    fn from(kind: Kind) -> Self {
        match kind {
            Kind::Gauge => Self::GAUGE,
            Kind::Counter => Self::COUNTER,
            Kind::Histogram => Self::HISTOGRAM,
        }
    }
}

pub(super) const GROUP: &[&str] = &["unit", "comm"];
pub(super) const UNIT: &[&str] = &["unit"];
const GROUP_STATE: &[&str] = &["unit", "comm", "state"];

macro_rules! catalog {
    ($($constant:ident = $name:literal $kind:ident $labels:expr, $help:literal;)+) => {
        $(
            #[doc = $help]
            pub const $constant: Metric =
                Metric { name: concat!("procprobe_", $name), kind: Kind::$kind, help: $help, labels: $labels };
        )+
        /// All of them, in the order of the reference.
        pub const ALL: &[Metric] = &[$($constant),+];
    };
}

catalog! {
    BUILD_INFO = "build_info" Gauge &["version", "revision"],
        "Always 1; the labels say which build runs.";
    PROCESSES = "processes" Gauge &["state"],
        "Processes of the whole host by the state of their first thread.";
    THREADS = "threads" Gauge &["state"],
        "Threads of the whole host by state.";
    CPUS = "cpus" Gauge &[],
        "CPUs that are online.";
    PRESSURE = "pressure_seconds_total" Counter &["resource", "kind"],
        "Time that threads stood still for want of a resource since the host started (pressure stall information): `some` of them, or all that had work (`full`).";
    TRANSITIONS = "state_transitions_total" Counter &["from", "to"],
        "Times that threads of the whole host went from one state to another; births come from `new`, deaths go to `dead`.";
    TREE_EDGES = "process_tree_edges" Gauge &["parent_unit", "parent_comm", "unit", "comm"],
        "Processes of a group whose parent is of another group, or of the same.";
    GROUP_PROCESSES = "group_processes" Gauge GROUP,
        "Processes of a group, zombies included.";
    GROUP_THREADS = "group_threads" Gauge GROUP_STATE,
        "Threads of a group by state.";
    STATE_SECONDS = "state_seconds_total" Counter GROUP_STATE,
        "Time the threads of a group spent in each state, the state they are in now included.";
    STATE_DURATION = "state_duration_seconds" Histogram GROUP_STATE,
        "Length of the stays in a state that ended; of units, without `comm`, unless `[metrics] durations` says otherwise.";
    ENDED_STAYS = "ended_stays_seconds_total" Counter GROUP_STATE,
        "Time of the stays in uninterruptible sleep that ended: what lacks to `procprobe_state_seconds_total` are the stays under way.";
    SWITCHES = "context_switches_total" Counter &["unit", "comm", "kind"],
        "Context switches of the threads of a group: voluntary (it waited) and involuntary (it was preempted).";
    BLOCKED_SECONDS = "blocked_seconds_total" Counter &["unit", "comm", "on"],
        "Time the threads of a group were sleeping or in uninterruptible sleep, by what they waited in; `on` is listed below.";
    LOCK_WAIT = "lock_wait_seconds" Histogram &["unit", "comm", "kind"],
        "Length of the futex waits that ended, by what was waited at; only `mutex`, `pi_mutex` and `rwlock` are locks for certain. Of units, as above.";
    LOCK_WAITERS = "lock_waiters" Gauge &["unit", "comm", "kind"],
        "Threads that wait at a futex now, by what they wait at.";
    LOCK_EDGES = "lock_edge_wait_seconds_total" Counter &["unit", "comm", "waiter", "holder", "lock", "kind", "evidence"],
        "Time of the waits at contended locks that ended, by the threads that waited and those that they waited for: the heaviest edges of late, the rest in comm=\"(other)\".";
    DEADLOCKS = "deadlocks" Gauge GROUP,
        "Deadlocks there are now: circles of waits that the locks' memory proves, confirmed by a second look.";
    DEADLOCK_AGE = "deadlock_oldest_age_seconds" Gauge GROUP,
        "Time since the oldest of these deadlocks closed.";
    DEADLOCKED_THREADS = "deadlocked_threads" Gauge GROUP,
        "Threads in these deadlocks.";
    STALLED_THREADS = "stalled_threads" Gauge GROUP,
        "Threads that wait at locks without a known owner while every thread that could wake them waits itself, or in a circle of locks that each took last.";
    FORKS = "forks_total" Counter &[],
        "Processes born.";
    THREADS_CREATED = "threads_created_total" Counter &[],
        "Threads born, other than the first of a process.";
    EXECS = "execs_total" Counter &[],
        "Successful execs.";
    PROCESS_EXITS = "process_exits_total" Counter &[],
        "Processes whose last thread died.";
    THREAD_EXITS = "thread_exits_total" Counter &[],
        "Threads that died, the last one of a process included.";
    EXITS = "exits_total" Counter &["unit", "comm", "reason"],
        "Processes that ended, by reason.";
    GROUP_FORKS = "group_forks_total" Counter GROUP,
        "Processes that the processes of a group forked.";
    SHORT_LIVED = "short_lived_processes_total" Counter GROUP,
        "Processes that lived less than a second.";
    SHORT_LIVED_SECONDS = "short_lived_cpu_seconds_total" Counter GROUP,
        "Time on a CPU of processes that lived less than a second.";
    ZOMBIES = "zombies" Gauge GROUP,
        "Unreaped processes by the group of the parent at fault; younger ones than 100 ms are on their way.";
    ZOMBIE_AGE = "zombie_oldest_age_seconds" Gauge GROUP,
        "Time since the death of the oldest unreaped process, by the group of the parent at fault.";
    REAP_DELAY = "reap_delay_seconds" Histogram &[],
        "Time from the death of a process to its reaping, of those that had to be reaped; read 10 to 20 ms late.";
    ORPHANS = "orphans" Gauge &["adopter"],
        "Living processes that lost their parent while the agent watched, by who adopted them.";
    ORPHANED = "orphaned_total" Counter &["adopter"],
        "Times that a process lost its parent, by who adopted it.";
    PIDS_USED = "pids_used" Gauge &[],
        "Pids in use: one for every thread, zombies included.";
    PIDS_LIMIT = "pids_limit" Gauge &[],
        "The smaller of the sysctls `kernel.pid_max` and `kernel.threads-max`.";
    UNIT_THROTTLED = "unit_cpu_throttled_seconds_total" Counter UNIT,
        "Time that a CPU quota, the unit's own or one above it, kept the unit's cgroup from running, summed over CPUs; of units that have a quota.";
    UNIT_CPU_LIMIT = "unit_cpu_limit_cores" Gauge UNIT,
        "How many CPUs' time a unit may have: the smallest quota of its cgroup and those above it.";
    UNIT_OOM_KILLS = "unit_oom_kills_total" Counter UNIT,
        "Processes of a unit that the out-of-memory killer ended, by the cgroup's count or by the events, whichever has more.";
    UNIT_PIDS_USED = "unit_pids_used" Gauge UNIT,
        "Pids in the cgroup whose limit a unit reaches first: its own, or one above it that others are in too; without any limit, in its own.";
    UNIT_PIDS_LIMIT = "unit_pids_limit" Gauge UNIT,
        "How many pids that cgroup may have; no series without a limit.";
    UNIT_INFO = "unit_info" Gauge &["unit", "namespace", "pod", "container", "runtime"],
        "Always 1; what a unit is called in Kubernetes, by the kubelet's directories below `/var/log`. `container` is empty of what is the pod's alone.";
    UNITS_LEFT_OUT = "units_left_out" Gauge &[],
        "Units beyond `--max-groups`, or of more than 64 cgroups: they have no `procprobe_unit_*`.";
    GROUPS_FOLDED = "groups_folded" Gauge &[],
        "Groups beyond --max-groups, which are added up in comm=\"(other)\".";
    UNITS_FOLDED = "units_folded" Gauge &[],
        "Units beyond `[metrics.units] max`, whose durations are added up in comm=\"(other)\".";
    EVENTS_LOST = "events_lost_total" Counter &["reason"],
        "Records that were lost, by reason; what each means is listed below.";
    RESYNCED = "ledger_resyncs_total" Counter &[],
        "Switches the kernel did not trace, made up for from the scheduler's own note.";
    HIDDEN = "hidden_processes" Gauge &[],
        "Processes the kernel's iterator does not show, read from /proc instead; they have no times.";
    BPF_SECONDS = "bpf_program_run_seconds_total" Counter &["program"],
        "Time spent in the agent's own eBPF programs: sampled for a second every half minute and scaled up, exact with the `kernel.bpf_stats_enabled` sysctl on.";
    BPF_RUNS = "bpf_program_runs_total" Counter &["program"],
        "Runs of the agent's own eBPF programs; sampled like their run time.";
    SNAPSHOT_DURATION = "snapshot_duration_seconds" Histogram &[],
        "Time to read every thread of the host once.";
}

/// What comes of the files of units' cgroups: a series for each unit.
pub const OF_UNITS: [&str; 6] = [
    UNIT_INFO.name,
    UNIT_THROTTLED.name,
    UNIT_CPU_LIMIT.name,
    UNIT_OOM_KILLS.name,
    UNIT_PIDS_USED.name,
    UNIT_PIDS_LIMIT.name,
];

/// Buckets of `procprobe_snapshot_duration_seconds`.
pub const SNAPSHOT_BUCKETS: [f64; 10] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0];
/// Buckets of `procprobe_reap_delay_seconds`. Nothing below what it is late by.
pub const REAP_BUCKETS: [f64; 8] = [0.025, 0.1, 0.5, 1.0, 10.0, 60.0, 600.0, 3600.0];

/// `process_cpu_seconds_total` with its fraction; one of the standard metrics, and the one of them we make ourselves.
pub const CPU: Metric = Metric {
    name: "process_cpu_seconds_total",
    kind: Kind::Counter,
    help: "Total user and system CPU time spent in seconds.",
    labels: &[],
};

/// The other standard metrics, which the `prometheus` crate makes.
pub const PROCESS: [&str; 7] = [
    CPU.name,
    "process_max_fds",
    "process_open_fds",
    "process_resident_memory_bytes",
    "process_start_time_seconds",
    "process_threads",
    "process_virtual_memory_bytes",
];

/// The reference: a table of all metrics.
pub fn reference() -> String {
    let mut out = String::from(
        "# Metrics\n\nGenerated from `probe-user/src/export/catalog.rs`; do not edit. Base units; no pid, tid, address or \
         command line in a label. `unit` is the container or systemd unit (empty if there is none), `comm` the name of \
         the process.\n\n| metric | type | labels | meaning |\n|---|---|---|---|\n",
    );
    for metric in ALL {
        let labels: Vec<String> = metric.labels.iter().map(|label| format!("`{label}`")).collect();
        let _ = writeln!(
            out,
            "| `{}` | {} | {} | {} |",
            metric.name,
            metric.kind.name(),
            labels.join(", "),
            metric.help
        );
    }
    let process = PROCESS.map(|name| format!("`{name}`")).join(", ");
    let _ = write!(
        out,
        "\nAbout the agent itself: {process}.\n\n## Values of labels\n\n`state`: "
    );
    let states: Vec<String> = Condition::ALL
        .iter()
        .map(|condition| format!("`{}`", condition.name()))
        .collect();
    let listed = |names: Vec<&str>| -> String {
        let names: Vec<String> = names.iter().map(|name| format!("`{name}`")).collect();
        names.join(", ")
    };
    let kinds = listed(locks::Kind::ALL.iter().map(|kind| kind.name()).collect());
    let on = listed(crate::model::waits::labels().collect());
    let _ = writeln!(
        out,
        "{}.\n\n`kind` of context switches: `voluntary`, `involuntary`.\n\n`kind` of waits: {kinds}.\n\n`on`: {on}. `read` and `write` are \
         those whose descriptor is no pipe, socket, terminal or file, or was not asked for in time; `file` is also everything else about \
         file systems, `page_fault` any wait outside of system calls, `kernel` threads of the kernel's own.\n\n\
         `reason` of exits: `success` (exit code 0), `failure` (another), `signal`, `core_dump`, `oom`.\n\n\
         `adopter`: `init`, `subreaper`, `pidns_init`.\n",
        states.join(", ")
    );
    let _ = writeln!(
        out,
        "`comm=\"{OTHER}\"` adds up the groups beyond `--max-groups` and those of units that `[metrics.units]` leaves out, so sums over \
         all groups stay exact; `comm=\"{LOST}\"` has the times of threads whose exit event was lost.\n\n`reason` of lost events:\n\n| reason | meaning |\n|---|---|"
    );
    for (reason, meaning) in Losses::REASONS {
        let _ = writeln!(out, "| `{reason}` | {meaning} |");
    }
    out + &bound::buckets() + &bound::series()
}

/// The names of all metrics that there can be.
pub fn names() -> impl Iterator<Item = &'static str> {
    ALL.iter().map(|metric| metric.name).chain(PROCESS)
}

/// How close the bounds of a histogram of durations are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Grain {
    /// A factor of two: for waits, whose quantiles are read (half of the waits of 30 ms are then below 25 ms,
    /// not 42).
    Fine,
    /// A factor of four: for what is looked at as a whole. Its bounds are among the fine ones.
    Coarse,
}

impl Grain {
    /// Of the stays in a state: nobody wants to wait for a CPU or in uninterruptible sleep.
    pub const fn of_state(state: State) -> Self {
        match state {
            State::Runnable | State::Uninterruptible => Self::Fine,
            _ => Self::Coarse,
        }
    }

    /// Of waits at futexes: who waits at anything but a lock mostly waits for work.
    pub const fn of_kind(kind: locks::Kind) -> Self {
        if kind.is_lock() { Self::Fine } else { Self::Coarse }
    }

    /// How many of the kernel side's buckets lie below each bound, and the bound in seconds. From 4
    /// microseconds, below which a wait is none, to a minute.
    pub fn bounds(self) -> impl Iterator<Item = (usize, f64)> {
        let step = match self {
            Self::Fine => 1,
            Self::Coarse => 2,
        };
        (2..BUCKETS)
            .step_by(step)
            .filter_map(|bucket| Some((bucket + 1, upper_bound_ns(bucket)? as f64 / 1e9)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `UPDATE_DOCS=1 cargo test` writes the file anew.
    #[test]
    fn the_reference_is_current() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../dashboards/METRICS.md");
        if std::env::var_os("UPDATE_DOCS").is_some() {
            std::fs::write(path, reference()).unwrap();
        }
        let written = std::fs::read_to_string(path).unwrap();
        assert!(
            written == reference(),
            "dashboards/METRICS.md is stale: UPDATE_DOCS=1 cargo test -p probe-user --lib"
        );
    }

    /// What is added up over states has the same bounds wherever it has any, and nothing is lost beyond the
    /// last one.
    #[test]
    fn coarse_bounds_are_among_the_fine_ones() {
        let fine: Vec<_> = Grain::Fine.bounds().collect();
        let coarse: Vec<_> = Grain::Coarse.bounds().collect();
        assert!(coarse.iter().all(|bound| fine.contains(bound)));
        assert_eq!((fine.len(), coarse.len()), (25, 13));
        assert_eq!((fine[0].1, fine[24].1), (4.096e-6, 68.719_476_736));
        assert_eq!(fine.last(), coarse.last());
        assert!(
            fine.windows(2)
                .all(|pair| (pair[1].1 / pair[0].1 - 2.0).abs() < 1e-9)
        );
    }

    #[test]
    fn names_and_labels_are_in_order() {
        for metric in ALL {
            assert_eq!(
                metric.name.ends_with("_total"),
                metric.kind == Kind::Counter,
                "{}",
                metric.name
            );
            assert!(
                !metric.help.is_empty() && metric.help.ends_with('.'),
                "{}",
                metric.name
            );
            for label in metric.labels {
                assert!(
                    !["pid", "tid", "address", "cmdline"].contains(label),
                    "{}",
                    metric.name
                );
            }
        }
        let names: std::collections::HashSet<_> = ALL.iter().map(|metric| metric.name).collect();
        assert_eq!(names.len(), ALL.len());
    }
}
