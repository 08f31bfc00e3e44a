//! Every metric, label and value that an expression names is in the catalogue, or is made by a recording rule.

use std::collections::{BTreeMap, BTreeSet};

use probe_user::export::catalog::{self, Kind, Metric};
use probe_user::model::event::Reason;
use probe_user::model::life::AdopterKind;
use probe_user::model::locks;
use probe_user::model::snapshot::Losses;
use probe_user::model::thread::Condition;
use probe_user::model::waits;

use crate::expressions::{Expression, Place, all, of_runbook};
use crate::labels::{Known, Labels};

/// What Prometheus adds to each series; `cluster` where somebody has several, else it is empty.
const TARGET: [&str; 3] = ["cluster", "instance", "job"];
/// What it says about each scrape.
const ABOUT_SCRAPES: [&str; 3] = ["up", "scrape_duration_seconds", "scrape_samples_scraped"];

/// Metrics that rules ask for before the agent has them: without them those rules are quiet.
const PROMISED: [(&str, &[&str]); 4] = [
    ("procprobe_unit_oom_kills_total", &["unit"]),
    ("procprobe_unit_cpu_throttled_seconds_total", &["unit"]),
    ("procprobe_unit_pids_used", &["unit"]),
    ("procprobe_unit_pids_limit", &["unit"]),
];
/// What Prometheus records of alerts, with the labels that ours have.
const ALERTS: [&str; 6] = ["alertname", "alertstate", "severity", "unit", "comm", "reason"];

fn labels(own: &[&str]) -> Labels {
    own.iter().chain(&TARGET).map(|&label| label.to_owned()).collect()
}

/// The series of one metric.
fn series(metric: &Metric) -> Vec<(String, Labels)> {
    let own = labels(metric.labels);
    if metric.kind != Kind::Histogram {
        return vec![(metric.name.to_owned(), own)];
    }
    let mut buckets = own.clone();
    buckets.insert("le".to_owned());
    vec![
        (format!("{}_bucket", metric.name), buckets),
        (format!("{}_sum", metric.name), own.clone()),
        (format!("{}_count", metric.name), own.clone()),
        (metric.name.to_owned(), own),
    ]
}

fn catalogue() -> Known {
    let promised = PROMISED.iter();
    let promised = promised.map(|(name, own)| ((*name).to_owned(), labels(own)));
    let mut metrics: BTreeMap<String, Labels> = promised.collect();
    metrics.extend(catalog::ALL.iter().flat_map(series));
    metrics.insert("ALERTS".to_owned(), labels(&ALERTS));
    let others = catalog::PROCESS.iter().chain(&ABOUT_SCRAPES);
    metrics.extend(others.map(|&name| (name.to_owned(), labels(&[]))));
    let owned = |names: Vec<&str>| names.into_iter().map(str::to_owned).collect::<BTreeSet<_>>();
    let reasons = Reason::ALL.iter().map(|reason| reason.name());
    let kinds = locks::Kind::ALL.iter().map(|kind| kind.name());
    let kinds = kinds.chain(["voluntary", "involuntary", "some", "full"]);
    let losses = Losses::REASONS.iter().map(|(reason, _)| *reason);
    let histograms = catalog::ALL
        .iter()
        .filter(|metric| metric.kind == Kind::Histogram);
    Known {
        metrics,
        histograms: histograms.map(|metric| metric.name.to_owned()).collect(),
        values: BTreeMap::from([
            (
                "state",
                owned(Condition::ALL.iter().map(|it| it.name()).collect()),
            ),
            (
                "adopter",
                owned(AdopterKind::ALL.iter().map(|it| it.name()).collect()),
            ),
            ("kind", owned(kinds.collect())),
            ("on", owned(waits::labels().collect())),
            ("reason", owned(reasons.chain(losses).collect())),
        ]),
    }
}

/// The catalogue and what the recording rules make of it, each of which may use those above it.
fn everything(expressions: &[Expression]) -> Known {
    let mut known = catalogue();
    for expression in expressions {
        if let Some(record) = &expression.record {
            let mut found = check(&known, expression);
            found.extend(expression.adds.iter().cloned());
            known.metrics.insert(record.clone(), found);
        }
    }
    known
}

/// The labels of its result, all that it shows among them.
fn check(known: &Known, expression: &Expression) -> Labels {
    let query = expression.query();
    let parsed = promql_parser::parser::parse(&query);
    let found = parsed.and_then(|parsed| known.labels(&parsed));
    let found = found.unwrap_or_else(|error| panic!("{}: {error}\n{query}", expression.origin));
    for shown in &expression.shows {
        assert!(
            found.contains(shown),
            "{}: no {shown} in the result of {query}",
            expression.origin
        );
    }
    found
}

#[test]
fn every_expression_names_what_there_is() {
    let expressions = all();
    let known = everything(&expressions);
    for expression in &expressions {
        check(&known, expression);
    }
    for place in [Place::Panel, Place::Variable, Place::Alert, Place::Recording] {
        let count = expressions.iter().filter(|it| it.place == place).count();
        assert!(count >= 7, "{count} of {place:?}");
    }
}

/// What somebody who was woken pastes has to work.
#[test]
fn every_query_of_the_runbook_names_what_there_is() {
    let known = everything(&all());
    let queries = of_runbook();
    for query in &queries {
        check(&known, query);
    }
    let asked: BTreeSet<&str> = queries.iter().map(|query| query.origin.as_str()).collect();
    let alerts = all().iter().filter(|it| it.place == Place::Alert).count();
    assert_eq!(asked.len(), alerts, "a query for each alert");
}

#[test]
fn the_fleet_asks_for_recorded_series_alone() {
    let cheap = |metric: &str| {
        metric.contains(':') || ABOUT_SCRAPES.contains(&metric) || metric == catalog::BUILD_INFO.name
    };
    for expression in all().iter().filter(|it| it.origin.starts_with("fleet.json")) {
        let query = expression.query();
        for word in query.split(|letter: char| !letter.is_alphanumeric() && letter != '_' && letter != ':') {
            // Not the job's name in a matcher.
            let is_metric = word.contains("procprobe")
                && word != "procprobe"
                && !query.contains(&format!("\".*{word}.*\""));
            assert!(!is_metric || cheap(word), "{}: {word}", expression.origin);
        }
    }
}

/// The checks above find what they are for.
#[test]
fn mistakes_are_found() {
    let known = everything(&all());
    let wrong = |query: &str| {
        let parsed = promql_parser::parser::parse(query).expect("it is PromQL");
        known.labels(&parsed).expect_err(query)
    };
    assert!(wrong("procprobe_zombie").contains("no metric"));
    assert!(wrong("procprobe_zombies{pid=\"1\"}").contains("no label pid"));
    assert!(wrong("procprobe_threads{state=\"sleping\"}").contains("never"));
    assert!(wrong("sum by (state) (procprobe_zombies)").contains("no label state"));
    assert!(wrong("procprobe_zombies / procprobe_pids_limit").contains("never matches"));
    assert!(wrong("histogram_quantile(0.9, procprobe_reap_delay_seconds_sum)").contains("without buckets"));
    assert!(
        wrong("label_join(procprobe_zombies, \"id\", \" \", \"comm\", \"lock\")").contains("no label lock")
    );
    assert!(wrong("procprobe_zombies and on (state) procprobe_threads").contains("no label"));
}
