//! `cargo xtask bench slowdown`: what real programs lose to a running agent: each of them without it and with it, in turn.

use std::{
    path::{Path, PathBuf},
    process::Command,
    time::Instant,
};

use anyhow::{Context, Result, ensure};
use clap::Args;

use super::{check, median, on_interrupt};
use crate::{
    agent::{self, Agent},
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
    /// Measure this binary instead of building one
    #[arg(long, value_name = "FILE")]
    agent: Option<PathBuf>,
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
    for (int i = 0; i < 150000; i++) {
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
    return number != 8ul * 150000 * 20;
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
    let binary = agent::binary(workspace, options.agent.as_deref())?;
    let interrupted = on_interrupt()?;
    let directory = Directory::new("slowdown")?;
    let mut table = Table::new(&[
        "program",
        "without",
        "with the agent",
        "slower by",
        "spread without",
    ]);
    for program in programs(&directory)? {
        say(program.name);
        // Once for nothing: caches.
        program.seconds()?;
        let (mut without, mut with) = (Vec::new(), Vec::new());
        for _ in 0..options.rounds {
            check(&interrupted)?;
            without.push(program.seconds()?);
            with.push(beside_agent(&binary, &program)?);
        }
        table.row(row(program.name, without, with));
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
        command.args(["bench", "sched", "pipe", "-l", "60000"]);
        vec![command]
    };
    Ok(vec![
        Program {
            name: "perf bench sched pipe, 60,000 rounds",
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

impl Program {
    /// Runs it once.
    fn seconds(&self) -> Result<f64> {
        let began = Instant::now();
        for mut command in (self.command)() {
            process::run_quietly(&mut command).with_context(|| self.name.to_owned())?;
        }
        Ok(began.elapsed().as_secs_f64())
    }
}

fn beside_agent(binary: &Path, program: &Program) -> Result<f64> {
    let mut agent = Agent::start(binary, &[])?;
    let seconds = program.seconds()?;
    agent.expect_running()?;
    Ok(seconds)
}

fn row(name: &str, without: Vec<f64>, with: Vec<f64>) -> Vec<String> {
    let spread = |values: &[f64]| {
        let least = values.iter().copied().fold(f64::INFINITY, f64::min);
        let most = values.iter().copied().fold(0.0, f64::max);
        (most - least) / least * 100.0
    };
    let noise = spread(&without);
    let (before, after) = (median(without), median(with));
    vec![
        name.to_owned(),
        format!("{before:.3} s"),
        format!("{after:.3} s"),
        format!("{:.1} %", (after / before - 1.0) * 100.0),
        format!("{noise:.1} %"),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_are_compared_and_the_spread_is_told() {
        let row = row("x", vec![1.0, 1.1, 0.9], vec![1.2, 1.1, 9.0]);
        assert_eq!(row[1..], ["1.000 s", "1.200 s", "20.0 %", "22.2 %"]);
    }
}
