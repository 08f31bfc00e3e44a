//! Checks of one look: doctor, tree, zombies.

use std::collections::HashSet;
use std::time::{Duration, Instant};
use std::{fs, thread};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::actors::{self, Actor};
use crate::{agent, guest};

/// `doctor` finds nothing in the way. What it found is the transcript's.
pub fn doctor() -> Result<()> {
    let finished = agent::run(&["doctor"])?;
    print!("{}", finished.stdout);
    let failed: Vec<&str> = finished
        .stdout
        .lines()
        .filter(|line| line.starts_with("failed"))
        .collect();
    ensure!(
        finished.status.success(),
        "{}: {}",
        finished.status,
        failed.join("; ")
    );
    Ok(())
}

/// The kernel is locked down as far as it goes.
pub fn locked_down() -> Result<()> {
    let modes = fs::read_to_string("/sys/kernel/security/lockdown").context("reading the lockdown mode")?;
    ensure!(modes.contains("[confidentiality]"), "{}", modes.trim());
    Ok(())
}

/// A member of an answer that is a list.
pub fn list<'a>(answer: &'a Value, name: &str) -> Result<&'a Vec<Value>> {
    answer[name]
        .as_array()
        .with_context(|| format!("the answer has no list {name}"))
}

/// The process of that pid in an answer of `tree`.
pub fn process(answer: &Value, pid: u64) -> Result<&Value> {
    list(answer, "processes")?
        .iter()
        .find(|process| process["pid"] == pid)
        .with_context(|| format!("no process {pid} in the tree"))
}

/// init and a sleeper are there, the sleeper asleep for as long as it has been.
pub fn tree() -> Result<()> {
    let sleeper = Actor::start(actors::SLEEPS)?;
    thread::sleep(Duration::from_millis(500));
    let first = agent::json(&["tree"])?;
    let between = Instant::now();
    let init = process(&first, 1)?;
    ensure!(init["ppid"] == 0 && init["comm"] == "init", "pid 1 is {init}");
    let asleep = asleep_ns(&first, sleeper.pid())?;
    thread::sleep(Duration::from_millis(300));
    let least = u64::try_from(between.elapsed().as_nanos())?;
    let later = asleep_ns(&agent::json(&["tree"])?, sleeper.pid())?;
    ensure!(
        later >= asleep + least,
        "asleep for {asleep} ns, and more than {least} ns later for {later} ns"
    );
    Ok(())
}

/// How long a sleeper has been asleep.
pub fn asleep_ns(answer: &Value, pid: u64) -> Result<u64> {
    let sleeper = process(answer, pid)?;
    ensure!(
        sleeper["state"] == "sleeping" && sleeper["ppid"] == 1,
        "the sleeper is {sleeper}"
    );
    sleeper["threads"][0]["state_ns"]
        .as_u64()
        .with_context(|| format!("asleep for how long? {sleeper}"))
}

/// Whatever /proc lists before and after the look is in the tree.
pub fn every_pid() -> Result<()> {
    let before: HashSet<u64> = guest::pids()?.into_iter().collect();
    let answer = agent::json(&["tree"])?;
    let listed: HashSet<u64> = list(&answer, "processes")?
        .iter()
        .filter_map(|process| process["pid"].as_u64())
        .collect();
    let after: HashSet<u64> = guest::pids()?.into_iter().collect();
    let missing: Vec<_> = before
        .intersection(&after)
        .filter(|pid| !listed.contains(pid))
        .collect();
    ensure!(missing.is_empty(), "{missing:?} missing, {} listed", listed.len());
    Ok(())
}

/// A child that nobody waits for, and who does not.
pub fn zombies() -> Result<()> {
    let mut parent = Actor::start(actors::NEGLECTS)?;
    let child = parent.number()?;
    // The young are not shown.
    thread::sleep(Duration::from_millis(500));
    let answer = agent::json(&["zombies"])?;
    let zombies = list(&answer, "zombies")?;
    let zombie = zombies.iter().find(|zombie| zombie["pid"] == child);
    let zombie = zombie.with_context(|| format!("no zombie {child} among {zombies:?}"))?;
    let right = zombie["ppid"] == parent.pid()
        && zombie["at_fault"] == parent.pid()
        && zombie["exit"]["code"] == actors::EXIT_CODE;
    ensure!(right, "child of {}: {zombie}", parent.pid());
    let parents = list(&answer, "parents")?;
    let culprit = parents.iter().find(|culprit| culprit["pid"] == parent.pid());
    ensure!(
        culprit.is_some_and(|culprit| culprit["count"] == 1),
        "{} at fault: {parents:?}",
        parent.pid()
    );
    Ok(())
}
