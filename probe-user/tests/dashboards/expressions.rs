//! Every expression of every dashboard and rule file. Used here and by `tests/live/dashboards.rs`.

use std::fs;
use std::path::PathBuf;

use serde::Deserialize;
use serde_json::Value;

/// Where an expression stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// A panel's query, evaluated over time or once.
    Panel,
    /// The selector of a variable.
    Variable,
    /// An alert's condition.
    Alert,
    /// What is recorded.
    Recording,
    /// What marks moments on a dashboard.
    Annotation,
    /// A query of the runbook, to be pasted.
    Runbook,
}

/// The labels of an edge by which Grafana's *Node graph* finds its ends; all but the number, which a
/// transformation makes.
pub const EDGE: [&str; 3] = ["id", "source", "target"];

/// One expression.
#[derive(Clone, Debug)]
pub struct Expression {
    /// Where it stands.
    pub place: Place,
    /// File and title.
    pub origin: String,
    /// As it is written, with Grafana's variables.
    pub text: String,
    /// Label names that are made of its result: in a legend, a variable, an annotation.
    pub shows: Vec<String>,
    /// What it is recorded as.
    pub record: Option<String>,
    /// Labels that the rule adds to what it records.
    pub adds: Vec<String>,
}

impl Expression {
    /// As Prometheus would be sent it: all variables at "All", rates over a minute.
    pub fn query(&self) -> String {
        let mut text = self
            .text
            .replace("$__rate_interval", "1m")
            .replace("$__range", "1m");
        // All of its values, and not anything, so that `up` is that of agents.
        text = text.replace("$job", "procprobe");
        for variable in ["$cluster", "$instance", "$unit", "$comm"] {
            text = text.replace(variable, ".*");
        }
        assert!(
            // But for what `label_replace` means by it.
            !text.replace("\"$1\"", "").contains('$'),
            "{}: a variable is left in {text}",
            self.origin
        );
        text
    }
}

/// `dashboards/`.
pub fn directory() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../dashboards"))
}

/// All dashboards by file name, in the order of their names.
pub fn boards() -> Vec<(String, Value)> {
    let entries = fs::read_dir(directory().join("grafana")).expect("listing the dashboards");
    let paths = entries.map(|entry| entry.expect("an entry").path());
    let mut paths: Vec<PathBuf> = paths
        .filter(|path| path.extension().is_some_and(|end| end == "json"))
        .collect();
    paths.sort();
    let board = |path: PathBuf| {
        let text = fs::read_to_string(&path).expect("reading a dashboard");
        let name = path.file_name().expect("a name").to_string_lossy().into_owned();
        (name, serde_json::from_str(&text).expect("a dashboard is JSON"))
    };
    paths.into_iter().map(board).collect()
}

/// The entries of a list, which may be missing.
pub fn entries<'a>(value: &'a Value, key: &str) -> &'a [Value] {
    value[key].as_array().map_or(&[], Vec::as_slice)
}

/// All panels of a dashboard, those in collapsed rows and the rows themselves among them.
pub fn panels(board: &Value) -> impl Iterator<Item = &Value> {
    let with_inner = |panel| std::iter::once(panel).chain(entries(panel, "panels"));
    entries(board, "panels").iter().flat_map(with_inner)
}

/// A text that has to be there.
pub fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key]
        .as_str()
        .unwrap_or_else(|| panic!("no {key} in {value}"))
}

/// A rule file.
#[derive(Deserialize)]
pub struct RuleFile {
    /// Its groups.
    pub groups: Vec<Group>,
}

/// Rules that are evaluated in turn.
#[derive(Deserialize)]
pub struct Group {
    /// In order.
    pub rules: Vec<Rule>,
}

/// A recording rule or an alert.
#[derive(Deserialize)]
pub struct Rule {
    /// What is recorded.
    pub record: Option<String>,
    /// What the alert is called.
    pub alert: Option<String>,
    /// The query.
    pub expr: String,
    /// For how long it has to hold.
    #[serde(rename = "for")]
    pub hold: Option<String>,
    /// Added to the alert.
    #[serde(default)]
    pub labels: std::collections::BTreeMap<String, String>,
    /// Said about it.
    #[serde(default)]
    pub annotations: std::collections::BTreeMap<String, String>,
}

