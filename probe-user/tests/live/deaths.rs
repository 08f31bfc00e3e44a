//! Ways to die: each shows in the stream and in the metrics as what it was, with who did it.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::common::agent::Agent;
use crate::common::json::{id, text};
use crate::common::stream::Stream;
use crate::common::workload::{Spawner, Workload};
use crate::common::{Live, note, repeated, skipped};

/// The scene of deaths, and the stream that hears of them.
struct Theatre {
    stream: Stream,
    scene: Workload,
}

impl Theatre {
    fn open(live: &Live) -> Self {
        Self {
            stream: Stream::listening(live),
            scene: Workload::start(&["deaths"]),
        }
    }

    /// Lets a child die; returns its end, which has to be as `wait` had it, and the facts.
    fn play(&mut self, how: &str) -> (Value, HashMap<String, i64>) {
        let done = self.scene.tell(how, "done");
        let status = i32::try_from(done["status"]).expect("a status");
        let pid = u32::try_from(done["pid"]).expect("a pid");
        let end = self.stream.expect(how, |event| {
            text(event, "event") == "exit" && id(event, "pid") == pid && event["last_thread"] == true
        });
        let code = libc::WIFEXITED(status).then(|| libc::WEXITSTATUS(status));
        let signal = libc::WIFSIGNALED(status).then(|| libc::WTERMSIG(status));
        assert_eq!(
            (&end["code"], &end["signal"]),
            (&serde_json::json!(code), &serde_json::json!(signal)),
            "{how}: {end}"
        );
        assert_eq!(id(&end, "ppid"), self.scene.pid, "{how}: {end}");
        (end, done)
    }

    /// The names of what happened to a process, in their order.
    fn story(&self, end: &Value) -> Vec<String> {
        let events = self.stream.of(id(end, "pid"));
        events
            .iter()
            .map(|event| text(event, "event").to_owned())
            .collect()
    }
}

fn killer(end: &Value) -> (u32, &str) {
    (id(&end["killed_by"], "pid"), text(&end["killed_by"], "comm"))
}

#[test]
fn a_death_comes_with_its_reason_and_its_killer() {
    let Some(live) = Live::begin("deaths") else { return };
    let mut theatre = Theatre::open(&live);
    for (how, reason, code) in [("success", "success", 0), ("failure", "failure", 3)] {
        let (end, _) = theatre.play(how);
        assert_eq!((text(&end, "reason"), &end["code"]), (reason, &Value::from(code)));
        assert!(end["killed_by"].is_null(), "{end}");
        // The reaping comes when the kernel has let go of it, some 20 ms later.
        assert_eq!(theatre.story(&end)[..2], ["fork", "exit"], "{how}");
    }
    let scene = theatre.scene.pid;
    let (end, _) = theatre.play("kill");
    assert_eq!(text(&end, "reason"), "signal", "{end}");
    assert_eq!(
        (&end["signal"], killer(&end)),
        (&Value::from(9), (scene, "pp-deaths"))
    );
    // Another signal, or the same once more, came while the first was blocked.
    for how in ["pending", "pending-twice"] {
        let (end, done) = theatre.play(how);
        assert_eq!(end["signal"], 15, "{end}");
        let first = u32::try_from(done["killer"]).expect("a pid");
        assert_eq!(killer(&end), (first, "pp-first"), "{how}");
    }
    let (end, done) = theatre.play("stranger");
    let stranger = u32::try_from(done["killer"]).expect("a pid");
    assert_eq!(
        killer(&end),
        (stranger, "pp-killer"),
        "also when it is dead: {end}"
    );
    let (end, _) = theatre.play("segv");
    assert_eq!(
        (text(&end, "reason"), &end["signal"]),
        ("signal", &Value::from(11))
    );
    assert!(end["killed_by"].is_null(), "a fault is nobody's deed: {end}");
    let (end, _) = theatre.play("abort");
    assert_eq!(
        (text(&end, "reason"), &end["signal"]),
        ("signal", &Value::from(6))
    );
    assert_eq!(killer(&end), (id(&end, "pid"), "pp-abort"), "its own deed: {end}");
    assert!(theatre.stream.stop());
}

#[test]
fn births_and_deaths_of_odd_kinds_are_whole() {
    let Some(live) = Live::begin("odd lives") else {
        return;
    };
    let mut theatre = Theatre::open(&live);
    for how in ["last-thread", "thread-ends-all"] {
        let (end, _) = theatre.play(how);
        // Whose code it is when the first thread is not the last depends on the kernel; the scene asked `wait`.
        let reason = if end["code"] == 0 { "success" } else { "failure" };
        assert_eq!(text(&end, "reason"), reason, "{how}: {end}");
        let pid = id(&end, "pid");
        let exits = theatre
            .stream
            .select(|event| id(event, "pid") == pid && text(event, "event") == "exit");
        let ends: Vec<_> = exits.iter().map(|event| event["last_thread"] == true).collect();
        let last = ends.iter().filter(|end| **end).count();
        assert_eq!(
            (ends.len(), last),
            (2, 1),
            "{how}: one death ends the process: {exits:?}"
        );
        if how == "last-thread" {
            assert!(!ends[0], "{exits:?}");
            assert_ne!(id(&end, "tid"), pid, "the first thread is not the last: {end}");
        }
    }
    let (end, _) = theatre.play("vfork");
    assert_eq!(theatre.story(&end)[..3], ["fork", "exec", "exit"]);
    assert_eq!(text(&end, "reason"), "success", "{end}");
    let (end, _) = theatre.play("sibling");
    assert_eq!(
        (text(&end, "comm"), &end["code"]),
        ("pp-sibling", &Value::from(4)),
        "{end}"
    );
    let births = theatre.stream.of(id(&end, "pid"));
    assert_eq!(
        id(&births[0], "ppid"),
        theatre.scene.pid,
        "born to its grandparent: {births:?}"
    );
    assert!(
        births.iter().all(|event| text(event, "event") != "orphan"),
        "and never an orphan: {births:?}"
    );
    assert!(theatre.stream.stop());
}

