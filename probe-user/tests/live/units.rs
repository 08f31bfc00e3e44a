//! Whose container or service a process is, on whichever version of cgroups this host has.

use std::fs;
use std::path::{Path, PathBuf};

use probe_user::kernel::hierarchy::Hierarchy;

use crate::common::agent::Agent;
use crate::common::json::{process, text};
use crate::common::workload::Workload;
use crate::common::{Live, skipped};

/// A cgroup with a process in it; removed when that has ended.
struct Place {
    directories: Vec<PathBuf>,
}

impl Place {
    fn make(root: &Path, path: &str) -> std::io::Result<Self> {
        let mut place = Self {
            directories: Vec::new(),
        };
        let mut directory = root.to_owned();
        for part in path.split('/') {
            directory.push(part);
            if !directory.exists() {
                fs::create_dir(&directory)?;
                place.directories.push(directory.clone());
            }
        }
        Ok(place)
    }

    fn take_in(&self, pid: u32) {
        let innermost = self.directories.last().expect("a directory of its own");
        fs::write(innermost.join("cgroup.procs"), pid.to_string()).expect("moving the process");
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        for directory in self.directories.iter().rev() {
            let _ = fs::remove_dir(directory);
        }
    }
}

#[test]
fn the_unit_of_a_process_is_that_of_its_cgroup() {
    let Some(live) = Live::begin("units") else {
        return;
    };
    let Some(hierarchy) = Hierarchy::find(Path::new("/proc")) else {
        skipped("units", "no cgroup hierarchy is mounted");
        return;
    };
    let id = "0123456789abcdef".repeat(4);
    let forms = [
        (format!("docker/{id}"), "docker:0123456789ab"),
        ("pp-units.slice/pp-units.service".to_owned(), "pp-units.service"),
    ];
    for (path, unit) in forms {
        let Ok(place) = Place::make(&hierarchy.root, &path) else {
            skipped("units", "cgroups cannot be made here");
            return;
        };
        let scene = Workload::start(&["sleeper", "pp-placed"]);
        place.take_in(scene.pid);
        let tree = live.json(&["tree"]);
        assert_eq!(
            text(process(&tree, scene.pid), "unit"),
            unit,
            "v1: {}",
            hierarchy.is_v1
        );
        let agent = Agent::start(&live, &[]);
        let threads = agent.metrics().sum(
            "procprobe_group_threads",
            &[("unit", unit), ("comm", "pp-placed")],
        );
        assert!((threads - 1.0).abs() < 0.5, "{threads} threads in {unit}");
        agent.stop();
        drop(scene);
        drop(place);
    }
}
