//! Forks as fast as the host can: everybody is counted, or counted as lost, and the picture is right afterwards.

use crate::common::agent::Agent;
use crate::common::json::{id, list};
use crate::common::workload::Workload;
use crate::common::{Live, is_full, note, procfs, repeated};

/// Parents by pid, of all processes that were there before and after with the same parent.
pub fn is_like_proc(agent: &Agent) -> usize {
    let before = procfs::tasks();
    let tree = agent.tree();
    let after = procfs::tasks();
    let parents: std::collections::BTreeMap<u32, u32> = list(&tree, "processes")
        .iter()
        .map(|process| (id(process, "pid"), id(process, "ppid")))
        .collect();
    let settled = before.iter().filter(|(tid, task)| {
        task.pid == **tid
            && after
                .get(tid)
                .is_some_and(|later| (later.start, later.ppid) == (task.start, task.ppid))
    });
    settled
        .map(|(pid, task)| assert_eq!(parents.get(pid), Some(&task.ppid), "parent of {pid}"))
        .count()
}

#[test]
fn a_storm_of_forks_is_counted_and_leaves_the_tree_right() {
    let Some(live) = Live::begin("fork storm") else {
        return;
    };
    // A minute of as many as the host can.
    let count: u64 = if is_full() { 600_000 } else { repeated(10_000) };
    let mut scene = Workload::start(&["births"]);
    let agent = Agent::start(&live, &["--max-groups", "100000"]);
    let first = agent.metrics();
    let cpu = first.sum("process_cpu_seconds_total", &[]);
    let began = std::time::Instant::now();
    scene.tell(&count.to_string(), "done");
    let took = began.elapsed().as_secs_f64();
    let last = agent.metrics();
    let lost = last.sum("procprobe_events_lost_total", &[]);
    let cpu = last.sum("process_cpu_seconds_total", &[]) - cpu;
    // Totals are counted in the kernel: whole, whatever was lost on the way here.
    for name in ["procprobe_forks_total", "procprobe_process_exits_total"] {
        let grown = last.count(name) - first.count(name);
        assert!(grown >= count, "{name} grew by {grown}, not {count}");
    }
    // Those of a group are counted from events.
    let group = |name: &str| {
        let labels = [("comm", "pp-births")];
        last.sum(name, &labels) - first.sum(name, &labels)
    };
    for name in ["procprobe_group_forks_total", "procprobe_exits_total"] {
        let counted = group(name);
        assert!(
            counted <= count as f64 + 0.5 && counted + lost + 0.5 >= count as f64,
            "{name}: {counted} and {lost} lost of {count}"
        );
    }
    let compared = is_like_proc(&agent);
    let resident = procfs::status_kb(agent.pid(), "VmRSS").expect("the agent runs");
    note(&format!(
        "{count} forks in {took:.2} s, {lost} events lost; the agent used {cpu:.2} s of CPU and {resident} kB; {compared} \
         parents compared"
    ));
    assert!(resident <= 80 * 1024, "{resident} kB");
    agent.stop();
}
