//! A wall clock that jumps. Where tests may set the host's clock, which guests of `cargo xtask vm test` let them, it is that;
//! elsewhere libfaketime stands between the agent and `CLOCK_REALTIME`, and leaves its other clocks alone.

use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant, SystemTime};

use serde_json::Value;

use crate::common::agent::Agent;
use crate::common::json::{id, leader, list, number, text};
use crate::common::probe;
use crate::common::stream::Stream;
use crate::common::workload::Workload;
use crate::common::{Live, tools};

const DAY: u64 = 86_400;
/// Set where nobody else goes by the host's clock.
const MAY_SET_CLOCK: &str = "PROCPROBE_MAY_SET_CLOCK";

/// A wall clock that goes wrong when it is told to.
enum WallClock {
    /// The host's own, where tests may set it.
    Host { right: SystemTime, then: Instant },
    /// One for the agent alone.
    Faked {
        directory: tempfile::TempDir,
        preload: String,
    },
}

impl WallClock {
    /// Right to begin with. `None`, with a line that says so, where libfaketime is missing and may be.
    fn new(test: &str) -> Option<Self> {
        let clock = if std::env::var_os(MAY_SET_CLOCK).is_some() {
            Self::Host {
                right: SystemTime::now(),
                then: Instant::now(),
            }
        } else {
            Self::faked(test)?
        };
        clock.set(0);
        Some(clock)
    }

    fn faked(test: &str) -> Option<Self> {
        let faketime = tools::find(test, "faketime")?;
        // The wrapper knows where its library is.
        let outcome = probe::finish(Command::new(faketime).args(["-m", "2020-01-01", "env"]));
        let mut variables = outcome.stdout.lines();
        let preload = variables.find_map(|line| line.strip_prefix("LD_PRELOAD="));
        Some(Self::Faked {
            preload: preload.expect("faketime preloads its library").to_owned(),
            directory: tempfile::tempdir().expect("a directory"),
        })
    }

    /// Seconds that it is ahead from now on.
    fn set(&self, ahead: i64) {
        match self {
            Self::Host { .. } => set_host(self.right(), ahead),
            Self::Faked { directory, .. } => {
                let new = directory.path().join("new");
                std::fs::write(&new, format!("{ahead:+}\n")).expect("writing the offset");
                std::fs::rename(&new, offset_in(directory)).expect("renaming the offset");
            }
        }
    }

    /// What it would show if it were right.
    fn right(&self) -> SystemTime {
        match self {
            Self::Host { right, then } => *right + then.elapsed(),
            Self::Faked { .. } => SystemTime::now(),
        }
    }

    /// Makes a command go by it.
    fn rules<'a>(&self, command: &'a mut Command) -> &'a mut Command {
        let Self::Faked { directory, preload } = self else {
            return command;
        };
        command
            .env("LD_PRELOAD", preload)
            .env("FAKETIME_TIMESTAMP_FILE", offset_in(directory))
            .env("FAKETIME_NO_CACHE", "1")
            .env("FAKETIME_DONT_FAKE_MONOTONIC", "1")
            .env("DONT_FAKE_MONOTONIC", "1")
    }
}

impl Drop for WallClock {
    fn drop(&mut self) {
        if matches!(self, Self::Host { .. }) {
            self.set(0);
        }
    }
}

fn offset_in(directory: &tempfile::TempDir) -> PathBuf {
    directory.path().join("offset")
}

/// Sets the host's clock so many seconds ahead of what is right.
fn set_host(right: SystemTime, ahead: i64) {
    let right = right.duration_since(SystemTime::UNIX_EPOCH).expect("it is later");
    let seconds = right.as_secs().cast_signed() + ahead;
    let time = libc::timespec {
        tv_sec: seconds,
        tv_nsec: right.subsec_nanos().into(),
    };
    // SAFETY: the structure lives for the call.
    let outcome = unsafe { libc::clock_settime(libc::CLOCK_REALTIME, &raw const time) };
    assert_eq!(
        outcome,
        0,
        "setting the clock: {}",
        std::io::Error::last_os_error()
    );
}

/// How far a moment that is told lies ahead of the one that it is, in seconds.
fn ahead(moment: &Value, key: &str, truth: SystemTime) -> f64 {
    let told = humantime::parse_rfc3339(text(moment, key)).expect("a time");
    match told.duration_since(truth) {
        Ok(ahead) => ahead.as_secs_f64(),
        Err(behind) => -behind.duration().as_secs_f64(),
    }
}

/// What a sleeper and its agent have to say of times.
struct Look {
    at: Instant,
    tree: Value,
    asleep_ns: u64,
    slept: f64,
    started: f64,
}

impl Look {
    fn at(agent: &Agent, sleeper: u32) -> Self {
        let scrape = agent.metrics();
        let slept = [("comm", "pp-sleeper"), ("state", "sleeping")];
        let tree = agent.tree();
        Self {
            at: Instant::now(),
            asleep_ns: number(leader(&tree, sleeper), "state_ns"),
            tree,
            slept: scrape.sum("procprobe_state_seconds_total", &slept),
            started: scrape.sum("process_start_time_seconds", &[]),
        }
    }
}

