//! `cargo xtask bench snapshot`: what looking at very many threads takes, and how it grows.

use std::{
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Instant,
};

use anyhow::{Context, Result, ensure};
use clap::Args;

use super::median;
use crate::{
    agent::{self, Agent, Examined},
    build, environment,
    process::{self, say},
    record::{self, Table},
    workspace::Workspace,
};

const LOOKS: usize = 7;

#[derive(Args)]
pub struct Options {
    /// How many threads, asleep; may be given more than once
    #[arg(long, value_name = "N", default_values_t = [1_000, 10_000, 30_000])]
    threads: Vec<u32>,
    #[command(flatten)]
    examined: Examined,
    /// Write the table into docs/performance.md
    #[arg(long)]
    record: bool,
}

/// The verb.
pub fn run(workspace: &Workspace, options: &Options) -> Result<()> {
    ensure!(process::is_root(), "bench loads eBPF programs: run it as root");
    let binary = options.examined.binary(workspace)?;
    let workload = workload(workspace)?;
    let mut table = Table::new(&[
        "threads",
        "one look (tree)",
        "with times and histograms",
        "a scrape",
        "kernel memory per thread",
        "agent resident",
    ]);
    for &threads in &options.threads {
        say(&format!("{threads} threads"));
        table.row(measure(&binary, &workload, threads)?);
    }
    print!("{}", table.text());
    if options.record {
        let command = "cargo xtask bench snapshot";
        record::put(
            workspace,
            record::PERFORMANCE,
            "snapshot",
            command,
            &table.markdown(),
        )?;
    }
    Ok(())
}

/// The tests' own program of scenes.
pub fn workload(workspace: &Workspace) -> Result<PathBuf> {
    let mut cargo = workspace.cargo();
    cargo
        .args([
            "build",
            "--quiet",
            "--release",
            "-p",
            "probe-user",
            "--features",
            "workload",
            "--bin",
            "probe-workload",
        ])
        .env(build::OBJECT_ENV, workspace.bpf_object());
    process::run_on_stderr(&mut cargo).context("building the workload")?;
    Ok(workspace.target.join("release/probe-workload"))
}

/// A process has so many mappings at most (`vm.max_map_count`), and each thread takes some.
const A_PROCESS: u32 = 10_000;

/// Threads that sleep until dropped.
struct Sleepers(Child);

impl Sleepers {
    /// So many, in as few processes as can have them.
    fn start_all(workload: &Path, threads: u32) -> Result<Vec<Self>> {
        let whole = (0..threads / A_PROCESS).map(|_| A_PROCESS);
        let rest = Some(threads % A_PROCESS).filter(|&rest| rest > 0);
        whole
            .chain(rest)
            .map(|count| Self::start(workload, count))
            .collect()
    }

    fn start(workload: &Path, threads: u32) -> Result<Self> {
        let mut command = Command::new(workload);
        command
            .args(["threads", &threads.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        let mut sleepers = Self(
            command
                .spawn()
                .with_context(|| format!("starting {}", workload.display()))?,
        );
        let output = sleepers.0.stdout.take().context("a program without output")?;
        let mut line = String::new();
        BufReader::new(output)
            .read_line(&mut line)
            .context("reading from the workload")?;
        ensure!(
            line.starts_with("ready"),
            "{threads} threads could not be started: see kernel.pid_max, kernel.threads-max and vm.max_map_count"
        );
        Ok(sleepers)
    }
}

impl Drop for Sleepers {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

fn measure(binary: &Path, workload: &Path, threads: u32) -> Result<Vec<String>> {
    let _sleepers = Sleepers::start_all(workload, threads)?;
    let look = (0..LOOKS).map(|_| look_ms(binary)).collect::<Result<Vec<_>>>()?;
    let before_kb = agent::slab_kb()?;
    let agent = Agent::start(binary, &[])?;
    let grown_kb = agent::slab_kb()?.saturating_sub(before_kb);
    let before = snapshots(&agent.get("/metrics")?);
    let mut scrapes = Vec::new();
    let mut text = String::new();
    for _ in 0..LOOKS {
        let asked = Instant::now();
        text = agent.get("/metrics")?;
        scrapes.push(asked.elapsed().as_secs_f64() * 1e3);
    }
    let after = snapshots(&text);
    let mean_ms = (after.1 - before.1) / (after.0 - before.0).max(1.0) * 1e3;
    let seen = agent::sum(&text, "procprobe_threads");
    ensure!(
        seen >= f64::from(threads),
        "only {seen} of {threads} threads were seen"
    );
    Ok(vec![
        format!("{seen:.0}"),
        format!("{:.1} ms", median(look)),
        format!("{mean_ms:.1} ms"),
        format!("{:.1} ms", median(scrapes)),
        format!("{} B", grown_kb * 1024 / u64::from(threads)),
        format!("{} MiB", agent.resident_kb()? / 1024),
    ])
}

/// How many snapshots were taken, and the seconds they took.
fn snapshots(text: &str) -> (f64, f64) {
    let sum = |end| agent::sum(text, &format!("procprobe_snapshot_duration_seconds_{end}"));
    (sum("count"), sum("sum"))
}

/// What `tree -v` says that its look took.
fn look_ms(binary: &Path) -> Result<f64> {
    let mut command = Command::new(binary);
    command.args(["tree", "-v", "-o", "json"]).env("NO_COLOR", "1");
    let output = environment::scrub(&mut command)
        .output()
        .context("starting procprobe")?;
    let said = String::from_utf8_lossy(&output.stderr);
    took_ms(&said).with_context(|| format!("procprobe tree does not say what its look took: {said}"))
}

/// The last `took=8.5ms` of a log.
fn took_ms(log: &str) -> Option<f64> {
    let text = log.rsplit_once("took=")?.1;
    let end = text.find(|c: char| !(c.is_ascii_digit() || c == '.'))?;
    let number: f64 = text[..end].parse().ok()?;
    let unit = text[end..].split_whitespace().next()?;
    match unit {
        "s" => Some(number * 1e3),
        "ms" => Some(number),
        "µs" => Some(number / 1e3),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_of_the_log() {
        assert_eq!(
            took_ms("snapshot threads=3 took=1.5s\nx took=12.25ms\n"),
            Some(12.25)
        );
        assert_eq!(took_ms("took=850.5µs"), Some(0.8505));
        assert_eq!(took_ms("took=2s bytes=1"), Some(2000.0));
        assert_eq!(took_ms("nothing"), None);
    }
}
