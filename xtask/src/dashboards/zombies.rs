//! Who does not reap, when the pids will run out, who lost a parent, and how processes die.

use super::{
    board::{Board, Scope},
    panel::{Panel, by_bucket, heatmap, or_zero, quantile, series, stat, table, top, top_gauge},
};

pub fn board() -> Board {
    Board::new(
        "zombies",
        "Zombies and orphans",
        Scope::Groups,
        "Dead processes that nobody reaps, whose fault that is, when it will hurt; and processes that lost their parent.",
    )
    .row("Will it hurt?", hurt())
    .more(pids())
    .row("Whose fault is it?", fault())
    .folded("How do processes end?", ends())
    .folded("How soon are the dead reaped?", reaping())
    .folded("Who lost its parent?", orphans())
    .folded("Which units have a limit of their own?", [limits()])
}

fn hurt() -> Vec<Panel> {
    vec![
        stat(
            "Zombies",
            "short",
            "Dead processes that their parent has not waited for, for more than 100 ms.",
        )
        .query(&or_zero("sum(procprobe_zombies{GROUP})"), "zombies")
        .warn("ProcprobeZombiesFillPids", 20.0),
        stat(
            "Oldest zombie",
            "s",
            "How long the oldest of them has been dead. Minutes: its parent will not reap it any more.",
        )
        .query(&or_zero("max(procprobe_zombie_oldest_age_seconds{GROUP})"), "age")
        .mark(60.0),
        stat(
            "Zombies that come to stay",
            "cps",
            "How many more there are, per second, over the last hour. Restart the parent at fault before the pids run out.",
        )
        .query(&or_zero("sum(deriv(procprobe_zombies{GROUP}[1h]))"), "per second"),
    ]
}

fn pids() -> Vec<Panel> {
    vec![
        stat(
            "Pids in use",
            "percentunit",
            "Share of the host's pids in use; every thread and every zombie takes one. At 100 % nothing can be started.",
        )
        .query("max(procprobe_pids_used{HOST} / procprobe_pids_limit{HOST})", "of all")
        .alarm("ProcprobePidsRunOut", 0.85),
        stat(
            "Pids run out in",
            "s",
            "At the rate at which zombies grew over the last hour.",
        )
        // So far ahead that it stands for never; nothing at all would look as if there were no agent.
        .query(
            "min((procprobe_pids_limit{HOST} - procprobe_pids_used{HOST}) / (sum without (unit, comm) (deriv(procprobe_zombies{HOST}[1h])) > 0)) or 1e10 * count(procprobe_build_info{HOST})",
            "from now",
        )
        .warn_below("ProcprobeZombiesFillPids", 259_200.0)
        .never(1e10, "not at this rate"),
        stat("Orphans", "short", "Living processes that lost their parent since the agent started.")
            .query("sum(procprobe_orphans{HOST})", "processes"),
    ]
}

fn fault() -> Vec<Panel> {
    vec![
        series(
            "Which parents do not reap?",
            "short",
            "Zombies by the process name of the parent at fault. A line that only rises is a parent that never \
             waits: a bug in it, or an init that is none (a container without an init process).",
        )
        .query(&top_gauge("unit, comm", "procprobe_zombies{GROUP}"), "{{comm}} {{unit}}")
        .by_max(),
        table(
            "Parents at fault",
            "The same, now. `procprobe zombies` on the host says what the parent is doing, and which children it left.",
        )
        .labels(&["instance", "unit", "comm"])
        .column("Zombies", "short", "sum by (instance, unit, comm) (procprobe_zombies{GROUP}) > 0")
        .warn("ProcprobeZombiesFillPids", 20.0)
        .column(
            "Oldest",
            "s",
            "max by (instance, unit, comm) (procprobe_zombie_oldest_age_seconds{GROUP}) > 0",
        )
        .mark(60.0),
    ]
}

