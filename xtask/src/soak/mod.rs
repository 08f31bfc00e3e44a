//! `cargo xtask soak`: hours in the life of an agent, as far as there is time: processes and threads that come and go under
//! ever new names, ever new locks that are fought for, scrapes, requests. Its memory, its descriptors and its maps must not grow.

mod churn;
mod contention;

use std::{
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, bail, ensure};
use clap::Args;

use crate::{
    agent::{self, Agent, Examined},
    bench::on_interrupt,
    process::{self, say},
    record::{self, Table},
    workspace::Workspace,
};
use churn::Churn;

/// Lines in the table.
const SAMPLES: u32 = 30;
/// Part of the time that is not judged: what is remembered on purpose fills up first.
const WARM_UP: f64 = 0.4;
/// Growth that is the allocator's, from the first judged third to the last: a twentieth and a mebibyte.
const RESIDENT_SLACK_KB: u64 = 1024;

#[derive(Args)]
pub struct Options {
    /// How long
    #[arg(long = "for", value_name = "D", default_value = "30m", value_parser = duration)]
    length: Duration,
    /// Processes and threads a second, each with a name of its own
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=1000))]
    births: u32,
    #[command(flatten)]
    examined: Examined,
    /// Write the table into docs/verification.md
    #[arg(long)]
    record: bool,
}

/// `30m`, `90s`, `2h`.
fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || "not a duration (try 90s, 30m, 2h)".to_owned();
    let (number, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit()).ok_or_else(wrong)?);
    let seconds = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        _ => return Err(wrong()),
    };
    let number: u64 = number.parse().map_err(|_| wrong())?;
    match number.checked_mul(seconds) {
        Some(seconds @ 30..=604_800) => Ok(Duration::from_secs(seconds)),
        _ => Err("from 30s to a week".to_owned()),
    }
}

/// One look at the agent.
#[derive(Clone, Copy, Debug)]
struct Sample {
    at: Duration,
    resident_kb: u64,
    descriptors: usize,
    maps_kb: u64,
    slab_kb: u64,
    series: usize,
    scrape: Duration,
    cpu_s: f64,
    lost: f64,
    births: f64,
    lock_waits: f64,
}

/// The verb.
pub fn run(workspace: &Workspace, options: &Options) -> Result<()> {
    ensure!(process::is_root(), "soak loads eBPF programs: run it as root");
    let binary = options.examined.binary(workspace)?;
    let interrupted = on_interrupt()?;
    // The dead are remembered for ten minutes; here for as long as leaves time to see that it ends.
    let retention = format!(
        "{}s",
        (options.length / 6)
            .min(Duration::from_secs(600))
            .as_secs()
            .max(5)
    );
    let samples = soak(&binary, &retention, options, &interrupted)?;
    let table = table(&samples);
    print!("{}", table.text());
    let verdict = verdict(&samples)?;
    println!("{verdict}");
    if options.record {
        let command = format!(
            "cargo xtask soak --for {}s --births {}",
            options.length.as_secs(),
            options.births
        );
        let text = format!("{}\n{verdict}\n", table.markdown());
        record::put(workspace, record::VERIFICATION, "soak", &command, &text)?;
    }
    Ok(())
}

/// Lets the agent live among the churn, and looks at it now and then; an interrupt ends it early.
fn soak(binary: &Path, retention: &str, options: &Options, interrupted: &AtomicBool) -> Result<Vec<Sample>> {
    let mut agent = Agent::start(binary, &["--retention", retention])?;
    let mut churn = Churn::start(options.births)?;
    let began = Instant::now();
    let pause = options.length / SAMPLES;
    say(&format!(
        "soaking for {} s, a line every {} s",
        options.length.as_secs(),
        pause.as_secs()
    ));
    let mut samples: Vec<Sample> = Vec::new();
    while began.elapsed() < options.length && !interrupted.load(Ordering::Relaxed) {
        let until = pause * (u32::try_from(samples.len())? + 1);
        scrape_until(&agent, began, until, interrupted)?;
        agent.expect_running()?;
        churn.expect_running()?;
        let sample = look(&agent, began)?;
        say(&line(sample));
        samples.push(sample);
    }
    Ok(samples)
}

/// A scrape every second, and now and then what else can be asked.
fn scrape_until(agent: &Agent, began: Instant, until: Duration, interrupted: &AtomicBool) -> Result<()> {
    const OTHERS: [&str; 5] = [
        "/api/v1/tree",
        "/api/v1/states?for=100ms",
        "/api/v1/locks?for=100ms",
        "/api/v1/zombies",
        "/api/v1/orphans",
    ];
    let mut round = 0;
    while began.elapsed() < until && !interrupted.load(Ordering::Relaxed) {
        agent.get("/metrics")?;
        if round % 5 == 0 {
            agent.get(OTHERS[round / 5 % OTHERS.len()])?;
        }
        round += 1;
        thread::sleep(Duration::from_secs(1).min(until.saturating_sub(began.elapsed())));
    }
    Ok(())
}

