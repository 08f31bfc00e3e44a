//! The graphs in `/metrics`: states with the changes between them, the process tree by name, who waited for
//! whom at locks. Held against what `states` and `locks` say of a window between two scrapes, and against a
//! tree of which it is known who hangs where.

use serde_json::Value;

use crate::common::agent::Agent;
use crate::common::json::{list, text};
use crate::common::workload::Workload;
use crate::common::{Live, eventually, locks};

#[test]
fn changes_of_state_between_scrapes_are_those_of_the_window_between_them() {
    let Some(live) = Live::begin("the graph of states") else {
        return;
    };
    let agent = Agent::start(&live, &[]);
    let scene = Workload::start(&["pingpong"]);
    let window = || -> Value { serde_json::from_str(&agent.get("/api/v1/states?for=500ms")).expect("JSON") };
    let before = agent.metrics();
    let told = window();
    let after = agent.metrics();
    let told = list(&told, "transitions");
    assert!(told.len() >= 4, "{told:?}");
    let mut most = 0.0_f64;
    for transition in told {
        let ends = [("from", text(transition, "from")), ("to", text(transition, "to"))];
        let count = transition["count"].as_f64().expect("a number");
        let counted = |metrics: &crate::common::exposition::Exposition| {
            metrics.sum("procprobe_state_transitions_total", &ends)
        };
        let grown = counted(&after) - counted(&before);
        // Threads that were between two states while one was looked at may count here or there.
        assert!(
            grown + 3.0 + 0.01 * count >= count,
            "{ends:?}: {grown} of {count}"
        );
        most = most.max(count);
    }
    assert!(most > 100.0, "{told:?}");
    drop(scene);
    agent.stop();
}

#[test]
fn children_hang_below_the_name_of_their_parent() {
    let Some(live) = Live::begin("the process tree by name") else {
        return;
    };
    let agent = Agent::start(&live, &["--max-groups", "1000"]);
    let scene = Workload::start(&["hoarder", "17"]);
    let edge = [("parent_comm", "pp-hoarder"), ("comm", "pp-hoarder")];
    let edges = || agent.metrics().sum("procprobe_process_tree_edges", &edge);
    eventually("17 children of the same name", || (edges() - 17.0).abs() < 0.5);
    let processes = agent
        .metrics()
        .sum("procprobe_group_processes", &[("comm", "pp-hoarder")]);
    assert!((processes - 18.0).abs() < 0.5, "{processes}");
    // Each process but those without a parent hangs somewhere, once.
    let metrics = agent.metrics();
    let hanging = metrics.sum("procprobe_process_tree_edges", &[]);
    let all = metrics.sum("procprobe_processes", &[]);
    assert!(hanging < all && hanging + 5.0 >= all, "{hanging} of {all}");
    let by_group = metrics.sum("procprobe_group_processes", &[]);
    assert!((by_group - all).abs() < 0.5, "{by_group} of {all}");
    drop(scene);
    eventually("none", || edges().abs() < 0.5);
    agent.stop();
}

#[test]
fn who_waited_for_whom_between_scrapes_is_what_locks_says_of_the_window_between_them() {
    let Some(live) = Live::begin("the graph of locks") else {
        return;
    };
    let agent = Agent::start(&live, &["--max-groups", "1000"]);
    let mut scene = Workload::start(&["rounds", "pthread"]);
    let ours = [("comm", "pp-rounds"), ("kind", "mutex")];
    // Eight threads make more edges than have counters: the rest is in the other one.
    let with_others = || {
        let metrics = agent.metrics();
        let of = |labels: &[(&str, &str)]| metrics.sum("procprobe_lock_edge_wait_seconds_total", labels);
        [of(&ours), of(&[("comm", "(other)")])]
    };
    // The name of the lock is asked for at the first look at it; until then its waits are the others'.
    eventually("its edges", || {
        scene.tell("5", "done");
        with_others()[0] > 0.0
    });
    let window = std::thread::scope(|scope| {
        let told = scope
            .spawn(|| -> Value { serde_json::from_str(&agent.get("/api/v1/locks?for=3s")).expect("JSON") });
        std::thread::sleep(std::time::Duration::from_millis(500));
        let before = with_others();
        scene.tell("50", "done");
        let after = with_others();
        (
            told.join().expect("an answer"),
            [after[0] - before[0], after[1] - before[1]],
        )
    });
    let (told, [grown, others]) = window;
    let lock = locks::of(&told, "locks", scene.pid);
    let edges: f64 = list(&told, "edges")
        .iter()
        .filter(|edge| lock.iter().any(|lock| lock["id"] == edge["lock"]))
        .filter_map(|edge| edge["wait_ns_total"].as_f64())
        .sum();
    let edges = edges / 1e9;
    assert!(
        grown > 0.0 && grown <= 1.02 * edges && grown + others >= 0.98 * edges,
        "{grown} and {others} of {edges} s"
    );
    agent.stop();
}
