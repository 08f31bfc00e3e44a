//! Checks of `states`: counts against the kernel's own, sums against the window.

use std::time::Duration;
use std::{fs, thread};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::actors::{self, Actor};
use crate::agent::Watching;
use crate::look::list;

const ROUNDS: u64 = 500;
/// The agent is told to end the window when there is enough in it; this only bounds it.
pub const STATES: [&str; 7] = ["states", "--for", "60s", "-o", "json", "--by", "thread"];
/// A thread's own window is from its record in the first walk to that in the last, and the first walk takes the translator
/// tens of milliseconds: the window has to be long against that.
pub const LONG: Duration = Duration::from_secs(4);
/// How far the sum of a thread's times may be off the window: a hundredth.
const TOLERANCE: u64 = 100;

/// Every switch of a pair that plays ping-pong is counted, and none more.
pub fn switches() -> Result<()> {
    let mut first = Actor::start(actors::SERVES)?;
    let second = first.number()?;
    let pair = [first.pid(), second];
    let mut agent = Watching::start(&STATES)?;
    agent.wait_until_watching()?;
    let before = settled(pair)?;
    first.tell(ROUNDS)?;
    ensure!(first.number()? == ROUNDS, "the pair lost a round");
    let after = settled(pair)?;
    let answer: Value = serde_json::from_str(&agent.interrupt()?)?;
    for (index, pid) in pair.into_iter().enumerate() {
        let group = group(&answer, pid)?;
        let counted = ["voluntary", "involuntary"].map(|kind| group["switches"][kind].as_u64());
        let [voluntary, involuntary] = [0, 1].map(|kind| after[index][kind] - before[index][kind]);
        ensure!(voluntary > 0, "the pair never waited for each other");
        ensure!(
            counted == [Some(voluntary), Some(involuntary)],
            "{pid} switched {voluntary}/{involuntary} times, counted {counted:?}"
        );
    }
    Ok(())
}

/// The times of every thread add up to the window it was watched for.
pub fn sums() -> Result<()> {
    let sleeper = Actor::start(actors::SLEEPS)?;
    let mut agent = Watching::start(&STATES)?;
    agent.wait_until_watching()?;
    thread::sleep(LONG);
    let answer: Value = serde_json::from_str(&agent.interrupt()?)?;
    ensure!(answer["complete"] == true, "lost: {}", answer["lost"]);
    let window_ns = window_ns(&answer)?;
    ensure!(
        u128::from(window_ns) >= LONG.as_nanos(),
        "a window of {window_ns} ns"
    );
    for pid in [1, sleeper.pid()] {
        within(group(&answer, pid)?, window_ns)?;
    }
    for group in list(&answer, "groups")? {
        let sum = sum_ns(group);
        ensure!(
            sum <= window_ns + window_ns / TOLERANCE,
            "{} spent {sum} ns in a window of {window_ns} ns",
            group["key"]
        );
    }
    Ok(())
}

/// How long the window was.
pub fn window_ns(answer: &Value) -> Result<u64> {
    answer["window_ns"].as_u64().context("an answer without a window")
}

/// The group of a thread: its key ends in the tid.
pub fn group(answer: &Value, tid: u64) -> Result<&Value> {
    let suffix = format!(" {tid}");
    let ours = |group: &&Value| group["key"].as_str().is_some_and(|key| key.ends_with(&suffix));
    let mut groups = list(answer, "groups")?.iter();
    groups.find(ours).with_context(|| format!("no thread {tid}"))
}

fn sum_ns(group: &Value) -> u64 {
    let states = group["states"].as_object().into_iter().flatten();
    states.filter_map(|(_, state)| state["total_ns"].as_u64()).sum()
}

/// Fails if the times of a thread do not add up to the window.
pub fn within(group: &Value, window_ns: u64) -> Result<()> {
    let sum = sum_ns(group);
    ensure!(
        sum.abs_diff(window_ns) <= window_ns / TOLERANCE,
        "{} spent {sum} ns in a window of {window_ns} ns: {group}",
        group["key"]
    );
    Ok(())
}

/// The pair's switches by /proc, voluntary and involuntary, when neither runs any more.
fn settled(pair: [u64; 2]) -> Result<[[u64; 2]; 2]> {
    let mut last = None;
    loop {
        let now = [status(pair[0])?, status(pair[1])?];
        if let Some(now) = now[0].zip(now[1]).map(|(first, second)| [first, second]) {
            if last == Some(now) {
                return Ok(now);
            }
            last = Some(now);
        }
        thread::sleep(Duration::from_millis(100));
    }
}

/// A sleeping process's switches.
fn status(pid: u64) -> Result<Option<[u64; 2]>> {
    let path = format!("/proc/{pid}/status");
    let text = fs::read_to_string(&path).with_context(|| path.clone())?;
    let field = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name));
        line.map(str::trim)
            .with_context(|| format!("{path} has no {name}"))
    };
    if !field("State:")?.starts_with('S') {
        return Ok(None);
    }
    Ok(Some([
        field("voluntary_ctxt_switches:")?.parse()?,
        field("nonvoluntary_ctxt_switches:")?.parse()?,
    ]))
}
