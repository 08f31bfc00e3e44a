//! A thread in each state there is: the right name in `tree`, in `states` and in `/metrics`, and the true age.

use std::time::{Duration, Instant};

use serde_json::Value;

use crate::common::agent::Agent;
use crate::common::json::{id, leader, list, number, text, threads};
use crate::common::workload::Workload;
use crate::common::{Live, eventually, procfs};

/// A scene, the process in it to look at, and what that process is in.
struct Case {
    _scene: Workload,
    pid: u32,
    comm: &'static str,
    state: &'static str,
    letter: char,
    started: Instant,
    settled: Instant,
}

impl Case {
    fn start(scene: &str, comm: &'static str, state: &'static str, letter: char) -> Self {
        let started = Instant::now();
        let scene = Workload::start(&[scene]);
        let pid = scene.fact("pid");
        eventually(&format!("{comm} in state {letter}"), || {
            procfs::state(pid) == Some(letter)
        });
        Self {
            _scene: scene,
            pid,
            comm,
            state,
            letter,
            started,
            settled: Instant::now(),
        }
    }

    fn all() -> Vec<Self> {
        vec![
            Self::start("sleeper", "pp-sleeper", "sleeping", 'S'),
            Self::start("stopped", "pp-stopped", "stopped", 'T'),
            Self::start("traced", "pp-traced", "traced", 't'),
            Self::start("vfork", "pp-vfork", "uninterruptible", 'D'),
            Self::start("zombie", "pp-zombie", "zombie", 'Z'),
        ]
    }

    /// The state and how long it has lasted, held against what was done to the process and when.
    fn check(&self, tree: &Value, asked: Instant, source: &str) {
        assert_eq!(procfs::state(self.pid), Some(self.letter), "{} itself", self.comm);
        let thread = leader(tree, self.pid);
        assert_eq!(
            (text(thread, "comm"), text(thread, "state")),
            (self.comm, self.state),
            "{source}"
        );
        if source == "proc" {
            return;
        }
        let age = Duration::from_nanos(number(thread, "state_ns"));
        let margin = Duration::from_millis(20);
        assert!(
            age <= self.started.elapsed() + margin,
            "{} for {age:?}: too long",
            self.comm
        );
        let at_least = asked - self.settled;
        let known = thread["state_ns_is_lower_bound"] == false;
        assert!(
            !known || age + margin >= at_least,
            "{} for {age:?}, not {at_least:?}",
            self.comm
        );
        assert!(
            age >= Duration::from_secs(2),
            "{} for {age:?}: it was there before we were",
            self.comm
        );
    }
}

#[test]
fn each_state_has_its_name_and_its_true_age_in_the_tree() {
    let Some(live) = Live::begin("states in the tree") else {
        return;
    };
    let cases = Case::all();
    // What is known of a state that began long before anybody looked is the point here.
    std::thread::sleep(Duration::from_millis(2_100));
    for source in ["bpf", "proc"] {
        let asked = Instant::now();
        let tree = live.json(&["tree", "--source", source]);
        for case in &cases {
            case.check(&tree, asked, source);
        }
    }
    let agent = Agent::start(&live, &["--max-groups", "100000"]);
    let asked = Instant::now();
    let tree = agent.tree();
    for case in &cases {
        case.check(&tree, asked, "agent");
    }
    let metrics = agent.metrics();
    for case in &cases {
        let labels = [("comm", case.comm), ("state", case.state)];
        assert!(
            metrics.sum("procprobe_group_threads", &labels) >= 1.0,
            "{}",
            case.comm
        );
        assert!(
            metrics.sum("procprobe_processes", &labels[1..]) >= 1.0,
            "{}",
            case.state
        );
        if case.state != "zombie" {
            assert!(
                metrics.sum("procprobe_state_seconds_total", &labels) > 0.0,
                "{}",
                case.comm
            );
        }
    }
    agent.stop();
}

fn group<'a>(answer: &'a Value, key: &str) -> &'a Value {
    let mut found = list(answer, "groups")
        .iter()
        .filter(|group| text(group, "key") == key);
    let group = found.next().unwrap_or_else(|| panic!("no group {key}"));
    assert!(found.next().is_none(), "{key} comes twice");
    group
}

