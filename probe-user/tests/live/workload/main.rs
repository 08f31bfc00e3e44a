//! Small programs whose behaviour is known beforehand: what the live tests hold procprobe's answers against.
//!
//! `probe-workload NAME [ARGS]` sets the scene, prints one line `ready key=value …` once it stands, and stays until its
//! standard input ends or it is killed. Some act again on every line they are sent, and answer `done key=value …`.
//! A program of its own, because the scenes fork, and a test harness with its threads must not.
#![expect(
    clippy::expect_used,
    clippy::format_push_string,
    reason = "part of the tests: whatever goes wrong here shall fail the test at once"
)]

mod churn;
mod deaths;
mod kin;
mod scenes;
mod sys;

use std::env;
use std::io::{BufRead, Write};

fn main() {
    sys::die_with_parent();
    let mut arguments = env::args().skip(1);
    let name = arguments.next().unwrap_or_default();
    let argument = arguments.next();
    let count = || {
        argument
            .as_deref()
            .and_then(|text| text.parse().ok())
            .expect("a number")
    };
    match name.as_str() {
        "sleeper" => scenes::sleeper(argument.as_deref()),
        "stopped" => scenes::stopped(),
        "traced" => scenes::traced(),
        "vfork" => scenes::vfork(),
        "hogs" => scenes::hogs(),
        "zombie" => scenes::zombie(),
        "names" => scenes::names(),
        "threads" => scenes::threads(count()),
        "pingpong" => churn::pingpong(),
        "nappers" => churn::nappers(count() as u64),
        "spawner" => churn::spawner(argument.as_deref().expect("a program")),
        "family" => churn::family(),
        "storm" => churn::storm(),
        "exec-from-thread" => churn::exec_from_thread(),
        "short" => churn::short(),
        "births" => churn::births(),
        "renames" => churn::names_without_end(),
        "arguments" => scenes::arguments(),
        "generations" => churn::generations(argument.as_deref().expect("a file")),
        "hoarder" => kin::hoarder(count()),
        "prompt" => kin::prompt(),
        "headless" => kin::headless(),
        "traced-zombie" => kin::traced_zombie(),
        "careless" => kin::careless(),
        "daemon" => kin::daemon(),
        "chain" => kin::chain(),
        "namespace" => kin::namespace(),
        "deaths" => deaths::deaths(),
        other => {
            eprintln!("probe-workload: no scene called {other:?}");
            std::process::exit(2);
        }
    }
}

/// Prints one line about the scene: a word and facts.
fn say(word: &str, facts: &[(&str, i64)]) {
    let mut line = word.to_owned();
    for (key, value) in facts {
        line.push_str(&format!(" {key}={value}"));
    }
    line.push('\n');
    let mut out = std::io::stdout().lock();
    out.write_all(line.as_bytes()).expect("writing to the test");
    out.flush().expect("writing to the test");
}

/// The scene stands; stay until the test has seen enough.
fn ready(facts: &[(&str, i64)]) {
    say("ready", facts);
    while command().is_some() {}
}

/// The next line from the test; `None` at the end.
fn command() -> Option<String> {
    let mut line = String::new();
    match std::io::stdin().lock().read_line(&mut line) {
        Ok(1..) => Some(line.trim().to_owned()),
        _ => None,
    }
}
