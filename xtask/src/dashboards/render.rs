//! A panel as Grafana's JSON: what each kind of panel looks like, decided once for all dashboards.

use serde_json::{Value, json};

use super::panel::{Column, Kind, Panel, Query, Step};

impl Panel {
    /// What Grafana imports, but for the id.
    pub fn json(&self, left: u32, top: u32) -> Value {
        let mut panel = json!({
            "type": match self.kind {
                Kind::Stat => "stat",
                Kind::Series => "timeseries",
                Kind::Table => "table",
                Kind::Heatmap => "heatmap",
                Kind::Graph => "nodeGraph",
            },
            "title": self.title,
            "description": self.description,
            "datasource": source(),
            "gridPos": {"x": left, "y": top, "w": self.width, "h": self.height},
            // A finer step than scrapes come in costs and shows nothing; that of scrape.yml.
            "interval": "15s",
            "targets": self.targets(),
            "fieldConfig": {"defaults": self.defaults(), "overrides": self.overrides()},
            "options": self.options(),
        });
        match self.kind {
            Kind::Table => panel["transformations"] = self.transformations(),
            Kind::Graph => panel["transformations"] = main_stat(),
            Kind::Stat | Kind::Series | Kind::Heatmap => {}
        }
        panel["links"] = json!(self.links());
        panel
    }

    /// Where to go on: another dashboard, and what the runbook says about the alerts whose thresholds these
    /// are.
    fn links(&self) -> Vec<Value> {
        let link = |title: &str, url: String, icon: &str, apart: bool| {
            json!({
                "type": "link",
                "title": title,
                "url": url,
                "icon": icon,
                "tooltip": "",
                "tags": [],
                "asDropdown": false,
                "includeVars": false,
                "keepTime": false,
                "targetBlank": apart,
            })
        };
        let board = self.link.iter().map(|(file, title)| {
            let url = format!("/d/procprobe-{file}?${{__url_time_range}}&${{__all_variables}}");
            link(title, url, "dashboard", false)
        });
        let runbook = self.alerts.iter().map(|alert| {
            let url = format!("${{runbook:raw}}#{}", alert.to_lowercase());
            link(&format!("Runbook: {alert}"), url, "doc", true)
        });
        board.chain(runbook).collect()
    }

    fn targets(&self) -> Vec<Value> {
        let format = match self.kind {
            Kind::Table | Kind::Graph => "table",
            Kind::Heatmap => "heatmap",
            Kind::Stat | Kind::Series => "time_series",
        };
        let is_instant = matches!(self.kind, Kind::Table | Kind::Graph);
        let target = |(letter, query): (char, &Query)| {
            json!({
                // The panel takes a frame of this name for its edges.
                "refId": if self.kind == Kind::Graph { "edges".to_owned() } else { letter.to_string() },
                "datasource": source(),
                "editorMode": "code",
                "expr": query.expression,
                "legendFormat": query.legend,
                "format": format,
                "instant": is_instant,
                "range": !is_instant,
            })
        };
        ('A'..='Z').zip(&self.queries).map(target).collect()
    }

    fn defaults(&self) -> Value {
        let mut defaults = json!({
            "unit": self.unit,
            "thresholds": thresholds(&self.steps, self.base),
            "color": {"mode": if self.kind == Kind::Series { "palette-classic-by-name" } else { "thresholds" }},
        });
        if let Some(decimals) = decimals(self.kind, self.unit) {
            defaults["decimals"] = json!(decimals);
        }
        match self.kind {
            Kind::Series => {
                defaults["min"] = json!(0);
                defaults["custom"] = self.lines();
                defaults["links"] = json!(self.drill_down());
            }
            Kind::Table => {
                defaults["custom"] =
                    json!({"align": "auto", "cellOptions": {"type": "auto"}, "inspect": false});
            }
            Kind::Stat => {
                defaults["noValue"] = json!("no data");
                defaults["mappings"] = json!(self.mappings());
            }
            Kind::Heatmap | Kind::Graph => {}
        }
        defaults
    }