/// A memory cgroup with a limit, until dropped.
struct MemoryCgroup(PathBuf);

impl MemoryCgroup {
    fn new(limit: u64) -> Option<Self> {
        let name = format!("pp-live-{}", std::process::id());
        let hierarchies = [
            ("/sys/fs/cgroup/memory", "memory.limit_in_bytes"),
            ("/sys/fs/cgroup", "memory.max"),
        ];
        hierarchies.into_iter().find_map(|(root, file)| {
            let cgroup = Self(Path::new(root).join(&name));
            fs::create_dir(&cgroup.0).ok()?;
            // Swap would only make it last.
            let _ = fs::write(cgroup.0.join("memory.swap.max"), "0");
            fs::write(cgroup.0.join(file), limit.to_string()).ok()?;
            Some(cgroup)
        })
    }
}

impl Drop for MemoryCgroup {
    fn drop(&mut self) {
        // Fails where there was none to begin with.
        let _ = fs::remove_dir(&self.0);
    }
}

#[test]
fn the_out_of_memory_killer_is_named() {
    let Some(live) = Live::begin("OOM kill") else {
        return;
    };
    let Some(cgroup) = MemoryCgroup::new(16 << 20) else {
        skipped("OOM kill", "no memory cgroup can be made here");
        return;
    };
    let mut theatre = Theatre::open(&live);
    let (end, _) = theatre.play(&format!("oom {}", cgroup.0.display()));
    if end["code"] == 9 {
        skipped("OOM kill", "the memory cgroup does not limit");
        return;
    }
    assert_eq!(
        (text(&end, "reason"), &end["signal"]),
        ("oom", &Value::from(9)),
        "{end}"
    );
    assert!(
        end["killed_by"].is_null(),
        "whose allocation failed says nothing: {end}"
    );
    assert!(theatre.stream.stop());
}

#[test]
fn exits_are_counted_by_reason() {
    let Some(live) = Live::begin("exits by reason") else {
        return;
    };
    let mut scene = Workload::start(&["deaths"]);
    let agent = Agent::start(&live, &["--max-groups", "100000"]);
    let expected = [
        ("success", "pp-success", "success", 3),
        ("failure", "pp-failure", "failure", 2),
        ("kill", "pp-killed", "signal", 4),
    ];
    let counts = || {
        let metrics = agent.metrics();
        expected.map(|(_, comm, reason, _)| {
            metrics.sum("procprobe_exits_total", &[("comm", comm), ("reason", reason)])
        })
    };
    let before = counts();
    for (how, _, _, count) in expected {
        for _ in 0..count {
            scene.tell(how, "done");
        }
    }
    let after = counts();
    for ((how, .., count), (before, after)) in expected.iter().zip(before.iter().zip(after)) {
        assert!(
            (after - before - f64::from(*count)).abs() < 0.5,
            "{how}: {before} to {after}"
        );
    }
    agent.stop();
}

#[test]
fn who_spawns_and_what_it_costs_is_counted() {
    let Some(live) = Live::begin("spawn rates") else {
        return;
    };
    let child = format!("pp-{}", std::process::id());
    let mut spawner = Spawner::with_children(&child);
    let agent = Agent::start(&live, &["--max-groups", "100000"]);
    let before = agent.metrics();
    let count = repeated(500);
    let cpu = spawner.spawn(count) as f64 / 1e6;
    let after = agent.metrics();
    let grown =
        |name: &str, comm: &str| after.sum(name, &[("comm", comm)]) - before.sum(name, &[("comm", comm)]);
    let forks = grown("procprobe_group_forks_total", "pp-spawner");
    assert!(forks >= count as f64, "{forks}");
    let short = grown("procprobe_short_lived_processes_total", &child);
    assert!((short - count as f64).abs() < 0.5, "{short}");
    let seconds = grown("procprobe_short_lived_cpu_seconds_total", &child);
    note(&format!(
        "short lives: {seconds:.3} s of CPU, by getrusage {cpu:.3} s"
    ));
    assert!(
        (seconds - cpu).abs() <= cpu * 0.05,
        "{seconds} s, by getrusage {cpu} s"
    );
    agent.stop();
}
