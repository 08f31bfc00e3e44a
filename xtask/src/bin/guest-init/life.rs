//! Checks of what runs for longer: events, the agent's metrics, and that nothing of it stays behind.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use crate::actors::{self, Actor};
use crate::agent::{PATIENCE, Watching};
use crate::{guest, hold};

/// A child's birth, program and exit code, in this order; a victim with who killed it; a fault that nobody sent.
pub fn events() -> Result<()> {
    let mut agent = Watching::start(&["events", "--for", "60s", "-o", "json"])?;
    agent.wait_until_watching()?;
    let child = played(&mut actors::command(actors::EXITS))?;
    let victim = Actor::start(actors::SLEEPS)?;
    let victim_pid = victim.pid();
    let killer = played(actors::command(actors::KILLS).arg(victim_pid.to_string()))?;
    drop(victim);
    let faulty = played(&mut actors::command(actors::FAULTS))?;
    // The ring is read at leisure.
    thread::sleep(Duration::from_millis(500));
    let printed = agent.interrupt()?;
    let events: Vec<Value> = printed
        .lines()
        .map(serde_json::from_str)
        .collect::<Result<_, _>>()
        .context("a line that is not JSON")?;
    life(&events, child)?;
    let death = &events[find(&events, "exit", victim_pid)?];
    ensure!(
        death["signal"] == 9 && death["killed_by"]["pid"] == killer,
        "killed by {killer}: {death}"
    );
    let fault = &events[find(&events, "exit", faulty)?];
    ensure!(
        fault["signal"] == 4 && fault["killed_by"].is_null(),
        "killed by a fault: {fault}"
    );
    Ok(())
}

/// Runs an actor to its end; returns its pid.
fn played(command: &mut Command) -> Result<u64> {
    let mut actor = command.spawn().context("starting an actor")?;
    actor.wait().context("waiting for an actor")?;
    Ok(u64::from(actor.id()))
}

/// The events of a child of ours that ran a program and ended as it should.
fn life(events: &[Value], pid: u64) -> Result<()> {
    let [fork, exec, exit] = ["fork", "exec", "exit"].map(|kind| find(events, kind, pid));
    let (fork, exec, exit) = (fork?, exec?, exit?);
    ensure!(
        fork < exec && exec < exit,
        "fork, exec and exit are lines {fork}, {exec}, {exit}"
    );
    ensure!(events[fork]["ppid"] == 1, "whose child? {}", events[fork]);
    let exit = &events[exit];
    ensure!(
        exit["code"] == actors::EXIT_CODE && exit["signal"].is_null(),
        "{exit}"
    );
    Ok(())
}

/// The line of a process's event.
fn find(events: &[Value], kind: &str, pid: u64) -> Result<usize> {
    events
        .iter()
        .position(|event| event["event"] == kind && event["pid"] == pid)
        .with_context(|| format!("no {kind} of {pid} among {} events", events.len()))
}

/// The agent answers over the loopback device.
pub fn metrics() -> Result<()> {
    let mut agent = Watching::start(&["agent"])?;
    let text = scrape(&mut agent)?;
    ensure!(
        text.starts_with("HTTP/1.1 200") && text.contains("\nprocprobe_threads{"),
        "answered: {}",
        text.chars().take(300).collect::<String>()
    );
    // As a service is stopped.
    agent.interrupt().map(drop)
}

/// The agent may die any death: the kernel unloads what it had loaded.
pub fn unloaded() -> Result<()> {
    let before = gone_down_to(hold::PROGRAMS).unwrap_or(guest::loaded_programs()?);
    let mut agent = Watching::start(&["agent"])?;
    scrape(&mut agent)?;
    ensure!(
        guest::loaded_programs()? > before,
        "nothing loaded while it serves"
    );
    agent.kill()?;
    gone_down_to(before).map(drop)
}

/// Waits until no more programs than that are loaded; the kernel frees them at leisure.
fn gone_down_to(count: usize) -> Result<usize> {
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        let now = guest::loaded_programs()?;
        if now <= count {
            return Ok(now);
        }
        if Instant::now() >= deadline {
            bail!("{now} programs loaded, {count} before");
        }
        thread::sleep(Duration::from_millis(100));
    }
}

/// Asks until it answers.
fn scrape(agent: &mut Watching) -> Result<String> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        agent.expect_running()?;
        match get() {
            Ok(text) => return Ok(text),
            Err(error) if Instant::now() >= deadline => return Err(error),
            Err(_) => thread::sleep(Duration::from_millis(100)),
        }
    }
}

fn get() -> Result<String> {
    let mut stream = TcpStream::connect("127.0.0.1:9982").context("connecting to the agent")?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
    let mut text = String::new();
    stream
        .read_to_string(&mut text)
        .context("reading the agent's answer")?;
    Ok(text)
}
