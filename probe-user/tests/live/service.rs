//! As a service: as a user of its own with the unit's capabilities and no more, and in touch with the service manager.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use crate::common::agent::Agent;
use crate::common::json::{id, list, process, text};
use crate::common::probe;
use crate::common::procfs::Status;
use crate::common::reachable::{NOBODY, Reachable};
use crate::common::unit::{self, capabilities};
use crate::common::workload::Workload;
use crate::common::{Live, eventually, tools};
use crate::privilege::LOOK;

/// The agent's command line as an unprivileged user with just these capabilities.
fn confined(setpriv: &PathBuf, binary: &Reachable, capabilities: &[String]) -> Command {
    let mut command = unit::confined(setpriv, NOBODY, capabilities);
    command.arg(binary.path());
    command
}

/// A field of `status` of every thread of a process, which are all the same.
fn field(pid: u32, name: &str) -> String {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).expect("its threads");
    let fields: BTreeSet<String> = threads
        .flatten()
        .filter_map(|thread| Status::at(&thread.path()))
        .map(|status| status.field(name).to_owned())
        .collect();
    assert_eq!(fields.len(), 1, "{name} {fields:?}");
    fields.into_iter().next().expect("checked just now")
}

/// What the agent has left once attached, on every thread. Nothing can bring the others back.
fn keeps_only_what_it_needs(pid: u32) {
    let [none, looks] = [0, LOOK].map(|mask| format!("{mask:016x}"));
    for (name, value) in [
        ("CapEff", looks.as_str()),
        ("CapPrm", &looks),
        ("CapInh", &none),
        ("CapAmb", &none),
        ("NoNewPrivs", "1"),
        ("Seccomp", "2"),
    ] {
        assert_eq!(field(pid, name), value, "{name}");
    }
}

#[test]
fn as_a_user_with_the_units_capabilities_everything_works() {
    let Some(live) = Live::begin("the unit's capabilities") else {
        return;
    };
    let Some(setpriv) = tools::find("the unit's capabilities", "setpriv") else {
        return;
    };
    let scene = Workload::start(&["zombie"]);
    let family = Workload::start(&["threads", "3"]);
    let exe = fs::read_link(format!("/proc/{}/exe", family.pid)).expect("its executable");
    let binary = Reachable::new(&live);
    let mut command = confined(&setpriv, &binary, &capabilities());
    command.args([
        "agent",
        "--expose-details",
        "--socket",
        "none",
        "--listen",
        "127.0.0.1:0",
    ]);
    let agent = Agent::begin(command);
    eventually("the zombie", || {
        let zombies = agent.zombies();
        list(&zombies, "parents")
            .iter()
            .any(|parent| parent["pid"] == scene.pid && text(parent, "exe") == exe.to_str().expect("UTF-8"))
    });
    let tree = agent.tree();
    assert_eq!(tree["source"], "bpf");
    assert_eq!(tree["lost"]["unread"], 0, "{}", tree["lost"]);
    assert_eq!(
        text(process(&tree, family.pid), "exe"),
        exe.to_str().expect("UTF-8")
    );
    let metrics = agent.metrics();
    assert!(metrics.sum("procprobe_context_switches_total", &[]) > 0.0);
    assert!(metrics.sum("procprobe_processes", &[("state", "zombie")]) >= 1.0);
    keeps_only_what_it_needs(agent.pid());
    assert!(!agent.log().contains("missing"), "{}", agent.log());
    agent.stop();
}

/// What is known of the scene's one contended lock, but for how long it took; and what its threads wait in.
fn known(agent: &Agent, pid: u32) -> (Vec<Value>, BTreeSet<String>) {
    let locks = agent.locks();
    let of_scene = list(&locks, "locks").iter().filter(|lock| id(lock, "pid") == pid);
    let facts = of_scene.map(|lock| {
        let fact = |key: &str| lock[key].clone();
        serde_json::json!([
            fact("address"),
            fact("kind"),
            fact("symbol"),
            lock["code"]["frames"].clone(),
            lock["holder"]["tid"],
            fact("waiters_now")
        ])
    });
    let metrics = agent.metrics();
    let blocked = metrics.select("procprobe_blocked_seconds_total", &[("comm", "pp-holder")]);
    let grown = blocked.filter(|sample| sample.value > 0.0);
    (
        facts.collect(),
        grown.map(|sample| sample.labels["on"].clone()).collect(),
    )
}

#[test]
fn as_a_user_it_knows_of_locks_and_descriptors_what_root_knows() {
    let Some(live) = Live::begin("locks with the unit's capabilities") else {
        return;
    };
    let Some(setpriv) = tools::find("locks with the unit's capabilities", "setpriv") else {
        return;
    };
    let scene = Workload::start(&["holder-asleep"]);
    let settled = |agent: &Agent| {
        eventually("the lock and its waiters", || {
            let (locks, blocked) = known(agent, scene.pid);
            let known = |lock: &Value| lock[5] == 3 && lock[3][0].is_string();
            locks.iter().any(known) && blocked.contains("pipe")
        });
        known(agent, scene.pid)
    };
    let root = Agent::start(&live, &["--max-groups", "100000"]);
    let expected = settled(&root);
    root.stop();
    let binary = Reachable::new(&live);
    let mut command = confined(&setpriv, &binary, &capabilities());
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
    assert_eq!(settled(&agent), expected);
    agent.stop();
}

