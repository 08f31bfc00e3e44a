//! A killed agent leaves nothing in the kernel.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::Value;

use crate::common::agent::Agent;
use crate::common::json::number;
use crate::common::probe::Running;
use crate::common::random::Random;
use crate::common::workload::Workload;
use crate::common::{Live, eventually, is_full, note, procfs, repeated, tools};

/// What the kernel holds of a kind: `prog`, `map` or `link`.
fn show(bpftool: &Path, kind: &str) -> Vec<Value> {
    let output = Command::new(bpftool)
        .args([kind, "show", "-j"])
        .output()
        .expect("running bpftool");
    assert!(
        output.status.success(),
        "bpftool: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    let answer: Value = serde_json::from_slice(&output.stdout).expect("JSON from bpftool");
    answer.as_array().cloned().unwrap_or_default()
}

/// Programs, maps and links.
pub const KINDS: [&str; 3] = ["prog", "map", "link"];

/// The ids of everything of a kind in the kernel.
pub fn all(bpftool: &Path, kind: &str) -> BTreeSet<u64> {
    ids(&show(bpftool, kind))
}

fn ids(objects: &[Value]) -> BTreeSet<u64> {
    objects.iter().map(|object| number(object, "id")).collect()
}

/// The ids of a kind that a process has open, as the kernel tells them in /proc.
fn held_by(pid: u32, kind: &str) -> BTreeSet<u64> {
    let entries = fs::read_dir(format!("/proc/{pid}/fdinfo"))
        .expect("its open files")
        .flatten();
    let texts = entries.filter_map(|entry| fs::read_to_string(entry.path()).ok());
    let key = format!("{kind}_id:");
    texts
        .filter_map(|text| {
            text.lines()
                .find_map(|line| line.strip_prefix(&key)?.trim().parse().ok())
        })
        .collect()
}

#[test]
fn a_killed_agent_leaves_no_program_map_or_link() {
    let Some(live) = Live::begin("leftovers") else {
        return;
    };
    let Some(bpftool) = tools::find("leftovers", "bpftool") else {
        return;
    };
    for _ in 0..if is_full() { 20 } else { repeated(5) } {
        let mut agent = Agent::start(&live, &[]);
        let held = KINDS.map(|kind| held_by(agent.pid(), kind));
        assert!(
            held[0].len() >= 5 && held[1].len() >= 3,
            "it holds what it loaded: {held:?}"
        );
        for (kind, held) in KINDS.iter().zip(&held) {
            assert!(
                held.is_subset(&ids(&show(&bpftool, kind))),
                "bpftool shows each {kind} of {held:?}"
            );
        }
        agent.running.signal(libc::SIGKILL);
        agent.running.wait();
        drop(agent);
        for (kind, held) in KINDS.iter().zip(held) {
            // The kernel frees them some time after the last reference is gone.
            eventually(&format!("no {kind} left"), || {
                ids(&show(&bpftool, kind)).is_disjoint(&held)
            });
        }
    }
}

/// What a process that may be gone by now has open of every kind.
fn held(pid: u32) -> [BTreeSet<u64>; 3] {
    KINDS.map(|kind| held_by(pid, kind))
}

/// Killed at any moment: while it loads, while it attaches, while it reads a storm of events, while it is scraped.
#[test]
fn agents_killed_at_random_leave_nothing() {
    let Some(live) = Live::begin("random kills") else {
        return;
    };
    let Some(bpftool) = tools::find("random kills", "bpftool") else {
        return;
    };
    let _storms = [Workload::start(&["storm"]), Workload::start(&["pingpong"])];
    let mut left = [const { BTreeSet::new() }; 3];
    let mut random = Random::new();
    let kills = if is_full() { 100 } else { repeated(12) };
    let mut loaded = 0_u64;
    for number in 0..kills {
        let mut command = live.command(&[
            "agent",
            "--expose-details",
            "--socket",
            "none",
            "--listen",
            "127.0.0.1:0",
        ]);
        let mut running = Running(command.stderr(Stdio::null()).spawn().expect("starting the agent"));
        // Every other one once it has loaded something, however long that takes here.
        let begun = number % 2 == 0;
        if begun {
            eventually("a program", || !held_by(running.0.id(), "prog").is_empty());
        }
        let most = if begun { 500 } else { 2500 };
        std::thread::sleep(Duration::from_millis(random.below(most)));
        // Stopped first, so that it cannot load more between the look and the kill.
        running.signal(libc::SIGSTOP);
        eventually("stopped", || procfs::state(running.0.id()) == Some('T'));
        let held = held(running.0.id());
        loaded += u64::from(!held[0].is_empty());
        running.signal(libc::SIGKILL);
        running.wait();
        for (left, held) in left.iter_mut().zip(held) {
            left.extend(held);
        }
    }
    note(&format!("{kills} kills, {loaded} of them with programs loaded"));
    assert!(
        loaded >= kills / 2,
        "half of them have loaded something: {loaded}"
    );
    for (kind, left) in KINDS.iter().zip(&left) {
        eventually(&format!("no {kind} left"), || {
            all(&bpftool, kind).is_disjoint(left)
        });
    }
    let agent = Agent::start(&live, &[]);
    assert!(
        agent.metrics().count("procprobe_forks_total") < u64::MAX,
        "a new one works"
    );
    agent.stop();
}
