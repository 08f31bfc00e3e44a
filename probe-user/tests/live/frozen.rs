//! Processes whose cgroup is frozen: they neither sleep nor wait for a page.

use std::fs;

use serde_json::Value;

use crate::cgroups::Cgroup;
use crate::common::agent::Agent;
use crate::common::json::{list, process, text};
use crate::common::workload::Workload;
use crate::common::{Live, eventually, skipped};

/// How a hierarchy is told to freeze a cgroup, and says that it has.
struct Freezer {
    mounts: &'static [&'static str],
    file: &'static str,
    freeze: &'static str,
    thaw: &'static str,
    state: &'static str,
    frozen: &'static str,
}

const V2: Freezer = Freezer {
    mounts: &["/sys/fs/cgroup/unified", "/sys/fs/cgroup"],
    file: "cgroup.freeze",
    freeze: "1",
    thaw: "0",
    state: "cgroup.events",
    frozen: "frozen 1",
};
const V1: Freezer = Freezer {
    mounts: &["/sys/fs/cgroup/freezer"],
    file: "freezer.state",
    freeze: "FROZEN",
    thaw: "THAWED",
    state: "freezer.state",
    frozen: "FROZEN",
};

/// A frozen cgroup, until dropped: one of version 1 would keep even the killed.
struct Frozen<'a>(&'a Cgroup, &'a Freezer);

impl<'a> Frozen<'a> {
    fn new(cgroup: &'a Cgroup, freezer: &'a Freezer) -> Self {
        assert!(cgroup.write(freezer.file, freezer.freeze), "freezing");
        eventually("the cgroup to be frozen", || {
            fs::read_to_string(cgroup.0.join(freezer.state)).is_ok_and(|text| text.contains(freezer.frozen))
        });
        Self(cgroup, freezer)
    }
}

impl Drop for Frozen<'_> {
    fn drop(&mut self) {
        self.0.write(self.1.file, self.1.thaw);
    }
}

/// Whether the process and every thread of it is said to be frozen, and none to be asleep.
fn is_frozen(process: &Value) -> bool {
    let frozen = |of: &Value| of["frozen"] == true && text(of, "state") == "stopped";
    let threads = list(process, "threads");
    assert_eq!(threads.len(), 2, "{process}");
    frozen(process) && threads.iter().all(frozen)
}

fn frozen_and_thawed(live: &Live, freezer: &Freezer) -> bool {
    let Some(cgroup) = Cgroup::new(freezer.mounts, "pp-frozen") else {
        return false;
    };
    if !cgroup.0.join(freezer.file).exists() {
        return false;
    }
    let scene = Workload::start(&["frozen"]);
    let agent = Agent::start(live, &["--max-groups", "100000"]);
    assert!(
        cgroup.write("cgroup.procs", &scene.pid.to_string()),
        "moving a process"
    );
    assert_eq!(process(&agent.tree(), scene.pid)["frozen"], false);
    let frozen = Frozen::new(&cgroup, freezer);
    for tree in [agent.tree(), live.json(&["tree", &scene.pid.to_string()])] {
        assert!(
            is_frozen(process(&tree, scene.pid)),
            "{}",
            process(&tree, scene.pid)
        );
    }
    let shown = live.text(&["tree", "--threads", &scene.pid.to_string()]);
    for name in ["pp-frozen", "probe-workload frozen", "{pp-spinner}"] {
        let mut lines = shown.lines().filter(|line| line.contains(name));
        assert!(
            lines.all(|line| line.contains(" F ") && line.contains("its freezer (frozen)")),
            "{shown}"
        );
    }
    let labels = [("comm", "pp-frozen"), ("state", "stopped")];
    eventually("the frozen thread's time", || {
        agent.metrics().sum("procprobe_state_seconds_total", &labels) > 0.5
    });
    drop(frozen);
    eventually("the thawed process", || {
        let tree = agent.tree();
        let process = process(&tree, scene.pid);
        process["frozen"] == false && text(process, "state") == "sleeping"
    });
    let labels = [("comm", "pp-frozen"), ("on", "page_fault")];
    let faults = agent.metrics().sum("procprobe_blocked_seconds_total", &labels);
    assert!(faults < 0.5, "{faults} s of a freezer went for waits for pages");
    agent.stop();
    true
}

#[test]
fn frozen_processes_are_no_sleepers() {
    let Some(live) = Live::begin("frozen cgroups") else {
        return;
    };
    let tried = [&V2, &V1].map(|freezer| frozen_and_thawed(&live, freezer));
    if tried == [false, false] {
        skipped("frozen cgroups", "no freezer that can be written to");
    }
}