#[test]
fn ages_and_times_do_not_follow_a_wall_clock_that_jumps() {
    let Some(live) = Live::begin("wall clock that jumps") else {
        return;
    };
    let Some(clock) = WallClock::new("wall clock that jumps") else {
        return;
    };
    let scene = Workload::start(&["sleeper"]);
    let mut command = live.command(&[
        "agent",
        "--expose-details",
        "--socket",
        "none",
        "--listen",
        "127.0.0.1:0",
    ]);
    clock.rules(&mut command);
    let agent = Agent::begin(command);
    let mut before = Look::at(&agent, scene.pid);
    for days in [0, -3, 400, 0] {
        let offset = days * DAY.cast_signed();
        clock.set(offset);
        std::thread::sleep(Duration::from_millis(300));
        let now = Look::at(&agent, scene.pid);
        let off = ahead(&now.tree, "taken_at", clock.right());
        assert!((off - offset as f64).abs() < 5.0, "{off} s ahead, not {offset}");
        let passed = (now.at - before.at).as_secs_f64();
        let aged = now.asleep_ns.checked_sub(before.asleep_ns).expect("it sleeps on");
        let aged = aged as f64 / 1e9;
        assert!(
            (0.2..passed + 1.0).contains(&aged),
            "{days} d: aged {aged} s in {passed} s"
        );
        let slept = now.slept - before.slept;
        let threads = list(crate::common::json::process(&now.tree, scene.pid), "threads").len();
        let most = (passed + 1.0) * threads as f64;
        assert!(
            (0.2..most).contains(&slept),
            "{days} d: slept {slept} s in {passed} s"
        );
        assert!(
            (now.started - before.started).abs() < 2.0,
            "it was started when it was"
        );
        before = now;
    }
    agent.stop();
}

/// A window is as long as it was said to be, whatever happens to the wall clock in it.
#[test]
fn a_window_is_as_long_as_it_is_while_the_wall_clock_jumps() {
    let Some(live) = Live::begin("wall clock that jumps in a window") else {
        return;
    };
    let Some(clock) = WallClock::new("wall clock that jumps in a window") else {
        return;
    };
    let scene = Workload::start(&["sleeper"]);
    for days in [-3, 400] {
        clock.set(0);
        let mut command = live.command(&["states", "--for", "2s", "--by", "process", "-o", "json"]);
        let (running, finish) = probe::start(clock.rules(command.args(["--pid", &scene.pid.to_string()])));
        let began = Instant::now();
        std::thread::sleep(Duration::from_secs(1));
        clock.set(days * DAY.cast_signed());
        let outcome = finish(running);
        let took = u64::try_from(began.elapsed().as_nanos()).expect("seconds");
        assert!(outcome.status.success(), "{outcome:?}");
        let answer: Value = serde_json::from_str(&outcome.stdout).expect("JSON");
        let window = number(&answer, "window_ns");
        let slept = number(&list(&answer, "groups")[0]["states"]["sleeping"], "total_ns");
        assert!(window >= 2_000_000_000 && window <= took, "{window} of {took}");
        assert!(slept.abs_diff(window) < window / 10, "{slept} of {window}");
    }
}

#[test]
fn events_have_the_time_of_a_wall_clock_that_jumps() {
    let Some(live) = Live::begin("events and a wall clock that jumps") else {
        return;
    };
    let Some(clock) = WallClock::new("events and a wall clock that jumps") else {
        return;
    };
    let mut command = live.command(&["events", "-o", "json"]);
    clock.rules(&mut command);
    let stream = Stream::run(command).once_it_listens();
    // Who was born, when, and how far ahead the clock was then; all of a time are heard of before the next jump.
    let mut born: Vec<(u32, SystemTime, f64)> = Vec::new();
    for offset in [0, DAY.cast_signed(), 0] {
        clock.set(offset);
        for _ in 0..30 {
            let moment = clock.right();
            let mut child = Command::new("true").spawn().expect("starting `true`");
            born.push((child.id(), moment, offset as f64));
            child.wait().expect("waiting for `true`");
        }
        stream.await_exit(born.last().expect("thirty were born").0);
    }
    let mut heard = 0;
    for (pid, moment, offset) in born {
        // A reaping is told when the kernel frees the process, and by then the clock may have jumped.
        let lived = |event: &Value| id(event, "pid") == pid && text(event, "event") != "reap";
        for event in stream.select(lived) {
            let off = ahead(&event, "at", moment);
            assert!((off - offset).abs() < 2.0, "{off} s ahead, not {offset}: {event}");
            heard += 1;
        }
    }
    // Each was born, ran a program and ended.
    assert_eq!(heard, 3 * 90);
    assert!(stream.stop());
}
