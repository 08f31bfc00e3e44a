//! `cargo xtask bench scrape`: what a scrape of ten thousand threads costs, beside process-exporter and `node_exporter`'s
//! `processes` collector on the same threads in the same run; and what the agent takes while processes are born all the time.
//!
//! Absolute times differ between machines: the ratio is the result.

use std::{
    path::Path,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use clap::Args;

use super::{
    exporter::{Exporter, Exporters, Kind},
    load::Load,
    median, snapshot,
};
use crate::{
    agent::Examined,
    process,
    process::say,
    record::{self, Table},
    workspace::Workspace,
};

/// Loads of ten thousand threads: what to call it, and the scene of the workload.
const LOADS: [(&str, &[&str]); 2] = [
    ("1 process of 10,000 threads", &["threads", "10000"]),
    ("1,000 processes of 10 threads", &["herd", "1000", "10"]),
];
const HEADING: [&str; 7] = [
    "load",
    "exporter",
    "a scrape",
    "ours is",
    "its CPU time",
    "its size",
    "resident",
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
    #[command(flatten)]
    examined: Examined,
    /// Write the table into docs/performance.md
    #[arg(long)]
    record: bool,
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
    let exporters = Exporters::find(workspace, options.examined.binary(workspace)?)?;
    let workload = snapshot::workload(workspace)?;
    let mut table = Table::new(&HEADING);
    for (name, scene) in LOADS {
        say(&format!("scraping {name}"));
        let _load = Load::start(&workload, scene)?;
        // One after the other, so that none is slowed by another's work.
        let rows: Result<Vec<Row>> = exporters
            .kinds()
            .map(|kind| measure(&exporters, kind, options.scrapes))
            .collect();
        for line in lines(name, &rows?) {
            table.row(line);
        }
    }
    print!("{}", table.text());
    let cpu = if options.seconds > 0 {
        cpu_line(&exporters, &workload, options.seconds)?
    } else {
        String::new()
    };
    print!("{cpu}");
    if options.record {
        let text = table.markdown() + "\n" + &cpu;
        record::put(
            workspace,
            record::PERFORMANCE,
            "scrape",
            "cargo xtask bench scrape",
            &text,
        )?;
    }
    Ok(())
}

fn cpu_line(exporters: &Exporters, workload: &Path, seconds: u32) -> Result<String> {
    let share = cpu_share(exporters, workload, Duration::from_secs(seconds.into()))?;
    Ok(format!(
        "The agent itself takes {:.2} % of one core at {FORKS_PER_SECOND} forks a second and a scrape every {} s, over {seconds} s \
         (the goal is 1 % or less).\n",
        share * 100.0,
        SCRAPE_EVERY.as_secs(),
    ))
}

fn measure(exporters: &Exporters, kind: Kind, scrapes: u32) -> Result<Row> {
    let exporter = exporters.start(kind)?;
    // The first ones fill caches, and the agent's first snapshot.
    exporter.scrape()?;
    exporter.scrape()?;
    let before = exporter.cpu()?;
    let mut took = Vec::new();
    let mut bytes = 0;
    for _ in 0..scrapes {
        let began = Instant::now();
        bytes = exporter.scrape()?;
        took.push(began.elapsed().as_secs_f64() * 1e3);
    }
    Ok(Row {
        kind,
        took_ms: median(took),
        cpu_ms: exporter.cpu()?.saturating_sub(before).as_secs_f64() * 1e3 / f64::from(scrapes),
        kilobytes: bytes / 1024,
        resident_mib: exporter.resident_kib()? as f64 / 1024.0,
    })
}

/// The agent's share of one core.
fn cpu_share(exporters: &Exporters, workload: &Path, length: Duration) -> Result<f64> {
    say(&format!("{FORKS_PER_SECOND} forks/s for {} s", length.as_secs()));
    let mut load = Load::start(workload, &["births"])?;
    let agent: Exporter = exporters.start(Kind::Procprobe)?;
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
    Ok(agent.cpu()?.saturating_sub(before).as_secs_f64() / elapsed)
}

/// The table's lines of one load.
fn lines(load: &str, rows: &[Row]) -> Vec<Vec<String>> {
    let ours = rows.iter().find(|row| row.kind == Kind::Procprobe);
    let line = |kind: Kind| {
        let mut cells = vec![load.to_owned(), kind.name().to_owned()];
        let Some(row) = rows.iter().find(|row| row.kind == kind) else {
            cells.push("not here, and no apt to fetch it".to_owned());
            cells.resize(7, "–".to_owned());
            return cells;
        };
        let ratio = ours
            .filter(|ours| ours.kind != kind)
            .map(|ours| row.took_ms / ours.took_ms);
        cells.extend([
            format!("{:.1} ms", row.took_ms),
            ratio.map_or("–".to_owned(), |ratio| format!("1/{ratio:.0}")),
            format!("{:.1} ms", row.cpu_ms),
            format!("{} kB", row.kilobytes),
            format!("{:.0} MiB", row.resident_mib),
        ]);
        cells
    };
    Kind::ALL.map(line).into()
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
        let lines = lines(
            "load",
            &[row(Kind::Procprobe, 20.0), row(Kind::ProcessExporter, 1_500.0)],
        );
        assert_eq!((&*lines[0][3], &*lines[1][3]), ("–", "1/75"));
        assert!(lines[2][2].contains("not here"), "{lines:?}");
        assert!(lines.iter().all(|line| line.len() == 7), "{lines:?}");
    }
}
