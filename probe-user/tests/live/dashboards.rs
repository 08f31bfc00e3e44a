//! Every expression of every dashboard and rule, run by a real Prometheus that scrapes the agent under a load that
//! provokes what they look for.

use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::common::agent::Agent;
use crate::common::prometheus::Prometheus;
use crate::common::workload::{Spawner, Workload};
use crate::common::{Live, is_full, note, tools};
use crate::expressions::{Expression, all, directory};

/// What the load cannot or must not provoke: a part of an origin, and why. All else has to return data.
const UNPROVOKED: [(&str, &str); 17] = [
    ("ProcprobePidsRunOut", "would take 85 % of the host's pids"),
    ("Hosts short of pids", "the same"),
    (
        "ProcprobeLosesEvents",
        "would take more births at once than the ring holds",
    ),
    (
        "ProcprobeLockConvoy",
        "would keep both CPUs of a small host busy with queues",
    ),
    ("ProcprobeCrashLoop", "would leave three core dumps behind"),
    ("Who crashed, and who was killed", "the same, and a host's memory"),
    ("ProcprobeOom", "would take the host's memory, or a unit's"),
    (
        "instance:procprobe_folded_time",
        "a host has few groups unless they are made",
    ),
    ("ProcprobeGroupsFolded", "the same"),
    (
        "unit:procprobe_unit_",
        "a host need not have units with limits of their own",
    ),
    ("ProcprobeUnitPidsNearLimit", "the same"),
    ("ProcprobeUnitThrottled", "the same"),
    ("Units and their limits", "the same"),
    (".json: Alerts", "alerts hold for longer than this takes"),
    (".json: Agent restarts", "the agent runs on"),
    ("ProcprobeVanished", "all targets stay"),
    ("ProcprobeAbsent", "there is an agent"),
];

/// Long windows of rates and slopes, and what they are in a test of seconds or of two minutes.
fn scaled(text: &str) -> String {
    let (short, long) = if is_full() {
        ("[45s]", "[90s]")
    } else {
        ("[10s]", "[15s]")
    };
    let text = text.replace("[1m]", short).replace("[5m]", short);
    text.replace("[10m]", long).replace("[1h]", long)
}

/// The recording rules, evaluated every second.
fn recording() -> String {
    let path = directory().join("prometheus/recording.yml");
    let text = std::fs::read_to_string(path).expect("reading the rules");
    assert!(text.contains("interval: 30s"));
    scaled(&text.replace("interval: 30s", "interval: 1s"))
}

/// Everything that can be wrong with a host, in small.
struct Load {
    _standing: Vec<Workload>,
    rounds: Workload,
    births: Workload,
    litter: Workload,
    daemon: Workload,
    family: Workload,
    deaths: Workload,
    spawner: Spawner,
}

impl Load {
    fn start() -> Self {
        let standing: [&[&str]; 10] = [
            &["hogs"],
            &["hogs"],
            &["hogs"],
            &["pingpong"],
            &["prompt"],
            &["vfork"],
            &["stopped"],
            &["cycle", "3"],
            &["cycle-without-owners"],
            &["idle", "pool"],
        ];
        Self {
            _standing: standing.iter().map(|scene| Workload::start(scene)).collect(),
            rounds: Workload::start(&["rounds", "pthread"]),
            births: Workload::start(&["births"]),
            litter: Workload::start(&["litter"]),
            daemon: Workload::start(&["daemon"]),
            family: Workload::start(&["family"]),
            deaths: Workload::start(&["deaths"]),
            spawner: Spawner::start(),
        }
    }

    /// What happens in a second: contention, a fork storm, zombies, an orphan, deaths by code and signal, short stays in D.
    fn act(&mut self) {
        self.rounds.tell("10", "done");
        self.births.tell("1000", "done");
        self.litter.tell("20", "done");
        self.daemon.tell("go", "done");
        self.family.tell("go", "done");
        self.deaths.tell("vfork", "done");
        self.spawner.spawn(10);
    }
}

/// Whether a series has a number; the quantile of nothing is none.
fn has_data(series: &[Value]) -> bool {
    let number = |sample: &Value| sample["value"][1].as_str()?.parse::<f64>().ok();
    series.iter().filter_map(number).any(|value| !value.is_nan())
}

/// As it is sent, but for defaults, which would always be data.
fn query(expression: &Expression) -> String {
    let query = scaled(&expression.query());
    let end = [" or 0 * count(", " or 1e10 * count("]
        .iter()
        .find_map(|rest| query.find(rest));
    end.map_or(query.clone(), |end| query[..end].to_owned())
}

fn prometheus(program: &Path, agent: &Agent) -> Prometheus {
    // Nobody listens on port 1: a host that is down.
    Prometheus::start(program, &[&agent.address, "127.0.0.1:1"], &[recording()])
}

#[test]
fn every_expression_returns_what_the_load_provokes() {
    let Some(live) = Live::begin("expressions of dashboards and rules") else {
        return;
    };
    let Some(program) = tools::find("expressions", "prometheus") else {
        return;
    };
    let mut load = Load::start();
    let agent = Agent::start(&live, &[]);
    let prometheus = prometheus(&program, &agent);
    let expressions = all();
    let mut silent: Vec<&Expression> = expressions.iter().collect();
    let began = Instant::now();
    let least = Duration::from_secs(if is_full() { 120 } else { 16 });
    while began.elapsed() < least || (!all_are_expected(&silent) && began.elapsed() < 4 * least) {
        load.act();
        // Each has to return data at some moment of the load; what is quiet at this one may speak at the next.
        silent.retain(|expression| !has_data(&prometheus.query(&query(expression))));
        std::thread::sleep(Duration::from_millis(500));
    }
    let named: Vec<String> = silent
        .iter()
        .map(|it| format!("{}: {}", it.origin, query(it)))
        .collect();
    assert!(all_are_expected(&silent), "no data for:\n{}", named.join("\n"));
    for rule in prometheus.rules() {
        assert_eq!(rule["health"], "ok", "{rule}");
    }
    note(&format!(
        "{} expressions in {:.0} s; not provoked: {}",
        expressions.len(),
        began.elapsed().as_secs_f64(),
        silent.len()
    ));
    agent.stop();
}

fn all_are_expected(silent: &[&Expression]) -> bool {
    let is_expected = |it: &&Expression| UNPROVOKED.iter().any(|(part, _)| it.origin.contains(part));
    silent.iter().all(is_expected)
}
