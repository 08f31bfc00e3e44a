//! Rules as promtool judges them, and what each alert has to bring along for whoever is woken by it.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use crate::expressions::{directory, rules};

/// Where the runbook is, as every alert asks for it: what one recorded series says.
const RUNBOOK: &str = r#"{{ with query "procprobe_runbook:info" }}{{ . | first | label "base" }}{{ end }}#"#;
/// Sums over whatever had no place of its own.
const NOBODY: [&str; 2] = ["comm!~\"[(](other|lost)[)]\"", "comm=\"(other)\""];

/// promtool; `None` if it is missing and may be.
fn promtool() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path)
        .map(|directory| directory.join("promtool"))
        .find(|file| file.is_file());
    if found.is_none() {
        let required = std::env::var_os("PROCPROBE_LIVE").is_some_and(|value| value == "required");
        assert!(!required, "no promtool on the path: cargo xtask setup --tests");
        eprintln!("not run: promtool: it is not on the path (`cargo xtask test` finds or unpacks it)");
    }
    found
}

fn assert_passes(arguments: &[&str]) {
    let Some(promtool) = promtool() else { return };
    let output = Command::new(promtool)
        .args(arguments)
        .current_dir(directory().join("prometheus"))
        .output()
        .expect("starting promtool");
    let said =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.contains("SUCCESS"), "{said}");
}

#[test]
fn promtool_accepts_the_configuration_and_the_rules() {
    assert_passes(&["check", "config", "scrape.yml"]);
    assert_passes(&["check", "rules", "recording.yml", "alerts.yml"]);
}

#[test]
fn every_alert_fires_and_does_not_fire() {
    assert_passes(&["test", "rules", "tests.yml"]);
    let tests =
        fs::read_to_string(directory().join("prometheus/tests.yml")).expect("reading the tests of the rules");
    for alert in rules("alerts.yml").iter().filter_map(|rule| rule.alert.as_ref()) {
        let silent = tests.contains(&format!(", alertname: {alert}}}"));
        let fires = tests.contains(&format!(
            "alertname: {alert}\n        exp_alerts:\n          - exp_labels:"
        ));
        assert!(
            silent && fires,
            "{alert}: one case in which it fires and one in which it does not"
        );
    }
}

#[test]
fn every_recording_rule_has_a_value_that_is_right() {
    let tests =
        fs::read_to_string(directory().join("prometheus/tests.yml")).expect("reading the tests of the rules");
    let values = tests
        .split("promql_expr_test:")
        .nth(1)
        .expect("tests of recording rules");
    for record in rules("recording.yml")
        .iter()
        .filter_map(|rule| rule.record.as_ref())
    {
        assert!(
            values.contains(&format!("exp_samples: [{{labels: '{record}{{")),
            "{record}: what it is of the host with a little of everything"
        );
    }
}

/// An alert that names a process has one to name.
#[test]
fn no_alert_is_about_the_rest() {
    for rule in rules("alerts.yml") {
        let alert = rule.alert.expect("alerts.yml holds alerts");
        let names_a_process = rule
            .annotations
            .values()
            .any(|text| text.contains("$labels.comm"));
        assert!(
            !names_a_process || rule.expr.contains(NOBODY[0]),
            "{alert}: {}",
            rule.expr
        );
        assert!(!rule.expr.contains(NOBODY[1]), "{alert}: {}", rule.expr);
    }
}

#[test]
fn every_alert_helps_whoever_it_wakes() {
    let runbook = fs::read_to_string(directory().join("../docs/runbook.md")).expect("reading the runbook");
    for rule in rules("alerts.yml") {
        let alert = rule.alert.expect("alerts.yml holds alerts");
        assert!(rule.hold.is_some(), "{alert} has to hold for a while");
        assert!(
            ["critical", "warning"].contains(&rule.labels["severity"].as_str()),
            "{alert}"
        );
        for key in ["summary", "description"] {
            assert!(
                rule.annotations[key].contains("$labels.instance")
                    || key == "description"
                    || rule.expr.starts_with("absent("),
                "{alert}: where?"
            );
            assert!(rule.annotations[key].len() > 20, "{alert}: {key}");
        }
        assert_eq!(
            rule.annotations["runbook_url"],
            format!("{RUNBOOK}{}", alert.to_lowercase())
        );
        let section = runbook.split(&format!("\n## {alert}\n")).nth(1);
        let section = section.unwrap_or_else(|| panic!("docs/runbook.md has no section {alert}"));
        let section = section.split("\n## ").next().unwrap_or_default();
        let parts = [
            "**Means.**",
            "**Look.**",
            "**Ask.**",
            "Dashboard:",
            "`/d/procprobe-",
            "**Do.**",
        ];
        for part in parts.into_iter().chain(["**Is it over?**"]) {
            assert!(section.contains(part), "docs/runbook.md, {alert}: no {part}");
        }
    }
}
