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
            },
            "title": self.title,
            "description": self.description,
            "datasource": source(),
            "gridPos": {"x": left, "y": top, "w": self.width, "h": self.height},
            "targets": self.targets(),
            "fieldConfig": {"defaults": self.defaults(), "overrides": self.overrides()},
            "options": self.options(),
        });
        if self.kind == Kind::Table {
            panel["transformations"] = self.transformations();
        }
        if let Some((file, title)) = self.link {
            panel["links"] = json!([{
                "type": "link",
                "title": title,
                "url": format!("/d/procprobe-{file}?${{__url_time_range}}&${{__all_variables}}"),
                "icon": "dashboard",
                "tooltip": "",
                "tags": [],
                "asDropdown": false,
                "includeVars": false,
                "keepTime": false,
                "targetBlank": false,
            }]);
        }
        panel
    }

    fn targets(&self) -> Vec<Value> {
        let format = match self.kind {
            Kind::Table => "table",
            Kind::Heatmap => "heatmap",
            Kind::Stat | Kind::Series => "time_series",
        };
        let target = |(letter, query): (char, &Query)| {
            json!({
                "refId": letter.to_string(),
                "datasource": source(),
                "editorMode": "code",
                "expr": query.expression,
                "legendFormat": query.legend,
                "format": format,
                "instant": self.kind == Kind::Table,
                "range": self.kind != Kind::Table,
            })
        };
        ('A'..='Z').zip(&self.queries).map(target).collect()
    }

    fn defaults(&self) -> Value {
        let mut defaults = json!({
            "unit": self.unit,
            "thresholds": thresholds(&self.steps, if self.kind == Kind::Stat { "green" } else { "text" }),
            "color": {"mode": if self.kind == Kind::Series { "palette-classic-by-name" } else { "thresholds" }},
        });
        match self.kind {
            Kind::Series => {
                defaults["min"] = json!(0);
                defaults["custom"] = self.lines();
            }
            Kind::Table => {
                defaults["custom"] =
                    json!({"align": "auto", "cellOptions": {"type": "auto"}, "inspect": false});
            }
            Kind::Stat => defaults["noValue"] = json!("0"),
            Kind::Heatmap => {}
        }
        defaults
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
            let url = "/d/procprobe-host?var-datasource=${datasource}&var-instance=${__value.raw}&${__url_time_range}";
            all.push(json!({
                "matcher": {"id": "byName", "options": "instance"},
                "properties": [{"id": "links", "value": [{"title": "This host", "url": url}]}],
            }));
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
        json!([
            {"id": "merge", "options": {}},
            {"id": "organize", "options": {
                "excludeByName": {"Time": true, "__name__": true, "job": true},
                "indexByName": {},
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
                "legend": {"displayMode": "table", "placement": "bottom", "showLegend": true, "calcs": ["lastNotNull", "max"]},
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
        }
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