#[test]
fn with_one_capability_less_it_says_which() {
    let Some(live) = Live::begin("a capability less") else {
        return;
    };
    let Some(setpriv) = tools::find("a capability less", "setpriv") else {
        return;
    };
    let binary = Reachable::new(&live);
    let all = capabilities();
    for missing in &all {
        let rest: Vec<String> = all.iter().filter(|name| *name != missing).cloned().collect();
        let name = format!("CAP_{} is missing", missing.to_uppercase());
        let doctor = probe::finish(confined(&setpriv, &binary, &rest).arg("doctor"));
        assert!(doctor.stdout.contains(&name), "{name}: {doctor:?}");
        let mut command = confined(&setpriv, &binary, &rest);
        command.args([
            "agent",
            "--expose-details",
            "--socket",
            "none",
            "--listen",
            "127.0.0.1:0",
        ]);
        if ["sys_ptrace", "dac_read_search"].contains(&missing.as_str()) {
            // What it can do without: less is known, and it says so.
            let agent = Agent::begin(command);
            assert!(agent.log().contains(&name), "{}", agent.log());
            assert!(!list(&agent.tree(), "processes").is_empty());
            agent.stop();
        } else {
            let outcome = probe::finish(&mut command);
            assert!(outcome.complaint(1).contains(&name), "{name}: {outcome:?}");
        }
    }
}

/// The service manager's end of the line.
struct Manager {
    socket: UnixDatagram,
    heard: Vec<String>,
}

impl Manager {
    /// Waits for a message that has a line.
    fn expect(&mut self, line: &str) -> String {
        let mut buffer = [0; 4096];
        loop {
            let length = self
                .socket
                .recv(&mut buffer)
                .unwrap_or_else(|error| panic!("no {line}: {error}; heard {:?}", self.heard));
            let message = String::from_utf8_lossy(&buffer[..length]).into_owned();
            self.heard.push(message.clone());
            if message.lines().any(|found| found == line) {
                return message;
            }
        }
    }
}

#[test]
fn the_service_manager_hears_of_everything() {
    let Some(live) = Live::begin("the service manager") else {
        return;
    };
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path().join("notify");
    let socket = UnixDatagram::bind(&path).expect("a socket");
    socket
        .set_read_timeout(Some(Duration::from_secs(20)))
        .expect("a timeout");
    let mut manager = Manager {
        socket,
        heard: Vec::new(),
    };
    let mut command = live.command(&[
        "agent",
        "--expose-details",
        "--socket",
        "none",
        "--listen",
        "127.0.0.1:0",
    ]);
    command.env("NOTIFY_SOCKET", &path).env("WATCHDOG_USEC", "200000");
    let agent = Agent::begin(command);
    manager.expect("READY=1");
    for _ in 0..3 {
        manager.expect("WATCHDOG=1");
    }
    agent.running.signal(libc::SIGHUP);
    let reloading = manager.expect("RELOADING=1");
    assert!(reloading.contains("MONOTONIC_USEC="), "{reloading}");
    manager.expect("READY=1");
    agent.stop();
    manager.expect("STOPPING=1");
}

#[test]
fn a_hangup_renames_units_and_says_what_needs_a_restart() {
    let Some(live) = Live::begin("renaming units") else {
        return;
    };
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path().join("procprobe.toml");
    let write = |text: &str| fs::write(&path, text).expect("writing a configuration");
    write("[[label_map]]\nunit = '.*'\nrename = \"first\"\n");
    let scene = Workload::start(&["threads", "3"]);
    let agent = Agent::start(&live, &["--config", path.to_str().expect("UTF-8")]);
    let known = process(&agent.tree(), scene.pid)["cgroup"].is_string();
    assert!(known, "the host has no unified cgroups");
    let unit = |agent: &Agent| process(&agent.tree(), scene.pid)["unit"].clone();
    assert_eq!(unit(&agent), "first");
    let switches = |unit: &str| {
        agent
            .metrics()
            .sum("procprobe_context_switches_total", &[("unit", unit)])
    };
    let before = switches("first");
    write("max_groups = 50\n[[label_map]]\nunit = '.*'\nrename = \"second\"\n");
    agent.running.signal(libc::SIGHUP);
    eventually("the new name", || unit(&agent) == "second");
    eventually("counters under the new name", || switches("second") > 0.0);
    assert!(switches("first") >= before, "a counter fell");
    eventually("a hint", || {
        agent.log().contains("a restart is needed for max_groups")
    });
    write("[[label_map]]\nunit = '.*'\ndrop = true\n");
    agent.running.signal(libc::SIGHUP);
    eventually("no unit", || unit(&agent).is_null());
    agent.stop();
}
