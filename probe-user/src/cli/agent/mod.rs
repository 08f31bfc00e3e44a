//! `procprobe agent`: keeps the books and serves them until SIGTERM.
//!
//! | module | does |
//! |---|---|
//! | [`setup`] | reads what the agent is told, and again at SIGHUP |
//! | [`background`] | what goes on between requests |
//! | [`manager`] | tells the service manager |

mod background;
mod manager;
mod memory;
mod setup;

use std::io::Write;
use std::path::Path;
use std::sync::Arc;

use anyhow::Context;
use prometheus::process_collector::ProcessCollector;
use prometheus::{Histogram, HistogramOpts, Registry};
use tokio::io::unix::AsyncFd;
use tokio::net::{TcpListener, UnixListener};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use super::args::{AgentArgs, Global};
use super::client::{Client, Target};
use super::{Interrupts, bpf_only, log, runtime};
use crate::aide::client as aide;
use crate::config::{Config, NO_SOCKET};
use crate::confine;
use crate::export::catalog::{Metric, REAP_BUCKETS, REAP_DELAY, SNAPSHOT_BUCKETS, SNAPSHOT_DURATION};
use crate::export::doors::Doors;
use crate::export::engine::{Engine, Settings};
use crate::export::engine_thread::EngineThread;
use crate::export::guard::Rules;
use crate::export::http::{Shared, router};
use crate::export::serve::Server;
use crate::export::workers::{Planned, Workers};
use crate::kernel::load::Options;
use crate::kernel::preflight;
use crate::model::lives::Retention;
use crate::source::bpf::BpfSource;
use crate::source::reader;
use background::Supervised;
use setup::{Changeable, Setup};

/// Threads besides those that draw answers at each of the two doors: for scrapes, passwords, reloads, memory.
const OTHER_WORK: usize = 3;

/// Runs the verb.
///
/// # Errors
/// If a file is wrong, the address is taken, the programs cannot be loaded, or part of the agent ended.
pub fn run(global: &Global, args: &AgentArgs) -> anyhow::Result<()> {
    if args.check_health {
        return check_health(args);
    }
    let (workers, planned) = Workers::plan();
    let setup = Setup::read(args, &workers)?;
    if args.check_config {
        return Ok(writeln!(std::io::stdout(), "{}", setup.summary())?);
    }
    memory::share_one_arena();
    runtime()?.block_on(live(global, args, setup, (workers, planned)))
}

/// Asks the agent that runs with the same configuration. Through its socket: who holds the port may be
/// anybody, and a probe should know no password.
fn check_health(args: &AgentArgs) -> anyhow::Result<()> {
    let (config, _) = args.config()?;
    anyhow::ensure!(
        config.socket != Path::new(NO_SOCKET),
        "without a socket there is nobody to ask (leave socket = \"{NO_SOCKET}\" out, or ask /healthz over TCP)"
    );
    let said = Client::new(&Target::Socket(config.socket), None)?.text("/healthz")?;
    Ok(writeln!(std::io::stdout(), "{said}")?)
}

async fn live(
    global: &Global,
    args: &AgentArgs,
    setup: Setup,
    (workers, planned): (Workers, Planned),
) -> anyhow::Result<()> {
    setup.warn();
    let config = &setup.config;
    // First the doors: a second agent should fail before it loads anything.
    let mut doors = Doors::open(config)?;
    let (engine, registry) = start(global, config)?;
    // All threads from here on, with no more capabilities than that left: none is made once a host has no
    // more to give.
    let (engine, mut ended) = EngineThread::start(engine).context("no thread for the engine")?;
    planned
        .start(2 * config.http.max_scrapes + OTHER_WORK)
        .context("no threads to draw answers")?;
    if let Some(lacking) = &doors.lacking {
        tracing::warn!("{lacking}");
    }
    let shared = Shared::new(engine, workers, registry, config.metrics.families.clone());
    let mut hangups = signal(SignalKind::hangup())?;
    let changeable = Changeable {
        web: watch::Sender::new(Arc::clone(&setup.web)),
        policy: watch::Sender::new(setup.policy()),
    };
    let (stop, stopped) = watch::channel(false);
    let mut tasks = Supervised::default();
    open(&mut tasks, &mut doors, &setup, (&shared, &changeable, &stopped))?;
    tasks.add(
        "giving memory back",
        background::give_back(shared.workers.clone()),
    );
    tasks.add("the watchdog", manager::watchdog(shared.clone()));
    if let Some(aide) = aide::shared() {
        // SAFETY: the AsyncFd owns the descriptor, which stays open as long as that lives.
        let end = unsafe { AsyncFd::register(aide.end()?)? };
        tasks.add("the process that starts the namer", background::end_of(end));
    }
    manager::ready();
    let mut interrupts = Interrupts::catch()?;
    loop {
        tokio::select! {
            () = interrupts.arrived() => break,
            _ = hangups.recv() => reload(args, config, &shared, &changeable).await,
            why = tasks.first_end(&mut ended) => anyhow::bail!("the agent cannot go on: {why} (please report it)"),
        }
    }
    manager::stopping();
    stop.send_replace(true);
    tasks.finish(DOOR).await;
    Ok(())
}

