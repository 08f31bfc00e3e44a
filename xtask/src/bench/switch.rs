//! `cargo xtask bench switch`: what a context switch costs with procprobe attached, and with runqlat on the same
//! switches at the same time; with `--all` also with cpudist and offcputime, which together tell about what procprobe tells.
//!
//! The kernel times every program run (`kernel.bpf_stats_enabled`); that costs both sides the same few tens of
//! nanoseconds per run, so the ratio is a little worse than the truth. Absolute times differ between machines and
//! minutes: the ratio is the result.

use std::{
    path::{Path, PathBuf},
    process::Command,
    sync::atomic::AtomicBool,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use clap::Args;

use super::{
    check, on_interrupt,
    peer::Peers,
    stats::{self, Cost, Program, StatsOn},
};
use crate::{
    build, environment,
    packages::find_program,
    process::{self, Background, say},
    record,
    workspace::Workspace,
};

/// A context switch costs one run of each: somebody is woken, then switched to.
const OURS: [&str; 2] = ["sched_switch", "sched_waking"];
const THEIRS: [&str; 2] = ["sched_switch", "sched_wakeup"];
/// The others with `--all`; one program each, whose name begins so.
const OTHERS: [&str; 2] = ["cpudist", "offcputime"];
const OTHER_PROGRAM: &str = "sched_switch";
const ATTACH_LIMIT: Duration = Duration::from_secs(30);

#[derive(Args)]
pub struct Options {
    /// How long to make load for
    #[arg(long, default_value_t = 5, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=3600))]
    seconds: u32,
    /// A chroot with libbpf-tools, for hosts that do not have them
    #[arg(long, env = "PROCPROBE_PEERS", value_name = "DIR")]
    peers: Option<PathBuf>,
    /// Measure this binary instead of building one
    #[arg(long, value_name = "FILE")]
    agent: Option<PathBuf>,
    /// Attach cpudist and offcputime as well
    #[arg(long)]
    all: bool,
    /// Write the table into docs/performance.md
    #[arg(long)]
    record: bool,
}

/// A process whose programs are measured.
struct Subject {
    name: &'static str,
    process: Background,
    before: Vec<Program>,
}

/// The verb.
pub fn run(workspace: &Workspace, options: &Options) -> Result<()> {
    ensure!(
        process::is_root(),
        "bench needs root for kernel.bpf_stats_enabled: run it as root"
    );
    let perf = find_program("perf").context("no perf: run `cargo xtask setup --tests`")?;
    let agent = if let Some(agent) = &options.agent {
        agent.clone()
    } else {
        build::run(workspace)?;
        workspace.procprobe()
    };
    let interrupted = on_interrupt()?;
    let peers = Peers::new(options.peers.as_deref())?;
    let _stats = StatsOn::new()?;

    let mut subjects = start_all(&agent, &peers, options.all, &interrupted)?;
    let loops = loops_for(&perf, options.seconds)?;
    let text = measure(&perf, loops, &mut subjects, &interrupted)?;
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

/// procprobe first, then whoever else there is.
fn start_all(agent: &Path, peers: &Peers, all: bool, interrupted: &AtomicBool) -> Result<Vec<Subject>> {
    let mut command = Command::new(agent);
    command.args(["agent", "--listen", "127.0.0.1:0"]);
    let mut subjects = vec![start("procprobe", &mut command, &OURS, interrupted)?];
    if let Some(peer) = peers.find("runqlat") {
        subjects.push(start("runqlat", &mut peer.command(&[]), &THEIRS, interrupted)?);
    }
    for name in OTHERS.into_iter().filter(|_| all) {
        let peer = peers
            .find(name)
            .with_context(|| format!("no {name}: install libbpf-tools, or --peers DIR"))?;
        subjects.push(start(
            name,
            &mut peer.command(&[]),
            &[OTHER_PROGRAM],
            interrupted,
        )?);
    }
    Ok(subjects)
}

fn measure(perf: &Path, loops: u64, subjects: &mut [Subject], interrupted: &AtomicBool) -> Result<String> {
    say(&format!("perf bench sched pipe -l {loops}"));
    for subject in &mut *subjects {
        subject.look()?;
    }
    load(perf, loops)?;
    check(interrupted)?;
    let costs = subjects
        .iter_mut()
        .map(|subject| Ok((subject.name, subject.finish()?)));
    Ok(report(&costs.collect::<Result<Vec<_>>>()?))
}

impl Subject {
    fn look(&mut self) -> Result<()> {
        self.before = stats::owned_by(self.process.child.id())?;
        Ok(())
    }

    fn finish(&mut self) -> Result<Vec<Cost>> {
        self.process.expect_running()?;
        let after = stats::owned_by(self.process.child.id())?;
        Ok(stats::delta(&self.before, &after))
    }
}

/// Starts a process and waits until its programs have run: loaded is not yet attached.
fn start(
    name: &'static str,
    command: &mut Command,
    names: &[&str],
    interrupted: &AtomicBool,
) -> Result<Subject> {
    let mut process = Background::start(name, environment::scrub(command))?;
    let deadline = Instant::now() + ATTACH_LIMIT;
    loop {
        check(interrupted)?;
        process.expect_running()?;
        let programs = stats::owned_by(process.child.id())?;
        let runs = |wanted: &&str| {
            programs
                .iter()
                .any(|it| it.name.starts_with(wanted) && it.run_cnt > 0)
        };
        if names.iter().all(runs) {
            return Ok(Subject {
                name,
                process,
                before: programs,
            });
        }
        if Instant::now() >= deadline {
            bail!(
                "{name} did not attach {} within {} s: see its output above",
                names.join(" and "),
                ATTACH_LIMIT.as_secs()
            );
        }
        thread::sleep(Duration::from_millis(200));
    }
}

/// How many round trips fill that many seconds here and now, everything attached.
fn loops_for(perf: &Path, seconds: u32) -> Result<u64> {
    const TRIAL: u64 = 20_000;
    let took = load(perf, TRIAL)?;
    let loops = TRIAL as f64 * f64::from(seconds) / took.max(0.001);
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "positive, and small for a u64"
    )]
    Ok(loops as u64)
}

