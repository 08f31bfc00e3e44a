//! What a unit may take and what it was refused, held against its cgroup's own files, through a restart.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use probe_user::kernel::hierarchy::Hierarchy;

use crate::common::agent::Agent;
use crate::common::exposition::Exposition;
use crate::common::workload::Workload;
use crate::common::{Live, eventually, skipped};

/// A unit's cgroup, in the hierarchy of each controller; removed when its processes have ended.
struct UnitCgroup {
    name: String,
    cpu: (PathBuf, bool),
    pids: PathBuf,
    memory: (PathBuf, bool),
}

impl UnitCgroup {
    /// `None` where one of the controllers is not to be had.
    fn new(name: &str) -> Option<Self> {
        let name = format!("{name}-{}.service", std::process::id());
        let of = |controller: &str| {
            let hierarchy = Hierarchy::of_controller(Path::new("/proc"), controller)?;
            let directory = hierarchy.root.join(&name);
            if !hierarchy.is_v1 {
                let control = hierarchy.root.join("cgroup.subtree_control");
                fs::write(control, format!("+{controller}")).ok()?;
            }
            if !directory.exists() {
                fs::create_dir(&directory).ok()?;
            }
            Some((directory, hierarchy.is_v1))
        };
        let (cpu, pids, memory) = (of("cpu"), of("pids"), of("memory"));
        Some(Self {
            name: name.clone(),
            cpu: cpu?,
            pids: pids?.0,
            memory: memory?,
        })
    }

    /// A fifth of a CPU, and so many pids.
    fn limit(&self, pids: u32) {
        let (directory, is_v1) = &self.cpu;
        if *is_v1 {
            write(&directory.join("cpu.cfs_period_us"), "50000");
            write(&directory.join("cpu.cfs_quota_us"), "10000");
        } else {
            write(&directory.join("cpu.max"), "10000 50000");
        }
        write(&self.pids.join("pids.max"), &pids.to_string());
    }

    fn limit_memory(&self, bytes: u64) {
        let (directory, is_v1) = &self.memory;
        let file = if *is_v1 {
            "memory.limit_in_bytes"
        } else {
            "memory.max"
        };
        // Swap would only make it last.
        let _ = fs::write(directory.join("memory.swap.max"), "0");
        write(&directory.join(file), &bytes.to_string());
    }

    fn take_in(&self, pid: u32) {
        for directory in self.directories() {
            write(&directory.join("cgroup.procs"), &pid.to_string());
        }
    }

    fn directories(&self) -> [&PathBuf; 3] {
        [&self.cpu.0, &self.pids, &self.memory.0]
    }

    /// As the kernel counts it.
    fn throttled_seconds(&self) -> f64 {
        let (directory, is_v1) = &self.cpu;
        let (name, unit) = if *is_v1 {
            ("throttled_time", 1e9)
        } else {
            ("throttled_usec", 1e6)
        };
        count(&directory.join("cpu.stat"), name) / unit
    }

    fn oom_kills(&self) -> f64 {
        let (directory, is_v1) = &self.memory;
        let file = if *is_v1 {
            "memory.oom_control"
        } else {
            "memory.events"
        };
        count(&directory.join(file), "oom_kill")
    }

    fn metric(&self, metrics: &Exposition, name: &str) -> Option<f64> {
        let labels = [("unit", self.name.as_str())];
        metrics.select(name, &labels).map(|sample| sample.value).next()
    }
}

impl Drop for UnitCgroup {
    fn drop(&mut self) {
        let deadline = Instant::now() + Duration::from_secs(5);
        for directory in self.directories() {
            while directory.exists() && fs::remove_dir(directory).is_err() && Instant::now() < deadline {
                std::thread::sleep(Duration::from_millis(20));
            }
        }
    }
}

fn write(path: &Path, value: &str) {
    fs::write(path, value).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
}

fn count(path: &Path, name: &str) -> f64 {
    let text = fs::read_to_string(path).expect("a file of the cgroup");
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.expect("its count").trim().parse().expect("a number")
}

