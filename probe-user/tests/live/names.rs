//! Names that could break a terminal, a table, JSON, an exposition, or whoever parses /proc/PID/stat.

use crate::common::agent::Agent;
use crate::common::exposition::Exposition;
use crate::common::json::{leader, text};
use crate::common::workload::Workload;
use crate::common::{Live, tools};

/// The names of the scene, in its order, as every output has to show them.
const SHOWN: [&str; 9] = [
    "\\u{1b}[31mred\\u{1b}[0m",
    "a\\nb\\tc\\rd",
    "\\xff\\xfe\\x80x",
    "\"quo\\te\"",
    "} 1\\n# HELP x",
    "\\u{202e}rtl",
    "x) S 1 (y",
    "日本",
    "",
];

fn is_harmless(character: char) -> bool {
    character == '\n' || !(character.is_control() || character == '\u{202e}')
}

#[test]
fn hostile_names_are_escaped_in_every_output() {
    let Some(live) = Live::begin("hostile names") else {
        return;
    };
    let scene = Workload::start(&["names"]);
    let pid = |number: usize| scene.fact(&number.to_string());
    let parent = scene.pid.to_string();
    for source in ["bpf", "proc"] {
        let tree = live.json(&["tree", "--source", source]);
        for (number, shown) in SHOWN.iter().enumerate() {
            assert_eq!(text(leader(&tree, pid(number)), "comm"), *shown, "{source}");
        }
        let table = live.text(&["tree", &parent, "--threads", "--source", source]);
        assert!(table.chars().all(is_harmless), "{source}: {table:?}");
        assert_eq!(
            table.lines().count(),
            SHOWN.len() + 2,
            "{source}: one line for each: {table}"
        );
    }
    for by in ["comm", "process", "thread"] {
        let table = live.text(&["states", "--for", "50ms", "--limit", "0", "--by", by]);
        assert!(table.chars().all(is_harmless), "{by}: {table:?}");
        live.json(&["states", "--for", "50ms", "--by", by]);
    }
    let events = live.text(&["events", "--for", "50ms"]);
    assert!(events.chars().all(is_harmless), "{events:?}");
}

#[test]
fn hostile_names_do_not_break_the_exposition() {
    let Some(live) = Live::begin("hostile labels") else {
        return;
    };
    let _scene = Workload::start(&["names"]);
    let agent = Agent::start(&live, &["--max-groups", "100000"]);
    let scrape = agent.get("/metrics");
    let metrics = Exposition::parse(&scrape);
    for shown in SHOWN {
        assert!(
            metrics.sum("procprobe_group_threads", &[("comm", shown)]) >= 1.0,
            "{shown:?}"
        );
    }
    agent.stop();
    if let Some(promtool) = tools::find("promtool check of hostile labels", "promtool") {
        tools::check_metrics(&promtool, &scrape);
    }
}
