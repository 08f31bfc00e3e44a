//! What the agent itself costs, and whether it sees everything.

use super::{
    board::{Board, Scope},
    panel::{Panel, by_bucket, heatmap, or_zero, series, stat, table},
};

pub fn board() -> Board {
    Board::new(
        "procprobe",
        "procprobe itself",
        Scope::Host,
        "Whether the agent sees everything, and what that costs the host.",
    )
    .row("Does it see everything?", sight())
    .more(losses())
    .row("What does it cost the host?", cost())
    .folded("What does a scrape cost?", scrape())
}

fn sight() -> Vec<Panel> {
    vec![
        stat("Agents up", "short", "Agents chosen above that answered the last scrape.")
            .query("sum(up{HOST})", "agents"),
        stat(
            "Groups folded",
            "short",
            "Groups beyond --max-groups, added up in comm=\"(other)\". Raise --max-groups if you need them apart.",
        )
        .query("sum(procprobe_groups_folded{HOST})", "groups")
        .warn("ProcprobeGroupsFolded", 20.0),
        stat(
            "Hidden processes",
            "short",
            "Processes that the kernel does not show to its iterator; they have no times.",
        )
        .query("sum(procprobe_hidden_processes{HOST})", "processes")
        .mark(1.0),
        stat(
            "Time without a name",
            "percentunit",
            "Share of the time running, waiting for a CPU and in uninterruptible sleep that is in the sum of the \
             folded groups: how much of the host alerts and panels cannot name. Needs the recording rules.",
        )
        .query(&or_zero("max(instance:procprobe_folded_time:ratio_rate5m{HOST})"), "of all")
        .warn("ProcprobeGroupsFolded", 0.2),
        table("Which build runs?", "One line per build; more than one means a rollout under way.")
            .column(
                "Agents",
                "short",
                "count by (version, revision) (procprobe_build_info{HOST})",
            )
            .wide(8)
            .tall(4),
    ]
}

fn losses() -> Vec<Panel> {
    vec![
        series(
            "What is lost?",
            "cps",
            "Records lost per second, by reason; METRICS.md says what each reason means for the figures. `ring_…`: \
             too many births and deaths at once.",
        )
        .query(
            "sum by (reason) (rate(procprobe_events_lost_total{HOST}[$__rate_interval]))",
            "{{reason}}",
        )
        .warn("ProcprobeLosesEvents", 0.001),
        series(
            "What is made up for?",
            "cps",
            "Switches that the kernel did not trace, taken from the scheduler's own note. Their time is right; \
             their length in the histograms is not exact.",
        )
        .query("sum(rate(procprobe_ledger_resyncs_total{HOST}[$__rate_interval]))", "resyncs"),
    ]
}

fn cost() -> Vec<Panel> {
    vec![
        series("CPUs taken in the kernel", "percentunit", "Share of one CPU that the agent's eBPF programs take, in whatever process runs.")
            .query(
                "sum by (program) (rate(procprobe_bpf_program_run_seconds_total{HOST}[5m]))",
                "{{program}}",
            )
            .stacked(),
        series("CPU taken by the agent", "percentunit", "Share of one CPU that the agent's own process takes.")
            .query("sum by (instance) (rate(process_cpu_seconds_total{HOST}[$__rate_interval]) and on (instance) procprobe_build_info)", "{{instance}}")
            .mark(0.05),
        series(
            "What does one run cost?",
            "s",
            "Time of one run of each program. A context switch costs one sched_switch and one sched_waking.",
        )
        .query(
            "sum by (program) (rate(procprobe_bpf_program_run_seconds_total{HOST}[5m])) / sum by (program) (rate(procprobe_bpf_program_runs_total{HOST}[5m]))",
            "{{program}}",
        ),
        series("Memory of the agent", "bytes", "Resident memory of the agent's process; the kernel's share, about 1 KiB a thread, is not in it.")
            .query("sum by (instance) (process_resident_memory_bytes{HOST} and on (instance) procprobe_build_info)", "{{instance}}")
            .mark(100_000_000.0),
    ]
}

fn scrape() -> Vec<Panel> {
    vec![
        heatmap(
            "Time to read every thread once",
            "It is done for every scrape; about 1 ms for each 1,000 threads.",
        )
        .query(
            &by_bucket("procprobe_snapshot_duration_seconds", "HOST"),
            "{{le}}",
        ),
        series(
            "How long does a scrape take?",
            "s",
            "As Prometheus sees it, network included.",
        )
        .query(
            "max by (instance) (scrape_duration_seconds{HOST} and on (instance) procprobe_build_info)",
            "{{instance}}",
        )
        .mark(1.0),
        series(
            "How many series?",
            "short",
            "Samples of one scrape; bounded by --max-groups, see METRICS.md.",
        )
        .query(
            "max by (instance) (scrape_samples_scraped{HOST} and on (instance) procprobe_build_info)",
            "{{instance}}",
        ),
        series(
            "Open files of the agent",
            "short",
            "A line that only rises is a leak.",
        )
        .query(
            "sum by (instance) (process_open_fds{HOST} and on (instance) procprobe_build_info)",
            "{{instance}}",
        ),
    ]
}