/// What the tasks at doors are called.
const DOOR: &str = "serving";

/// Begins to serve at every door, and says where.
fn open(
    tasks: &mut Supervised,
    doors: &mut Doors,
    setup: &Setup,
    (shared, changeable, stop): (&Shared, &Changeable, &watch::Receiver<bool>),
) -> anyhow::Result<()> {
    let rules = Rules {
        web: changeable.web.subscribe(),
        policy: changeable.policy.subscribe(),
    };
    let limits = &setup.config.http;
    let server = || Server::new(router(shared.clone()), limits, rules.clone(), stop.clone());
    let scheme = if setup.web.tls.is_some() { "https" } else { "http" };
    for (listener, trusted) in std::mem::take(&mut doors.unix) {
        let listener = UnixListener::from_std(listener)?;
        if let Ok(address) = listener.local_addr() {
            tracing::info!("serving at {address:?}");
        }
        tasks.add(DOOR, server().serve_unix(listener, trusted));
    }
    let over_tcp = server();
    for listener in std::mem::take(&mut doors.tcp) {
        let listener = TcpListener::from_std(listener)?;
        let address = listener
            .local_addr()
            .context("cannot tell the listening address")?;
        tasks.add(DOOR, over_tcp.clone().serve_tcp(listener));
        log::say(&format!("serving {scheme}://{address}/metrics"));
    }
    Ok(())
}

/// Loads and attaches the programs, opens the books, and gives up the privileges that took.
fn start(global: &Global, config: &Config) -> anyhow::Result<(Engine, Registry)> {
    let options = Options {
        max_locks: config.max_locks,
        max_edges: config.max_edges,
        ..Options::default()
    };
    let mut source = bpf_only(global, "agent", options)?;
    source.cgroups.set_label_map(config.label_map.clone());
    if global.bpf_log {
        source.probe.forward_logs().map_err(anyhow::Error::msg)?;
    }
    let registry = Registry::new();
    registry.register(Box::new(ProcessCollector::for_self()))?;
    let settings = Settings {
        grouping: config.grouping(),
        max_units: config.max_units(),
        retention: Retention {
            time: config.retention,
            ..Retention::default()
        },
        durations: histogram(&registry, SNAPSHOT_DURATION, &SNAPSHOT_BUCKETS)?,
        reap_delays: histogram(&registry, REAP_DELAY, &REAP_BUCKETS)?,
    };
    let events = source.attach()?;
    memory::give_back();
    let warnings = confine(&mut source)?;
    reader::shared().prepare();
    log::detach().context("no thread for the log")?;
    for warning in warnings {
        tracing::warn!("{warning}");
    }
    let engine = Engine::start(source, events, settings)?;
    if let Some(limit) = preflight::limits() {
        tracing::warn!("{limit} (`procprobe doctor` lists what is needed)");
    }
    // With what is left of the privileges, as later.
    if let Err(why) = crate::namer::trial() {
        tracing::warn!("functions and locks have no names: the process that reads symbols {why}");
    }
    Ok((engine, registry))
}

/// Gives up what only attaching took. Before any other thread exists: uids, capabilities and filters belong
/// to threads, and new ones inherit them. Returns what to warn of, once the log has another thread:
/// before, somebody who does not read it could keep the agent from serving.
fn confine(source: &mut BpfSource) -> anyhow::Result<Vec<String>> {
    let aide = aide::start();
    // Nothing that starts a thread, which would keep what this one gives up.
    let confined = confine::agent(|| source.sees_threads())?;
    tracing::info!(
        "attached; from here on: {}; capabilities kept: {}",
        confined.user.text(),
        confined.kept
    );
    let aide = aide.err().map(|why| {
        format!(
            "no names of functions and locks, and no procprobe_bpf_program_* metrics: the process that starts \
             the namer {why}"
        )
    });
    let filter = confined.filter.err();
    let filter = filter.map(|why| format!("no filter of system calls: {why} (`procprobe doctor` says more)"));
    Ok(aide.into_iter().chain(filter).collect())
}

/// Reads the files again, on a thread that may block.
async fn reload(args: &AgentArgs, config: &Config, shared: &Shared, changeable: &Changeable) {
    manager::reloading();
    let (args, config, changeable) = (args.clone(), config.clone(), changeable.clone());
    let with = shared.clone();
    let reloaded = shared
        .workers
        .run(move || setup::reload(&args, &config, &with, &changeable));
    if reloaded.await.is_err() {
        tracing::error!("reloading failed");
    }
    manager::ready();
}

/// A histogram that `prometheus` keeps itself.
fn histogram(registry: &Registry, metric: Metric, buckets: &[f64]) -> anyhow::Result<Histogram> {
    let options = HistogramOpts::new(metric.name, metric.help).buckets(buckets.to_vec());
    let histogram = Histogram::with_opts(options)?;
    registry.register(Box::new(histogram.clone()))?;
    Ok(histogram)
}
