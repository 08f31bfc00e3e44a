//! Whose container or service a process is, on whichever version of cgroups this host has.

use std::fs;
use std::path::{Path, PathBuf};

use probe_user::kernel::hierarchy::Hierarchy;

use crate::common::agent::Agent;
use crate::common::json::{process, text};
use crate::common::workload::Workload;
use crate::common::{Live, eventually, skipped};

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

/// Entries of a kubelet's, as it makes them; those that were not there go again.
struct Kubelet {
    made: Vec<PathBuf>,
}

impl Kubelet {
    fn new(pod: &str, link: &str) -> std::io::Result<Self> {
        let mut kubelet = Self { made: Vec::new() };
        for directory in ["/var/log/pods", "/var/log/containers", pod] {
            if !Path::new(directory).exists() {
                fs::create_dir(directory)?;
                kubelet.made.push(directory.into());
            }
        }
        std::os::unix::fs::symlink(Path::new(pod).join("app/0.log"), link)?;
        kubelet.made.push(link.into());
        Ok(kubelet)
    }
}

impl Drop for Kubelet {
    fn drop(&mut self) {
        for path in self.made.iter().rev() {
            let _ = fs::remove_file(path).or_else(|_| fs::remove_dir(path));
        }
    }
}

#[test]
fn a_container_has_the_names_of_the_kubelet() {
    let Some(live) = Live::begin("names of pods") else {
        return;
    };
    let Some(hierarchy) = Hierarchy::find(Path::new("/proc")) else {
        return skipped("units", "no cgroup hierarchy is mounted");
    };
    let (uid, id) = (
        "6f3c2a1e-0b7d-4c55-9e21-3d8f5a6b7c90",
        "9876543210abcdef".repeat(4),
    );
    let path = format!("kubepods/burstable/pod{uid}/{id}");
    let Ok(place) = Place::make(&hierarchy.root, &path) else {
        return skipped("units", "cgroups cannot be made here");
    };
    let pod = format!("/var/log/pods/pp-shop_pp-web-7d9_{uid}");
    let link = format!("/var/log/containers/pp-web-7d9_pp-shop_app-{id}.log");
    let kubelet = Kubelet::new(&pod, &link).expect("the kubelet's directories");
    let scene = Workload::start(&["sleeper", "pp-placed"]);
    place.take_in(scene.pid);
    let agent = Agent::start(&live, &[]);
    let unit = format!("pod:{uid}/container:9876543210ab");
    let labels = [
        ("unit", unit.as_str()),
        ("namespace", "pp-shop"),
        ("pod", "pp-web-7d9"),
        ("container", "app"),
        ("runtime", "container"),
    ];
    eventually("its names", || {
        agent.metrics().select("procprobe_unit_info", &labels).count() == 1
    });
    let threads = agent.metrics().sum("procprobe_group_threads", &[("unit", &unit)]);
    assert!((threads - 1.0).abs() < 0.5, "{threads} threads in {unit}");
    agent.stop();
    drop((scene, kubelet, place));
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
