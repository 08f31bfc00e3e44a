//! A dashboard: rows of panels, the variables they use, the links to the others.

use serde_json::{Value, json};

use super::panel::Panel;

/// The tag by which the dashboards find each other.
const TAG: &str = "procprobe";
/// Grafana's grid is this wide.
const COLUMNS: u32 = 24;

/// What the selectors of a board's queries can be narrowed to.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// Many hosts at once, from recorded series.
    Fleet,
    /// One host.
    Host,
    /// One host, and groups of it.
    Groups,
}

/// A headline and what stands below it.
struct Row {
    title: &'static str,
    /// Shut at first: its queries are not sent before somebody opens it.
    collapsed: bool,
    panels: Vec<Panel>,
}

/// A dashboard.
pub struct Board {
    pub file: &'static str,
    title: &'static str,
    description: &'static str,
    scope: Scope,
    rows: Vec<Row>,
}

impl Board {
    pub fn new(file: &'static str, title: &'static str, scope: Scope, description: &'static str) -> Self {
        Self {
            file,
            title,
            description,
            scope,
            rows: Vec::new(),
        }
    }

    /// A headline and the panels below it, left to right, in lines of 24 columns.
    pub fn row(self, title: &'static str, panels: impl Into<Vec<Panel>>) -> Self {
        self.add(title, false, panels.into())
    }

    /// The same, shut until somebody wants it.
    pub fn folded(self, title: &'static str, panels: impl Into<Vec<Panel>>) -> Self {
        self.add(title, true, panels.into())
    }

    fn add(mut self, title: &'static str, collapsed: bool, panels: Vec<Panel>) -> Self {
        self.rows.push(Row {
            title,
            collapsed,
            panels,
        });
        self
    }

    /// More panels below the last headline.
    pub fn more(mut self, panels: impl IntoIterator<Item = Panel>) -> Self {
        if let Some(row) = self.rows.last_mut() {
            row.panels.extend(panels);
        }
        self
    }

    /// What Grafana imports.
    pub fn json(&self) -> Value {
        json!({
            "uid": format!("procprobe-{}", self.file),
            "title": format!("procprobe / {}", self.title),
            "description": self.description,
            "tags": [TAG],
            "schemaVersion": 42,
            "editable": true,
            "graphTooltip": 1,
            "refresh": "30s",
            "time": {"from": "now-3h", "to": "now"},
            "timezone": "browser",
            "links": [{
                "type": "dashboards",
                "title": "procprobe",
                "tags": [TAG],
                "icon": "external link",
                "tooltip": "The same host and time in the other dashboards",
                "asDropdown": false,
                "includeVars": true,
                "keepTime": true,
                "targetBlank": false,
            }, {
                "type": "link",
                "title": "Runbook",
                "url": "${runbook:raw}",
                "tags": [],
                "icon": "doc",
                "tooltip": "What each alert means and what to do",
                "asDropdown": false,
                "includeVars": false,
                "keepTime": false,
                "targetBlank": true,
            }],
            "annotations": {"list": annotations()},
            "templating": {"list": self.variables()},
            "panels": self.panels(),
        })
    }

    fn variables(&self) -> Vec<Value> {
        let mut all = vec![json!({
            "type": "datasource",
            "name": "datasource",
            "label": "Data source",
            "query": "prometheus",
            "refresh": 1,
        })];
        all.push(variable(
            "cluster",
            "Cluster",
            "procprobe_build_info",
            All::Anything,
        ));
        let of_cluster = r#"procprobe_build_info{cluster=~"$cluster"}"#;
        all.push(variable("job", "Job", of_cluster, All::Listed));
        let of_job = r#"procprobe_build_info{cluster=~"$cluster",job=~"$job"}"#;
        // One host at first: the sum over a fleet says little, and asks for a lot.
        let hosts = if self.scope == Scope::Fleet {
            All::Anything
        } else {
            All::None
        };
        all.push(variable("instance", "Host", of_job, hosts));
        if self.scope == Scope::Groups {
            let of_host = r#"procprobe_group_threads{cluster=~"$cluster",job=~"$job",instance=~"$instance"}"#;
            let of_unit = r#"procprobe_group_threads{cluster=~"$cluster",job=~"$job",instance=~"$instance",unit=~"$unit"}"#;
            all.push(variable("unit", "Unit", of_host, All::Anything));
            all.push(variable("comm", "Process name", of_unit, All::Anything));
        }
        all.push(runbook());
        all
    }

