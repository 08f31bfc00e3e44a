//! What waits in futexes and for no lock is never called contention: idle pools, consumers, joins, polls, runtimes; and
//! where many threads share one interpreter lock, that is seen.

use serde_json::Value;

use crate::common::Live;
use crate::common::json::{entry, id, list, number, text};
use crate::common::locks::{self, check_uncontended, deadlocks, sum};
use crate::common::workload::Workload;

/// Watches a process for a while that has nothing to contend for. Returns what its threads wait in.
fn quiet(live: &Live, pid: u32) -> Vec<Value> {
    let answer = live.json(&["locks", "--for", "1500ms"]);
    check_uncontended(&answer, pid);
    assert_eq!(
        locks::stalls(&answer, pid),
        Vec::<&Value>::new(),
        "{pid} is idle, not stuck"
    );
    let waits = locks::of(&answer, "not_contention", pid);
    waits.into_iter().cloned().collect()
}

/// A scene in which so many threads wait all the time, and all in the same way, which is known.
fn check_idle(scene: &str, waiters: u64, kind: &str) {
    let Some(live) = Live::begin(scene) else { return };
    let idle = Workload::start(&["idle", scene]);
    let waits = quiet(&live, idle.fact("pid"));
    let refs: Vec<&Value> = waits.iter().collect();
    assert_eq!(sum(&refs, "waiters_now"), waiters, "{scene}: {waits:?}");
    for wait in &waits {
        assert_eq!(text(wait, "kind"), kind, "{scene}: {wait}");
    }
    let address = idle.large("address");
    if address > 0 {
        let within = |wait: &&Value| {
            let digits = text(wait, "address").strip_prefix("0x").expect("hexadecimal");
            let found = u64::from_str_radix(digits, 16).expect("an address");
            (address..address + 48).contains(&found)
        };
        assert!(refs.iter().all(within), "at {address:#x}: {waits:?}");
    }
    let table = live.text(&["locks", "--for", "300ms", "--pid", &idle.fact("pid").to_string()]);
    assert!(table.contains("not contention"), "{table}");
}

#[test]
fn an_idle_pool_waits_on_a_condition_variable() {
    check_idle("pool", 16, "condvar");
}

#[test]
fn an_idle_pool_of_rust_waits_on_a_condition_variable() {
    check_idle("std-pool", 16, "condvar");
}

#[test]
fn a_join_is_a_join() {
    check_idle("join", 1, "join");
}

#[test]
fn a_semaphore_is_a_semaphore() {
    check_idle("semaphore", 4, "semaphore");
}

#[test]
fn a_barrier_is_a_barrier() {
    check_idle("barrier", 3, "barrier");
}

/// A scene whose threads wait and go on, in whichever futexes.
fn check_moving(scene: &str) {
    let Some(live) = Live::begin(scene) else { return };
    let moving = Workload::start(&["idle", scene]);
    let waits = quiet(&live, moving.fact("pid"));
    let refs: Vec<&Value> = waits.iter().collect();
    // Some hundred in the window; what they are for is another question.
    assert!(sum(&refs, "waits") >= 100, "{scene} moves: {waits:?}");
    for wait in &waits {
        let kind = text(wait, "kind");
        assert!(
            !["mutex", "pi_mutex", "rwlock", "join", "barrier"].contains(&kind),
            "{scene}: {wait}"
        );
    }
}

#[test]
fn sleeping_consumers_are_not_contention() {
    check_moving("consumers");
}

#[test]
fn sleeping_consumers_of_glibc_are_not_contention() {
    check_moving("pthread-consumers");
}

#[test]
fn timed_polls_are_not_contention() {
    check_moving("timed");
}

/// A runtime before and after it had much to do.
fn check_runtime(runtime: &str, kinds: &[&str]) {
    let Some(live) = Live::begin(runtime) else { return };
    let mut scene = Workload::start(&[runtime]);
    let pid = scene.fact("pid");
    for _ in 0..2 {
        let waits = quiet(&live, pid);
        assert!(!waits.is_empty(), "{runtime}: its workers are asleep");
        for wait in &waits {
            assert!(kinds.contains(&text(wait, "kind")), "{runtime}: {wait}");
        }
        scene.tell("burst", "done");
    }
}

#[test]
fn tokio_at_rest_is_not_contention() {
    check_runtime("tokio", &["parker", "condvar"]);
}

#[test]
fn rayon_at_rest_is_not_contention() {
    check_runtime("rayon", &["parker", "condvar"]);
}

#[test]
fn threads_of_python_that_wait_for_a_queue_are_not_contention() {
    let Some(live) = Live::begin("Python's queue.get") else {
        return;
    };
    let scene = Workload::start(&["python", "queue"]);
    let waits = quiet(&live, scene.fact("pid"));
    let refs: Vec<&Value> = waits.iter().collect();
    assert_eq!(sum(&refs, "waiters_now"), 4, "{waits:?}");
}

#[test]
fn four_threads_of_python_are_one_that_runs_and_a_lock() {
    let Some(live) = Live::begin("Python's interpreter lock") else {
        return;
    };
    let scene = Workload::start(&["python", "compute"]);
    let pid = scene.fact("pid");
    let answer = live.json(&["locks", "--for", "3s", "--pid", &pid.to_string()]);
    let contended = locks::of(&answer, "locks", pid);
    let gil_named = |lock: &&Value| lock["symbol"] == "the GIL";
    assert!(
        contended.iter().any(gil_named),
        "it goes by its name: {contended:?}"
    );
    let waits_ns: Vec<u64> = contended
        .iter()
        .map(|lock| number(lock, "wait_ns_total"))
        .collect();
    let (most, all) = (waits_ns.iter().max().copied(), waits_ns.iter().sum::<u64>());
    let most = most.unwrap_or_else(|| panic!("no lock: {answer}"));
    assert!(most * 100 >= all * 80, "one dominates: {contended:?}");
    // Three of the four wait for it most of the time; on a busy machine, for a CPU after that.
    let window_ns = number(&answer, "window_ns");
    assert!(most * 2 >= window_ns * 3, "{most} of {window_ns}: {contended:?}");
    let process = entry(&answer, "processes", pid).unwrap_or_else(|| panic!("no process {pid}: {answer}"));
    let average = |key: &str| {
        process[key]
            .as_f64()
            .unwrap_or_else(|| panic!("no {key}: {process}"))
    };
    assert!(number(process, "threads") >= 4, "{process}");
    assert!((0.6..=1.3).contains(&average("running")), "{process}");
    assert!((1.5..=3.5).contains(&average("lock_blocked")), "{process}");
    assert!(deadlocks(&answer, pid).is_empty(), "{answer}");
    for edge in list(&answer, "edges") {
        assert_eq!(id(&edge["waiter"], "pid"), pid, "of that process alone: {edge}");
    }
}
