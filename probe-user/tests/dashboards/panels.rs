//! What somebody who reads dashboards all day expects of each panel: that it ranks over the whole time, that
//! its colours are those of the alerts, that silence does not look like health, and that there is a way on
//! from what it shows.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::expressions::{boards, entries, panels, rules, text};

/// Every panel but the rows, with its origin.
fn all() -> Vec<(String, Value)> {
    let of_board = |(name, board): (String, Value)| -> Vec<(String, Value)> {
        let origin = |panel: &Value| (format!("{name}: {}", text(panel, "title")), panel.clone());
        panels(&board)
            .filter(|panel| panel["type"] != "row")
            .map(origin)
            .collect()
    };
    boards().into_iter().flat_map(of_board).collect()
}

fn expressions(panel: &Value) -> impl Iterator<Item = &str> {
    entries(panel, "targets")
        .iter()
        .map(|target| text(target, "expr"))
}

#[test]
fn rankings_are_of_the_whole_time() {
    let mut rankings = 0;
    for (origin, panel) in all().iter().filter(|(_, panel)| panel["type"] == "timeseries") {
        for expression in expressions(panel).filter(|expression| expression.contains("topk(")) {
            let ranked = expression.split("topk(").nth(1).unwrap_or_default();
            assert!(expression.contains(" and on ("), "{origin}: {expression}");
            assert!(ranked.contains("[$__range] @ end()"), "{origin}: {expression}");
            assert!(!ranked.contains("[$__rate_interval]"), "{origin}: {expression}");
            let of_groups = expression.contains("comm)");
            assert!(
                !of_groups || ranked.contains("comm!~\"[(](other|lost)[)]\""),
                "{origin}: a sum of strangers leads"
            );
            rankings += 1;
        }
    }
    assert!(rankings >= 15, "{rankings}");
}

#[test]
fn tables_and_graphs_rank_nobody() {
    for (origin, panel) in all()
        .iter()
        .filter(|(_, panel)| panel["type"] == "table" || panel["type"] == "nodeGraph")
    {
        for expression in expressions(panel).filter(|it| it.contains("topk(") && it.contains("comm)")) {
            assert!(
                expression.contains("comm!~\"[(](other|lost)[)]\""),
                "{origin}: {expression}"
            );
        }
    }
}

#[test]
fn legends_are_sorted_by_value() {
    for (origin, panel) in all().iter().filter(|(_, panel)| panel["type"] == "timeseries") {
        let legend = &panel["options"]["legend"];
        assert!(["Mean", "Max"].contains(&text(legend, "sortBy")), "{origin}");
        assert_eq!(legend["sortDesc"], true, "{origin}");
        let column = text(legend, "sortBy").to_lowercase();
        assert!(
            entries(legend, "calcs").iter().any(|calc| *calc == column),
            "{origin}"
        );
    }
}

#[test]
fn silence_does_not_look_like_health() {
    for (origin, panel) in all().iter().filter(|(_, panel)| panel["type"] == "stat") {
        let defaults = &panel["fieldConfig"]["defaults"];
        assert_eq!(defaults["noValue"], "no data", "{origin}");
        let nothing = &entries(defaults, "mappings")[0]["options"];
        assert_eq!(nothing["match"], "null+nan", "{origin}");
        assert_eq!(
            nothing["result"]["color"], "text",
            "{origin}: no colour of health"
        );
        for expression in expressions(panel) {
            assert!(
                !expression.contains("vector("),
                "{origin}: a host without an agent has this too"
            );
        }
    }
}

/// The numbers that the comparisons of an alert compare with.
fn thresholds(expression: &str) -> Vec<f64> {
    let after = expression.split(['<', '>']).skip(1);
    let number = |rest: &str| {
        let rest = rest.trim_start_matches('=').trim_start();
        let end = rest.find(|letter: char| !letter.is_ascii_digit() && letter != '.');
        rest[..end.unwrap_or(rest.len())].parse().ok()
    };
    let equal = expression
        .split("== ")
        .skip(1)
        .filter_map(|rest| rest.trim().parse().ok());
    after.filter_map(number).chain(equal).collect()
}

/// All steps of a panel that have a colour: from where, and which.
fn steps(panel: &Value) -> Vec<(f64, String)> {
    let config = &panel["fieldConfig"];
    let columns = entries(config, "overrides")
        .iter()
        .flat_map(|it| entries(it, "properties"));
    let columns = columns.filter(|property| property["id"] == "thresholds");
    let all = columns.map(|property| &property["value"]);
    let all = all.chain([&config["defaults"]["thresholds"]]);
    all.flat_map(|thresholds| entries(thresholds, "steps"))
        .filter_map(|step| Some((step["value"].as_f64()?, text(step, "color").to_owned())))
        .collect()
}

