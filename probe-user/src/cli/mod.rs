//! The command line: one file per verb. Each loads a source, asks the model and hands the answer to a view.

pub mod agent;
pub mod args;
pub mod client;
pub mod doctor;
pub mod events;
pub mod locks;
pub mod log;
pub mod orphans;
pub mod output;
pub mod states;
pub mod tree;
pub mod watching;
pub mod zombies;

use std::process::ExitCode;

use clap::Parser;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::aide;
use crate::confine::own;
use crate::kernel::load::Options;
use crate::namer;
use crate::source::{Source, bpf::BpfSource, proc::ProcSource};
use args::{Cli, Command, Global, Output, SourceArg};

/// Exit code: it failed; one line on stderr says what, why and what to do.
const FAILED: u8 = 1;
/// Exit code: it was asked wrongly.
const USAGE: u8 = 2;

/// Runs the command line of this process.
pub fn main() -> ExitCode {
    if own::is_wanted(namer::ARGUMENT) {
        return ended(namer::server::main());
    }
    if own::is_wanted(aide::ARGUMENT) {
        return ended(aide::server::main());
    }
    let cli = match Cli::try_parse() {
        Ok(cli) => match misplaced_graph(&cli) {
            None => cli,
            Some(error) => return usage(&error),
        },
        Err(error) => return usage(&error),
    };
    log::init(cli.global.verbose, cli.global.bpf_log);
    let code = ended(run(&cli));
    log::finish();
    code
}

/// The exit code; what failed is said first.
fn ended(outcome: anyhow::Result<()>) -> ExitCode {
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if output::is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            let text = error.chain().map(ToString::to_string).collect::<Vec<_>>();
            log::say(&joined(&text));
            ExitCode::from(FAILED)
        }
    }
}

/// An error and its causes on one line, each said once.
fn joined(chain: &[String]) -> String {
    let mut line = String::new();
    for part in chain {
        if !line.contains(part.as_str()) {
            if !line.is_empty() {
                line.push_str(": ");
            }
            line.push_str(part);
        }
    }
    line.replace('\n', "; ")
}

fn run(cli: &Cli) -> anyhow::Result<()> {
    match &cli.command {
        Command::Agent(args) => agent::run(&cli.global, args),
        Command::Tree(args) => tree::run(&cli.global, args),
        Command::States(args) => states::run(&cli.global, args),
        Command::Zombies => zombies::run(&cli.global),
        Command::Orphans => orphans::run(&cli.global),
        Command::Locks(args) => locks::run(&cli.global, args),
        Command::Events(args) => events::run(&cli.global, args),
        Command::Doctor => doctor::run(&cli.global),
    }
}

/// An error if a verb other than `locks` is asked for a graph.
fn misplaced_graph(cli: &Cli) -> Option<clap::Error> {
    let graph = matches!(cli.global.output, Output::Dot | Output::Mermaid);
    let draws = matches!(cli.command, Command::Locks(_));
    (graph && !draws).then(|| {
        clap::Error::raw(
            clap::error::ErrorKind::InvalidValue,
            "--output dot and mermaid are for locks (try -o table or -o json)",
        )
    })
}

/// clap's errors on one line; help and version as they are.
fn usage(error: &clap::Error) -> ExitCode {
    if !error.use_stderr() {
        return match error.print() {
            Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => ExitCode::from(FAILED),
            _ => ExitCode::SUCCESS,
        };
    }
    if error.kind() == clap::error::ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
        let _ = error.print();
        return ExitCode::from(USAGE);
    }
    let text = error.render().to_string();
    let message: Vec<&str> = text
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty() && !line.starts_with("Usage:"))
        .collect();
    let message = message
        .join("; ")
        // What a list of arguments begins with has a colon already.
        .replace(":; ", ": ")
        .replace("For more information, try '--help'.", "try --help");
    log::say(message.strip_prefix("error: ").unwrap_or(&message));
    ExitCode::from(USAGE)
}

/// Opens the source that was asked for, for one look.
fn open_source(global: &Global) -> anyhow::Result<Source> {
    match global.source {
        SourceArg::Auto | SourceArg::Bpf => Ok(Source::Bpf(Box::new(BpfSource::load(Options {
            ring_bytes: global.ring_size,
            log: global.bpf_log,
            ..Options::default()
        })?))),
        SourceArg::Proc => Ok(Source::Proc(ProcSource::new("/proc"))),
    }
}

/// For verbs that /proc cannot answer.
fn bpf_only(global: &Global, verb: &str, options: Options) -> anyhow::Result<BpfSource> {
    if global.source == SourceArg::Proc {
        anyhow::bail!("{verb} needs eBPF: /proc keeps no record of what happens (leave --source proc out)");
    }
    Ok(BpfSource::load(Options {
        ring_bytes: global.ring_size,
        log: global.bpf_log,
        ..options
    })?)
}

/// A runtime for verbs that wait: one thread, and others for what blocks.
fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    use anyhow::Context;
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the async runtime")
}

/// SIGINT and SIGTERM, caught from the moment this is made: one that arrives between two waits is not lost.
struct Interrupts {
    interrupt: Signal,
    terminate: Signal,
}

impl Interrupts {
    /// # Errors
    /// If the signals cannot be caught.
    fn catch() -> std::io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
        })
    }

    /// Waits for the next of either.
    async fn arrived(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::joined;

    #[test]
    fn causes_are_said_once() {
        let chain = ["cannot x: no".to_owned(), "no".to_owned(), "why\nnot".to_owned()];
        assert_eq!(joined(&chain), "cannot x: no: why; not");
    }
}
