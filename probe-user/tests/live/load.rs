//! Very many names: the agent's memory and its series stay bounded, and the sums stay whole.

use std::time::{Duration, Instant};

use crate::common::agent::Agent;
use crate::common::workload::Workload;
use crate::common::{Live, is_full, note, procfs};

/// Series that one group makes at most: states, times, durations, switches, exits.
const SERIES_A_GROUP: usize = 400;
const GROUPS: usize = 50;

#[test]
fn a_thousand_names_a_second_stay_bounded() {
    let Some(live) = Live::begin("names without end") else {
        return;
    };
    let mut scene = Workload::start(&["renames"]);
    let agent = Agent::start(&live, &["--max-groups", &GROUPS.to_string()]);
    let (seconds, scrapes_a_second) = if is_full() { (60, 10) } else { (5, 20) };
    let first = agent.metrics();
    let resident = procfs::status_kb(agent.pid(), "VmRSS").expect("the agent runs");
    let mut most = 0;
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(seconds) {
        std::thread::sleep(Duration::from_millis(1000 / scrapes_a_second));
        most = most.max(agent.metrics().samples.len());
    }
    let names = scene.tell("", "done")["count"];
    let last = agent.metrics();
    let folded = last.sum("procprobe_groups_folded", &[]);
    let grown = procfs::status_kb(agent.pid(), "VmRSS")
        .expect("the agent runs")
        .saturating_sub(resident);
    note(&format!(
        "{names} names in {seconds} s: {most} series at most, {folded} names folded, {grown} kB grown"
    ));
    assert!(
        names > 100 * i64::try_from(seconds).expect("it is small"),
        "only {names} names"
    );
    assert!(
        most <= first.samples.len() + GROUPS * SERIES_A_GROUP,
        "{most} series"
    );
    assert!(folded > 0.0, "some names had no place");
    assert!(grown <= 8 * 1024, "{grown} kB");
    let switches =
        |scrape: &crate::common::exposition::Exposition| scrape.sum("procprobe_context_switches_total", &[]);
    assert!(
        switches(&last) - switches(&first) >= (names / 10) as f64,
        "each nap of it is counted somewhere"
    );
    agent.stop();
}
