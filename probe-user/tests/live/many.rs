//! Very many threads: all of them seen, soon, in little memory.

use std::collections::BTreeSet;
use std::fs;

use crate::common::agent::Agent;
use crate::common::json::{id, list, process};
use crate::common::workload::Workload;
use crate::common::{Live, is_full, note, procfs};

/// Kernel memory in slabs, kB.
fn slab_kb() -> u64 {
    let meminfo = fs::read_to_string("/proc/meminfo").expect("reading /proc/meminfo");
    let line = meminfo.lines().find_map(|line| line.strip_prefix("Slab:"));
    let number = line.and_then(|line| line.trim().strip_suffix(" kB")?.parse().ok());
    number.expect("the size of all slabs")
}

#[test]
fn the_agent_sees_every_one_of_very_many_threads() {
    let Some(live) = Live::begin("many threads") else {
        return;
    };
    // A process has room for some 16,000 (`vm.max_map_count`).
    let scenes = if is_full() {
        vec![10_000, 10_000, 10_000]
    } else {
        vec![2_000]
    };
    let count: usize = scenes.iter().sum();
    let scenes: Vec<Workload> = scenes
        .iter()
        .map(|count| Workload::start(&["threads", &count.to_string()]))
        .collect();
    let pids: BTreeSet<u32> = scenes.iter().map(|scene| scene.pid).collect();
    let slab = slab_kb();
    let agent = Agent::start(&live, &["-v"]);
    let grown = slab_kb().saturating_sub(slab);
    let tree = agent.tree();
    let tids: BTreeSet<u32> = pids
        .iter()
        .flat_map(|&pid| list(process(&tree, pid), "threads"))
        .map(|thread| id(thread, "tid"))
        .collect();
    let tasks = procfs::tasks();
    let truth: BTreeSet<u32> = tasks
        .iter()
        .filter(|(_, task)| pids.contains(&task.pid))
        .map(|(tid, _)| *tid)
        .collect();
    assert_eq!((tids.len(), truth.len()), (count, count));
    assert_eq!(tids, truth);
    for _ in 0..5 {
        agent.metrics();
    }
    let metrics = agent.metrics();
    let threads = metrics.sum(
        "procprobe_group_threads",
        &[("comm", "pp-threads"), ("state", "sleeping")],
    );
    assert!(
        (threads - count as f64).abs() < 0.5,
        "{threads} of {count} asleep"
    );
    let snapshots = metrics.sum("procprobe_snapshot_duration_seconds_count", &[]);
    let seconds = metrics.sum("procprobe_snapshot_duration_seconds_sum", &[]) / snapshots;
    let resident = procfs::status_kb(agent.pid(), "VmRSS").expect("the agent runs");
    note(&format!(
        "{count} threads: {:.1} ms a snapshot ({snapshots} of them), {} bytes of slab a thread, agent resident {resident} kB",
        seconds * 1e3,
        grown * 1024 / count as u64,
    ));
    assert!(
        agent.log().contains("snapshot"),
        "-v tells what snapshots take: {}",
        agent.log()
    );
    // What a snapshot of all of them takes, twice, and what the agent needs anyway.
    assert!(resident <= 60 * 1024 + 2 * count as u64, "{resident} kB");
    agent.stop();
}
