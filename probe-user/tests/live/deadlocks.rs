//! Deadlocks of every shape: found with the right threads and locks, whenever they formed, and gone with their program.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::common::agent::Agent;
use crate::common::json::{id, list, number, text};
use crate::common::locks::{deadlocks, hex, lock, stalls};
use crate::common::workload::Workload;
use crate::common::{Live, eventually};

/// Bytes of a `pthread_mutex_t`; those of a scene lie one after the other.
const MUTEX: u64 = 40;

/// A scene with so many threads that wait for each other.
struct Knot {
    scene: Workload,
    count: usize,
    began: Instant,
    stood: Instant,
}

impl Knot {
    fn start(arguments: &[&str], count: usize) -> Self {
        let began = Instant::now();
        let scene = Workload::start(arguments);
        Self {
            scene,
            count,
            began,
            stood: Instant::now(),
        }
    }

    fn pid(&self) -> u32 {
        self.scene.fact("pid")
    }

    fn tid(&self, place: usize) -> u32 {
        self.scene.fact(&format!("tid{}", place % self.count))
    }

    /// Where each thread of the scene may see the mutex that the one at a place holds.
    fn addresses(&self, place: usize) -> BTreeSet<String> {
        let place = place % self.count;
        let seen_by = |other: usize| {
            let own = self.scene.large(&format!("lock{other}"));
            hex(own + MUTEX * place as u64 - MUTEX * other as u64)
        };
        (0..self.count).map(seen_by).collect()
    }

    /// The deadlock in an answer: those threads and no others, each waiting for what the next one holds.
    fn check(&self, answer: &Value, asked: Instant, kind: &str) {
        let found = deadlocks(answer, self.pid());
        assert_eq!(found.len(), 1, "one deadlock: {:?}", answer["deadlocks"]);
        let deadlock = found[0];
        assert_eq!(text(deadlock, "kind"), kind, "{deadlock}");
        let threads = list(deadlock, "threads");
        let tids: BTreeSet<u32> = threads.iter().map(|thread| id(thread, "tid")).collect();
        let expected: BTreeSet<u32> = (0..self.count).map(|place| self.tid(place)).collect();
        assert_eq!((tids, threads.len()), (expected, self.count), "{deadlock}");
        for (position, thread) in threads.iter().enumerate() {
            self.check_thread(answer, thread, &threads[(position + 1) % self.count]);
        }
        self.check_age(number(deadlock, "since_ns"), asked);
    }

    fn check_thread(&self, answer: &Value, thread: &Value, next: &Value) {
        let tid = id(thread, "tid");
        let place = (0..self.count).find(|place| self.tid(*place) == tid);
        let place = place.expect("one of the scene's");
        let frames = list(&thread["code"], "frames");
        let ties = |frame: &Value| frame.as_str().is_some_and(|name| name.contains("Knot::tie"));
        assert!(frames.iter().any(ties), "the way to its wait: {thread}");
        assert_eq!(
            id(thread, "pid"),
            self.scene.fact(&format!("pid{place}")),
            "{thread}"
        );
        let wanted = text(lock(answer, &thread["waits_for"]), "address");
        assert!(
            self.addresses(place + 1).contains(wanted),
            "{tid} waits for {wanted}: {answer}"
        );
        assert_eq!(id(next, "tid"), self.tid(place + 1), "each waits for the next");
        if !thread["holds"].is_null() {
            let held = text(lock(answer, &thread["holds"]), "address");
            assert!(
                self.addresses(place).contains(held),
                "{tid} holds {held}: {answer}"
            );
        }
    }

    /// It is as old as the scene, whenever the one who looks came.
    fn check_age(&self, since_ns: u64, asked: Instant) {
        let (age, margin) = (Duration::from_nanos(since_ns), Duration::from_millis(20));
        let (least, most) = (asked - self.stood, self.began.elapsed());
        assert!(
            age + margin >= least && age <= most + margin,
            "{age:?}, not {least:?} to {most:?}"
        );
    }

    /// Asks `procprobe locks`, which has never seen the scene move.
    fn check_late(&self, live: &Live, kind: &str) {
        let asked = Instant::now();
        let answer = live.json(&["locks", "--for", "500ms"]);
        self.check(&answer, asked, kind);
    }
}

/// Shapes of one process.
const SHAPES: [(&str, usize, &str); 3] = [("1", 1, "self"), ("2", 2, "cycle"), ("5", 5, "cycle")];

#[test]
fn a_deadlock_from_before_is_found_with_its_threads_and_locks() {
    let Some(live) = Live::begin("deadlocks from before") else {
        return;
    };
    for (argument, count, kind) in SHAPES {
        let knot = Knot::start(&["cycle", argument], count);
        // Old enough for its age to be told from the age of the one who looks.
        std::thread::sleep(Duration::from_millis(1_500));
        knot.check_late(&live, kind);
        let table = live.text(&["locks", "--for", "500ms", "--pid", &knot.pid().to_string()]);
        assert!(
            table.to_lowercase().contains("deadlock") && table.contains(&knot.tid(0).to_string()),
            "{table}"
        );
    }
}

