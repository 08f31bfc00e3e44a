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
use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::Context;
use prometheus::process_collector::ProcessCollector;
use prometheus::{Histogram, HistogramOpts, Registry};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use super::args::{AgentArgs, Global};
use super::{bpf_only, interrupted, runtime};
use crate::config::Config;
use crate::export::catalog::{Metric, REAP_BUCKETS, REAP_DELAY, SNAPSHOT_BUCKETS, SNAPSHOT_DURATION};
use crate::export::engine::{Engine, Settings};
use crate::export::guard::{Web, guarded};
use crate::export::http::{Shared, router};
use crate::export::serve::serve;
use crate::kernel::load::Options;
use crate::kernel::{preflight, privileges};
use crate::model::lives::Retention;
use setup::Setup;

/// Runs the verb.
///
/// # Errors
/// If a file is wrong, the address is taken, or the programs cannot be loaded.
pub fn run(global: &Global, args: &AgentArgs) -> anyhow::Result<()> {
    let setup = Setup::read(args)?;
    if args.check_config {
        return Ok(writeln!(std::io::stdout(), "{}", setup.summary())?);
    }
    memory::share_one_arena();
    runtime()?.block_on(live(global, args, setup))
}

async fn live(global: &Global, args: &AgentArgs, setup: Setup) -> anyhow::Result<()> {
    setup.warn();
    let Setup { config, web, .. } = setup;
    // First the port: a second agent should fail before it loads anything.
    let listener = bind(config.listen).await?;
    let shared = start(global, &config)?;
    let mut hangups = signal(SignalKind::hangup())?;
    let address = listener
        .local_addr()
        .context("cannot tell the listening address")?;
    let scheme = if web.tls.is_some() { "https" } else { "http" };
    let (web_sender, web) = watch::channel(web);
    let (stop, stopped) = watch::channel(false);
    let routes = guarded(router(shared.clone()), &config.http, web.clone());
    let server = tokio::spawn(serve(listener, routes, config.http.clone(), web, stopped));
    let tasks = [
        tokio::spawn(background::drain(shared.clone())),
        tokio::spawn(background::refresh(shared.clone())),
        tokio::spawn(background::sample_cost(shared.clone())),
        tokio::spawn(background::give_back()),
        tokio::spawn(manager::watchdog(shared.clone())),
    ];
    eprintln!("procprobe: serving {scheme}://{address}/metrics");
    manager::ready();
    let mut end = std::pin::pin!(interrupted());
    loop {
        tokio::select! {
            outcome = &mut end => break outcome?,
            _ = hangups.recv() => reload(args, &config, &shared, &web_sender).await,
        }
    }
    manager::stopping();
    stop.send_replace(true);
    let _ = server.await;
    for task in tasks {
        task.abort();
    }
    Ok(())
}

async fn bind(address: SocketAddr) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address).await.map_err(|error| {
        anyhow::anyhow!(
            "cannot listen on {address}: {error} (is another agent running? choose another with --listen)"
        )
    })
}

/// Loads and attaches the programs, opens the books, and gives up the privileges that took.
fn start(global: &Global, config: &Config) -> anyhow::Result<Shared> {
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
        max_groups: config.max_groups as usize,
        retention: Retention {
            time: config.retention,
            ..Retention::default()
        },
        durations: histogram(&registry, SNAPSHOT_DURATION, &SNAPSHOT_BUCKETS)?,
        reap_delays: histogram(&registry, REAP_DELAY, &REAP_BUCKETS)?,
    };
    memory::give_back();
    let mut engine = Engine::start(source, settings)?;
    // Before any other thread exists: capabilities belong to threads, and new ones inherit them.
    let kept = privileges::shed(|| engine.view().is_ok())?;
    tracing::info!("attached; capabilities kept: {kept}");
    if let Some(limit) = preflight::limits() {
        tracing::warn!("{limit} (`procprobe doctor` lists what is needed)");
    }
    // With what is left of the privileges, as later.
    if let Err(why) = crate::namer::trial() {
        tracing::warn!("functions and locks have no names: the process that reads symbols {why}");
    }
    let shared = Shared::new(engine, registry);
    shared.expose_cmdline(config.expose_cmdline);
    Ok(shared)
}

/// Reads the files again, on a thread that may block.
async fn reload(args: &AgentArgs, config: &Config, shared: &Shared, web: &watch::Sender<Arc<Web>>) {
    manager::reloading();
    let (args, config, shared, web) = (args.clone(), config.clone(), shared.clone(), web.clone());
    let reloaded = tokio::task::spawn_blocking(move || setup::reload(&args, &config, &shared, &web));
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
