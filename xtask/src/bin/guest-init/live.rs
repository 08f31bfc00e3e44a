//! The live tests, each as a process of its own: `live: begin NAME`, then `live: ok NAME` or `live: FAILED NAME: why`.
//!
//! As pid 1 this reaps whatever a test leaves behind, and ends it before the next one begins.

use std::fs::{self, File};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rustix::process::{Pid, WaitOptions, wait};

/// The test program; its own name for a test is the one in the plan.
const PROGRAM: &str = "/live/live";
const PLAN: &str = "/live/plan";
const ENVIRONMENT: &str = "/live/environment";
const OUTPUT: &str = "/tmp/live-output";
/// No test takes longer, even where QEMU translates.
const LIMIT: Duration = Duration::from_secs(600);
/// How much of a failed test's output is printed.
const LINES: usize = 80;

/// Runs the plan; true if there is none, or all of it passed.
pub fn run_all() -> bool {
    let Ok(plan) = fs::read_to_string(PLAN) else {
        return true;
    };
    let mut passed = true;
    for name in plan.lines().filter(|name| !name.is_empty()) {
        println!("live: begin {name}");
        let began = Instant::now();
        match run(name) {
            Ok(None) => println!("live: ok {name}"),
            outcome => {
                passed = false;
                let why = match outcome {
                    Ok(why) => why.unwrap_or_default(),
                    Err(error) => format!("{error:#}"),
                };
                println!("live: FAILED {name}: {why}");
                print_output();
            }
        }
        println!("took {} ms", began.elapsed().as_millis());
        end_all();
    }
    passed
}

/// Runs a test; `None` if it passed.
fn run(name: &str) -> Result<Option<String>> {
    let output = File::create(OUTPUT).context(OUTPUT)?;
    let errors = output.try_clone().context(OUTPUT)?;
    let mut command = Command::new(PROGRAM);
    command
        .args(["--exact", name, "--nocapture", "--test-threads=1"])
        .env_clear()
        .envs(environment()?)
        .stdin(Stdio::null())
        .stdout(output)
        .stderr(errors);
    let child = command.spawn().context("starting the test program")?;
    let ended = wait_for(&child)?;
    let said = fs::read(OUTPUT).context(OUTPUT)?;
    let said = String::from_utf8_lossy(&said);
    for line in said.lines() {
        if let Some((_, skipped)) = line.split_once("not run: ") {
            println!("live: skip {name}: {skipped}");
        }
    }
    Ok(match ended {
        None => Some(format!("did not end within {} s", LIMIT.as_secs())),
        // A name that it does not know passes, too.
        Some(0) if said.contains("test result: ok. 1 passed") => None,
        Some(status) => Some(reason(&said).unwrap_or_else(|| format!("ended with status {status}"))),
    })
}

fn environment() -> Result<Vec<(String, String)>> {
    let text = fs::read_to_string(ENVIRONMENT).context(ENVIRONMENT)?;
    let pairs = text.lines().filter_map(|line| line.split_once('='));
    Ok(pairs
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .collect())
}

/// Waits for the test, and for every orphan meanwhile, as pid 1 has to; the status as `wait(2)` has it, `None` if it did
/// not end in time.
fn wait_for(child: &Child) -> Result<Option<i32>> {
    let deadline = Instant::now() + LIMIT;
    while Instant::now() < deadline {
        match wait(WaitOptions::NOHANG).context("waiting for the test")? {
            Some((pid, status)) if pid == Pid::from_child(child) => return Ok(Some(status.as_raw())),
            Some(_) => {}
            None => thread::sleep(Duration::from_millis(5)),
        }
    }
    Ok(None)
}

/// Where it failed, and what was said there.
fn reason(said: &str) -> Option<String> {
    let lines: Vec<&str> = said
        .lines()
        .skip_while(|line| !line.contains("panicked at "))
        .take_while(|line| !line.starts_with("note: run with") && !line.starts_with("stack backtrace"))
        .take(6)
        .collect();
    let (_, at) = lines.first()?.split_once("panicked at ")?;
    let message = lines.get(1..)?.join("; ");
    Some(format!("{at} {message}").chars().take(1000).collect())
}

/// The end of what a failed test said, for the transcript.
fn print_output() {
    let said = fs::read(OUTPUT).unwrap_or_default();
    let said = String::from_utf8_lossy(&said);
    let lines: Vec<&str> = said.lines().collect();
    for line in &lines[lines.len().saturating_sub(LINES)..] {
        let line: String = line.chars().take(2000).collect();
        println!("| {line}");
    }
}

/// Ends and reaps all that is left of a test.
fn end_all() {
    // SAFETY: takes plain numbers. As pid 1, which it does not reach, this is alone with the test's descendants.
    unsafe { libc::kill(-1, libc::SIGKILL) };
    while wait(WaitOptions::empty()).is_ok() {}
}