#[test]
fn a_deadlock_is_found_as_it_forms_and_gone_with_its_program() {
    let Some(live) = Live::begin("deadlocks under the agent") else {
        return;
    };
    let agent = Agent::start(&live, &["--max-groups", "100000"]);
    let comm = [("comm", "pp-cycle")];
    assert!(agent.metrics().sum("procprobe_deadlocks", &comm).abs() < 0.5);
    for (argument, count, kind) in SHAPES {
        let knot = Knot::start(&["cycle", argument], count);
        let pid = knot.pid();
        eventually("the deadlock in the agent's answer", || {
            !deadlocks(&agent.locks(), pid).is_empty()
        });
        let asked = Instant::now();
        knot.check(&agent.locks(), asked, kind);
        let metric = |name: &str| agent.metrics().sum(name, &comm);
        eventually("the deadlock in the metrics", || {
            let threads = metric("procprobe_deadlocked_threads") - count as f64;
            (metric("procprobe_deadlocks") - 1.0).abs() < 0.5 && threads.abs() < 0.5
        });
        drop(knot);
        eventually("it to be gone", || deadlocks(&agent.locks(), pid).is_empty());
        eventually("it to be gone from the metrics", || {
            metric("procprobe_deadlocks").abs() < 0.5
        });
        let answer = live.json(&["locks", "--for", "200ms"]);
        assert!(deadlocks(&answer, pid).is_empty(), "{answer}");
    }
    agent.stop();
}

#[test]
fn a_cycle_across_processes_is_found() {
    let Some(live) = Live::begin("deadlock across processes") else {
        return;
    };
    let knot = Knot::start(&["cycle-across-processes"], 2);
    knot.check_late(&live, "cycle");
    // Either of the two leads to it.
    for place in ["pid0", "pid1"] {
        let pid = knot.scene.fact(place);
        let answer = live.json(&["locks", "--for", "500ms", "--pid", &pid.to_string()]);
        assert_eq!(deadlocks(&answer, pid).len(), 1, "{answer}");
    }
}

#[test]
fn a_cycle_in_a_pid_namespace_is_told_in_our_numbers() {
    let Some(live) = Live::begin("deadlock in a pid namespace") else {
        return;
    };
    let knot = Knot::start(&["cycle-in-namespace"], 3);
    knot.check_late(&live, "cycle");
    let agent = Agent::start(&live, &[]);
    eventually("the deadlock in the agent's answer", || {
        !deadlocks(&agent.locks(), knot.pid()).is_empty()
    });
    let asked = Instant::now();
    knot.check(&agent.locks(), asked, "cycle");
    agent.stop();
}

#[test]
fn a_lock_whose_owner_ended_is_told() {
    let Some(live) = Live::begin("abandoned lock") else {
        return;
    };
    let scene = Workload::start(&["dead-owner"]);
    let answer = live.json(&["locks", "--for", "500ms"]);
    let found = deadlocks(&answer, scene.fact("pid"));
    assert_eq!(found.len(), 1, "{:?}", answer["deadlocks"]);
    assert_eq!(text(found[0], "kind"), "dead_owner", "{}", found[0]);
    let waiting = list(found[0], "threads")
        .iter()
        .find(|thread| id(thread, "tid") == scene.fact("tid"));
    let waiting = waiting.unwrap_or_else(|| panic!("the one who waits for ever: {}", found[0]));
    assert_eq!(
        text(lock(&answer, &waiting["waits_for"]), "address"),
        hex(scene.large("lock"))
    );
}

#[test]
fn locks_that_tell_no_owner_are_a_stall_and_no_deadlock() {
    let Some(live) = Live::begin("stall") else { return };
    let agent = Agent::start(&live, &[]);
    let scene = Workload::start(&["cycle-without-owners"]);
    let pid = scene.fact("pid");
    // What nobody can prove is not claimed, however long it lasts.
    let mut answer = Value::Null;
    eventually("the stall", || {
        answer = agent.locks();
        assert!(deadlocks(&answer, pid).is_empty(), "{answer}");
        !stalls(&answer, pid).is_empty()
    });
    drop(scene);
    eventually("it to be gone", || stalls(&agent.locks(), pid).is_empty());
    agent.stop();
}

#[test]
fn a_long_wait_for_one_who_sleeps_is_no_deadlock() {
    let Some(live) = Live::begin("long wait") else {
        return;
    };
    // Three wait for one who sleeps: long, but he can wake up.
    let scene = Workload::start(&["holder-asleep"]);
    std::thread::sleep(Duration::from_millis(1_500));
    let answer = live.json(&["locks", "--for", "500ms"]);
    assert!(deadlocks(&answer, scene.fact("pid")).is_empty(), "{answer}");
}
