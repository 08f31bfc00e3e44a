//! Contended locks: who waited for whom, how often and how long, against what the program logged itself.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use serde_json::Value;

use crate::common::json::{id, list, number, text};
use crate::common::locks::{self, Window, deadlocks, hex};
use crate::common::workload::Workload;
use crate::common::{Live, is_full, is_slow, note};

/// What a scene logged about its rounds.
struct Truth {
    facts: HashMap<String, i64>,
    /// Its processes, and where each sees the lock.
    places: Vec<(u32, u64)>,
}

impl Truth {
    fn number(&self, key: &str) -> u64 {
        u64::try_from(self.facts[key]).expect("a count")
    }

    /// How often who waited for whom: `begin`, for who had the lock then, or `wake`, for who gave it up at the end.
    fn waits(&self, matrix: &str) -> BTreeMap<(u32, u32), u64> {
        let of_matrix = |(key, count): (&String, &i64)| {
            let (waiter, holder) = key.strip_prefix(matrix)?.strip_prefix('_')?.split_once('_')?;
            let pair = (waiter.parse().ok()?, holder.parse().ok()?);
            Some((pair, u64::try_from(*count).ok()?))
        };
        let waits: BTreeMap<_, _> = self.facts.iter().filter_map(of_matrix).collect();
        let total: u64 = waits.values().sum();
        assert_eq!(total, self.number("waits"), "the log has no holes");
        waits
    }

    fn has(&self, pid: u32) -> bool {
        self.places.iter().any(|place| place.0 == pid)
    }

    /// The one entry that its lock has.
    fn lock<'a>(&self, answer: &'a Value) -> &'a Value {
        let entries = list(answer, "locks").iter();
        let mut ours: Vec<&Value> = entries.filter(|entry| self.has(id(entry, "pid"))).collect();
        ours.retain(|entry| {
            let here = |place: &&(u32, u64)| place.0 == id(entry, "pid");
            self.places
                .iter()
                .filter(here)
                .any(|place| text(entry, "address") == hex(place.1))
        });
        assert_eq!(ours.len(), 1, "one lock, one entry: {:?}", answer["locks"]);
        ours[0]
    }

    /// Waits and their times, as counted from the outside.
    fn check_totals(&self, answer: &Value, lock: &Value) {
        let (waits, wait_ns, max_ns) = (
            self.number("waits"),
            self.number("wait_ns"),
            self.number("max_ns"),
        );
        let found = number(lock, "waits");
        note(&format!(
            "waits {found} of {waits}, {} of {wait_ns} ns, at most {} of {max_ns}",
            number(lock, "wait_ns_total"),
            number(lock, "wait_ns_max"),
        ));
        assert!(found.abs_diff(waits) * 100 <= waits, "{waits} waits: {lock}");
        let found_ns = number(lock, "wait_ns_total");
        // The program's clock runs on until it has a CPU again, which takes long where QEMU translates.
        let queued = if is_slow() { self.queued_ns(answer) } else { 0 };
        assert!(
            found_ns <= wait_ns + wait_ns / 50 && found_ns + queued + wait_ns / 50 >= wait_ns,
            "within 2 % of {wait_ns}, or {queued} less: {lock}"
        );
        let found_max = number(lock, "wait_ns_max");
        // The program's own clock runs on while it is preempted on its way back to user space.
        assert!(
            found_max <= max_ns + 1_000_000 && found_max * 2 >= max_ns,
            "{max_ns}: {lock}"
        );
        let histogram = list(lock, "histogram");
        let counted: u64 = histogram.iter().map(|bucket| number(bucket, "count")).sum();
        assert_eq!(counted, found, "{lock}");
        assert_eq!(number(lock, "waiters_now"), 0, "all are through: {lock}");
    }

    /// How long its threads had something to do and no CPU.
    fn queued_ns(&self, answer: &Value) -> u64 {
        let ours = list(answer, "processes")
            .iter()
            .filter(|entry| self.has(id(entry, "pid")));
        let threads: f64 = ours
            .map(|entry| entry["runnable"].as_f64().expect("an average"))
            .sum();
        Duration::from_nanos(number(answer, "window_ns"))
            .mul_f64(threads)
            .as_nanos() as u64
    }

    /// At least 99 % of the waits are put down to the one they were for, on this evidence.
    fn check_edges(&self, answer: &Value, lock: &Value, evidence: &str) {
        let truth = self.waits(if evidence == "owner" { "begin" } else { "wake" });
        let edges = list(answer, "edges")
            .iter()
            .filter(|edge| edge["lock"] == lock["id"]);
        let (mut right, mut wrong, mut wait_ns) = (0, 0, 0);
        for edge in edges {
            let pair = (id(&edge["waiter"], "tid"), id(&edge["holder"], "tid"));
            let known = truth.get(&pair).copied().unwrap_or(0);
            let known = if text(edge, "evidence") == evidence {
                known
            } else {
                0
            };
            let waits = number(edge, "waits");
            right += waits.min(known);
            wrong += waits.saturating_sub(known);
            wait_ns += number(edge, "wait_ns_total");
            assert!(self.has(id(&edge["waiter"], "pid")), "{edge}");
            assert!(self.has(id(&edge["holder"], "pid")), "{edge}");
        }
        let waits = self.number("waits");
        note(&format!("{right} of {waits} put down right, {wrong} wrong"));
        assert!(
            right * 100 >= waits * 99,
            "{right} of {waits} right, {wrong} wrong: {:?}, {lock}, lost: {}",
            answer["edges"],
            answer["lost"]
        );
        assert!(
            wrong * 100 <= waits,
            "{right} of {waits} right, {wrong} wrong: {:?}",
            answer["edges"]
        );
        let total = number(lock, "wait_ns_total");
        assert!(
            wait_ns.abs_diff(total) * 100 <= total,
            "{wait_ns} of all edges, {total} of their lock"
        );
    }
}

