//! `cargo xtask bench futex`: what a futex wait that blocks costs with procprobe attached, and with futexctn on the same waits at
//! the same time.
//!
//! The extra cost of such a wait is the difference of two loads that differ in nothing else: two threads on two CPUs that hand
//! something to and fro, once through a futex, once through a pipe. Each is divided by its sleeps as the kernel counted
//! them (`getrusage`), whatever our programs ran for meanwhile. Of `perf bench futex`, `lock-pi` is here because it blocks all the
//! time, and `hash` because it never does; `wake`, `wake-parallel` and `requeue` block a few hundred times.

use std::{
    path::Path,
    process::Command,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use clap::Args;

use super::{
    check, on_interrupt,
    peer::{Peers, Place},
    stats::{self, Cost, StatsOn},
    usage,
};
use crate::{
    agent::{Agent, Examined},
    process::{self, Background, say},
    programs::{Directory, need},
    record::{self, Table},
    workspace::Workspace,
};

const ATTACH_LIMIT: Duration = Duration::from_secs(30);
/// The two whose difference is the extra cost.
const BY_FUTEX: &str = "two threads, a futex to and fro";
const BY_PIPE: &str = "two threads, a byte through pipes to and fro";
/// Fewer sleeps than that in a second are not what the load is about.
const FEW: u64 = 1000;

#[derive(Args)]
pub struct Options {
    /// How long to make each load for
    #[arg(long, default_value_t = 4, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=600))]
    seconds: u32,
    #[command(flatten)]
    peers: Place,
    #[command(flatten)]
    examined: Examined,
    /// Write the table into docs/performance.md
    #[arg(long)]
    record: bool,
}

/// Two threads that take turns for so many seconds.
const TURNS: &str = include_str!("turns.c");

/// What is done, and the command that does it.
type Load = (&'static str, Command);

/// What a load cost.
struct Measured {
    name: &'static str,
    sleeps: u64,
    ours: Vec<Cost>,
    theirs: Option<Vec<Cost>>,
}

/// The verb.
pub fn run(workspace: &Workspace, options: &Options) -> Result<()> {
    ensure!(
        process::is_root(),
        "bench needs root for kernel.bpf_stats_enabled: run it as root"
    );
    let binary = options.examined.binary(workspace)?;
    let interrupted = on_interrupt()?;
    let directory = Directory::new("futex")?;
    let loads = loads(&directory, options.seconds)?;
    let peers = options.peers.open()?;
    let _stats = StatsOn::new()?;
    let agent = Agent::start(&binary, &[])?;
    let futexctn = futexctn(&peers)?;
    let mut all = Vec::new();
    for (name, mut command) in loads {
        check(&interrupted)?;
        say(name);
        all.push(measure(name, &mut command, &agent, futexctn.as_ref())?);
    }
    let (table, verdict) = (table(&all, options.seconds), verdict(&all)?);
    print!("{}{verdict}", table.text());
    if options.record {
        let command = format!("cargo xtask bench futex --seconds {}", options.seconds);
        let text = format!("{}\n{verdict}", table.markdown());
        record::put(workspace, record::PERFORMANCE, "futex", &command, &text)?;
    }
    Ok(())
}

fn loads(directory: &Directory, seconds: u32) -> Result<Vec<Load>> {
    let perf = need("perf")?;
    let turns = directory.compile("turns", TURNS)?;
    let length = seconds.to_string();
    // About as long on a machine of today.
    let loops = (u64::from(seconds) * 60_000).to_string();
    let command = |program: &Path, arguments: &[&str]| {
        let mut command = Command::new(program);
        command.args(arguments);
        command
    };
    let bench = |arguments: &[&str]| {
        let mut command = command(&perf, &["bench"]);
        command.args(arguments);
        command
    };
    Ok(vec![
        (BY_FUTEX, command(&turns, &["futex", &length])),
        (BY_PIPE, command(&turns, &["pipe", &length])),
        ("perf bench sched pipe", bench(&["sched", "pipe", "-l", &loops])),
        (
            "perf bench futex lock-pi -t 4",
            bench(&["futex", "lock-pi", "-s", "-t", "4", "-r", &length]),
        ),
        (
            "perf bench futex hash -t 2 (none blocks)",
            bench(&["futex", "hash", "-s", "-t", "2", "-r", &length]),
        ),
    ])
}

/// Starts it, if it is there, and waits until its programs have been the same for a while: loaded is not yet attached.
fn futexctn(peers: &Peers) -> Result<Option<Background>> {
    let Some(peer) = peers.find("futexctn") else {
        say("no futexctn here: install libbpf-tools, or --peers DIR for a chroot with it");
        return Ok(None);
    };
    let mut process = Background::start("futexctn", &mut peer.command(&["-s"]))?;
    let deadline = Instant::now() + ATTACH_LIMIT;
    let (mut steady, mut before) = (0, 0);
    while steady < 5 {
        process.expect_running()?;
        ensure!(
            Instant::now() < deadline,
            "futexctn did not attach in {} s",
            ATTACH_LIMIT.as_secs()
        );
        thread::sleep(Duration::from_millis(200));
        let now = stats::owned_by(process.child.id())?.len();
        steady = if now > 0 && now == before { steady + 1 } else { 0 };
        before = now;
    }
    Ok(Some(process))
}

fn measure(
    name: &'static str,
    command: &mut Command,
    agent: &Agent,
    futexctn: Option<&Background>,
) -> Result<Measured> {
    let look = || -> Result<_> {
        let theirs = futexctn.map(|it| stats::owned_by(it.child.id())).transpose()?;
        Ok((stats::owned_by(agent.pid())?, theirs))
    };
    let (ours_before, theirs_before) = look()?;
    let sleeps = usage::of_children().sleeps;
    process::run_quietly(command)?;
    let sleeps = usage::of_children().sleeps - sleeps;
    let (ours, theirs) = look()?;
    Ok(Measured {
        name,
        sleeps,
        ours: stats::delta(&ours_before, &ours),
        theirs: theirs_before
            .zip(theirs)
            .map(|(before, after)| stats::delta(&before, &after)),
    })
}

impl Measured {
    /// What all programs together ran for, by sleep; none where hardly anybody slept.
    fn per_sleep(&self, costs: &[Cost], seconds: u32) -> Option<f64> {
        let ns: u64 = costs.iter().map(|cost| cost.ns).sum();
        (self.sleeps >= FEW * u64::from(seconds)).then(|| ns as f64 / self.sleeps as f64)
    }

    /// Nanoseconds a run, and runs a sleep.
    fn program(&self, name: &str, seconds: u32) -> String {
        let cost = self.ours.iter().find(|cost| cost.name == name);
        let Some((cost, ns)) = cost.and_then(|cost| Some((cost, cost.ns_per_run()?))) else {
            return "–".to_owned();
        };
        if self.sleeps < FEW * u64::from(seconds) {
            return format!("{ns:.0} ns ({}×)", cost.runs);
        }
        format!(
            "{ns:.0} ns ({:.2}× a sleep)",
            cost.runs as f64 / self.sleeps as f64
        )
    }
}

fn table(all: &[Measured], seconds: u32) -> Table {
    let mut table = Table::new(&[
        "load",
        "sleeps",
        "sched_switch",
        "sched_waking",
        "procprobe, all programs, a sleep",
        "futexctn, a sleep",
    ]);
    let ns = |ns: Option<f64>| ns.map_or_else(|| "–".to_owned(), |ns| format!("{ns:.0} ns"));
    for one in all {
        let theirs = one.theirs.as_deref();
        table.row(vec![
            one.name.to_owned(),
            one.sleeps.to_string(),
            one.program("sched_switch", seconds),
            one.program("sched_waking", seconds),
            ns(one.per_sleep(&one.ours, seconds)),
            ns(theirs.and_then(|costs| one.per_sleep(costs, seconds))),
        ]);
    }
    table
}

/// The extra cost of a wait, and what a call costs that does not wait.
fn verdict(all: &[Measured]) -> Result<String> {
    let per_sleep = |name: &str| {
        let one = all.iter().find(|one| one.name == name);
        one.and_then(|one| one.per_sleep(&one.ours, 1))
    };
    let both = per_sleep(BY_FUTEX).zip(per_sleep(BY_PIPE));
    let (futex, pipe) = both.context("the two threads hardly slept: is there a second CPU?")?;
    let wait = format!(
        "A futex wait that blocks costs {:+.0} ns beside the same wait at a pipe (the goal is 1000 ns or less).\n",
        futex - pipe
    );
    Ok(wait + &all.last().and_then(tax).unwrap_or_default())
}

/// What a call costs that does not block: how often our programs run for each. futexctn, which runs at every one, counts them.
fn tax(none_blocks: &Measured) -> Option<String> {
    let theirs = none_blocks.theirs.as_deref()?;
    let calls = theirs.iter().find(|cost| cost.name == "futex_enter")?.runs;
    let runs: u64 = none_blocks.ours.iter().map(|cost| cost.runs).sum();
    let ns = stats::sum_per_run(theirs, &["futex_enter", "futex_exit"])?;
    Some(format!(
        "A call that does not block makes {:.2} programs of procprobe run ({runs} runs beside {calls} calls, all for the \
         scheduler; the goal is 0 or less); of futexctn two, {ns:.0} ns.\n",
        runs as f64 / calls.max(1) as f64
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn measured(name: &'static str, sleeps: u64, ns: u64) -> Measured {
        let cost = |name: &str, runs, ns| Cost {
            name: name.to_owned(),
            runs,
            ns,
        };
        Measured {
            name,
            sleeps,
            ours: vec![
                cost("sched_switch", 2 * sleeps, ns / 2),
                cost("sched_waking", sleeps, ns / 2),
            ],
            theirs: Some(vec![cost("futex_enter", 10, 1000), cost("futex_exit", 10, 2000)]),
        }
    }

    #[test]
    fn the_extra_cost_is_the_difference_of_two_loads() {
        let all = [
            measured(BY_FUTEX, 10_000, 7_000_000),
            measured(BY_PIPE, 20_000, 8_000_000),
        ];
        let text = verdict(&all).unwrap();
        assert!(
            text.contains("costs +300 ns") && text.contains("two, 300 ns"),
            "{text}"
        );
        assert!(verdict(&all[..1]).is_err());
    }

    #[test]
    fn who_hardly_sleeps_has_no_cost_a_sleep() {
        let text = table(&[measured("x", 999, 999_000), measured("y", 1000, 1_000_000)], 1).text();
        let lines: Vec<&str> = text.lines().collect();
        assert!(
            !lines[1].contains("a sleep") && lines[1].matches('–').count() == 2,
            "{text}"
        );
        assert!(
            lines[2].contains("250 ns (2.00× a sleep)") && lines[2].contains("1000 ns"),
            "{text}"
        );
    }
}
