//! A check of what the agent makes of a machine that slept: `CLOCK_MONOTONIC` stood still, `CLOCK_BOOTTIME` went on.

use std::time::Duration;
use std::{fs, thread};

use anyhow::{Context, Result, ensure};
use rustix::time::{ClockId, clock_gettime};
use serde_json::Value;

use crate::actors::{self, Actor};
use crate::agent::{self, Watching};
use crate::look::{asleep_ns, process};
use crate::window::{LONG, STATES, group, window_ns, within};

/// When the clock on the board is to wake the machine, in seconds from now; it goes by whole ones, and falling asleep takes
/// its time, too.
const ALARM: &str = "+8";
const SLEPT_AT_LEAST: Duration = Duration::from_secs(2);

/// Suspended to memory, the processors off.
const SLEEP: &str = "mem";

/// The clocks are read one after the other, and a translated guest that shares its CPUs may be away in between: 0.26 s were
/// seen. Less than the machine sleeps.
const APART_NS: u64 = 1_000_000_000;

/// What states last does not grow while the machine sleeps, windows do not either, and sums are whole; processes get older.
pub fn the_machine_sleeps() -> Result<()> {
    let sleeper = Actor::start(actors::SLEEPS)?;
    let began = Clocks::now();
    let mut agent = Watching::start(&STATES)?;
    agent.wait_until_watching()?;
    fall_asleep()?;
    let slept = Clocks::now().since(&began).slept();
    ensure!(slept >= SLEPT_AT_LEAST, "the machine slept for {slept:?}");
    // Sums are held to a hundredth of the window, and of one of 1.06 s a thread's time was 15 ms short (6.12, translated).
    thread::sleep(LONG);
    let answer: Value = serde_json::from_str(&agent.interrupt()?)?;
    let tree = agent::json(&["tree"])?;
    let now = Clocks::now();
    let awake_ns = u64::try_from(now.since(&began).monotonic.as_nanos())?;
    let window_ns = window_ns(&answer)?;
    ensure!(
        window_ns <= awake_ns,
        "a window of {window_ns} ns, of which {awake_ns} ns awake"
    );
    within(group(&answer, sleeper.pid())?, window_ns)?;
    let asleep_ns = asleep_ns(&tree, sleeper.pid())?;
    // It went to sleep before the first look at the clocks, or just after.
    let longest_ns = awake_ns + APART_NS;
    ensure!(
        asleep_ns <= longest_ns,
        "asleep for {asleep_ns} ns, when {awake_ns} ns were awake"
    );
    let start_ns = process(&tree, sleeper.pid())?["start_ns"]
        .as_u64()
        .context("began when?")?;
    let age_ns = u64::try_from(now.boottime.as_nanos())?.saturating_sub(start_ns);
    let least_ns = asleep_ns + u64::try_from(slept.as_nanos())?;
    ensure!(
        age_ns + APART_NS >= least_ns,
        "{age_ns} ns old, asleep for {asleep_ns} ns, and the machine for {slept:?}"
    );
    Ok(())
}

/// Two clocks of the kernel.
struct Clocks {
    monotonic: Duration,
    boottime: Duration,
}

impl Clocks {
    fn now() -> Self {
        let read = |clock| {
            let time = clock_gettime(clock);
            Duration::new(
                time.tv_sec.unsigned_abs(),
                u32::try_from(time.tv_nsec).unwrap_or(0),
            )
        };
        Self {
            monotonic: read(ClockId::Monotonic),
            boottime: read(ClockId::Boottime),
        }
    }

    fn since(&self, earlier: &Self) -> Self {
        Self {
            monotonic: self.monotonic.saturating_sub(earlier.monotonic),
            boottime: self.boottime.saturating_sub(earlier.boottime),
        }
    }

    /// How much of a span the machine slept.
    fn slept(&self) -> Duration {
        self.boottime.saturating_sub(self.monotonic)
    }
}

/// Sends the machine to sleep; returns when it has woken.
fn fall_asleep() -> Result<()> {
    const WAKE: &str = "/sys/class/rtc/rtc0/wakealarm";
    const STATE: &str = "/sys/power/state";
    fs::write(WAKE, ALARM).context(WAKE)?;
    fs::write(STATE, SLEEP)
        .with_context(|| format!("{STATE}: {}", fs::read_to_string(STATE).unwrap_or_default()))
}