fn look(agent: &Agent, began: Instant) -> Result<Sample> {
    let asked = Instant::now();
    let metrics = agent.get("/metrics")?;
    Ok(Sample {
        scrape: asked.elapsed(),
        at: began.elapsed(),
        resident_kb: agent.resident_kb()?,
        descriptors: agent.descriptors()?,
        maps_kb: agent.maps_kb()?,
        slab_kb: agent::slab_kb()?,
        series: metrics.lines().filter(|line| !line.starts_with('#')).count(),
        cpu_s: agent::sum(&metrics, "process_cpu_seconds_total"),
        lost: agent::sum(&metrics, "procprobe_events_lost_total"),
        births: agent::sum(&metrics, "procprobe_forks_total")
            + agent::sum(&metrics, "procprobe_threads_created_total"),
        lock_waits: agent::sum(&metrics, "procprobe_lock_wait_seconds_count"),
    })
}

const COLUMNS: [&str; 11] = [
    "after",
    "resident kB",
    "descriptors",
    "maps kB",
    "host slab MB",
    "series",
    "scrape ms",
    "CPU s",
    "births",
    "lock waits",
    "lost",
];

fn cells(sample: Sample) -> Vec<String> {
    vec![
        format!("{} s", sample.at.as_secs()),
        sample.resident_kb.to_string(),
        sample.descriptors.to_string(),
        sample.maps_kb.to_string(),
        (sample.slab_kb / 1024).to_string(),
        sample.series.to_string(),
        sample.scrape.as_millis().to_string(),
        format!("{:.1}", sample.cpu_s),
        format!("{:.0}", sample.births),
        format!("{:.0}", sample.lock_waits),
        format!("{:.0}", sample.lost),
    ]
}

fn line(sample: Sample) -> String {
    let pairs = COLUMNS.iter().zip(cells(sample));
    let parts: Vec<String> = pairs.map(|(name, cell)| format!("{name} {cell}")).collect();
    parts.join(", ")
}

fn table(samples: &[Sample]) -> Table {
    let mut table = Table::new(&COLUMNS);
    for &sample in samples {
        table.row(cells(sample));
    }
    table
}

/// Compares the medians of the first third that counts with those of the last.
fn verdict(samples: &[Sample]) -> Result<String> {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a part of a few dozen"
    )]
    let warm = (samples.len() as f64 * WARM_UP) as usize;
    let judged = &samples[warm..];
    ensure!(judged.len() >= 6, "too few samples to judge: {}", judged.len());
    let third = judged.len() / 3;
    let (early, late) = (&judged[..third], &judged[judged.len() - third..]);
    let resident = [early, late].map(|part| median(part, |sample| sample.resident_kb));
    let maps = [early, late].map(|part| median(part, |sample| sample.maps_kb));
    let descriptors = [early, late].map(|part| median(part, |sample| sample.descriptors as u64));
    let text = format!(
        "from the first to the last third after the warm-up: resident {} → {} kB, descriptors {} → {}, maps {} → {} kB",
        resident[0], resident[1], descriptors[0], descriptors[1], maps[0], maps[1]
    );
    let flat = resident[1] <= resident[0] + resident[0] / 20 + RESIDENT_SLACK_KB
        && descriptors[1] <= descriptors[0] + 1
        && maps[1] <= maps[0];
    if !flat {
        bail!("it grows: {text}");
    }
    Ok(format!("Flat: {text}."))
}

fn median(samples: &[Sample], of: impl Fn(&Sample) -> u64) -> u64 {
    let mut values: Vec<u64> = samples.iter().map(of).collect();
    values.sort_unstable();
    values[values.len() / 2]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn samples(resident: impl Fn(u64) -> u64, descriptors: impl Fn(u64) -> u64) -> Vec<Sample> {
        let sample = |number| Sample {
            at: Duration::from_secs(number),
            resident_kb: resident(number),
            descriptors: usize::try_from(descriptors(number)).unwrap(),
            maps_kb: 4000,
            slab_kb: 0,
            series: 0,
            scrape: Duration::ZERO,
            cpu_s: 0.0,
            lost: 0.0,
            births: 0.0,
            lock_waits: 0.0,
        };
        (0..30).map(sample).collect()
    }

    #[test]
    fn growth_after_the_warm_up_is_seen() {
        assert!(verdict(&samples(|number| 20_000 + 8_000.min(number * 1000), |_| 40)).is_ok());
        assert!(verdict(&samples(|number| 20_000 + number * 300, |_| 40)).is_err());
        assert!(verdict(&samples(|_| 20_000, |number| 40 + number)).is_err());
        assert!(
            verdict(&samples(|_| 20_000, |_| 40)[..5]).is_err(),
            "nothing to judge"
        );
    }

    #[test]
    fn durations() {
        assert_eq!(duration("30m"), Ok(Duration::from_secs(1800)));
        assert!(
            duration("5s").is_err()
                && duration("m").is_err()
                && duration("1d").is_err()
                && duration("").is_err()
        );
    }
}
