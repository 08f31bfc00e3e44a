//! Where the time of units and process names goes, and how long each stay takes.

use super::{
    board::{Board, Scope},
    panel::{Panel, by_bucket, graph, heatmap, quantile, series, table, top},
};

pub fn board() -> Board {
    Board::new(
        "states",
        "Processes and states",
        Scope::Groups,
        "Where the time of units and process names goes. Narrow it with the variables on top; lengths of waits and \
         stays are those of the unit, unless the agent counts them by process name (`[metrics] durations`).",
    )
    .row("Where does the time go?", time())
    .row("Who?", who())
    .folded("How long do they wait for a CPU?", waits())
    .folded("How long is each stay?", stays())
    .folded("How many threads, and how often do they switch?", switches())
    .folded("From which state to which?", [state_machine(), transitions()])
}

fn time() -> Vec<Panel> {
    vec![
        series(
            "What do these threads do?",
            "short",
            "Threads in each state, on average, the sleeping ones left out.",
        )
        .query(
            r#"sum by (state) (rate(procprobe_state_seconds_total{GROUP,state!~"sleeping|idle|parked"}[$__rate_interval]))"#,
            "{{state}}",
        )
        .stacked(),
        series(
            "What do they wait in?",
            "short",
            "Threads that wait, on average, by the system call or resource they are blocked in. `futex_…` are locks and \
             conditions: see the dashboard Locks.",
        )
        .query(
            "sum by (on) (rate(procprobe_blocked_seconds_total{GROUP}[$__rate_interval]))",
            "{{on}}",
        )
        .stacked()
        .link("locks", "Locks"),
    ]
}

fn switches() -> Vec<Panel> {
    vec![
        series(
            "How often do they switch?",
            "cps",
            "Context switches per second. Voluntary: the thread waited for something. Involuntary: another one \
             took its CPU; many of them mean that CPUs are short or time slices small.",
        )
        .query(
            "sum by (kind) (rate(procprobe_context_switches_total{GROUP}[$__rate_interval]))",
            "{{kind}}",
        ),
        series(
            "How many threads are there?",
            "short",
            "Threads by state at each scrape.",
        )
        .query("sum by (state) (procprobe_group_threads{GROUP})", "{{state}}")
        .stacked(),
    ]
}

/// Of the whole host: the kernel side counts changes by state, not by thread.
const CHANGES: &str =
    "sum by (from, to) (rate(procprobe_state_transitions_total{HOST}[$__range] @ end())) > 0";

fn state_machine() -> Panel {
    let query = format!(
        r#"label_join(label_replace(label_replace({CHANGES}, "source", "$1", "from", "(.*)"), "target", "$1", "to", "(.*)"), "id", " → ", "from", "to")"#
    );
    graph(
        "How do threads change their state?",
        "/s",
        "Changes per second, on average over the time chosen above, of all threads of the hosts chosen above: \
         process and unit do not narrow it. A circle has the changes into that state; births come from `new`, \
         deaths go to `dead`.",
    )
    .query(&query, "")
}

fn transitions() -> Panel {
    table(
        "How often from which to which?",
        "The same as a table, to sort and to search.",
    )
    .labels(&["from", "to"])
    .column("Changes", "cps", CHANGES)
    .wide(10)
    .tall(14)
}

const STAYS: &str = "procprobe_state_duration_seconds";
const RUNNABLE: &str = r#"UNIT,state="runnable""#;

fn waits() -> Vec<Panel> {
    let of_all = |wanted: &str| quantile(wanted, STAYS, RUNNABLE, "");
    vec![
        heatmap(
            "Run-queue waits",
            "How long threads wait for a CPU once they could run. Healthy is below a few milliseconds; a second \
             band that appears higher up is a busy neighbour or a CPU limit.",
        )
        .query(&by_bucket(STAYS, RUNNABLE), "{{le}}"),
        series(
            "How long is the wait for a CPU?",
            "s",
            "Half of all waits are shorter than p50, one in a hundred is longer than p99. 100 ms and more is felt by users.",
        )
        .query(&of_all("0.5"), "p50")
        .query(&of_all("0.9"), "p90")
        .query(&of_all("0.99"), "p99")
        .mark(0.1),
        series(
            "Who waits longest for a CPU?",
            "s",
            "The wait that one in a hundred exceeds, by unit; by process name too if the agent counts durations of groups.",
        )
        .query(
            &top("unit, comm", &quantile("0.99", STAYS, RUNNABLE, "unit, comm")),
            "{{comm}} {{unit}}",
        )
        .mark(0.1),
        series(
            "Who is preempted?",
            "cps",
            "Involuntary switches per second: the thread wanted to go on and lost its CPU to another.",
        )
        .query(
            &top(
                "unit, comm",
                r#"sum by (unit, comm) (rate(procprobe_context_switches_total{GROUP,kind="involuntary"}[$__rate_interval]))"#,
            ),
            "{{comm}} {{unit}}",
        ),
    ]
}

fn stays() -> Vec<Panel> {
    let stay = |title, state: &str, description| {
        let of_state = format!(r#"UNIT,state="{state}""#);
        let query = by_bucket(STAYS, &of_state);
        heatmap(title, description).query(&query, "{{le}}").wide(8)
    };
    vec![
        stay(
            "Turns on a CPU",
            "running",
            "How long threads run before they wait or are preempted. All at the length of a time slice: they compute. \
             Microseconds: they hand work back and forth.",
        ),
        stay(
            "Uninterruptible stays",
            "uninterruptible",
            "How long threads stay in D once they are: the latency of storage as they feel it. Stays that have not \
             ended are not in here; the table below has them.",
        ),
        stay(
            "Sleeps",
            "sleeping",
            "How long threads sleep. Timers and polls show as sharp lines.",
        ),
    ]
}

fn who() -> Vec<Panel> {
    let average = |state: &str| {
        format!(
            r#"sum by (unit, comm) (rate(procprobe_state_seconds_total{{GROUP,NAMED,state="{state}"}}[$__rate_interval]))"#
        )
    };
    vec![
        table(
            "Where does each process name's time go?",
            "Threads of each process name in each state, on average over the last minute or so. Sorted by time on \
             a CPU; click another heading to sort by that. The sum of those without a name of their own is left \
             out.",
        )
        .labels(&["comm", "unit"])
        .column("Running", "short", &average("running"))
        .column("Runnable", "short", &average("runnable"))
        .column("Uninterruptible", "short", &average("uninterruptible"))
        .column("Sleeping", "short", &average("sleeping"))
        .column(
            "Threads",
            "short",
            "sum by (unit, comm) (procprobe_group_threads{GROUP,NAMED})",
        )
        .wide(24)
        .tall(12),
        table(
            "Who is stuck?",
            "Threads that have been in uninterruptible sleep for the last ten minutes without a break, by process \
             name. Empty is good. `procprobe tree --threads` on the host says what each waits for.",
        )
        .labels(&["instance", "unit", "comm"])
        .column(
            "Stuck threads",
            "short",
            "sum by (instance, unit, comm) (unit_comm:procprobe_stuck_uninterruptible:rate10m{GROUP,NAMED})",
        )
        .warn("ProcprobeThreadsStuck", 0.9)
        .wide(24),
    ]
}
