//! Deadlocks, who waits for locks, and for how long.

use super::{
    board::{Board, Scope},
    panel::{
        Panel, by_bucket, counts, edges, graph, heatmap, or_zero, quantile, series, stat, sums, table, top,
        top_gauge,
    },
};

pub fn board() -> Board {
    Board::new(
        "locks",
        "Locks",
        Scope::Groups,
        "Who waits for locks, how long, and who will wait for ever. Only locks that threads block on are seen; one \
         that is taken without waiting costs nothing and does not show.",
    )
    .row("Is anybody stuck?", stuck())
    .more(deadlocked())
    .row("Who waits?", waiting())
    .folded("Who waits for whom?", [who_for_whom(), at_which_lock()])
    .folded("At what?", queues())
    .folded("How long?", long())
}

fn stuck() -> Vec<Panel> {
    vec![
        stat(
            "Deadlocks",
            "short",
            "Circles of threads that each wait for the next. They do not end by themselves: end one of the processes.",
        )
        .query(&or_zero("sum(procprobe_deadlocks{GROUP})"), "deadlocks")
        .alarm("ProcprobeDeadlock", 1.0),
        stat(
            "Oldest deadlock",
            "dtdurations",
            "Time since the oldest of them closed: since then its process has not done what these threads were to do.",
        )
        .query(&or_zero("max(procprobe_deadlock_oldest_age_seconds{GROUP})"), "age")
        .alarm("ProcprobeDeadlock", 1.0),
        stat(
            "Stalled threads",
            "short",
            "Threads that wait at locks without a known owner while nobody is left who could wake them.",
        )
        .query(&or_zero("sum(procprobe_stalled_threads{GROUP})"), "threads")
        .alarm("ProcprobeStall", 1.0),
        stat(
            "Longest queue",
            "short",
            "Threads of one process name that wait for mutexes or readers-writer locks at this moment; the largest \
             number. Condition variables, joins and idle pool workers wait for work, and are left out.",
        )
        .query(
            &or_zero(
                r#"max(sum by (cluster, job, instance, unit, comm) (procprobe_lock_waiters{GROUP,kind=~"mutex|pi_mutex|rwlock",NAMED}))"#,
            ),
            "threads",
        )
        .warn("ProcprobeLockConvoy", 8.0),
    ]
}

fn deadlocked() -> Vec<Panel> {
    vec![
        table(
            "Deadlocked and stalled processes",
            "Empty is good. `procprobe locks` on the host names the threads, the locks and who holds them.",
        )
        .labels(&["instance", "unit", "comm"])
        .column(
            "Since",
            "dtdurations",
            "max by (instance, unit, comm) (procprobe_deadlock_oldest_age_seconds{GROUP}) > 0",
        )
        .column(
            "Threads",
            "short",
            "sum by (instance, unit, comm) (procprobe_deadlocked_threads{GROUP}) > 0",
        )
        .alarm("ProcprobeDeadlock", 1.0)
        .column(
            "Deadlocks",
            "short",
            "sum by (instance, unit, comm) (procprobe_deadlocks{GROUP}) > 0",
        )
        .alarm("ProcprobeDeadlock", 1.0)
        .column(
            "Stalled threads",
            "short",
            "sum by (instance, unit, comm) (procprobe_stalled_threads{GROUP}) > 0",
        )
        .alarm("ProcprobeStall", 1.0)
        .wide(24)
        .tall(5),
    ]
}

/// Seconds waited in the range at the heaviest edges, by what tells them apart.
const EDGES: &str = r"topk(40, sum by (instance, unit, comm, waiter, holder, lock, kind, evidence) (increase(procprobe_lock_edge_wait_seconds_total{GROUP,NAMED}[$__range])) > 0)";