fn is_near(value: Option<f64>, expected: f64) -> bool {
    value.is_some_and(|value| (value - expected).abs() < 1e-6)
}

const THROTTLED: &str = "procprobe_unit_cpu_throttled_seconds_total";
const OOM_KILLS: &str = "procprobe_unit_oom_kills_total";

#[test]
fn limits_and_throttled_time_are_those_of_the_cgroup() {
    let Some(live) = Live::begin("unit limits") else {
        return;
    };
    let Some(cgroup) = UnitCgroup::new("pp-quota") else {
        return skipped(
            "unit limits",
            "cgroups with cpu, pids and memory cannot be made here",
        );
    };
    let agent = Agent::start(&live, &[]);
    let mut before = 0.0;
    let mut cgroup = Some(cgroup);
    for round in 0..2 {
        // Made anew, as with a restart of the service: its own count begins at 0, ours goes on.
        let place = cgroup
            .take()
            .or_else(|| UnitCgroup::new("pp-quota"))
            .expect("as before");
        place.limit(10);
        let scene = Workload::start(&["frozen"]);
        place.take_in(scene.pid);
        eventually("throttled time that grows", || {
            let metrics = agent.metrics();
            let now = place.metric(&metrics, THROTTLED);
            let of_kernel = before + place.throttled_seconds();
            assert!(
                now.is_none_or(|now| now <= of_kernel + 1e-6),
                "{now:?} of {of_kernel}"
            );
            now.is_some_and(|now| now > before + 0.2)
        });
        let metrics = agent.metrics();
        let of = |name| place.metric(&metrics, name);
        assert!(
            is_near(of("procprobe_unit_cpu_limit_cores"), 0.2),
            "round {round}"
        );
        assert!(is_near(of("procprobe_unit_pids_limit"), 10.0));
        assert!(is_near(of("procprobe_unit_pids_used"), 2.0), "two threads");
        drop(scene);
        let last = place.throttled_seconds();
        drop(place);
        let metrics = agent.metrics();
        let labels = [("unit", format!("pp-quota-{}.service", std::process::id()))];
        let labels = [("unit", labels[0].1.as_str())];
        assert_eq!(
            metrics.select("procprobe_unit_pids_used", &labels).count(),
            0,
            "it is gone"
        );
        let stays = metrics.sum(THROTTLED, &labels);
        assert!(
            stays > before + 0.2 && stays <= before + last + 1e-6,
            "round {round}: {stays}"
        );
        before = stays;
    }
    agent.stop();
}

#[test]
fn kills_for_want_of_memory_are_counted_once_through_a_restart() {
    let Some(live) = Live::begin("unit OOM kills") else {
        return;
    };
    let Some(cgroup) = UnitCgroup::new("pp-hungry") else {
        return skipped(
            "unit OOM kills",
            "cgroups with cpu, pids and memory cannot be made here",
        );
    };
    let agent = Agent::start(&live, &[]);
    let mut cgroup = Some(cgroup);
    for kills in [1.0, 2.0] {
        let place = cgroup
            .take()
            .or_else(|| UnitCgroup::new("pp-hungry"))
            .expect("as before");
        place.limit_memory(16 << 20);
        let mut scene = Workload::start(&["deaths"]);
        place.take_in(scene.pid);
        eventually("a unit that is read", || {
            place.metric(&agent.metrics(), OOM_KILLS).is_some()
        });
        let done = scene.tell(&format!("oom {}", place.memory.0.display()), "done");
        if done["status"] != 9 {
            return skipped("unit OOM kills", "the memory cgroup does not limit");
        }
        eventually("the kill", || {
            is_near(place.metric(&agent.metrics(), OOM_KILLS), kills)
        });
        assert!(is_near(Some(place.oom_kills()), 1.0), "this cgroup's own");
        // By the file and by the event, but once.
        std::thread::sleep(Duration::from_millis(1_200));
        let metrics = [agent.metrics(), agent.metrics()];
        assert!(
            metrics
                .iter()
                .all(|metrics| is_near(place.metric(metrics, OOM_KILLS), kills))
        );
        drop(scene);
        drop(place);
    }
    agent.stop();
}
