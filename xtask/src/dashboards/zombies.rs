//! Who does not reap, when the pids will run out, who lost a parent, and how processes die.

use super::{
    board::{Board, Scope},
    panel::{Panel, by_bucket, heatmap, quantile, series, stat, table},
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
    .row("How soon are the dead reaped?", reaping())
    .row("Who lost its parent?", orphans())
    .row("How do processes end?", ends())
}

fn hurt() -> Vec<Panel> {
    vec![
        stat(
            "Zombies",
            "short",
            "Dead processes that their parent has not waited for, for more than 100 ms.",
        )
        .query("sum(procprobe_zombies{GROUP}) or vector(0)", "zombies")
        .warn(10.0)
        .alarm(1000.0),
        stat(
            "Oldest zombie",
            "s",
            "How long the oldest of them has been dead. Minutes: its parent will not reap it any more.",
        )
        .query("max(procprobe_zombie_oldest_age_seconds{GROUP}) or vector(0)", "age")
        .warn(60.0)
        .alarm(3600.0),
        stat(
            "Zombies that come to stay",
            "cps",
            "How many more there are, per second, over the last hour. Restart the parent at fault before the pids run out.",
        )
        .query("sum(deriv(procprobe_zombies{GROUP}[1h])) or vector(0)", "per second")
        .warn(0.01),
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
        .warn(0.7)
        .alarm(0.85),
        stat(
            "Pids run out in",
            "s",
            "At the rate at which zombies grew over the last hour; 0 if they do not grow.",
        )
        .query(
            "min((procprobe_pids_limit{HOST} - procprobe_pids_used{HOST}) / (sum without (unit, comm) (deriv(procprobe_zombies{HOST}[1h])) > 0)) or vector(0)",
            "from now",
        ),
        stat("Orphans", "short", "Living processes that lost their parent since the agent started.")
            .query("sum(procprobe_orphans{HOST})", "processes"),
    ]
}

fn fault() -> Vec<Panel> {
    vec![
        series(
            "Which parents do not reap?",
            "short",
            "Zombies by the process name of the parent at fault. A line that only rises is a parent that never waits: a bug in \
             it, or an init that is none (a container without an init process).",
        )
        .query("topk(10, sum by (unit, comm) (procprobe_zombies{GROUP}))", "{{comm}} {{unit}}"),
        table(
            "Parents at fault",
            "The same, now. `procprobe zombies` on the host says what the parent is doing, and which children it left.",
        )
        .column("Zombies", "short", "sum by (instance, unit, comm) (procprobe_zombies{GROUP})")
        .warn(10.0)
        .alarm(1000.0)
        .column(
            "Oldest",
            "s",
            "max by (instance, unit, comm) (procprobe_zombie_oldest_age_seconds{GROUP})",
        )
        .warn(60.0)
        .alarm(3600.0),
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
        .warn(10.0),
    ]
}

fn orphans() -> Vec<Panel> {
    vec![
        series(
            "Who adopts?",
            "cps",
            "Processes per second that lost their parent, by who took them: init, a subreaper (systemd --user, a container \
             shim), or the init of a container.",
        )
        .query("sum by (adopter) (rate(procprobe_orphaned_total{HOST}[$__rate_interval]))", "{{adopter}}")
        .stacked(),
        series(
            "How many orphans live?",
            "short",
            "Living processes that lost their parent since the agent started. Daemons are among them; a line that only rises is \
             something that leaves children behind. `procprobe orphans` names them and the parent they lost.",
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
            r#"topk(10, sum by (unit, comm, reason) (rate(procprobe_exits_total{GROUP,reason!="success"}[$__rate_interval])))"#,
            "{{comm}} {{unit}} {{reason}}",
        ),
    ]
}