fn who_for_whom() -> Panel {
    // A wait whose holder nobody knows goes to somebody unknown, not to a thread without a name.
    let named = format!(r#"label_replace({EDGES}, "holder", "(unknown)", "holder", "")"#);
    let waiter = r#""waiter", "comm", "instance", "unit""#;
    let holder = r#""holder", "comm", "instance", "unit""#;
    graph(
        "Which threads wait for which?",
        "s",
        "An arrow from the thread that waited to the one that held the lock, with the seconds waited in the time \
         chosen above; a circle has the sum of what was waited for it. The 40 heaviest of those that ended; many \
         arrows into one circle: that thread holds a lock for too long.",
    )
    .query(&edges(&named, waiter, holder, &["lock", "kind", "evidence"]), "")
}

fn at_which_lock() -> Panel {
    table(
        "At which locks, held by whom?",
        "The same as a table, with the lock's symbol and how its holder is known: `owner` is read from the lock, \
         `waker` is who woke the waiter. Waits that have not ended are not in it; a deadlock's never do.",
    )
    .labels(&["comm", "lock", "waiter", "holder", "kind", "evidence", "unit", "instance"])
    .column("Waited", "s", EDGES)
    .wide(10)
    .tall(14)
}

fn waiting() -> Vec<Panel> {
    vec![
        series(
            "Who waits for locks?",
            "short",
            "Threads of each process name that wait for a lock, on average, waits under way included. The number \
             of threads that a lock keeps from working.",
        )
        .query(
            &top(
                "unit, comm",
                r#"sum by (unit, comm) (rate(procprobe_blocked_seconds_total{GROUP,on=~"futex_mutex|futex_pi_mutex|futex_rwlock"}[$__rate_interval]))"#,
            ),
            "{{comm}} {{unit}}",
        ),
        series(
            "How many wait at the same time?",
            "short",
            "Threads that wait at each scrape, by process name and kind. A queue that never empties is one lock for too much.",
        )
        .query(
            &top_gauge("unit, comm, kind", r#"procprobe_lock_waiters{GROUP,kind=~"mutex|pi_mutex|rwlock"}"#),
            "{{comm}} {{unit}} {{kind}}",
        )
        .by_max()
        .warn("ProcprobeLockConvoy", 8.0),
    ]
}

fn queues() -> Vec<Panel> {
    vec![
        series(
            "What kind of locks?",
            "short",
            "Threads that wait, on average, counted when the wait ends, by what they wait at. Condition variables, \
             joins and parkers are threads that wait for work, mostly; `unknown` is what nothing proves to be a \
             lock.",
        )
        .query(
            &sums(WAITS, "UNIT", "kind"),
            "{{kind}}",
        )
        .stacked(),
        series(
            "What do threads block in?",
            "short",
            "Threads blocked on futexes, on average, waits that have not ended included.",
        )
        .query(
            r#"sum by (on) (rate(procprobe_blocked_seconds_total{GROUP,on=~"futex.*"}[$__rate_interval]))"#,
            "{{on}}",
        )
        .stacked(),
    ]
}

const WAITS: &str = "procprobe_lock_wait_seconds";
const AT_LOCKS: &str = r#"UNIT,kind=~"mutex|pi_mutex|rwlock""#;

fn long() -> Vec<Panel> {
    let of_all = |wanted: &str| quantile(wanted, WAITS, AT_LOCKS, "");
    vec![
        heatmap("Waits for locks", "How long waits for a lock took that ended.")
            .query(&by_bucket(WAITS, AT_LOCKS), "{{le}}"),
        series(
            "How long is the wait for a lock?",
            "s",
            "Half of all waits are shorter than p50, one in a hundred is longer than p99.",
        )
        .query(&of_all("0.5"), "p50")
        .query(&of_all("0.9"), "p90")
        .query(&of_all("0.99"), "p99"),
        series(
            "Who waits longest?",
            "s",
            "The wait that one in a hundred exceeds, by unit; by process name too if the agent counts durations of groups.",
        )
        .query(
            &top("unit, comm", &quantile("0.99", WAITS, AT_LOCKS, "unit, comm")),
            "{{comm}} {{unit}}",
        ),
        series(
            "How often do they wait?",
            "cps",
            "Waits for a lock that ended, per second, by unit; by process name too if the agent counts durations of groups.",
        )
        .query(
            &top("unit, comm", &counts(WAITS, AT_LOCKS, "unit, comm")),
            "{{comm}} {{unit}}",
        ),
    ]
}
