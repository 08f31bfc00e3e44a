//! `cargo xtask bench switch`: what a context switch costs with procprobe attached, and with runqlat on the same
//! switches at the same time; with `--all` also with cpudist and offcputime, which together tell about what procprobe tells.
//!
//! The kernel times every program run (`kernel.bpf_stats_enabled`), and the timing itself costs some tens of nanoseconds a
//! run: a program that does nothing, attached beside the others, tells how many. The first program that touches a thread's
//! structures pays for bringing them into the cache, so procprobe is attached first in one half of the run, and last in
//! the other. Absolute times differ between machines and minutes: the ratio is the result, once for a pair of processes that
//! shares a CPU and once for one that has a CPU each.

mod report;
mod subject;

use std::{path::PathBuf, process::Command, sync::atomic::AtomicBool};

use anyhow::{Context, Result, ensure};
use clap::Args;

use super::{
    check, on_interrupt,
    pair::{self, Placement},
    peer::{Peers, Place},
    stats::{self, Cost, StatsOn},
};
use crate::{
    agent::Examined,
    packages::find_program,
    process::{self, say},
    programs::Directory,
    record,
    workspace::Workspace,
};
use report::{NOTHING, OTHER_PROGRAM, OTHERS, OURS, PROCPROBE, RUNQLAT, THEIRS, beside_all, beside_runqlat};
use subject::Subject;

#[derive(Args)]
pub struct Options {
    /// How long to make load for each time, in two halves
    #[arg(long, default_value_t = 6, value_name = "N", value_parser = clap::value_parser!(u32).range(2..=3600))]
    seconds: u32,
    #[command(flatten)]
    peers: Place,
    #[command(flatten)]
    examined: Examined,
    /// Measure beside runqlat, cpudist and offcputime together as well
    #[arg(long)]
    all: bool,
    /// Write the table into docs/performance.md
    #[arg(long)]
    record: bool,
}

/// The verb.
pub fn run(workspace: &Workspace, options: &Options) -> Result<()> {
    ensure!(
        process::is_root(),
        "bench needs root for kernel.bpf_stats_enabled: run it as root"
    );
    let directory = Directory::new("switch")?;
    let bench = Bench {
        perf: find_program("perf").context("no perf: run `cargo xtask setup --tests`")?,
        agent: options.examined.binary(workspace)?,
        nothing: directory.compile(NOTHING, include_str!("nothing.c"))?,
        peers: options.peers.open()?,
        interrupted: on_interrupt()?,
    };
    let _stats = StatsOn::new()?;
    let mut text = String::new();
    for placement in Placement::possible()? {
        let beside = bench.halves(placement, options.seconds, false)?;
        text.push_str(&beside_runqlat(placement.name(), &beside));
        if options.all {
            let beside = bench.halves(placement, options.seconds, true)?;
            text.push_str(&beside_all(placement.name(), &beside));
        }
    }
    print!("{text}");
    if options.record {
        let command = format!(
            "cargo xtask bench switch{}",
            if options.all { " --all" } else { "" }
        );
        let text = format!("```text\n{text}```\n");
        record::put(workspace, record::PERFORMANCE, "switch", &command, &text)?;
    }
    Ok(())
}

/// Adds the costs of one half to those of the other.
fn merge(all: &mut Vec<(&'static str, Vec<Cost>)>, more: Vec<(&'static str, Vec<Cost>)>) {
    for (who, costs) in more {
        match all.iter_mut().find(|(known, _)| *known == who) {
            Some((_, sums)) => stats::add(sums, costs),
            None => all.push((who, costs)),
        }
    }
}

/// What it takes to measure.
struct Bench {
    perf: PathBuf,
    agent: PathBuf,
    nothing: PathBuf,
    peers: Peers,
    interrupted: std::sync::Arc<AtomicBool>,
}

impl Bench {
    /// What the pair costs in that placement: procprobe first in one half, last in the other.
    fn halves(
        &self,
        placement: Placement,
        seconds: u32,
        all: bool,
    ) -> Result<Vec<(&'static str, Vec<Cost>)>> {
        let mut costs = Vec::new();
        for ours_first in [true, false] {
            let mut subjects = self.start_all(all, ours_first)?;
            let loops = self.loops_for(f64::from(seconds) / 2.0, placement)?;
            merge(&mut costs, self.measure(loops, placement, &mut subjects)?);
        }
        Ok(costs)
    }

    /// The program that does nothing in the middle, procprobe before or behind whoever else there is.
    fn start_all(&self, all: bool, ours_first: bool) -> Result<Vec<Subject>> {
        let mut subjects = Vec::new();
        if ours_first {
            subjects.push(self.start_ours()?);
        }
        let mut nothing = Command::new(&self.nothing);
        subjects.push(Subject::start(NOTHING, &mut nothing, &OURS, &self.interrupted)?);
        if let Some(peer) = self.peers.find(RUNQLAT) {
            subjects.push(Subject::start(
                RUNQLAT,
                &mut peer.command(&[]),
                &THEIRS,
                &self.interrupted,
            )?);
        }
        for name in OTHERS.into_iter().filter(|_| all) {
            let peer = self
                .peers
                .find(name)
                .with_context(|| format!("no {name}: install libbpf-tools, or --peers DIR"))?;
            let mut command = peer.command(&[]);
            subjects.push(Subject::start(
                name,
                &mut command,
                &[OTHER_PROGRAM],
                &self.interrupted,
            )?);
        }
        if !ours_first {
            subjects.push(self.start_ours()?);
        }
        Ok(subjects)
    }

    fn start_ours(&self) -> Result<Subject> {
        let mut command = Command::new(&self.agent);
        command.args(["agent", "--listen", "127.0.0.1:0"]);
        Subject::start(PROCPROBE, &mut command, &OURS, &self.interrupted)
    }

    fn measure(
        &self,
        loops: u64,
        placement: Placement,
        subjects: &mut [Subject],
    ) -> Result<Vec<(&'static str, Vec<Cost>)>> {
        say(&format!("perf bench sched pipe -l {loops}, {}", placement.name()));
        for subject in &mut *subjects {
            subject.look()?;
        }
        pair::play(&self.perf, loops, placement)?;
        check(&self.interrupted)?;
        let costs = subjects
            .iter_mut()
            .map(|subject| Ok((subject.name, subject.finish()?)));
        costs.collect()
    }

    /// How many round trips fill that many seconds here and now, everything attached.
    fn loops_for(&self, seconds: f64, placement: Placement) -> Result<u64> {
        const TRIAL: u64 = 10_000;
        let took = pair::play(&self.perf, TRIAL, placement)?.seconds;
        let loops = TRIAL as f64 * seconds / took.max(0.001);
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "positive, and small for a u64"
        )]
        Ok(loops as u64)
    }
}