    /// Nothing is not 0, and has none of the colours of health.
    fn mappings(&self) -> Vec<Value> {
        let mut all = vec![json!({
            "type": "special",
            "options": {"match": "null+nan", "result": {"text": "no data", "color": "text", "index": 0}},
        })];
        if let Some((from, words)) = self.never {
            all.push(json!({
                "type": "range",
                "options": {"from": from, "to": null, "result": {"text": words, "color": "green", "index": 1}},
            }));
        }
        all
    }

    /// From a line to what it is about: a process name of a unit, or a host.
    fn drill_down(&self) -> Vec<Value> {
        let shows = |label: &str| self.queries.iter().any(|query| query.legend.contains(label));
        if shows("{{comm}}") {
            let of =
                "var-unit=${__field.labels.unit:percentencode}&var-comm=${__field.labels.comm:percentencode}";
            return vec![json!({"title": "This process name", "url": format!("{GROUP_LINK}&{of}")})];
        }
        if shows("{{instance}}") {
            let of = "var-instance=${__field.labels.instance:percentencode}";
            return vec![json!({"title": "This host", "url": format!("{HOST_LINK}&{of}")})];
        }
        Vec::new()
    }

    fn lines(&self) -> Value {
        json!({
            "drawStyle": "line",
            "lineInterpolation": "linear",
            "lineWidth": 1,
            "fillOpacity": if self.stacked { 40 } else { 8 },
            "showPoints": "never",
            "spanNulls": false,
            "stacking": {"mode": if self.stacked { "normal" } else { "none" }, "group": "A"},
            "thresholdsStyle": {"mode": if self.steps.is_empty() { "off" } else { "dashed" }},
        })
    }

    /// Units and colours of a table's columns, and the way from a host's name to its dashboard.
    fn overrides(&self) -> Vec<Value> {
        let column = |column: &Column| {
            let mut properties = vec![json!({"id": "unit", "value": column.unit})];
            if !column.steps.is_empty() {
                properties.push(json!({"id": "thresholds", "value": thresholds(&column.steps, "text")}));
                properties.push(json!({"id": "custom.cellOptions", "value": {"type": "color-text"}}));
            }
            json!({"matcher": {"id": "byName", "options": column.title}, "properties": properties})
        };
        let mut all: Vec<Value> = self.columns.iter().map(column).collect();
        if self.kind == Kind::Table {
            let link = |label: &str, title: &str, url: String| {
                json!({
                    "matcher": {"id": "byName", "options": label},
                    "properties": [{"id": "links", "value": [{"title": title, "url": url}]}],
                })
            };
            let raw = "${__value.raw:percentencode}";
            let unit = "${__data.fields.unit:percentencode}";
            all.push(link(
                "instance",
                "This host",
                format!("{HOST_LINK}&var-instance={raw}"),
            ));
            all.push(link("unit", "This unit", format!("{GROUP_LINK}&var-unit={raw}")));
            all.push(link(
                "comm",
                "This process name",
                format!("{GROUP_LINK}&var-unit={unit}&var-comm={raw}"),
            ));
        }
        all
    }

    /// One line per thing instead of one table per query, without the time, which is now for all of them.
    fn transformations(&self) -> Value {
        let mut names: serde_json::Map<String, Value> = ('A'..='Z')
            .zip(&self.columns)
            .map(|(letter, column)| (format!("Value #{letter}"), json!(column.title)))
            .collect();
        // With a single query it has no letter.
        names.extend(
            self.columns
                .first()
                .map(|column| ("Value".to_owned(), json!(column.title))),
        );
        let places: serde_json::Map<String, Value> = self
            .labels
            .iter()
            .enumerate()
            .map(|(place, label)| ((*label).to_owned(), json!(place)))
            .collect();
        json!([
            {"id": "merge", "options": {}},
            {"id": "organize", "options": {
                "excludeByName": {"Time": true, "__name__": true, "job": true, "cluster": true, "state": true},
                "indexByName": places,
                "renameByName": names,
            }},
        ])
    }

