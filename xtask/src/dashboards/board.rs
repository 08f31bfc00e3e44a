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

/// A dashboard.
pub struct Board {
    pub file: &'static str,
    title: &'static str,
    description: &'static str,
    scope: Scope,
    rows: Vec<(&'static str, Vec<Panel>)>,
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
    pub fn row(mut self, title: &'static str, panels: impl Into<Vec<Panel>>) -> Self {
        self.rows.push((title, panels.into()));
        self
    }

    /// More panels below the last headline.
    pub fn more(mut self, panels: impl IntoIterator<Item = Panel>) -> Self {
        if let Some((_, row)) = self.rows.last_mut() {
            row.extend(panels);
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
            }],
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
        if self.scope == Scope::Fleet {
            all.push(variable("instance", "Host", "procprobe_build_info", true));
            return all;
        }
        // One host at first: the sum over a fleet says little, and asks for a lot.
        all.push(variable("instance", "Host", "procprobe_build_info", false));
        if self.scope == Scope::Groups {
            let of_host = r#"procprobe_group_threads{instance=~"$instance"}"#;
            let of_unit = r#"procprobe_group_threads{instance=~"$instance",unit=~"$unit"}"#;
            all.push(variable("unit", "Unit", of_host, true));
            all.push(variable("comm", "Process name", of_unit, true));
        }
        all
    }

    fn panels(&self) -> Vec<Value> {
        let mut all = Vec::new();
        let mut top = 0;
        for (title, panels) in &self.rows {
            all.push(json!({
                "type": "row",
                "title": title,
                "collapsed": false,
                "panels": [],
                "gridPos": {"x": 0, "y": top, "w": COLUMNS, "h": 1},
            }));
            top += 1;
            let (mut left, mut tallest) = (0, 0);
            for panel in panels {
                if left + panel.width > COLUMNS {
                    top += tallest;
                    (left, tallest) = (0, 0);
                }
                all.push(panel.json(left, top));
                left += panel.width;
                tallest = tallest.max(panel.height);
            }
            top += tallest;
        }
        for (number, panel) in all.iter_mut().enumerate() {
            panel["id"] = json!(number + 1);
        }
        all
    }
}

/// A variable with the values that a label has.
fn variable(label: &str, title: &str, selector: &str, all: bool) -> Value {
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
        "includeAll": all,
    });
    // Grafana would send all values it knows; this also matches a group without a unit, and a thousand hosts in two bytes.
    if all {
        variable["allValue"] = json!(".*");
        variable["current"] = json!({"text": ["All"], "value": ["$__all"]});
    }
    variable
}