#[test]
fn each_state_takes_up_the_whole_window() {
    let Some(live) = Live::begin("states over a window") else {
        return;
    };
    let cases = Case::all();
    let answer = live.json(&["states", "--for", "1s", "--by", "process"]);
    let window_ns = number(&answer, "window_ns");
    assert!((900_000_000..10_000_000_000).contains(&window_ns), "{window_ns}");
    for case in &cases {
        let group = group(&answer, &format!("{} {}", case.comm, case.pid));
        let state = &group["states"][case.state];
        assert_eq!(
            (number(group, "threads"), number(state, "now")),
            (1, 1),
            "{group}"
        );
        if case.state != "zombie" {
            let total = number(state, "total_ns");
            assert!(
                total * 100 >= window_ns * 99 && total * 100 <= window_ns * 103,
                "{total} of {window_ns}: {group}"
            );
        }
    }
    let now = live.json(&["states", "--by", "process", "--source", "proc"]);
    for case in &cases {
        let group = group(&now, &format!("{} {}", case.comm, case.pid));
        assert_eq!(number(&group["states"][case.state], "now"), 1, "{group}");
        assert!(
            group["states"][case.state]["total_ns"].is_null(),
            "/proc knows no times: {group}"
        );
    }
}

#[test]
fn two_hogs_on_one_cpu_share_it() {
    let Some(live) = Live::begin("hogs") else { return };
    let hogs = Workload::start(&["hogs"]);
    let pids = [hogs.fact("one"), hogs.fact("two")];
    let tree = live.json(&["tree"]);
    for pid in pids {
        assert!(
            ["running", "runnable"].contains(&text(leader(&tree, pid), "state")),
            "{pid}"
        );
    }
    let answer = live.json(&["states", "--for", "2s", "--by", "process"]);
    let window_ns = number(&answer, "window_ns");
    let times = pids.map(|pid| {
        let states = &group(&answer, &format!("pp-hog {pid}"))["states"];
        (
            number(&states["running"], "total_ns"),
            number(&states["runnable"], "total_ns"),
        )
    });
    let running: u64 = times.iter().map(|time| time.0).sum();
    for (pid, (ran, waited)) in pids.iter().zip(times) {
        assert!(
            (ran + waited) * 100 >= window_ns * 98,
            "{pid} ran {ran}, waited {waited} of {window_ns}"
        );
        assert!(
            (25..=75).contains(&(ran * 100 / running.max(1))),
            "{pid} ran {ran} of {running}"
        );
        assert!(
            waited * 100 >= window_ns * 25,
            "{pid} waited {waited} of {window_ns}"
        );
    }
    // Others may take from the CPU, but it cannot be used more than once.
    assert!(
        running <= window_ns * 102 / 100,
        "{running} on one CPU in {window_ns}"
    );
    let metrics = Agent::start(&live, &["--max-groups", "100000"]);
    metrics.tree();
    let scrape = metrics.metrics();
    for state in ["running", "runnable"] {
        let labels = [("comm", "pp-hog"), ("state", state)];
        assert!(
            scrape.sum("procprobe_state_seconds_total", &labels) > 0.0,
            "{state}"
        );
    }
    metrics.stop();
}

#[test]
fn idle_threads_of_the_kernel_are_idle_not_stuck() {
    let Some(live) = Live::begin("idle kernel threads") else {
        return;
    };
    let (before, counts) = (procfs::tasks(), procfs::counts());
    let tree = live.json(&["tree"]);
    let (after, later) = (procfs::tasks(), procfs::counts());
    let found = threads(&tree);
    let is_idle = |task: Option<&procfs::Task>| task.is_some_and(|task| task.state == 'I');
    let mut seen = 0;
    for tid in before
        .keys()
        .filter(|tid| is_idle(before.get(tid)) && is_idle(after.get(tid)))
    {
        if counts.contains_key(tid) && counts.get(tid) == later.get(tid) {
            let (process, thread) = found[tid];
            assert_eq!(
                (text(thread, "state"), id(process, "pid")),
                ("idle", *tid),
                "{thread}"
            );
            seen += 1;
        }
    }
    assert!(seen > 0, "this kernel has idle worker threads");
    let agent = Agent::start(&live, &[]);
    let idle = agent.metrics().sum("procprobe_threads", &[("state", "idle")]);
    assert!(idle >= 1.0, "{idle} idle threads in /metrics");
    agent.stop();
}

#[test]
fn intervals_on_a_cpu_are_as_many_as_switches() {
    let Some(live) = Live::begin("counts over a window") else {
        return;
    };
    let game = Workload::start(&["pingpong"]);
    let answer = live.json(&["states", "--for", "1s", "--by", "process"]);
    for player in ["one", "two"] {
        let group = group(&answer, &format!("pp-pingpong {}", game.fact(player)));
        let switches = number(&group["switches"], "voluntary") + number(&group["switches"], "involuntary");
        let count = number(&group["states"]["running"], "count");
        assert!(switches > 1_000, "it plays: {switches}");
        assert!(
            count.abs_diff(switches) <= 1,
            "{count} intervals, {switches} switches"
        );
        let histogram = list(&group["states"]["running"], "histogram");
        assert_eq!(
            histogram
                .iter()
                .map(|bucket| number(bucket, "count"))
                .sum::<u64>(),
            count,
            "{group}"
        );
    }
}
