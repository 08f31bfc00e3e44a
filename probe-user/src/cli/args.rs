//! Every argument, documented once: `--help`, the man pages and the completions come from here.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};

use super::client::{Target, parse_target};
use crate::config::parse_duration as duration;
use crate::kernel::load::DEFAULT_RING_BYTES;
use crate::model::window::By;

/// What every process and thread is doing, for how long, and what it waits for.
#[derive(Debug, Parser)]
#[command(name = "procprobe", version, max_term_width = 100, infer_subcommands = false)]
#[command(after_help = "\
Examples:
  procprobe tree                     what runs, in which state, for how long, waiting for what
  procprobe states --for 10s         who runs, who waits for a CPU, who sleeps
  procprobe zombies                  who does not reap its children
  procprobe orphans                  who lost its parent, and who has it now
  procprobe locks                    who waits on whom; deadlocks, however old
  procprobe events --for 1m          births, execs and deaths as they happen
  procprobe agent                    metrics for Prometheus on 127.0.0.1:9982
  procprobe doctor                   what this host and these privileges allow")]
pub struct Cli {
    /// Options of every verb.
    #[command(flatten)]
    pub global: Global,
    /// The verb.
    #[command(subcommand)]
    pub command: Command,
}

/// Options of every verb.
#[derive(Debug, Args)]
pub struct Global {
    /// Text for people or JSON for programs.
    #[arg(short, long, global = true, value_enum, default_value_t = Output::Table)]
    pub output: Output,
    /// Where to look: eBPF, or /proc alone (current states only, no privileges). Never falls back silently.
    #[arg(long, global = true, value_enum, default_value_t = SourceArg::Auto)]
    pub source: SourceArg,
    /// Say what is done and what it takes; twice for more.
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub verbose: u8,
    /// Let the eBPF programs log rare events.
    #[arg(long, global = true)]
    pub bpf_log: bool,
    /// Bytes of the event ring: a power of two, a page at least. What does not fit in is counted as lost.
    #[arg(long, global = true, hide = true, value_name = "BYTES", default_value_t = DEFAULT_RING_BYTES, value_parser = ring_bytes)]
    pub ring_size: u32,
}

/// How verbs that draw nothing print.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Text for people.
    Table,
    /// JSON.
    Json,
}

impl Global {
    /// How to print, for verbs that draw nothing: asking them for a graph was refused before.
    pub fn format(&self) -> Format {
        match self.output {
            Output::Json => Format::Json,
            Output::Table | Output::Dot | Output::Mermaid => Format::Table,
        }
    }
}

/// How to print.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// Text for people.
    Table,
    /// One JSON object (one per line for events).
    Json,
    /// A graph for graphviz (locks).
    Dot,
    /// A graph for Mermaid (locks).
    Mermaid,
}

/// Where to look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum SourceArg {
    /// eBPF.
    Auto,
    /// eBPF.
    Bpf,
    /// /proc alone.
    Proc,
}

const ZOMBIES_HELP: &str = "\
Examples:
  procprobe zombies
  procprobe zombies -o json | jq '.parents[0]'

Zombies younger than 100 ms are on their way and not shown. RATE is how many came to stay over the last ten minutes. KIND is
unreaped (its parent does not wait), traced (its tracer does not), leader_exited (its first thread ended before the
others: it is not dead, and nobody is at fault) or dying (told to end, and held up by a thread that no signal wakes).";

const ORPHANS_HELP: &str = "\
Examples:
  procprobe orphans
  curl -s http://127.0.0.1:9982/api/v1/orphans | jq .

One look cannot know whom an orphan lost before; it guesses from session and process group, marked with ?. A running agent
knows it of every process that lost its parent while it watched.";