    fn options(&self) -> Value {
        match self.kind {
            Kind::Stat => json!({
                "colorMode": "value",
                "graphMode": "area",
                "justifyMode": "auto",
                "textMode": "auto",
                "orientation": "auto",
                "wideLayout": true,
                "showPercentChange": false,
                "percentChangeColorMode": "standard",
                "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": false},
            }),
            Kind::Series => json!({
                "legend": {
                    "displayMode": "table", "placement": "bottom", "showLegend": true,
                    "calcs": ["lastNotNull", "mean", "max"], "sortBy": self.sorted_by, "sortDesc": true,
                },
                "tooltip": {"mode": "multi", "sort": "desc"},
            }),
            Kind::Table => json!({
                "showHeader": true,
                "frameIndex": 0,
                "cellHeight": "sm",
                "sortBy": self.columns.first().map_or_else(Vec::new, |column| {
                    vec![json!({"displayName": column.title, "desc": true})]
                }),
            }),
            Kind::Heatmap => heatmap_options(self.unit),
            // Units are shown as they are written here.
            Kind::Graph => json!({
                "nodes": {"mainStatUnit": self.unit},
                "edges": {"mainStatUnit": self.unit},
                "layoutAlgorithm": "layered",
                "zoomMode": "cooperative",
            }),
        }
    }
}

/// The dashboard of groups, of the same hosts and time.
const GROUP_LINK: &str = "/d/procprobe-states?${__url_time_range}&${datasource:queryparam}&${cluster:queryparam}&${job:queryparam}\
     &${instance:queryparam}";
/// The dashboard of a host, at the same time.
const HOST_LINK: &str =
    "/d/procprobe-host?${__url_time_range}&${datasource:queryparam}&${cluster:queryparam}&${job:queryparam}";

/// The number of each edge under the name by which the panel looks for it. A rename would not do: that
/// changes what a field is called on the screen, and the panel looks for what it is called in the data. A
/// calculation makes a new one.
fn main_stat() -> Value {
    json!([{
        "id": "calculateField",
        "options": {
            "mode": "binary",
            "binary": {
                "left": {"matcher": {"id": "byName", "options": "Value"}},
                "operator": "*",
                "right": {"fixed": "1"},
            },
            "alias": "mainstat",
            "replaceFields": false,
        },
    }])
}

/// How many digits a number has behind its point; what is left open Grafana chooses by the number's size.
fn decimals(kind: Kind, unit: &str) -> Option<u32> {
    match (kind, unit) {
        (_, "percentunit") | (Kind::Graph, _) => Some(1),
        (Kind::Stat, "short") => Some(0),
        (Kind::Stat, "none" | "cps") => Some(2),
        _ => None,
    }
}

/// Logarithmic in colour, so that a single slow stay shows beside a million quick ones.
fn heatmap_options(unit: &str) -> Value {
    json!({
        "calculate": false,
        "cellGap": 1,
        "color": {"mode": "scheme", "scheme": "Oranges", "fill": "dark-orange", "scale": "exponential", "exponent": 0.4,
                  "steps": 64, "reverse": false},
        "exemplars": {"color": "rgba(255,0,255,0.7)"},
        "filterValues": {"le": 1e-9},
        "legend": {"show": true},
        "rowsFrame": {"layout": "auto"},
        "showValue": "never",
        "tooltip": {"mode": "single", "yHistogram": true, "showColorScale": true},
        "yAxis": {"unit": unit, "axisPlacement": "left", "reverse": false},
    })
}

fn thresholds(steps: &[Step], base: &str) -> Value {
    let first = json!({"value": null, "color": base});
    let rest = steps
        .iter()
        .map(|step| json!({"value": step.from, "color": step.color}));
    json!({"mode": "absolute", "steps": std::iter::once(first).chain(rest).collect::<Vec<_>>()})
}

/// Whichever data source the dashboard's variable names.
fn source() -> Value {
    json!({"type": "prometheus", "uid": "${datasource}"})
}
