//! The agent scraped by a real Prometheus, and its metrics held against their reference.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use probe_user::export::catalog::PROCESS;
use serde_json::Value;

use crate::common::agent::Agent;
use crate::common::exposition::Exposition;
use crate::common::json::list;
use crate::common::prometheus::Prometheus;
use crate::common::workload::{Spawner, Workload};
use crate::common::{Live, is_full, note, tools};

/// The raw values of a series.
fn values(series: &Value) -> Vec<f64> {
    list(series, "values")
        .iter()
        .map(|sample| {
            sample[1]
                .as_str()
                .and_then(|text| text.parse().ok())
                .expect("a value")
        })
        .collect()
}

#[test]
fn a_real_prometheus_scrapes_counters_that_only_grow() {
    let Some(live) = Live::begin("prometheus") else {
        return;
    };
    let Some(program) = tools::find("prometheus", "prometheus") else {
        return;
    };
    let mut spawner = Spawner::start();
    let _moving = [
        Workload::start(&["pingpong"]),
        Workload::start(&["nappers", "5"]),
        Workload::start(&["hogs"]),
    ];
    let agent = Agent::start(&live, &[]);
    // With these on, it asks for protobuf first; without (tests/live/dashboards.rs), for text.
    let flags = ["--enable-feature=native-histograms"];
    let prometheus = Prometheus::start_with(&program, &[&agent.address], &[], &flags);
    for _ in 0..if is_full() { 60 } else { 20 } {
        spawner.spawn(20);
        std::thread::sleep(Duration::from_millis(950));
    }
    let up: Vec<f64> = prometheus.query("up[5m]").iter().flat_map(values).collect();
    assert!(
        up.len() >= 10 && up.iter().all(|up| (up - 1.0).abs() < 1e-9),
        "up: {up:?}"
    );
    let counters = prometheus.query("{__name__=~\"procprobe_.*_(total|bucket|count|sum)\"}[5m]");
    let mut samples = 0;
    for series in &counters {
        let values = values(series);
        samples += values.len();
        assert!(values.is_sorted(), "{} falls: {values:?}", series["metric"]);
    }
    note(&format!(
        "{} scrapes, {} series of counters, {samples} samples",
        up.len(),
        counters.len()
    ));
    assert!(counters.len() > 50 && samples > 500);
    agent.stop();
}

/// Label names by metric, from the tables of the reference.
fn reference() -> BTreeMap<String, BTreeSet<String>> {
    let text = include_str!("../../../dashboards/METRICS.md");
    let rows = text.lines().filter_map(|line| line.strip_prefix("| `procprobe_"));
    let cells = rows.map(|row| row.split('|').map(str::trim).collect::<Vec<&str>>());
    // The table of buckets names metrics, too, and no labels.
    let of_metrics = cells.filter(|cells| ["gauge", "counter", "histogram"].contains(&cells[1]));
    of_metrics
        .map(|cells| {
            let name = format!("procprobe_{}", cells[0].trim().trim_end_matches('`'));
            let labels = cells[2]
                .split(',')
                .map(|label| label.trim().trim_matches('`').to_owned());
            (name, labels.filter(|label| !label.is_empty()).collect())
        })
        .collect()
}

/// What units may take: a host without a service manager has none of them. `unit_limits` makes some.
fn is_of_units(name: &str) -> bool {
    name.starts_with("procprobe_unit_")
}

#[test]
fn every_metric_is_in_the_reference_with_its_labels_and_passes_promtool() {
    let Some(live) = Live::begin("reference of metrics") else {
        return;
    };
    // What is wrong with nobody has no series.
    let scenes: [&[&str]; 3] = [&["zombie"], &["cycle", "3"], &["cycle-without-owners"]];
    let _scenes = scenes.map(Workload::start);
    let mut family = Workload::start(&["family"]);
    let mut spawner = Spawner::start();
    let config = "max_groups = 100000\nmetrics.durations = \"group\"\n";
    let agent = Agent::with_config(&live, config);
    spawner.spawn(3);
    // Some metrics begin with the first death.
    family.tell("go", "done");
    let reference = reference();
    assert!(reference.len() > 10, "{reference:?}");
    // The first sample of what the programs cost takes a second.
    let mut scrape = String::new();
    let mut missing: Vec<String> = Vec::new();
    for _ in 0..300 {
        scrape = agent.get("/metrics");
        let found = Exposition::parse(&scrape).types;
        missing = reference
            .keys()
            .filter(|name| !found.contains_key(*name) && !is_of_units(name))
            .cloned()
            .collect();
        if missing.is_empty() {
            break;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    assert!(missing.is_empty(), "in the reference alone: {missing:?}");
    let metrics = Exposition::parse(&scrape);
    for (name, labels) in metrics.labels() {
        if name.starts_with("process_") {
            assert!(labels.is_empty() && PROCESS.contains(&name.as_str()), "{name}");
        } else {
            assert_eq!(Some(&labels), reference.get(&name), "{name}");
        }
    }
    agent.stop();
    if let Some(promtool) = tools::find("promtool check of all metrics", "promtool") {
        tools::check_metrics(&promtool, &scrape);
    }
}