/// The verbs.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run until SIGTERM and serve metrics and the API over HTTP.
    Agent(AgentArgs),
    /// Show the process tree: state, for how long, waiting for what.
    Tree(TreeArgs),
    /// Show the time in each state over a window, with switches and histograms.
    States(StatesArgs),
    /// Show unreaped processes by the parent at fault, and how soon the pids run out.
    #[command(after_help = ZOMBIES_HELP)]
    Zombies,
    /// Show adopted processes with the parent they lost.
    #[command(after_help = ORPHANS_HELP)]
    Orphans,
    /// Show contended locks, who waits on whom, deadlocks and stalls.
    Locks(LocksArgs),
    /// Stream births, execs, deaths, reapings and lost parents.
    Events(EventsArgs),
    /// Say what this host and these privileges allow.
    Doctor,
}

/// Arguments of `agent`. What is not given is as the configuration says.
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
Examples:
  procprobe agent
  procprobe agent --listen 0.0.0.0:9982 --web-config /etc/procprobe/web.yml
  curl -s --unix-socket /run/procprobe/api.sock http://localhost/api/v1/tree
  procprobe agent --config procprobe.toml --check-config
  curl -s http://127.0.0.1:9982/metrics

SIGHUP reads the files again and says what needs a restart. Once its programs are attached, the agent gives up every
capability that it does not need any more; `procprobe doctor` lists them.")]
pub struct AgentArgs {
    /// Configuration file; flags go before what it says [default: /etc/procprobe/procprobe.toml, if it is there].
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Say whether the configuration and the files it names are right, and end.
    #[arg(long)]
    pub check_config: bool,
    /// Ask the agent that runs here, through its socket, whether it is well, and end: for probes of
    /// containers.
    #[arg(long, conflicts_with = "check_config")]
    pub check_health: bool,
    /// Address and port to serve on; port 0 takes a free one and logs it [default: 127.0.0.1:9982].
    #[arg(long)]
    pub listen: Option<SocketAddr>,
    /// Socket through which root and its group see everything; "none" for none [default:
    /// /run/procprobe/api.sock].
    #[arg(long, value_name = "PATH")]
    pub socket: Option<PathBuf>,
    /// TLS and passwords: a web configuration file as Prometheus exporters share it.
    #[arg(long, value_name = "FILE")]
    pub web_config: Option<PathBuf>,
    /// Show command lines over TCP; they may hold secrets [default: false].
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub expose_cmdline: Option<bool>,
    /// Show addresses, executables and code over TCP to who gave no password [default: false].
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub expose_details: Option<bool>,
    /// Groups (unit and process name) with series of their own; the rest adds up in comm="(other)" [default: 200].
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub max_groups: Option<u32>,
    /// Locks that are told apart at a time [default: 8192].
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub max_locks: Option<u32>,
    /// Pairs of waiter and holder that are told apart at a time [default: 16384].
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub max_edges: Option<u32>,
    /// How long dead processes are remembered, so that orphans keep their ancestry [default: 10m].
    #[arg(long, value_name = "D", value_parser = duration)]
    pub retention: Option<Duration>,
}

/// Arguments of `tree`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  procprobe tree --threads
  procprobe tree 1234 --threads
  procprobe tree --ancestry
  procprobe tree -o json | jq '.processes[] | select(.state == \"uninterruptible\")'

Columns: S is the state letter of ps (R S D T t I P Z), FOR how long it has been in it (≥ at least), CPU the share of one
CPU over its life, WAITING ON the system call or resource it is blocked in.")]
pub struct TreeArgs {
    /// Only this process and its descendants.
    pub pid: Option<u32>,
    /// Threads too, as {name} under their process.
    #[arg(short, long)]
    pub threads: bool,
    /// Kernel threads too, one by one. Without it only those that are stuck or running are shown.
    #[arg(short, long)]
    pub kernel: bool,
    /// Dead ancestors too, as a running agent remembers them: orphans under the parent they lost.
    #[arg(long)]
    pub ancestry: bool,
    /// Which agent to ask: auto is the one of this host, through its socket or else 127.0.0.1:9982; a path is
    /// a socket; HOST:PORT and https://HOST:PORT are asked over TCP.
    #[arg(long, alias = "agent", value_name = "ADDRESS", default_value = "auto", value_parser = parse_target, requires = "ancestry")]
    pub connect: Target,
    /// Password and certificates for that agent: user and CA as in promtool's --http.config.file.
    #[arg(long, value_name = "FILE", requires = "ancestry")]
    pub http_config: Option<PathBuf>,
}

