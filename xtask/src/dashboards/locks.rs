//! Deadlocks, who waits for locks, and for how long.

use super::{
    board::{Board, Scope},
    panel::{Panel, by_bucket, counts, heatmap, quantile, series, stat, sums, table},
};

pub fn board() -> Board {
    Board::new(
        "locks",
        "Locks",
        Scope::Groups,
        "Who waits for locks, how long, and who will wait for ever. Only locks that threads block on are seen; one that is taken \
         without waiting costs nothing and does not show.",
    )
    .row("Is anybody stuck?", stuck())
    .more(deadlocked())
    .row("Who waits?", waiting())
    .more(queues())
    .row("How long?", long())
}

fn stuck() -> Vec<Panel> {
    vec![
        stat(
            "Deadlocks",
            "short",
            "Circles of threads that each wait for the next. They do not end by themselves: end one of the processes.",
        )
        .query("sum(procprobe_deadlocks{GROUP}) or vector(0)", "deadlocks")
        .alarm(1.0),
        stat("Deadlocked threads", "short", "Threads in those circles.")
            .query("sum(procprobe_deadlocked_threads{GROUP}) or vector(0)", "threads")
            .alarm(1.0),
        stat(
            "Threads waiting now",
            "short",
            "Threads that wait for a mutex or a readers-writer lock at this moment. Condition variables, joins and idle pool workers \
             wait for work, and are left out.",
        )
        .query(
            r#"sum(procprobe_lock_waiters{GROUP,kind=~"mutex|pi_mutex|rwlock"}) or vector(0)"#,
            "threads",
        )
        .warn(20.0),
    ]
}

fn deadlocked() -> Vec<Panel> {
    vec![
        table(
            "Deadlocked and stalled processes",
            "Empty is good. `procprobe locks` on the host names the threads, the locks and who holds them.",
        )
        .column(
            "Threads",
            "short",
            "sum by (instance, unit, comm) (procprobe_deadlocked_threads{GROUP}) > 0",
        )
        .alarm(1.0)
        .column(
            "Deadlocks",
            "short",
            "sum by (instance, unit, comm) (procprobe_deadlocks{GROUP}) > 0",
        )
        .alarm(1.0)
        .column(
            "Stalled threads",
            "short",
            "sum by (instance, unit, comm) (procprobe_stalled_threads{GROUP}) > 0",
        )
        .alarm(1.0)
        .tall(6),
    ]
}

fn waiting() -> Vec<Panel> {
    vec![
        series(
            "Who waits for locks?",
            "short",
            "Threads of each process name that wait for a lock, on average, waits under way included. The number of threads that a \
             lock keeps from working.",
        )
        .query(
            r#"topk(10, sum by (unit, comm) (rate(procprobe_blocked_seconds_total{GROUP,on=~"futex_mutex|futex_pi_mutex|futex_rwlock"}[$__rate_interval])))"#,
            "{{comm}} {{unit}}",
        ),
        series(
            "What kind of locks?",
            "short",
            "Threads that wait, on average, counted when the wait ends, by what they wait at. Condition variables, joins and parkers \
             are threads that wait for work, mostly; `unknown` is what nothing proves to be a lock.",
        )
        .query(
            &sums(WAITS, "UNIT", "kind"),
            "{{kind}}",
        )
        .stacked(),
    ]
}

fn queues() -> Vec<Panel> {
    vec![
        series(
            "How many wait at the same time?",
            "short",
            "Threads that wait at each scrape, by process name and kind. A queue that never empties is one lock for too much.",
        )
        .query(
            "topk(10, sum by (unit, comm, kind) (procprobe_lock_waiters{GROUP}))",
            "{{comm}} {{unit}} {{kind}}",
        ),
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
            &format!("topk(10, {})", quantile("0.99", WAITS, AT_LOCKS, "unit, comm")),
            "{{comm}} {{unit}}",
        ),
        series(
            "How often do they wait?",
            "cps",
            "Waits for a lock that ended, per second, by unit; by process name too if the agent counts durations of groups.",
        )
        .query(
            &format!("topk(10, {})", counts(WAITS, AT_LOCKS, "unit, comm")),
            "{{comm}} {{unit}}",
        ),
    ]
}
