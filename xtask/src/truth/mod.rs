//! `cargo xtask truth`: procprobe's answers beside those of others about the same seconds of real load.
//!
//! The kernel's own counts (`/proc/PID/task/TID/{schedstat,status}`, `getrusage`) have to agree to the switch and nearly to
//! the nanosecond; the histograms of libbpf-tools' `runqlat` and `cpudist`, the sums of `offcputime` and the waits of `futexctn`
//! nearly, for reasons that are printed. All of them watch before the load begins and after it has ended, so that nobody's window has an edge in it.

mod distribution;
mod kernel;
mod kinds;
mod locks;
mod ours;
mod report;
mod subjects;
mod tools;

use std::{process::Command, thread, time::Duration};

use anyhow::{Context, Result, bail, ensure};
use clap::Args;

use crate::{
    agent::Examined,
    bench::{
        check, on_interrupt,
        peer::{Peers, Place},
    },
    environment,
    process::{self, say},
    record,
    workspace::Workspace,
};
use report::Report;
use subjects::{Done, Subjects};
use tools::Tool;

#[derive(Args)]
pub struct Options {
    /// How long to make load for
    #[arg(long, default_value_t = 20, value_name = "N", value_parser = clap::value_parser!(u32).range(2..=600))]
    seconds: u32,
    #[command(flatten)]
    peers: Place,
    #[command(flatten)]
    examined: Examined,
    /// Write the table into docs/verification.md
    #[arg(long)]
    record: bool,
}

/// Everybody who watches.
struct Watchers {
    ours: Tool,
    /// A second one, that sees the load's threads die: waits count for offcputime when they end.
    to_the_end: Tool,
    runqlat: Option<Tool>,
    cpudist: Option<Tool>,
    /// One for each of the programs, in their order: one for the whole host runs out of room.
    offcputime: Vec<Tool>,
    /// Ours about locks, and the other one.
    locks: Tool,
    futexctn: Option<Tool>,
}

/// The verb.
pub fn run(workspace: &Workspace, options: &Options) -> Result<()> {
    ensure!(process::is_root(), "truth loads eBPF programs: run it as root");
    let binary = options.examined.binary(workspace)?;
    let interrupted = on_interrupt()?;
    let peers = options.peers.open()?;
    let mut subjects = Subjects::start(options.seconds)?;
    let mut watchers = watch(&binary, &peers, subjects.pids())?;
    let before = kernel::counts(&subjects.pids())?;
    say(&format!(
        "{} s of load: Python threads, pthreads, compilations, pipes",
        options.seconds
    ));
    let done = subjects.run()?;
    check(&interrupted)?;
    let after = kernel::counts_at_rest(&subjects.pids())?;
    // What happened last has to have been counted: the tools read when they are told to end.
    thread::sleep(Duration::from_millis(500));
    let mut answers = watchers.finish()?;
    let pids = subjects.pids();
    drop(subjects);
    answers.off_cpu = watchers.finish_at_the_end(&done)?;
    let report = Report::make(pids, &kernel::growth(&before, &after), &done, &answers)?;
    print!("{}", report.text());
    if options.record {
        let command = format!("cargo xtask truth --seconds {}", options.seconds);
        record::put(
            workspace,
            record::VERIFICATION,
            "truth",
            &command,
            &report.markdown(),
        )?;
    }
    if !report.agrees() {
        bail!("not everything agrees: see the table");
    }
    Ok(())
}

fn watch(binary: &std::path::Path, peers: &Peers, pids: [u32; 2]) -> Result<Watchers> {
    let ours = |name: &str, arguments: &[&str]| {
        let mut command = Command::new(binary);
        command.args(arguments).args(["--for", "1h", "-o", "json"]);
        Tool::start(name, environment::scrub(&mut command))
    };
    let peer = |name: &str, arguments: &[&str]| {
        let Some(peer) = peers.find(name) else {
            say(&format!(
                "no {name} here: install libbpf-tools, or --peers DIR for a chroot with it"
            ));
            return Ok(None);
        };
        Tool::start(name, &mut peer.command(arguments)).map(Some)
    };
    let mut offcputime = Vec::new();
    for pid in pids {
        offcputime.extend(peer("offcputime", &["-p", &pid.to_string()])?);
    }
    let mut watchers = Watchers {
        ours: ours("procprobe", &["states", "--by", "process"])?,
        to_the_end: ours("procprobe-2", &["states", "--by", "process"])?,
        locks: ours("procprobe-locks", &["locks"])?,
        futexctn: peer("futexctn", &["-s"])?,
        runqlat: peer("runqlat", &["-P"])?,
        cpudist: peer("cpudist", &["-P"])?,
        offcputime,
    };
    for tool in watchers.all() {
        tool.wait_until_attached()?;
    }
    Ok(watchers)
}

impl Watchers {
    fn all(&mut self) -> impl Iterator<Item = &mut Tool> {
        let peers = [&mut self.runqlat, &mut self.cpudist, &mut self.futexctn];
        let ours = [&mut self.ours, &mut self.to_the_end, &mut self.locks];
        let peers = peers.into_iter().flatten();
        ours.into_iter().chain(peers).chain(&mut self.offcputime)
    }

    /// Tells those to end, ours first, that are compared about threads that live, and reads what they have to say.
    fn finish(&mut self) -> Result<Answers> {
        let output = |tool: &mut Option<Tool>| tool.as_mut().map(Tool::finish).transpose();
        let ours = self.ours.finish()?;
        let locks = self.locks.finish()?;
        Ok(Answers {
            ours: ours::Answer::parse(&ours).context("reading procprobe's answer")?,
            locks: locks::Answer::parse(&locks).context("reading procprobe's answer about locks")?,
            futexctn: output(&mut self.futexctn)?.map(|text| locks::futexctn(&text)),
            runqlat: output(&mut self.runqlat)?.map(|text| tools::histograms(&text)),
            cpudist: output(&mut self.cpudist)?.map(|text| tools::histograms(&text)),
            off_cpu: None,
        })
    }

    /// The same for the two that are compared about threads that have ended.
    fn finish_at_the_end(&mut self, done: &Done) -> Result<Option<OffCpu>> {
        if self.offcputime.is_empty() {
            return Ok(None);
        }
        let since_go = done.began.elapsed();
        let ours = self.to_the_end.finish()?;
        let ours = ours::Answer::parse(&ours).context("reading procprobe's second answer")?;
        let before_ns = ours.window_ns.saturating_sub(u64::try_from(since_go.as_nanos())?);
        let theirs = self
            .offcputime
            .iter_mut()
            .map(|tool| Ok(tools::sum(&tool.finish()?)));
        Ok(Some(OffCpu {
            ours,
            before_ns,
            theirs_us: theirs.collect::<Result<_>>()?,
        }))
    }
}

/// What everybody said.
pub struct Answers {
    ours: ours::Answer,
    runqlat: Option<Vec<tools::Named>>,
    cpudist: Option<Vec<tools::Named>>,
    locks: locks::Answer,
    futexctn: Option<Vec<locks::Waited>>,
    off_cpu: Option<OffCpu>,
}

/// About the time off the CPU, of threads that have all ended.
struct OffCpu {
    ours: ours::Answer,
    /// How long the first thread of each program waited to be told to begin while we watched: offcputime saw no beginning
    /// of that wait.
    before_ns: u64,
    /// By program.
    theirs_us: Vec<u64>,
}