/// Whether a step is where an alert begins: at its number; at the least that there can be above its 0; as a
/// count of what is beyond its number; or at three days, which the alert has as `3 * 86400`.
#[expect(clippy::float_cmp, reason = "the same number, written twice")]
fn is_threshold_of(from: f64, panel: &Value, alert: &str) -> bool {
    let numbers = thresholds(alert);
    let counts = |number: f64| {
        from == 1.0
            && expressions(panel).any(|it| thresholds(it).contains(&number) && it.starts_with("count("))
    };
    let least = numbers.contains(&0.0) && [1.0, 0.001].contains(&from);
    let days = from == 3.0 * 86400.0 && alert.contains("3 * 86400");
    least || days || numbers.iter().any(|&number| number == from || counts(number))
}

#[test]
fn colours_are_those_of_the_alerts() {
    let alerts = rules("alerts.yml").into_iter();
    let alerts: BTreeMap<String, _> = alerts
        .map(|rule| (rule.alert.clone().unwrap_or_default().to_lowercase(), rule))
        .collect();
    let mut linked = 0;
    for (origin, panel) in all() {
        let links = entries(&panel, "links").iter().map(|link| text(link, "url"));
        let named = links.filter_map(|url| url.strip_prefix("${runbook:raw}#"));
        let named: Vec<_> = named
            .map(|name| {
                alerts
                    .get(name)
                    .unwrap_or_else(|| panic!("{origin}: no alert {name}"))
            })
            .collect();
        linked += named.len();
        for (from, color) in steps(&panel) {
            let severity = match color.as_str() {
                "red" => "critical",
                "orange" | "green" => "warning",
                // Worth knowing, and no alert.
                "blue" => continue,
                other => panic!("{origin}: {other}"),
            };
            let its = named.iter().filter(|rule| rule.labels["severity"] == severity);
            let found = its
                .map(|rule| &rule.expr)
                .any(|expression| is_threshold_of(from, &panel, expression));
            assert!(
                found,
                "{origin}: no {severity} alert of the panel's begins at {from}"
            );
        }
    }
    assert!(linked >= 25, "{linked}");
}

#[test]
fn what_is_named_can_be_followed() {
    for (origin, panel) in all() {
        let defaults = &panel["fieldConfig"]["defaults"];
        let shows = entries(&panel, "targets")
            .iter()
            .map(|target| text(target, "legendFormat"));
        let shows: String = shows.collect();
        let links = serde_json::Value::Array(entries(defaults, "links").to_vec()).to_string();
        for label in ["instance", "comm"]
            .iter()
            .filter(|label| shows.contains(&format!("{{{{{label}}}}}")))
        {
            let value = format!("var-{label}=${{__field.labels.{label}:percentencode}}");
            assert!(links.contains(&value), "{origin}: {links}");
        }
    }
}

/// As the panel's documentation has it: a frame called `edges`, with text fields `id`, `source` and `target`,
/// which `names.rs` looks for in the query's result, and a number `mainstat`.
#[test]
fn edges_are_what_the_node_graph_takes() {
    let mut graphs = 0;
    for (origin, panel) in all().iter().filter(|(_, panel)| panel["type"] == "nodeGraph") {
        let target = &entries(panel, "targets")[0];
        assert_eq!(
            entries(panel, "targets").len(),
            1,
            "{origin}: its number is `Value` as long as it is the only one"
        );
        assert_eq!(target["refId"], "edges", "{origin}");
        assert_eq!(
            (&target["format"], &target["instant"]),
            (&Value::from("table"), &Value::from(true)),
            "{origin}"
        );
        let made = &entries(panel, "transformations")[0];
        assert_eq!(
            made["id"], "calculateField",
            "{origin}: a rename changes what is shown, not the field's name"
        );
        assert_eq!(made["options"]["alias"], "mainstat", "{origin}");
        assert_eq!(
            made["options"]["binary"]["left"]["matcher"]["options"], "Value",
            "{origin}"
        );
        assert!(
            text(target, "expr").contains("topk(") || text(target, "expr").contains("by (from, to)"),
            "{origin}: how many at most?"
        );
        graphs += 1;
    }
    assert_eq!(graphs, 3);
}