/// Watches so many rounds, and checks what was seen. Returns the lock's entry.
fn check(live: &Live, scene: &mut Workload, rounds: u32, evidence: &str) -> Value {
    let mut places = vec![(scene.fact("pid"), scene.large("address"))];
    if scene.has_fact("pid2") && scene.fact("pid2") > 0 {
        places.push((scene.fact("pid2"), scene.large("address2")));
        assert_ne!(places[0].1, places[1].1, "the processes see it at two addresses");
    }
    let window = Window::open(live, &[]);
    let facts = scene.tell(&rounds.to_string(), "done");
    let answer = window.close();
    let truth = Truth { facts, places };
    let lock = truth.lock(&answer);
    truth.check_totals(&answer, lock);
    truth.check_edges(&answer, lock, evidence);
    for (pid, _) in &truth.places {
        assert!(deadlocks(&answer, *pid).is_empty(), "{answer}");
    }
    lock.clone()
}

/// Rounds of eight threads: seven waits each.
fn rounds() -> u32 {
    if is_full() { 1_000 } else { 200 }
}

#[test]
fn waits_for_a_pthread_mutex_are_put_down_to_its_owner() {
    let Some(live) = Live::begin("pthread mutex") else {
        return;
    };
    let lock = check(
        &live,
        &mut Workload::start(&["rounds", "pthread"]),
        rounds(),
        "owner",
    );
    assert_eq!(
        (text(&lock, "kind"), lock["shared"].as_bool()),
        ("mutex", Some(false))
    );
}

/// A switch away from a thread that the kernel hides from eBPF, as some hide pid 1, is not traced: the waiter that gets the
/// CPU then has waited all the same.
#[test]
fn no_wait_is_missed_while_pid_1_reaps_orphans() {
    let Some(live) = Live::begin("waits beside a busy pid 1") else {
        return;
    };
    let mut scene = Workload::start(&["rounds", "pthread"]);
    let _orphans = [
        Workload::start(&["orphans-of-init"]),
        Workload::start(&["orphans-of-init"]),
    ];
    check(&live, &mut scene, rounds(), "owner");
}

#[test]
fn waits_for_a_mutex_that_lends_priority_are_put_down_to_its_owner() {
    let Some(live) = Live::begin("PI mutex") else {
        return;
    };
    let lock = check(&live, &mut Workload::start(&["rounds", "pi"]), rounds(), "owner");
    assert_eq!(text(&lock, "kind"), "pi_mutex");
}

#[test]
fn waits_for_a_mutex_of_rust_are_put_down_to_who_gave_it_up() {
    let Some(live) = Live::begin("std mutex") else {
        return;
    };
    let lock = check(&live, &mut Workload::start(&["rounds", "std"]), rounds(), "waker");
    assert_eq!(text(&lock, "kind"), "mutex", "{lock}");
}

#[test]
fn a_static_lock_has_the_name_of_its_variable() {
    let Some(live) = Live::begin("name of a static lock") else {
        return;
    };
    let mut scene = Workload::start(&["rounds", "std"]);
    let lock = check(&live, &mut scene, 20, "waker");
    assert!(
        lock["symbol"]
            .as_str()
            .is_some_and(|symbol| symbol.contains("STD_LOCK")),
        "a static has a name: {lock}"
    );
}

#[test]
fn a_mutex_in_shared_memory_is_one_lock_of_two_processes() {
    let Some(live) = Live::begin("process-shared mutex") else {
        return;
    };
    let mut scene = Workload::start(&["rounds-between-processes"]);
    let lock = check(&live, &mut scene, rounds(), "owner");
    assert_eq!(
        (text(&lock, "kind"), lock["shared"].as_bool()),
        ("mutex", Some(true))
    );
}

#[test]
fn waits_for_a_robust_mutex_are_put_down_to_owners_that_died_with_it() {
    let Some(live) = Live::begin("robust mutex") else {
        return;
    };
    let lock = check(&live, &mut Workload::start(&["rounds-of-the-dying"]), 20, "owner");
    assert_eq!(text(&lock, "kind"), "mutex");
}

#[test]
fn the_pid_filter_leaves_only_that_process() {
    let Some(live) = Live::begin("locks of one process") else {
        return;
    };
    let mut scenes = [
        Workload::start(&["rounds", "pthread"]),
        Workload::start(&["rounds", "pthread"]),
    ];
    let (wanted, other) = (scenes[0].fact("pid"), scenes[1].fact("pid"));
    let window = Window::open(&live, &["--pid", &wanted.to_string()]);
    for scene in &mut scenes {
        scene.tell("5", "done");
    }
    let answer = window.close();
    assert_eq!(locks::of(&answer, "locks", wanted).len(), 1, "{answer}");
    assert!(
        list(&answer, "processes")
            .iter()
            .any(|process| id(process, "pid") == wanted)
    );
    for key in ["locks", "not_contention", "processes"] {
        assert_eq!(
            locks::of(&answer, key, other),
            Vec::<&Value>::new(),
            "{key} of another process"
        );
    }
}
