//! Locks in `/metrics`: waits that ended are in a histogram, those that go on in a gauge, by kind and process name.

use std::collections::BTreeMap;

use crate::common::agent::Agent;
use crate::common::exposition::Exposition;
use crate::common::workload::Workload;
use crate::common::{Live, eventually, tools};

const WAITS: &str = "procprobe_lock_wait_seconds_count";
const SECONDS: &str = "procprobe_lock_wait_seconds_sum";

#[test]
fn waits_for_locks_are_in_the_metrics() {
    let Some(live) = Live::begin("metrics of locks") else {
        return;
    };
    let agent = Agent::with_config(&live, "max_groups = 100000\nmetrics.durations = \"group\"\n");
    let mut scene = Workload::start(&["rounds", "pthread"]);
    let truth = scene.tell("50", "done");
    let labels = [("comm", "pp-rounds"), ("kind", "mutex")];
    let (waits, seconds) = (truth["waits"] as f64, truth["wait_ns"] as f64 / 1e9);
    let metrics = agent.metrics();
    let (found, lasted) = (metrics.sum(WAITS, &labels), metrics.sum(SECONDS, &labels));
    assert!((found / waits - 1.0).abs() <= 0.01, "{found} of {waits} waits");
    assert!((lasted / seconds - 1.0).abs() <= 0.02, "{lasted} of {seconds} s");
    // What is told once is not taken back, and not told twice.
    let again = agent.metrics();
    assert!(
        (again.sum(WAITS, &labels) - found).abs() < 0.5,
        "nothing more was waited for"
    );
    scene.tell("50", "done");
    let later = agent.metrics().sum(WAITS, &labels);
    assert!(
        (later / (2.0 * waits) - 1.0).abs() <= 0.01,
        "{later} of twice {waits} waits"
    );
    agent.stop();
}

#[test]
fn waiters_of_now_are_in_the_metrics() {
    let Some(live) = Live::begin("waiters in the metrics") else {
        return;
    };
    let agent = Agent::start(&live, &["--max-groups", "100000"]);
    let labels = [("comm", "pp-holder"), ("kind", "mutex")];
    let waiters = || agent.metrics().sum("procprobe_lock_waiters", &labels);
    assert!(waiters().abs() < 0.5, "none yet");
    let scene = Workload::start(&["holder-asleep"]);
    eventually("three waiters", || (waiters() - 3.0).abs() < 0.5);
    let blocked = |metrics: &Exposition| -> BTreeMap<String, f64> {
        let series = metrics.select("procprobe_blocked_seconds_total", &[("comm", "pp-holder")]);
        series
            .map(|sample| (sample.labels["on"].clone(), sample.value))
            .collect()
    };
    let before = blocked(&agent.metrics());
    std::thread::sleep(std::time::Duration::from_secs(1));
    let scrape = agent.get("/metrics");
    let after = blocked(&Exposition::parse(&scrape));
    // Five threads: three that want the mutex, one that sleeps on it, one that reads.
    let grown: f64 = after.values().sum::<f64>() - before.values().sum::<f64>();
    assert!(grown >= 4.9, "{before:?}, {after:?}");
    drop(scene);
    eventually("none to be left", || waiters().abs() < 0.5);
    agent.stop();
    if let Some(promtool) = tools::find("promtool check of lock metrics", "promtool") {
        tools::check_metrics(&promtool, &scrape);
    }
}
