//! What a person finds on every panel, and what none may have.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::expressions::{boards, entries, panels, text};

const SOURCE: &str = "${datasource}";

fn is_row(panel: &Value) -> bool {
    panel["type"] == "row"
}

/// A panel's columns and lines on the grid, each from and to.
fn place(panel: &Value) -> [u64; 4] {
    let side = |key: &str| panel["gridPos"][key].as_u64().expect("a place on the grid");
    [side("x"), side("x") + side("w"), side("y"), side("y") + side("h")]
}

#[test]
fn ids_are_unique() {
    let mut uids = BTreeSet::new();
    for (name, board) in boards() {
        assert!(
            uids.insert(text(&board, "uid").to_owned()),
            "{name}: its uid is another's"
        );
        assert!(text(&board, "uid").len() <= 40, "{name}");
        let count = panels(&board).count();
        let ids: BTreeSet<u64> = panels(&board)
            .map(|panel| panel["id"].as_u64().expect("an id"))
            .collect();
        assert_eq!(ids.len(), count, "{name}");
        let titles: BTreeSet<&str> = panels(&board).map(|panel| text(panel, "title")).collect();
        assert_eq!(titles.len(), count, "{name}: two panels of one name");
    }
    assert_eq!(uids.len(), 6);
}

/// Panels that are seen together.
fn assert_apart(name: &str, panels: &[Value]) {
    let mut taken: BTreeMap<(u64, u64), &str> = BTreeMap::new();
    for panel in panels {
        let [left, right, top, bottom] = place(panel);
        assert!(
            right <= 24 && left < right && top < bottom,
            "{name}: {}",
            panel["gridPos"]
        );
        for cell in (left..right).flat_map(|x| (top..bottom).map(move |y| (x, y))) {
            if let Some(other) = taken.insert(cell, text(panel, "title")) {
                panic!("{name}: {other:?} and {:?} overlap", text(panel, "title"));
            }
        }
    }
}

#[test]
fn no_panel_covers_another_or_leaves_the_grid() {
    for (name, board) in boards() {
        assert_apart(&name, entries(&board, "panels"));
        // What is inside a row begins below it, as it does when somebody opens the row.
        for row in entries(&board, "panels").iter().filter(|panel| is_row(panel)) {
            assert_apart(&name, entries(row, "panels"));
            let inside = entries(row, "panels").iter();
            let first = inside.map(|panel| place(panel)[2]).min();
            assert!(
                first.is_none_or(|top| top == place(row)[3]),
                "{name}: {}",
                text(row, "title")
            );
        }
    }
}

/// Somebody in a hurry sees what is wrong without scrolling, and a dashboard does not ask everything at once.
#[test]
fn what_matters_is_above_the_fold_and_the_rest_is_shut() {
    for (name, board) in boards() {
        let rows: Vec<&Value> = entries(&board, "panels")
            .iter()
            .filter(|panel| is_row(panel))
            .collect();
        assert!(rows.len() > 2, "{name}");
        assert_eq!(rows[0]["collapsed"], false, "{name}");
        let open = entries(&board, "panels").iter().filter(|panel| !is_row(panel));
        let [seen, screen] = open.fold([0, 0], |[all, screen], panel| {
            [all + 1, screen + u64::from(place(panel)[2] < 20)]
        });
        assert!(
            (1..=16).contains(&seen) && screen <= 12,
            "{name}: {seen} panels are open, {screen} of them on the first screen"
        );
        for row in &rows {
            assert_eq!(
                row["collapsed"] == true,
                !entries(row, "panels").is_empty(),
                "{name}"
            );
        }
        assert!(
            rows.iter().any(|row| row["collapsed"] == true),
            "{name}: nothing is shut"
        );
    }
}

#[test]
fn every_panel_says_what_it_is_in_which_unit() {
    for (name, board) in boards() {
        assert!(text(&board, "description").len() > 20, "{name}");
        for panel in panels(&board).filter(|panel| !is_row(panel)) {
            let title = text(panel, "title");
            assert!(text(panel, "description").len() > 20, "{name}: {title}");
            assert!(
                !text(&panel["fieldConfig"]["defaults"], "unit").is_empty(),
                "{name}: {title}"
            );
            assert!(!entries(panel, "targets").is_empty(), "{name}: {title}");
            let targets: BTreeSet<&str> = entries(panel, "targets")
                .iter()
                .map(|it| text(it, "refId"))
                .collect();
            assert_eq!(targets.len(), entries(panel, "targets").len(), "{name}: {title}");
        }
    }
}

/// Every data source anywhere in a dashboard is the one that its variable names.
fn assert_sources(name: &str, value: &Value) {
    match value {
        Value::Object(fields) => {
            for (key, field) in fields {
                if key == "datasource" {
                    assert_eq!(field["uid"], SOURCE, "{name}: {field}");
                }
                assert_sources(name, field);
            }
        }
        Value::Array(items) => items.iter().for_each(|item| assert_sources(name, item)),
        _ => {}
    }
}

#[test]
fn no_data_source_is_written_down() {
    for (name, board) in boards() {
        assert_sources(&name, &board);
        for panel in panels(&board).filter(|panel| !is_row(panel)) {
            assert_eq!(panel["datasource"]["uid"], SOURCE, "{name}");
            for target in entries(panel, "targets") {
                assert_eq!(target["datasource"]["uid"], SOURCE, "{name}");
            }
        }
        let first = &entries(&board["templating"], "list")[0];
        assert_eq!(
            (text(first, "type"), text(first, "name")),
            ("datasource", "datasource"),
            "{name}"
        );
    }
}

#[test]
fn every_variable_in_use_is_defined() {
    for (name, board) in boards() {
        let variables = entries(&board["templating"], "list");
        let defined: BTreeSet<&str> = variables.iter().map(|variable| text(variable, "name")).collect();
        let whole = board.to_string();
        for variable in [
            "cluster",
            "job",
            "instance",
            "unit",
            "comm",
            "datasource",
            "runbook",
        ] {
            let used = whole.contains(&format!("${variable}"))
                || whole.contains(&format!("${{{variable}}}"))
                || whole.contains(&format!("${{{variable}:"));
            assert!(!used || defined.contains(variable), "{name}: ${variable}");
        }
        assert!(defined.contains("instance"), "{name}");
    }
}

#[test]
fn links_lead_to_dashboards_that_exist() {
    let boards = boards();
    let uids: BTreeSet<&str> = boards.iter().map(|(_, board)| text(board, "uid")).collect();
    let mut links = 0;
    for (name, board) in &boards {
        let whole = board.to_string();
        for link in whole.split("/d/").skip(1) {
            let uid = link.split(['?', '"', '/']).next().unwrap_or_default();
            assert!(uids.contains(uid), "{name}: {uid}");
            links += 1;
        }
        let own = &entries(board, "links")[0];
        assert_eq!(
            own["tags"], board["tags"],
            "{name}: the others are found by this tag"
        );
    }
    assert!(links >= 10, "{links}");
}
