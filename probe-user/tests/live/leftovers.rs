//! A killed agent leaves nothing in the kernel.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::common::agent::Agent;
use crate::common::json::number;
use crate::common::{Live, eventually, is_full, tools};

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
    const KINDS: [&str; 3] = ["prog", "map", "link"];
    let Some(live) = Live::begin("leftovers") else {
        return;
    };
    let Some(bpftool) = tools::find("leftovers", "bpftool") else {
        return;
    };
    for _ in 0..if is_full() { 20 } else { 5 } {
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