fn reaping() -> Vec<Panel> {
    let delays = "procprobe_reap_delay_seconds";
    vec![
        heatmap(
            "Time from death to reaping",
            "Of the processes that were reaped. The lowest band is normal; higher up, parents are busy or stopped.",
        )
        .query(&by_bucket(delays, "HOST"), "{{le}}"),
        series(
            "How long do parents take to reap?",
            "s",
            "Half are reaped sooner than p50; one in a hundred takes longer than p99.",
        )
        .query(&quantile("0.5", delays, "HOST", ""), "p50")
        .query(&quantile("0.99", delays, "HOST", ""), "p99")
        .mark(10.0),
    ]
}

fn orphans() -> Vec<Panel> {
    vec![
        series(
            "Who adopts?",
            "cps",
            "Processes per second that lost their parent, by who took them: init, a subreaper (systemd --user, a \
             container shim), or the init of a container.",
        )
        .query("sum by (adopter) (rate(procprobe_orphaned_total{HOST}[$__rate_interval]))", "{{adopter}}")
        .stacked(),
        series(
            "How many orphans live?",
            "short",
            "Living processes that lost their parent since the agent started. Daemons are among them; a line that \
             only rises is something that leaves children behind. `procprobe orphans` names them and the parent \
             they lost.",
        )
        .query("sum by (adopter) (procprobe_orphans{HOST})", "{{adopter}}")
        .stacked(),
    ]
}

fn ends() -> Vec<Panel> {
    vec![
        series("Why do processes end?", "cps", "Processes ended per second, by reason.")
            .query("sum by (reason) (rate(procprobe_exits_total{GROUP}[$__rate_interval]))", "{{reason}}")
            .stacked(),
        series(
            "Who ends badly?",
            "cps",
            "Processes per second that failed, were killed, or crashed. `procprobe events` shows each with who sent the signal.",
        )
        .query(
            &top(
                "unit, comm, reason",
                r#"sum by (unit, comm, reason) (rate(procprobe_exits_total{GROUP,reason!="success"}[$__rate_interval]))"#,
            ),
            "{{comm}} {{unit}} {{reason}}",
        ),
        table(
            "Who crashed, and who was killed for want of memory?",
            "Processes that ended so in the time chosen above. Empty is good.",
        )
        .labels(&["instance", "unit", "comm"])
        .column(
            "Crashes",
            "short",
            r#"sum by (instance, unit, comm) (increase(procprobe_exits_total{GROUP,reason="core_dump"}[$__range])) > 0"#,
        )
        .warn("ProcprobeCrashLoop", 3.0)
        .column(
            "Out of memory",
            "short",
            r#"sum by (instance, unit, comm) (increase(procprobe_exits_total{GROUP,reason="oom"}[$__range])) > 0"#,
        )
        .warn("ProcprobeOom", 1.0)
        .wide(24)
        .tall(6),
    ]
}

fn limits() -> Panel {
    table(
        "Units and their limits",
        "Of units with a limit, their own or one above them that they reach first: the pids they use of those they \
         may have, how much their CPU quota holds them back (seconds a second, added up over CPUs), and how often \
         the kernel killed in them for want of memory in the time chosen above.",
    )
    .labels(&["instance", "unit"])
    .column(
        "Pids in use",
        "percentunit",
        "max by (instance, unit) (procprobe_unit_pids_used{OF_UNITS} / procprobe_unit_pids_limit{OF_UNITS})",
    )
    .warn("ProcprobeUnitPidsNearLimit", 0.9)
    .column(
        "Throttled",
        "short",
        "sum by (instance, unit) (rate(procprobe_unit_cpu_throttled_seconds_total{OF_UNITS}[5m]))",
    )
    .warn("ProcprobeUnitThrottled", 0.5)
    .column(
        "Out of memory",
        "short",
        "sum by (instance, unit) (increase(procprobe_unit_oom_kills_total{OF_UNITS}[$__range]))",
    )
    .warn("ProcprobeOom", 1.0)
    .wide(24)
}
