//! `cargo xtask bench slowdown`: what real programs lose to a running agent: each of them without it and with it, in turn.
//!
//! CPU time is what tells, in which the time of eBPF programs is contained: unlike the time by the clock it hardly depends on
//! what else the machine does.

use std::{path::Path, process::Command, time::Instant};

use anyhow::{Context, Result, ensure};
use clap::Args;

use super::{check, median, on_interrupt, usage};
use crate::{
    agent::{Agent, Examined},
    process::{self, say},
    programs::{Directory, compilation, need, source},
    record::{self, Table},
    workspace::Workspace,
};

#[derive(Args)]
pub struct Options {
    /// How often each program runs without and with the agent
    #[arg(long, default_value_t = 7, value_name = "N", value_parser = clap::value_parser!(u32).range(3..=100))]
    rounds: u32,
    #[command(flatten)]
    examined: Examined,
    /// Write the table into docs/performance.md
    #[arg(long)]
    record: bool,
}

/// Eight threads that add to one number under one mutex, and now and then let go of the CPU.
const LOCKS: &str = r"
#include <pthread.h>
#include <sched.h>
static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static volatile unsigned long number;
static void *run(void *argument) {
    for (int i = 0; i < 400000; i++) {
        pthread_mutex_lock(&mutex);
        for (int j = 0; j < 20; j++) number++;
        if (i % 64 == 0) sched_yield();
        pthread_mutex_unlock(&mutex);
    }
    return argument;
}
int main(void) {
    pthread_t threads[8];
    for (int i = 0; i < 8; i++) pthread_create(&threads[i], 0, run, 0);
    for (int i = 0; i < 8; i++) pthread_join(threads[i], 0);
    return number != 8ul * 400000 * 20;
}
";

/// A program, and how to run it once.
struct Program {
    name: &'static str,
    command: Box<dyn Fn() -> Vec<Command>>,
}

/// The verb.
pub fn run(workspace: &Workspace, options: &Options) -> Result<()> {
    ensure!(process::is_root(), "bench loads eBPF programs: run it as root");
    let binary = options.examined.binary(workspace)?;
    let interrupted = on_interrupt()?;
    let directory = Directory::new("slowdown")?;
    let mut table = Table::new(&[
        "program",
        "by the clock, without",
        "with the agent",
        "CPU time, without",
        "with the agent",
        "more, of medians",
        "of the least",
        "spread without",
    ]);
    for program in programs(&directory)? {
        say(program.name);
        // Once for nothing: caches.
        program.run()?;
        let (mut without, mut with) = (Vec::new(), Vec::new());
        for _ in 0..options.rounds {
            check(&interrupted)?;
            without.push(program.run()?);
            with.push(beside_agent(&binary, &program)?);
        }
        table.row(row(program.name, &without, &with));
    }
    print!("{}", table.text());
    if options.record {
        let command = format!("cargo xtask bench slowdown --rounds {}", options.rounds);
        record::put(
            workspace,
            record::PERFORMANCE,
            "slowdown",
            &command,
            &table.markdown(),
        )?;
    }
    Ok(())
}

fn programs(directory: &Directory) -> Result<Vec<Program>> {
    let (perf, gcc) = (need("perf")?, need("gcc")?);
    let locks = directory.compile("locks", LOCKS)?;
    let file = directory.write("compiled.c", &source())?;
    let pipe = move || {
        let mut command = Command::new(&perf);
        command.args(["bench", "sched", "pipe", "-l", "150000"]);
        vec![command]
    };
    Ok(vec![
        Program {
            name: "perf bench sched pipe, 150,000 rounds",
            command: Box::new(pipe),
        },
        Program {
            name: "gcc -O2, 3 files",
            command: Box::new(move || (0..3).map(|_| compilation(&gcc, &file)).collect()),
        },
        Program {
            name: "8 threads on one mutex",
            command: Box::new(move || vec![Command::new(&locks)]),
        },
    ])
}

/// What a run took, in seconds.
#[derive(Clone, Copy)]
struct Took {
    clock: f64,
    cpu: f64,
}

impl Program {
    /// Runs it once.
    fn run(&self) -> Result<Took> {
        let (began, cpu) = (Instant::now(), usage::of_children().cpu_s);
        for mut command in (self.command)() {
            process::run_quietly(&mut command).with_context(|| self.name.to_owned())?;
        }
        Ok(Took {
            clock: began.elapsed().as_secs_f64(),
            cpu: usage::of_children().cpu_s - cpu,
        })
    }
}

fn beside_agent(binary: &Path, program: &Program) -> Result<Took> {
    let mut agent = Agent::start(binary, &[])?;
    let took = program.run()?;
    agent.expect_running()?;
    Ok(took)
}

fn row(name: &str, without: &[Took], with: &[Took]) -> Vec<String> {
    let [clock, clock_with] = [without, with].map(|all| median(all.iter().map(|took| took.clock).collect()));
    let [cpu, cpu_with] = [without, with].map(|all| median(all.iter().map(|took| took.cpu).collect()));
    let least = |all: &[Took]| all.iter().map(|took| took.cpu).fold(f64::INFINITY, f64::min);
    let most = without.iter().map(|took| took.cpu).fold(0.0, f64::max);
    let more = |with: f64, without: f64| format!("{:+.1} %", (with / without - 1.0) * 100.0);
    vec![
        name.to_owned(),
        format!("{clock:.3} s"),
        format!("{clock_with:.3} s"),
        format!("{cpu:.3} s"),
        format!("{cpu_with:.3} s"),
        more(cpu_with, cpu),
        more(least(with), least(without)),
        format!("{:.1} %", (most / least(without) - 1.0) * 100.0),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_are_compared_and_the_spread_is_told() {
        let took = |cpu| Took {
            clock: 2.0 * cpu,
            cpu,
        };
        let row = row("x", &[1.0, 1.1, 0.9].map(took), &[1.2, 1.1, 9.0].map(took));
        assert_eq!(row[1..5], ["2.000 s", "2.400 s", "1.000 s", "1.200 s"]);
        assert_eq!(row[5..], ["+20.0 %", "+22.2 %", "22.2 %"]);
    }
}
