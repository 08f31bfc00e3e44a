//! `cargo xtask bench scrape`: what a scrape of ten thousand threads costs, beside process-exporter and node_exporter's
//! `processes` collector on the same threads in the same run; and what the agent takes while processes are born all the time.
//!
//! Absolute times differ between machines: the ratio is the result.

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use clap::Args;

use super::{
    exporter::{Exporter, Kind},
    load::Load,
};
use crate::{build, process, process::say, workspace::Workspace};

/// Loads of ten thousand threads: what to call it, and the scene of the workload.
const LOADS: [(&str, &[&str]); 2] = [
    ("1 process of 10,000 threads", &["threads", "10000"]),
    ("1,000 processes of 10 threads", &["herd", "1000", "10"]),
];
const FORKS_PER_SECOND: u32 = 1_000;
const SCRAPE_EVERY: Duration = Duration::from_secs(15);

#[derive(Args)]
pub struct Options {
    /// Scrapes of each exporter under each load
    #[arg(long, default_value_t = 7, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1000))]
    scrapes: u32,
    /// How long to measure the agent's CPU time while processes are born, in seconds; 0 leaves it out
    #[arg(long, default_value_t = 60, value_name = "N", value_parser = clap::value_parser!(u32).range(0..=3600))]
    seconds: u32,
}

/// What one exporter took under one load.
struct Row {
    kind: Kind,
    /// Median.
    took_ms: f64,
    cpu_ms: f64,
    kilobytes: usize,
    resident_mib: f64,
}

/// The verb.
pub fn run(workspace: &Workspace, options: &Options) -> Result<()> {
    ensure!(process::is_root(), "bench loads eBPF programs: run it as root");
    build::run(workspace)?;
    let workload = Load::build(workspace)?;
    let kinds = Kind::available(workspace)?;
    for (name, scene) in LOADS {
        say(&format!("scraping {name}"));
        let _load = Load::start(&workload, scene)?;
        // One after the other, so that none is slowed by another's work.
        let rows: Result<Vec<Row>> = kinds
            .iter()
            .map(|kind| measure(workspace, *kind, options.scrapes))
            .collect();
        print!("{}", table(name, &rows?));
    }
    if options.seconds > 0 {
        let share = cpu_share(workspace, &workload, Duration::from_secs(options.seconds.into()))?;
        println!(
            "agent, {FORKS_PER_SECOND} forks/s, a scrape every {} s, over {} s: {:.2} % of one core (the goal is 1 % or less)",
            SCRAPE_EVERY.as_secs(),
            options.seconds,
            share * 100.0
        );
    }
    Ok(())
}

fn measure(workspace: &Workspace, kind: Kind, scrapes: u32) -> Result<Row> {
    let exporter = Exporter::start(workspace, kind)?;
    // The first ones fill caches, and the agent's first snapshot.
    exporter.scrape()?;
    exporter.scrape()?;
    let before = exporter.cpu()?;
    let mut took = Vec::new();
    let mut bytes = 0;
    for _ in 0..scrapes {
        let began = Instant::now();
        bytes = exporter.scrape()?;
        took.push(began.elapsed());
    }
    took.sort_unstable();
    Ok(Row {
        kind,
        took_ms: took[took.len() / 2].as_secs_f64() * 1e3,
        cpu_ms: (exporter.cpu()? - before).as_secs_f64() * 1e3 / f64::from(scrapes),
        kilobytes: bytes / 1024,
        resident_mib: exporter.resident_kib()? as f64 / 1024.0,
    })
}

/// The agent's share of one core.
fn cpu_share(workspace: &Workspace, workload: &std::path::Path, length: Duration) -> Result<f64> {
    say(&format!("{FORKS_PER_SECOND} forks/s for {} s", length.as_secs()));
    let mut load = Load::start(workload, &["births"])?;
    let agent = Exporter::start(workspace, Kind::Procprobe)?;
    agent.scrape()?;
    let before = agent.cpu()?;
    let began = Instant::now();
    let mut scraped = began;
    let mut born = 0;
    // In tenths of a second: a second's worth at once would be a storm, not a rate.
    while began.elapsed() < length {
        load.tell(&(FORKS_PER_SECOND / 10).to_string())?;
        born += FORKS_PER_SECOND / 10;
        if scraped.elapsed() >= SCRAPE_EVERY {
            agent.scrape()?;
            scraped = Instant::now();
        }
        let due = Duration::from_secs_f64(f64::from(born) / f64::from(FORKS_PER_SECOND));
        thread::sleep(due.saturating_sub(began.elapsed()));
    }
    let elapsed = began.elapsed().as_secs_f64();
    let rate = f64::from(born) / elapsed;
    ensure!(
        rate > 0.9 * f64::from(FORKS_PER_SECOND),
        "this host forked {rate:.0} times a second only"
    );
    Ok((agent.cpu()? - before).as_secs_f64() / elapsed)
}

fn table(load: &str, rows: &[Row]) -> String {
    use std::fmt::Write;
    let mut text = format!(
        "{load:<32} {:>10} {:>8} {:>10} {:>8} {:>8}\n",
        "SCRAPE", "OURS IS", "CPU", "SIZE", "RESIDENT"
    );
    let ours = rows
        .iter()
        .find(|row| row.kind == Kind::Procprobe)
        .map(|row| row.took_ms);
    for row in rows {
        let ratio = match ours {
            Some(ours) if row.kind != Kind::Procprobe => format!("1/{:.0}", row.took_ms / ours),
            _ => "–".to_owned(),
        };
        // Writing to a String cannot fail.
        let _ = writeln!(
            text,
            "  {:<30} {:>7.1} ms {ratio:>8} {:>7.1} ms {:>5} kB {:>4.0} MiB",
            row.kind.name(),
            row.took_ms,
            row.cpu_ms,
            row.kilobytes,
            row.resident_mib
        );
    }
    text + &missing(rows) + "\n"
}

fn missing(rows: &[Row]) -> String {
    let absent = Kind::ALL
        .into_iter()
        .filter(|kind| rows.iter().all(|row| row.kind != *kind));
    let lines = absent.map(|kind| {
        format!(
            "  {:<30} not here, and no apt to fetch it with: no ratio\n",
            kind.name()
        )
    });
    lines.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(kind: Kind, took_ms: f64) -> Row {
        Row {
            kind,
            took_ms,
            cpu_ms: 1.0,
            kilobytes: 1,
            resident_mib: 1.0,
        }
    }

    #[test]
    fn the_ratio_is_ours_to_theirs() {
        let text = table(
            "load",
            &[row(Kind::Procprobe, 20.0), row(Kind::ProcessExporter, 1_500.0)],
        );
        assert!(text.contains("1/75"), "{text}");
        assert!(
            text.contains("node_exporter, processes") && text.contains("no ratio"),
            "{text}"
        );
    }
}