/// The rules of a file in `dashboards/prometheus`.
pub fn rules(file: &str) -> Vec<Rule> {
    let path = directory().join("prometheus").join(file);
    let text = fs::read_to_string(path).expect("reading rules");
    let file: RuleFile = serde_saphyr::from_str(&text).expect("rules as Prometheus reads them");
    file.groups.into_iter().flat_map(|group| group.rules).collect()
}

/// All of them.
pub fn all() -> Vec<Expression> {
    let mut all: Vec<Expression> = ["recording.yml", "alerts.yml"]
        .iter()
        .flat_map(|file| rules(file).into_iter().map(|rule| of_rule(file, rule)))
        .collect();
    for (name, board) in boards() {
        all.extend(of_panels(&name, &board));
        all.extend(of_variables(&name, &board));
        all.extend(of_annotations(&name, &board));
    }
    all
}

/// The queries of the runbook, a line each.
pub fn of_runbook() -> Vec<Expression> {
    let runbook = fs::read_to_string(directory().join("../docs/runbook.md")).expect("reading the runbook");
    let mut all = Vec::new();
    for section in runbook.split("\n## ").skip(1) {
        let alert = section.lines().next().unwrap_or_default();
        let blocks = section
            .split("```promql\n")
            .skip(1)
            .filter_map(|rest| rest.split("\n```").next());
        all.extend(blocks.flat_map(str::lines).map(|query| Expression {
            place: Place::Runbook,
            origin: format!("runbook.md: {alert}"),
            text: query.to_owned(),
            shows: Vec::new(),
            record: None,
            adds: Vec::new(),
        }));
    }
    all
}

fn of_rule(file: &str, rule: Rule) -> Expression {
    let name = rule.record.clone().or(rule.alert).expect("a rule has a name");
    Expression {
        place: if rule.record.is_some() {
            Place::Recording
        } else {
            Place::Alert
        },
        origin: format!("{file}: {name}"),
        text: rule.expr,
        shows: rule
            .annotations
            .values()
            .flat_map(|text| named(text, "$labels."))
            .collect(),
        record: rule.record,
        adds: rule.labels.into_keys().collect(),
    }
}

fn of_panels(name: &str, board: &Value) -> Vec<Expression> {
    let mut all = Vec::new();
    for panel in panels(board) {
        for target in entries(panel, "targets") {
            let mut shows = named(text(target, "legendFormat"), "{{");
            if panel["type"] == "nodeGraph" {
                shows.extend(EDGE.map(str::to_owned));
            }
            all.push(Expression {
                place: Place::Panel,
                origin: format!("{name}: {}", text(panel, "title")),
                text: text(target, "expr").to_owned(),
                shows,
                record: None,
                adds: Vec::new(),
            });
        }
    }
    all
}

fn of_variables(name: &str, board: &Value) -> Vec<Expression> {
    let variables = entries(&board["templating"], "list").iter();
    let queries = variables.filter(|variable| variable["type"] == "query");
    let expression = |variable: &Value| {
        let query = text(&variable["query"], "query");
        let inside = query
            .strip_prefix("label_values(")
            .and_then(|rest| rest.strip_suffix(')'));
        let (selector, label) = inside
            .and_then(|inside| inside.rsplit_once(','))
            .expect("label_values(…, label)");
        Expression {
            place: Place::Variable,
            origin: format!("{name}: ${}", text(variable, "name")),
            text: selector.to_owned(),
            shows: vec![label.trim().to_owned()],
            record: None,
            adds: Vec::new(),
        }
    };
    queries.map(expression).collect()
}

fn of_annotations(name: &str, board: &Value) -> Vec<Expression> {
    let marks = entries(&board["annotations"], "list").iter();
    let queried = marks.filter(|mark| mark["datasource"]["type"] == "prometheus");
    let expression = |mark: &Value| Expression {
        place: Place::Annotation,
        origin: format!("{name}: {}", text(mark, "name")),
        text: text(mark, "expr").to_owned(),
        shows: ["titleFormat", "textFormat"]
            .iter()
            .flat_map(|key| named(text(mark, key), "{{"))
            .collect(),
        record: None,
        adds: Vec::new(),
    };
    queried.map(expression).collect()
}

/// The names that follow a prefix in a template.
fn named(template: &str, prefix: &str) -> Vec<String> {
    let after = template.split(prefix).skip(1);
    let names = after.map(|rest| {
        let end = rest.find(|letter: char| !letter.is_alphanumeric() && letter != '_');
        rest[..end.unwrap_or(rest.len())].to_owned()
    });
    names.collect()
}
