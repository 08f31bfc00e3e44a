//! One host at a glance: is anything wrong, what are its threads doing, and whose are they.

use super::{
    board::{Board, Scope},
    panel::{NAMED, Panel, edges, graph, or_zero, series, stat, table, top},
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
    .folded("Births and deaths", lives())
    .folded("How many are there?", counts())
    .folded("Who started whom?", [tree(), children()])
}

fn wrong() -> Vec<Panel> {
    vec![
        stat(
            "Deadlocked and stalled",
            "short",
            "Threads that wait for each other in a circle, and threads that nobody is left to wake. `procprobe \
             locks` names them and their locks; ending one of the processes is all that helps.",
        )
        .query(&or_zero("sum(procprobe_deadlocked_threads{HOST})"), "deadlocked")
        .query(&or_zero("sum(procprobe_stalled_threads{HOST})"), "stalled")
        .alarm("ProcprobeDeadlock", 1.0)
        .alarm("ProcprobeStall", 1.0)
        .link("locks", "Locks"),
        stat(
            "Stuck threads",
            "short",
            "Threads that have been in uninterruptible sleep (D) for ten minutes without a break. Nothing reaches \
             them but what they wait for: `procprobe tree --threads` says what that is. Needs the recording \
             rules.",
        )
        .query("sum(instance:procprobe_stuck_uninterruptible:sum{HOST})", "threads")
        .warn("ProcprobeThreadsStuck", 0.9)
        .link("states", "Processes and states"),
        stat(
            "Zombies",
            "short",
            "Dead processes that their parent has not waited for. `procprobe zombies` names the parent at fault.",
        )
        .query(&or_zero("sum(procprobe_zombies{HOST})"), "zombies")
        .warn("ProcprobeZombiesFillPids", 20.0)
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
        .alarm("ProcprobePidsRunOut", 0.85)
        .link("zombies", "Zombies and orphans"),
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
        .warn("ProcprobeRunQueueWaitHigh", 1.0)
        .link("states", "Processes and states"),
        stat(
            "Events lost",
            "cps",
            "Records that the agent could not keep. If it is not 0, counts below are too low for that time.",
        )
        .query(
            r#"sum(rate(procprobe_events_lost_total{HOST,reason!~"clock|unread"}[$__rate_interval]))"#,
            "per second",
        )
        .warn("ProcprobeLosesEvents", 0.001)
        .link("procprobe", "procprobe itself"),
    ]
}

fn doing() -> Vec<Panel> {
    vec![
        series(
            "What do threads spend their time on?",
            "short",
            "Threads in each state, on average; those that sleep or idle are left out. Running is CPUs in use; \
             runnable is threads that wait for a CPU; uninterruptible is threads that wait for storage or the \
             kernel.",
        )
        .query(
            r#"sum by (state) (rate(procprobe_state_seconds_total{HOST,state!~"sleeping|idle|parked"}[$__rate_interval]))"#,
            "{{state}}",
        )
        .stacked(),
        series(
            "What keeps threads from working?",
            "short",
            "Threads that wait, on average, by what they wait in, as far as it is rarely a wait for work: files, \
             page faults, the kernel, locks (`futex_mutex` and the like). The dashboard Processes and states has \
             all of it.",
        )
        .query(
            r#"sum by (on) (rate(procprobe_blocked_seconds_total{HOST,on=~"file|sync|write|page_fault|kernel|futex_mutex|futex_pi_mutex|futex_rwlock"}[$__rate_interval]))"#,
            "{{on}}",
        )
        .stacked(),
    ]
}

fn counts() -> Vec<Panel> {
    vec![
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

/// Without the kernel's own threads, which are all of one parent and would be most of the picture.
const EDGES: &str = r#"topk(100, sum by (instance, parent_unit, parent_comm, unit, comm) (procprobe_process_tree_edges{HOST,NAMED,parent_comm!="kthreadd"}))"#;

fn tree() -> Panel {
    let parent = r#""parent_comm", "instance", "parent_unit""#;
    let child = r#""comm", "instance", "unit""#;
    graph(
        "Which process names hang below which?",
        "processes",
        "The process tree by name, as it is at the end of the time chosen above: an arrow from the parent to its \
         children, with how many there are. The kernel's own threads are left out.",
    )
    .query(&edges(EDGES, parent, child, &[]), "")
}

fn children() -> Panel {
    table(
        "How many of whom hang below whom?",
        "The same as a table, to sort and to search.",
    )
    .labels(&["parent_comm", "parent_unit", "comm", "unit", "instance"])
    .column("Processes", "short", EDGES)
    .wide(10)
    .tall(14)
}

fn whose() -> Vec<Panel> {
    let by_state = |state: &str| {
        let time = format!(
            r#"sum by (unit, comm) (rate(procprobe_state_seconds_total{{HOST,state="{state}"}}[$__rate_interval]))"#
        );
        top("unit, comm", &time)
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
            .labels(&["comm", "unit"])
            .column("Threads", "short", &format!("topk(20, sum by (unit, comm) (procprobe_group_threads{{HOST,{NAMED}}}))"))
            .column(
                "Running or runnable",
                "short",
                &format!(
                    r#"sum by (unit, comm) (procprobe_group_threads{{HOST,state=~"running|runnable"}}) and topk(20, sum by (unit, comm) (procprobe_group_threads{{HOST,{NAMED}}}))"#
                ),
            ),
    ]
}

fn lives() -> Vec<Panel> {
    vec![
        series(
            "How much is started?",
            "cps",
            "Processes and threads born and programs executed per second. Hundreds of forks a second cost CPU of \
             their own; the next panel names who forks.",
        )
        .query("sum(rate(procprobe_forks_total{HOST}[$__rate_interval]))", "forks")
        .warn("ProcprobeForkStorm", 300.0)
        .query("sum(rate(procprobe_execs_total{HOST}[$__rate_interval]))", "execs")
        .query("sum(rate(procprobe_threads_created_total{HOST}[$__rate_interval]))", "threads"),
        series("Who forks?", "cps", "Processes born per second, by the process name that forked them.").query(
            &top("unit, comm", "sum by (unit, comm) (rate(procprobe_group_forks_total{HOST}[$__rate_interval]))"),
            "{{comm}} {{unit}}",
        ),
        series(
            "How do processes end?",
            "cps",
            "Processes ended per second, by reason. `oom` is the out-of-memory killer; `core_dump` is a crash. \
             `procprobe events` shows each as it happens, with who sent the signal.",
        )
        .query("sum by (reason) (rate(procprobe_exits_total{HOST}[$__rate_interval]))", "{{reason}}")
        .stacked(),
        series(
            "What do short-lived processes cost?",
            "short",
            "CPUs kept busy by processes that live less than a second, which `top` does not see.",
        )
        .query(
            &top(
                "unit, comm",
                "sum by (unit, comm) (rate(procprobe_short_lived_cpu_seconds_total{HOST}[$__rate_interval]))",
            ),
            "{{comm}} {{unit}}",
        ),
    ]
}
