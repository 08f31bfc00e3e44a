//! The dashboards are values of Grafana's own published types (npm: `@grafana/schema`), as its compiler sees it.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use crate::expressions::boards;

/// The directory with `@grafana/schema` and `typescript` in it, which `cargo xtask setup --tests` fills and names.
fn types() -> Option<PathBuf> {
    let found = std::env::var_os("PROCPROBE_GRAFANA_TYPES").map(PathBuf::from);
    if found.is_none() {
        let required = std::env::var_os("PROCPROBE_LIVE").is_some_and(|value| value == "required");
        assert!(
            !required,
            "PROCPROBE_GRAFANA_TYPES does not say where Grafana's types are"
        );
        eprintln!("not run: Grafana's types: `cargo xtask test` installs and names them");
    }
    found
}

/// What the compiler says about a program; empty if nothing.
fn compile(types: &PathBuf, source: &str) -> String {
    let work = tempfile::tempdir_in(types).expect("a directory beside the types");
    let file = work.path().join("dashboard.ts");
    fs::write(&file, source).expect("writing the program");
    let output = Command::new("node")
        .arg(types.join("node_modules/typescript/lib/tsc.js"))
        .args([
            "--noEmit",
            "--strict",
            "--skipLibCheck",
            "--target",
            "es2022",
            "--module",
            "preserve",
        ])
        .args(["--moduleResolution", "bundler"])
        .arg(&file)
        .output()
        .expect("starting node");
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

#[test]
fn dashboards_are_what_grafana_takes_for_one() {
    let Some(types) = types() else { return };
    let mut source = include_str!("dashboard.ts").to_owned();
    for (number, (name, board)) in boards().iter().enumerate() {
        source += &format!("\n// {name}\nexport const board{number}: Board = {board:#};\n");
    }
    let said = compile(&types, &source);
    assert!(said.is_empty(), "{said}");
}

/// One board for each mistake.
#[test]
fn mistakes_are_found() {
    let Some(types) = types() else { return };
    let (_, board) = boards().remove(0);
    let change = |from: &str, to: &str| {
        let text = format!("{board:#}");
        assert!(text.contains(from), "{from}");
        text.replacen(from, to, 1)
    };
    let wrong = [
        change("\"colorMode\": \"value\"", "\"colorMode\": \"valu\""),
        change("\"showHeader\"", "\"showHeaders\""),
        change("\"schemaVersion\": 42", "\"schemaVersion\": \"42\""),
        change("\"fillOpacity\": 8", "\"fillOpacity\": \"8\""),
        change("\"refresh\": 2", "\"refresh\": 7"),
        change("\"expr\"", "\"query\""),
    ];
    let mut source = include_str!("dashboard.ts").to_owned();
    let mut begins = Vec::new();
    for (number, text) in wrong.iter().enumerate() {
        begins.push(source.lines().count());
        source += &format!("export const board{number}: Board = {text};\n");
    }
    let said = compile(&types, &source);
    let lines: Vec<usize> = said.lines().filter_map(line_of).collect();
    for (number, &begin) in begins.iter().enumerate() {
        let end = begins.get(number + 1).copied().unwrap_or(usize::MAX);
        let found = lines.iter().any(|line| (begin + 1..=end).contains(line));
        assert!(found, "mistake {number} is not found: {said}");
    }
}

/// The line of `dashboard.ts(12,3): error …`.
fn line_of(error: &str) -> Option<usize> {
    let (place, _) = error.split_once("): error TS")?;
    let (_, position) = place.rsplit_once('(')?;
    position.split(',').next()?.parse().ok()
}
