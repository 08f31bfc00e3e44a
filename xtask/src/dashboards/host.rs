//! One host at a glance: is anything wrong, what are its threads doing, and whose are they.

use super::{
    board::{Board, Scope},
    panel::{Panel, series, stat, table},
};

pub fn board() -> Board {
    Board::new(
        "host",
        "Host overview",
        Scope::Host,
        "Start here: the top row says which of the other dashboards to open.",
    )
    .row("Is anything wrong?", wrong())
    .more(short())
    .row("What are the threads doing?", doing())
    .row("Whose are they?", whose())
    .row("Births and deaths", lives())
}

fn wrong() -> Vec<Panel> {
    vec![
        stat(
            "Deadlocked threads",
            "short",
            "Threads that wait for each other in a circle. `procprobe locks` names them and their locks; ending one of the \
             processes is all that helps.",
        )
        .query("sum(procprobe_deadlocked_threads{HOST}) or vector(0)", "threads")
        .alarm(1.0)
        .link("locks", "Locks"),
        stat(
            "Threads in uninterruptible sleep",
            "short",
            "Threads in D now. A few that come and go are normal under load. Some that stay: `procprobe tree --threads` says \
             what they wait for.",
        )
        .query(r#"sum(procprobe_threads{HOST,state="uninterruptible"})"#, "threads")
        .warn(5.0)
        .alarm(20.0)
        .link("states", "Processes and states"),
        stat(
            "Zombies",
            "short",
            "Dead processes that their parent has not waited for. `procprobe zombies` names the parent at fault.",
        )
        .query("sum(procprobe_zombies{HOST}) or vector(0)", "zombies")
        .warn(10.0)
        .alarm(1000.0)
        .link("zombies", "Zombies and orphans"),
    ]
}

fn short() -> Vec<Panel> {
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
            "Waiting / running",
            "none",
            "Seconds that threads waited for a CPU, for every second that threads ran. Above 1 the host is short of CPU; \
             `procprobe states --by unit` says who waits and who runs.",
        )
        .query(
            r#"sum(rate(procprobe_state_seconds_total{HOST,state="runnable"}[$__rate_interval])) / sum(rate(procprobe_state_seconds_total{HOST,state="running"}[$__rate_interval]))"#,
            "ratio",
        )
        .warn(1.0)
        .alarm(4.0)
        .link("states", "Processes and states"),
        stat(
            "Events lost",
            "cps",
            "Records that the agent could not keep. If it is not 0, counts below are too low for that time.",
        )
        .query("sum(rate(procprobe_events_lost_total{HOST}[$__rate_interval]))", "per second")
        .warn(0.001)
        .link("procprobe", "procprobe itself"),
    ]
}

fn doing() -> Vec<Panel> {
    vec![
        series(
            "What do threads spend their time on?",
            "short",
            "Threads in each state, on average; those that sleep or idle are left out. Running is CPUs in use; runnable is \
             threads that wait for a CPU; uninterruptible is threads that wait for storage or the kernel.",
        )
        .query(
            r#"sum by (state) (rate(procprobe_state_seconds_total{HOST,state!~"sleeping|idle|parked"}[$__rate_interval]))"#,
            "{{state}}",
        )
        .stacked(),
        series(
            "What keeps threads from working?",
            "short",
            "Threads that wait, on average, by what they wait in, as far as it is rarely a wait for work: files, page faults, \
             the kernel, locks (`futex_mutex` and the like). The dashboard Processes and states has all of it.",
        )
        .query(
            r#"sum by (on) (rate(procprobe_blocked_seconds_total{HOST,on=~"file|sync|write|page_fault|kernel|futex_mutex|futex_pi_mutex|futex_rwlock"}[$__rate_interval]))"#,
            "{{on}}",
        )
        .stacked(),
        series(
            "How many threads are there?",
            "short",
            "Threads by state, as counted at each scrape, the sleeping ones too. A line that only rises is a leak.",
        )
        .query("sum by (state) (procprobe_threads{HOST})", "{{state}}")
        .stacked(),
        series("How many processes are there?", "short", "Processes by the state of their first thread.")
            .query("sum by (state) (procprobe_processes{HOST})", "{{state}}")
            .stacked(),
    ]
}

fn whose() -> Vec<Panel> {
    let by_state = |state: &str| {
        format!(
            r#"topk(10, sum by (unit, comm) (rate(procprobe_state_seconds_total{{HOST,state="{state}"}}[$__rate_interval])))"#
        )
    };
    vec![
        series("Who runs?", "short", "CPUs that each process name keeps busy, on average.")
            .query(&by_state("running"), "{{comm}} {{unit}}"),
        series(
            "Who waits for a CPU?",
            "short",
            "Threads of each process name that could run and have no CPU, on average. Give the unit more CPU, or its rivals less.",
        )
        .query(&by_state("runnable"), "{{comm}} {{unit}}"),
        series(
            "Who is in uninterruptible sleep?",
            "short",
            "Threads of each process name in D, on average: storage, network file systems, page faults.",
        )
        .query(&by_state("uninterruptible"), "{{comm}} {{unit}}"),
        table("Who has the most threads?", "Threads of each process name now, and how many of them want a CPU.")
            .column("Threads", "short", "topk(20, sum by (unit, comm) (procprobe_group_threads{HOST}))")
            .column(
                "Running or runnable",
                "short",
                r#"sum by (unit, comm) (procprobe_group_threads{HOST,state=~"running|runnable"}) and topk(20, sum by (unit, comm) (procprobe_group_threads{HOST}))"#,
            ),
    ]
}

fn lives() -> Vec<Panel> {
    vec![
        series(
            "How much is started?",
            "cps",
            "Processes and threads born and programs executed per second. Hundreds of forks a second cost CPU of their own; \
             the next panel names who forks.",
        )
        .query("sum(rate(procprobe_forks_total{HOST}[$__rate_interval]))", "forks")
        .query("sum(rate(procprobe_execs_total{HOST}[$__rate_interval]))", "execs")
        .query("sum(rate(procprobe_threads_created_total{HOST}[$__rate_interval]))", "threads"),
        series("Who forks?", "cps", "Processes born per second, by the process name that forked them.").query(
            "topk(10, sum by (unit, comm) (rate(procprobe_group_forks_total{HOST}[$__rate_interval])))",
            "{{comm}} {{unit}}",
        ),
        series(
            "How do processes end?",
            "cps",
            "Processes ended per second, by reason. `oom` is the out-of-memory killer; `core_dump` is a crash. `procprobe \
             events` shows each as it happens, with who sent the signal.",
        )
        .query("sum by (reason) (rate(procprobe_exits_total{HOST}[$__rate_interval]))", "{{reason}}")
        .stacked(),
        series(
            "What do short-lived processes cost?",
            "short",
            "CPUs kept busy by processes that live less than a second, which `top` does not see.",
        )
        .query(
            "topk(10, sum by (unit, comm) (rate(procprobe_short_lived_cpu_seconds_total{HOST}[$__rate_interval])))",
            "{{comm}} {{unit}}",
        ),
    ]
}
