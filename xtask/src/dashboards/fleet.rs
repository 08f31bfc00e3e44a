//! All hosts, the worst first. Asks recorded series alone (`dashboards/prometheus/recording.yml`), a handful for each host.

use super::{
    board::{Board, Scope},
    panel::{Panel, or_zero, series, stat, table, top_hosts},
};

pub fn board() -> Board {
    Board::new(
        "fleet",
        "Fleet",
        Scope::Fleet,
        "Which hosts need somebody, worst first. Click a host's name to see what is wrong there. Needs the recording rules.",
    )
    .row("How many hosts need somebody?", counts())
    .more(shortages())
    .row("Which hosts are worst?", [worst()])
    .folded("Since when?", trends())
}

fn counts() -> Vec<Panel> {
    vec![
        stat(
            "Agents that answer",
            "short",
            "Hosts whose agent answered the last scrape.",
        )
        .query(&or_zero("count(instance:procprobe_trouble:score{HOST})"), "hosts"),
        stat(
            "Agents that do not answer",
            "short",
            "Hosts that Prometheus cannot scrape. The host may be down, or its agent: `systemctl status procprobe` there.",
        )
        .query(&or_zero("count(up{HOST} == 0)"), "hosts")
        .alarm("ProcprobeDown", 1.0),
        stat(
            "Hosts with a deadlock",
            "short",
            "Hosts where threads wait for each other in a circle. They will not come out by themselves.",
        )
        .query(&or_zero("count(instance:procprobe_deadlocked_threads:sum{HOST} > 0)"), "hosts")
        .alarm("ProcprobeDeadlock", 1.0)
        .link("locks", "Locks"),
    ]
}

fn shortages() -> Vec<Panel> {
    vec![
        stat(
            "Hosts with stuck threads",
            "short",
            "Hosts where a thread has been in uninterruptible sleep for ten minutes: storage, network file systems, drivers.",
        )
        .query(&or_zero("count(instance:procprobe_stuck_uninterruptible:sum{HOST} >= 0.9)"), "hosts")
        .warn("ProcprobeThreadsStuck", 1.0),
        stat(
            "Hosts short of pids",
            "short",
            "Hosts that use more than 85 % of their pids. At 100 % nothing can be started, not even a shell.",
        )
        .query(&or_zero("count(instance:procprobe_pids:ratio{HOST} > 0.85)"), "hosts")
        .alarm("ProcprobePidsRunOut", 1.0)
        .link("zombies", "Zombies and orphans"),
        stat(
            "Hosts short of CPU",
            "short",
            "Hosts whose threads wait longer for a CPU than they run on one.",
        )
        .query(&or_zero("count(instance:procprobe_run_queue_wait:ratio_rate5m{HOST} > 1)"), "hosts")
        .warn("ProcprobeRunQueueWaitHigh", 1.0)
        .link("states", "Processes and states"),
    ]
}

fn worst() -> Panel {
    // Every column of the same hosts.
    let of_worst = |series: &str| {
        format!(
            "{series}{{HOST}} and on (cluster, job, instance) topk(30, instance:procprobe_trouble:score{{HOST}})"
        )
    };
    table(
        "Worst hosts",
        "The 30 hosts with the most that is wrong. The whole part of the score counts what is beyond its alert's \
         threshold, of the columns to the right; the rest orders equals by how long threads wait for a CPU.",
    )
    .column("Score", "short", "topk(30, instance:procprobe_trouble:score{HOST})")
    .mark(1.0)
    .column("Deadlocked threads", "short", &of_worst("instance:procprobe_deadlocked_threads:sum"))
    .alarm("ProcprobeDeadlock", 1.0)
    .column("Stuck threads", "short", &of_worst("instance:procprobe_stuck_uninterruptible:sum"))
    .warn("ProcprobeThreadsStuck", 0.9)
    .column("Zombies", "short", &of_worst("instance:procprobe_zombies:sum"))
    .warn("ProcprobeZombiesFillPids", 20.0)
    .column("Pids in use", "percentunit", &of_worst("instance:procprobe_pids:ratio"))
    .alarm("ProcprobePidsRunOut", 0.85)
    .column("Waiting / running", "none", &of_worst("instance:procprobe_run_queue_wait:ratio_rate5m"))
    .warn("ProcprobeRunQueueWaitHigh", 1.0)
    .column("Wait for a CPU, p99", "s", &of_worst("instance:procprobe_run_queue_wait_seconds:p99_5m"))
    .mark(0.1)
    .column("Waiting for locks", "short", &of_worst("instance:procprobe_lock_wait_seconds:rate5m"))
    .column("Forks", "cps", &of_worst("instance:procprobe_forks:rate5m"))
    .warn("ProcprobeForkStorm", 300.0)
    .column("Events lost", "cps", &of_worst("instance:procprobe_events_lost:rate5m"))
    .warn("ProcprobeLosesEvents", 0.001)
    .wide(24)
    .tall(12)
}

fn trends() -> Vec<Panel> {
    vec![
        series(
            "Which hosts wait for a CPU?",
            "none",
            "Seconds that threads waited for a CPU, for every second that threads ran. From 1 on half of the time is lost.",
        )
        .query(&top_hosts("instance:procprobe_run_queue_wait:ratio_rate5m{HOST}"), "{{instance}}")
        .warn("ProcprobeRunQueueWaitHigh", 1.0),
        series(
            "Which hosts have threads in uninterruptible sleep?",
            "short",
            "Threads in D, on average over five minutes. A host that stays up here has slow or dead storage.",
        )
        .query(
            &top_hosts(r#"instance_state:procprobe_state_seconds:rate5m{state="uninterruptible",HOST}"#),
            "{{instance}}",
        ),
        series("Which hosts have zombies?", "short", "Unreaped processes. A line that only rises is a parent that never reaps.")
            .query(&top_hosts("instance:procprobe_zombies:sum{HOST}"), "{{instance}}"),
        series(
            "Which hosts wait for locks?",
            "short",
            "Threads that wait for a lock, on average over five minutes.",
        )
        .query(&top_hosts("instance:procprobe_lock_wait_seconds:rate5m{HOST}"), "{{instance}}"),
        series("Which hosts run out of pids?", "percentunit", "Share of the pids in use; every thread takes one.")
            .query(&top_hosts("instance:procprobe_pids:ratio{HOST}"), "{{instance}}")
            .alarm("ProcprobePidsRunOut", 0.85),
        series("Which hosts fork most?", "cps", "Processes born per second.")
            .query(&top_hosts("instance:procprobe_forks:rate5m{HOST}"), "{{instance}}")
            .warn("ProcprobeForkStorm", 300.0),
    ]
}
