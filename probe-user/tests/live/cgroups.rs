//! Cgroups that go away, and one whose memory is used up.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::common::agent::Agent;
use crate::common::json::{list, number, process, text};
use crate::common::workload::Workload;
use crate::common::{Live, eventually, note, procfs, skipped};
use crate::faults::lost;

/// A cgroup of a controller that only exists for the test.
pub struct Cgroup(pub PathBuf);

impl Cgroup {
    /// Below the first of the mounts that is there, which the test's own process may well be in.
    pub fn new(mounts: &[&str], name: &str) -> Option<Self> {
        let mount = mounts
            .iter()
            .map(PathBuf::from)
            .find(|mount| mount.join("cgroup.procs").exists())?;
        let path = mount.join(format!("{name}-{}", std::process::id()));
        fs::create_dir(&path).ok()?;
        Some(Self(path))
    }

    pub fn write(&self, file: &str, value: &str) -> bool {
        fs::write(self.0.join(file), value).is_ok()
    }

    fn read(&self, file: &str) -> u64 {
        let text = fs::read_to_string(self.0.join(file)).expect("reading a cgroup");
        text.trim().parse().expect("a number")
    }

    fn remove(&self) -> bool {
        fs::remove_dir(&self.0).is_ok()
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        // Processes that were just killed keep it for a moment; gone already is just as well.
        let deadline = Instant::now() + Duration::from_secs(5);
        while self.0.exists() && !self.remove() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

/// The hierarchies that name units, the one that counts first: where the pids controller is of version 1, that is it.
pub const NAMING: [&str; 3] = ["/sys/fs/cgroup/pids", "/sys/fs/cgroup/unified", "/sys/fs/cgroup"];

#[test]
fn a_cgroup_that_is_removed_under_a_process_keeps_its_name() {
    let Some(live) = Live::begin("removed cgroup") else {
        return;
    };
    let Some(cgroup) = Cgroup::new(&NAMING, "pp-removed") else {
        return skipped("removed cgroup", "no cgroup hierarchy that can be written to");
    };
    let unit = cgroup.0.file_name().expect("a name").to_str().expect("ASCII");
    let scene = Workload::start(&["sleeper"]);
    let agent = Agent::start(&live, &["--max-groups", "100000"]);
    assert!(
        cgroup.write("cgroup.procs", &scene.pid.to_string()),
        "moving a process"
    );
    let in_it = |tree: &Value| process(tree, scene.pid)["unit"] == unit;
    eventually("the new unit", || in_it(&agent.tree()));
    let pid = i32::try_from(scene.pid).expect("a pid fits");
    // SAFETY: takes plain numbers; the process is our child, and not reaped before it is dropped.
    unsafe { libc::kill(pid, libc::SIGKILL) };
    eventually("a zombie", || procfs::state(scene.pid) == Some('Z'));
    assert!(cgroup.remove(), "a cgroup in which only the dead are");
    let tree = agent.tree();
    assert_eq!(text(process(&tree, scene.pid), "state"), "zombie");
    assert!(in_it(&tree), "{}", process(&tree, scene.pid));
    let metrics = agent.metrics();
    let exits = metrics.sum("procprobe_exits_total", &[("unit", unit), ("reason", "signal")]);
    assert!(
        (exits - 1.0).abs() < 0.5,
        "{exits} exits in the cgroup that is gone"
    );
    drop(scene);
    let threads = agent.metrics().sum("procprobe_group_threads", &[("unit", unit)]);
    assert!(threads < 0.5, "{threads} threads in it");
    agent.stop();
}

/// Ledgers that have to be made where nothing can be waited for are charged to the agent. With its memory used up they are
/// not made; that is counted, and the agent goes on.
#[test]
fn no_memory_for_ledgers_is_counted() {
    let Some(live) = Live::begin("no memory") else {
        return;
    };
    // Version 2 has no way to keep the agent from being killed for what its ledgers take.
    let Some(cgroup) = Cgroup::new(&["/sys/fs/cgroup/memory"], "pp-memory") else {
        return skipped("no memory", "no memory cgroup (v1) that can be written to");
    };
    let mut command = Command::new("sh");
    command
        .args(["-c", "echo $$ > $0/cgroup.procs && exec \"$@\""])
        .arg(&cgroup.0)
        .arg(&live.binary);
    command.args([
        "agent",
        "--expose-details",
        "--socket",
        "none",
        "--listen",
        "127.0.0.1:0",
        "--max-groups",
        "100000",
    ]);
    let agent = Agent::begin(command);
    // Not always 0: a switch that interrupts the look which opens the ledgers finds their map busy.
    let before = lost(&agent.metrics(), "storage");
    // Who cannot get memory waits until there is some, instead of being killed.
    assert!(cgroup.write("memory.oom_control", "1"), "memory.oom_control");
    let used: u64 = cgroup.read("memory.usage_in_bytes");
    assert!(
        cgroup.write("memory.limit_in_bytes", &(used + (256 << 10)).to_string()),
        "memory.limit_in_bytes"
    );
    let scene = Workload::start(&["threads", "3000"]);
    let spent = cgroup.read("memory.failcnt");
    assert!(
        cgroup.write("memory.limit_in_bytes", "-1"),
        "memory.limit_in_bytes"
    );
    let last = agent.metrics();
    let lost = lost(&last, "storage") - before;
    note(&format!(
        "{used} bytes used, {spent} times refused, {lost} transitions not booked"
    ));
    assert!(lost > 0, "3,000 ledgers fit into 256 KiB?");
    let threads = last.sum("procprobe_group_threads", &[("comm", "pp-threads")]);
    assert!((threads - 3000.0).abs() < 0.5, "{threads} threads are seen");
    let tree = agent.tree();
    // What was lost is history: every thread is in the answer at hand.
    assert!(
        number(&tree["lost_total"], "storage") > 0,
        "{}",
        tree["lost_total"]
    );
    assert_eq!(list(process(&tree, scene.pid), "threads").len(), 3000);
    agent.stop();
}