/// Two processes that wake each other through a pipe, as fast as they can; returns the seconds it took.
fn load(perf: &Path, loops: u64) -> Result<f64> {
    let mut bench = Command::new(perf);
    bench
        .args(["bench", "--format", "simple", "sched", "pipe", "-l"])
        .arg(loops.to_string());
    let seconds = process::output(&mut bench)?;
    seconds
        .trim()
        .parse()
        .with_context(|| format!("`perf bench` printed {:?}, not seconds", seconds.trim()))
}

/// `all` begins with ours.
fn report(all: &[(&str, Vec<Cost>)]) -> String {
    use std::fmt::Write;
    let mut text = format!(
        "{:<12} {:<24} {:>12} {:>10}\n",
        "who", "program", "runs", "ns/run"
    );
    for (who, cost) in all
        .iter()
        .flat_map(|(who, costs)| costs.iter().map(move |cost| (who, cost)))
    {
        let Some(ns) = cost.ns_per_run() else { continue };
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{who:<12} {:<24} {:>12} {ns:>10.0}", cost.name, cost.runs);
    }
    let of = |name: &str| {
        all.iter()
            .find(|(who, _)| *who == name)
            .map(|(_, costs)| costs.as_slice())
    };
    text.push_str(&verdict(of("procprobe").unwrap_or_default(), of("runqlat")));
    text.push_str(&verdict_of_all(all).unwrap_or_default());
    text
}

/// Against all of the tools together, if all of them ran.
fn verdict_of_all(all: &[(&str, Vec<Cost>)]) -> Option<String> {
    let per_switch = |(_, costs): &(&str, Vec<Cost>)| {
        let switches = costs.iter().filter(|cost| cost.name.starts_with(OTHER_PROGRAM));
        let runs = switches.map(|cost| cost.runs).max().filter(|&runs| runs > 0)?;
        Some(costs.iter().map(|cost| cost.ns).sum::<u64>() as f64 / runs as f64)
    };
    let (ours, theirs) = all
        .split_first()
        .filter(|(_, theirs)| theirs.len() > OTHERS.len())?;
    let ours = per_switch(ours)?;
    let theirs: f64 = theirs.iter().map(per_switch).sum::<Option<f64>>()?;
    Some(format!(
        "per switch, whatever ran: procprobe {ours:.0} ns, the tools together {theirs:.0} ns\nratio: {:.3} (the goal is \
         0.05 or less)\n",
        ours / theirs
    ))
}

fn verdict(ours: &[Cost], theirs: Option<&[Cost]>) -> String {
    let Some(our_sum) = stats::sum_per_run(ours, &OURS) else {
        return "no ratio: procprobe's programs did not run\n".to_owned();
    };
    let our_line = format!("procprobe switch + waking: {our_sum:.0} ns\n");
    match theirs.map(|costs| stats::sum_per_run(costs, &THEIRS)) {
        None => format!(
            "{our_line}no ratio: no runqlat here; install libbpf-tools, or --peers DIR for a chroot with it\n"
        ),
        Some(None) => format!("{our_line}no ratio: runqlat's programs did not run\n"),
        Some(Some(their_sum)) => format!(
            "{our_line}runqlat switch + wakeup: {their_sum:.0} ns\nratio: {:.2} (the goal is 0.50 or less)\n",
            our_sum / their_sum
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cost(name: &str, runs: u64, ns: u64) -> Cost {
        Cost {
            name: name.to_owned(),
            runs,
            ns,
        }
    }

    #[test]
    fn ratio_of_sums_per_run() {
        let ours = [
            cost("sched_switch", 10, 2000),
            cost("sched_waking", 5, 500),
            cost("sched_process_fork", 0, 0),
        ];
        let theirs = [
            cost("sched_switch", 10, 4000),
            cost("sched_wakeup", 5, 1000),
            cost("sched_wakeup_new", 1, 9),
        ];
        let text = report(&[("procprobe", ours.to_vec()), ("runqlat", theirs.to_vec())]);
        assert!(text.contains("ratio: 0.50"), "{text}");
        assert!(
            !text.contains("sched_process_fork"),
            "what did not run is not listed: {text}"
        );
    }

    #[test]
    fn says_why_there_is_no_ratio() {
        let ours = [cost("sched_switch", 10, 2000), cost("sched_waking", 5, 500)];
        assert!(verdict(&ours, None).contains("no runqlat here"));
        assert!(verdict(&ours, Some(&[])).contains("runqlat's programs did not run"));
        assert!(verdict(&[], None).contains("procprobe's programs did not run"));
    }

    #[test]
    fn all_tools_together_count_by_the_switch() {
        let all = [
            (
                "procprobe",
                vec![cost("sched_switch", 10, 1000), cost("sched_waking", 5, 500)],
            ),
            (
                "runqlat",
                vec![cost("sched_switch", 10, 2000), cost("sched_wakeup", 5, 1000)],
            ),
            ("cpudist", vec![cost("sched_switch_bt", 10, 5000)]),
            ("offcputime", vec![cost("sched_switch", 10, 22_000)]),
        ];
        assert!(report(&all).contains("ratio: 0.050 "), "{}", report(&all));
        assert_eq!(verdict_of_all(&all[..3]), None);
    }
}
