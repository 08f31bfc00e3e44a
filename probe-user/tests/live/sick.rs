//! A process whose memory does not come costs itself the holders of its locks, and nobody else anything:
//! every answer comes within a second of what it takes, whole but for what is named.

use std::time::{Duration, Instant};

use serde_json::Value;

use crate::common::agent::Agent;
use crate::common::json::{entry, list, number, text};
use crate::common::locks;
use crate::common::workload::Workload;
use crate::common::{Live, patience};

/// More than an answer takes on a slow machine, and far less than for ever.
const SOON: Duration = Duration::from_secs(8);

fn quickly<T>(what: &str, work: impl FnOnce() -> T) -> T {
    let began = Instant::now();
    let answer = work();
    let took = began.elapsed();
    assert!(took < patience(SOON), "{what} took {took:?}");
    answer
}

/// Looks at the host with the sick process and with a healthy deadlock beside it.
fn check(mode: &str, reason: &str) {
    let Some(live) = Live::begin(&format!("memory that does not come: {mode}")) else {
        return;
    };
    let deadlock = Workload::start(&["cycle", "2"]);
    let scene = Workload::start(&["sick", mode]);
    let (sick, healthy) = (scene.fact("pid"), deadlock.fact("pid"));
    let answer = quickly("locks", || live.json(&["locks", "--for", "500ms"]));
    check_answer(&answer, sick, reason);
    assert_eq!(
        locks::deadlocks(&answer, healthy).len(),
        1,
        "the rest of the host: {answer}"
    );
    let tree = quickly("tree", || live.json(&["tree"]));
    assert!(
        tree["processes"].as_array().is_some_and(|all| all.len() > 2),
        "{tree}"
    );
    let agent = quickly("an agent's start", || Agent::start(&live, &[]));
    for _ in 0..3 {
        let answer = quickly("/api/v1/locks", || agent.locks());
        assert_eq!(locks::deadlocks(&answer, healthy).len(), 1, "{answer}");
        quickly("/api/v1/tree", || agent.tree());
        let metrics = quickly("/metrics", || agent.metrics());
        assert!(
            metrics.sum("procprobe_deadlocks", &[]) >= 1.0,
            "the rest of the host"
        );
        assert!(quickly("/healthz", || agent.get("/healthz")).contains("ok"));
    }
    agent.stop();
}

/// The sick process is named as the reason, and nothing else is missing.
fn check_answer(answer: &Value, sick: u32, reason: &str) {
    assert_eq!(answer["complete"], false, "{answer}");
    assert!(number(&answer["lost"], "memory") > 0, "{answer}");
    let gap = entry(answer, "memory_gaps", sick).unwrap_or_else(|| panic!("it is not named: {answer}"));
    assert_eq!(text(gap, "reason"), reason);
    assert!(list(answer, "memory_gaps").len() == 1, "{answer}");
    assert!(
        locks::deadlocks(answer, sick).is_empty() && locks::stalls(answer, sick).is_empty(),
        "{answer}"
    );
}

#[test]
fn a_futex_in_a_page_that_does_not_come() {
    check("page", "file_may_not_answer");
}

#[test]
fn a_memory_map_that_is_locked() {
    check("locked", "memory_map_locked");
}