    fn panels(&self) -> Vec<Value> {
        let mut all = Vec::new();
        let mut top = 0;
        let mut id = 0;
        for row in &self.rows {
            id += 1;
            let mut headline = json!({
                "id": id,
                "type": "row",
                "title": row.title,
                "collapsed": row.collapsed,
                "panels": [],
                "gridPos": {"x": 0, "y": top, "w": COLUMNS, "h": 1},
            });
            top += 1;
            let (mut panels, bottom) = row.placed(top);
            for panel in &mut panels {
                id += 1;
                panel["id"] = json!(id);
            }
            // A row that is shut keeps its panels inside, and takes one line.
            if row.collapsed {
                headline["panels"] = json!(panels);
                all.push(headline);
            } else {
                top = bottom;
                all.push(headline);
                all.extend(panels);
            }
        }
        all
    }
}

impl Row {
    /// Its panels on the grid from this line on, and the line below them.
    fn placed(&self, mut top: u32) -> (Vec<Value>, u32) {
        let mut all = Vec::new();
        let (mut left, mut tallest) = (0, 0);
        for panel in &self.panels {
            if left + panel.width > COLUMNS {
                top += tallest;
                (left, tallest) = (0, 0);
            }
            all.push(panel.json(left, top));
            left += panel.width;
            tallest = tallest.max(panel.height);
        }
        (all, top + tallest)
    }
}

/// What marks moments on every graph: alerts that fired, and agents that began anew, whose counters do too.
fn annotations() -> Vec<Value> {
    let mark = |name: &str, color: &str, expression: &str, title: &str, text: &str| {
        json!({
            "name": name,
            "enable": true,
            "hide": false,
            "iconColor": color,
            "datasource": {"type": "prometheus", "uid": "${datasource}"},
            "expr": expression,
            "step": "30s",
            "titleFormat": title,
            "textFormat": text,
            "tagKeys": "severity",
            "useValueForTime": false,
        })
    };
    vec![
        mark(
            "Alerts",
            "red",
            r#"ALERTS{alertname=~"Procprobe.+",alertstate="firing",cluster=~"$cluster",instance=~"$instance"}"#,
            "{{alertname}}",
            "{{comm}} {{unit}} {{instance}}",
        ),
        mark(
            "Agent restarts",
            "blue",
            r#"changes(process_start_time_seconds{cluster=~"$cluster",job=~"$job",instance=~"$instance"}[1m]) > 0"#,
            "procprobe started anew",
            "{{instance}}",
        ),
    ]
}

/// Where the runbook is, as the recording rules say: one place for alerts and dashboards.
fn runbook() -> Value {
    let mut variable = variable("base", "Runbook", "procprobe_runbook:info", All::None);
    variable["name"] = json!("runbook");
    variable["multi"] = json!(false);
    variable["hide"] = json!(2);
    variable
}

/// What "All" of a variable stands for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum All {
    /// There is no such choice.
    None,
    /// All values there are.
    Listed,
    /// Anything, nothing among it. Grafana would send all values it knows; this also matches a group without
    /// a unit, a host without a cluster, and a thousand hosts in two bytes.
    Anything,
}

/// A variable with the values that a label has.
fn variable(label: &str, title: &str, selector: &str, all: All) -> Value {
    let query = format!("label_values({selector}, {label})");
    let mut variable = json!({
        "type": "query",
        "name": label,
        "label": title,
        "datasource": {"type": "prometheus", "uid": "${datasource}"},
        "query": {"qryType": 1, "query": query, "refId": "PrometheusVariableQueryEditor-VariableQuery"},
        "refresh": 2,
        "sort": 1,
        "multi": true,
        "includeAll": all != All::None,
    });
    if all == All::Anything {
        variable["allValue"] = json!(".*");
    }
    if all != All::None {
        variable["current"] = json!({"text": ["All"], "value": ["$__all"]});
    }
    variable
}
