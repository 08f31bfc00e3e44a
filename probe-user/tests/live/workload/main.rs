//! Small programs whose behaviour is known beforehand: what the live tests hold procprobe's answers against.
//!
//! `probe-workload NAME [ARGS]` sets the scene, prints one line `ready key=value …` once it stands, and stays until its
//! standard input ends or it is killed. Some act again on every line they are sent, and answer `done key=value …`.
//! A program of its own, because the scenes fork, and a test harness with its threads must not.
#![expect(
    clippy::expect_used,
    clippy::panic,
    clippy::format_push_string,
    reason = "part of the tests: whatever goes wrong here shall fail the test at once"
)]

mod arena;
mod churn;
mod deadlocks;
mod deaths;
mod held;
mod holders;
mod hostile;
mod idle;
mod kin;
mod limits;
mod locks;
mod mapped;
mod odd;
mod runtimes;
mod scenes;
mod sick;
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
    let text = || argument.as_deref().expect("an argument");
    let second = || {
        let number = env::args().nth(3).and_then(|text| text.parse().ok());
        number.expect("another number")
    };
    let third = || env::args().nth(3).expect("another argument");
    match name.as_str() {
        "sleeper" => scenes::sleeper(argument.as_deref()),
        "stopped" => scenes::stopped(),
        "traced" => scenes::traced(),
        "vfork" => scenes::vfork(),
        "hogs" => scenes::hogs(),
        "zombie" => scenes::zombie(),
        "names" => scenes::names(),
        "threads" => scenes::threads(count()),
        "crowd" => scenes::crowd(count()),
        "herd" => scenes::herd(count(), second()),
        "pingpong" => churn::pingpong(),
        "nappers" => churn::nappers(count() as u64),
        "spawner" => churn::spawner(text()),
        "family" => churn::family(),
        "storm" => churn::storm(),
        "orphans-of-init" => churn::orphans_of_init(),
        "exec-from-thread" => churn::exec_from_thread(),
        "short" => churn::short(),
        "births" => churn::births(),
        "renames" => churn::names_without_end(),
        "arguments" => scenes::arguments(),
        "generations" => churn::generations(text()),
        "hoarder" => kin::hoarder(count()),
        "litter" => kin::litter(),
        "prompt" => kin::prompt(),
        "headless" => kin::headless(),
        "traced-zombie" => kin::traced_zombie(),
        "careless" => kin::careless(),
        "daemon" => kin::daemon(),
        "chain" => kin::chain(),
        "namespace" => kin::namespace(),
        "deaths" => deaths::deaths(),
        "rounds" => locks::rounds(text()),
        "rounds-between-processes" => locks::rounds_between_processes(),
        "rounds-of-the-dying" => locks::rounds_of_the_dying(),
        "many-locks" => limits::many_locks(),
        "requeue" => limits::requeue(),
        "cycle" => deadlocks::cycle(count()),
        "cycle-of-the-hostile" => deadlocks::cycle_of_the_hostile(),
        "cycle-across-processes" => deadlocks::cycle_across_processes(),
        "cycle-in-namespace" => deadlocks::cycle_in_namespace(),
        "cycle-without-owners" => deadlocks::cycle_without_owners(),
        "dead-owner" => deadlocks::dead_owner(),
        "idle" => idle::scene(text()),
        "tokio" => runtimes::tokio(),
        "rayon" => runtimes::rayon(),
        "python" => runtimes::python(text()),
        "holder-asleep" => holders::asleep(),
        "lock-in-file" => mapped::lock_in_file(text(), &env::args().nth(3).expect("a path")),
        "holder-starved" => holders::starved(),
        "holder-on-disk" => holders::on_disk(text()),
        "frozen" => held::napper_and_spinner(),
        "headless-busy" => held::headless_and_busy(),
        "dying-init" => held::init_that_cannot_end(),
        "dying-in-sleep" => held::killed_in_uninterruptible_sleep(),
        "faulting" => held::faulting(),
        "hostile" => hostile::scene(text(), &env::args().skip(3).collect::<Vec<_>>()),
        "sick" => sick::scene(text()),
        "sick-client" => sick::client(text(), &third()),
        "futex-doors" => odd::doors(),
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