/// Arguments of `states`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  procprobe states --for 10s
  procprobe states --for 1m --by unit
  procprobe states --for 5s --by thread --pid 1234

Interrupted, it ends the window early and still prints.")]
pub struct StatesArgs {
    /// How long to look.
    #[arg(long = "for", value_name = "D", default_value = "10s", value_parser = duration)]
    pub window: Duration,
    /// What to group by.
    #[arg(long, value_enum, default_value_t = ByArg::Comm)]
    pub by: ByArg,
    /// Only this process.
    #[arg(long)]
    pub pid: Option<u32>,
    /// Rows to print at most; 0 for all.
    #[arg(long, default_value_t = 20)]
    pub limit: usize,
}

/// What to group by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ByArg {
    /// Every thread for itself.
    Thread,
    /// Every process.
    Process,
    /// Processes of one name.
    Comm,
    /// Containers, pods and services.
    Unit,
}

impl From<ByArg> for By {
    fn from(by: ByArg) -> Self {
        match by {
            ByArg::Thread => Self::Thread,
            ByArg::Process => Self::Process,
            ByArg::Comm => Self::Comm,
            ByArg::Unit => Self::Unit,
        }
    }
}

/// Arguments of `locks`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  procprobe locks
  procprobe locks --for 30s --pid 1234
  procprobe locks -o dot | dot -Tsvg > locks.svg
  procprobe locks -o json | jq '.deadlocks'

A wait counts from the moment a thread blocks on a futex until it runs again. HELD BY says how the holder is known: owner (the
lock's memory names it), waker (it has released this lock before). Waits without evidence of being for a lock (idle pools,
joins, timed polls) are summed up in the last line and never called contention. Locks that nobody waits for cost nothing
and are not seen.")]
pub struct LocksArgs {
    /// How long to look. Deadlocks and open waits show whatever their age.
    #[arg(long = "for", value_name = "D", default_value = "3s", value_parser = duration)]
    pub window: Duration,
    /// Only locks that threads of this process wait for or hold.
    #[arg(long)]
    pub pid: Option<u32>,
    /// Rows to print at most; 0 for all.
    #[arg(long, default_value_t = 20)]
    pub limit: usize,
    /// Locks that are told apart; waits at further ones are counted as lost.
    #[arg(long, default_value_t = 8_192, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub max_locks: u32,
    /// Pairs of waiter and holder that are told apart.
    #[arg(long, default_value_t = 16_384, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub max_edges: u32,
}

/// Arguments of `events`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  procprobe events --for 10s
  procprobe events -o json | jq 'select(.event == \"exit\" and .signal != null)'")]
pub struct EventsArgs {
    /// How long to look; without it until interrupted.
    #[arg(long = "for", value_name = "D", value_parser = duration)]
    pub window: Option<Duration>,
}

/// What the kernel takes as the size of a ring buffer, up to a size that it will find memory for.
fn ring_bytes(text: &str) -> Result<u32, String> {
    let bytes: u32 = text.parse().map_err(|_| "not a number of bytes".to_owned())?;
    if bytes.is_power_of_two() && (4096..=1 << 30).contains(&bytes) {
        Ok(bytes)
    } else {
        Err("not a power of two from 4096 to 1073741824".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_definition_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_ring_is_a_power_of_two() {
        assert_eq!(ring_bytes("4096"), Ok(4096));
        assert_eq!(ring_bytes("4194304"), Ok(4 << 20));
        for wrong in ["0", "2048", "5000", "2147483648", "4294967296", "4M", ""] {
            assert!(ring_bytes(wrong).is_err(), "{wrong}");
        }
    }
}
