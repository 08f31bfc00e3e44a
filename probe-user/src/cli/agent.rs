//! `procprobe agent`: keeps the books and serves them until SIGTERM.

use std::time::Duration;

use anyhow::Context;
use prometheus::process_collector::ProcessCollector;
use prometheus::{Histogram, HistogramOpts, Registry};
use tokio::net::TcpListener;

use super::args::{AgentArgs, Global};
use super::{bpf_only, interrupted, runtime};
use crate::export::catalog::{Metric, REAP_BUCKETS, REAP_DELAY, SNAPSHOT_BUCKETS, SNAPSHOT_DURATION};
use crate::export::engine::{Engine, Settings};
use crate::export::http::{Shared, router};
use crate::kernel::events::IDLE_WAIT;
use crate::kernel::load::Options;
use crate::model::lives::Retention;

/// A snapshot this often even if nobody scrapes: it bounds what a lost exit event can cost.
const REFRESH_EVERY: Duration = Duration::from_secs(15);
/// Cost of our programs: a sample of this length …
const SAMPLE: Duration = Duration::from_secs(1);
/// … this often.
const SAMPLE_EVERY: Duration = Duration::from_secs(30);
/// How long open connections may take to finish at the end.
const GRACE: Duration = Duration::from_secs(2);

/// Runs the verb.
///
/// # Errors
/// If the address is taken, or the programs cannot be loaded.
pub fn run(global: &Global, args: &AgentArgs) -> anyhow::Result<()> {
    share_one_arena();
    runtime()?.block_on(serve(global, args))
}

async fn serve(global: &Global, args: &AgentArgs) -> anyhow::Result<()> {
    // First the port: a second agent should fail before it loads anything.
    let listener = TcpListener::bind(args.listen).await.map_err(|error| {
        anyhow::anyhow!(
            "cannot listen on {}: {error} (is another agent running? choose another with --listen)",
            args.listen
        )
    })?;
    let mut source = bpf_only(global, "agent", Options::default())?;
    if global.bpf_log {
        source.probe.forward_logs().map_err(anyhow::Error::msg)?;
    }
    let registry = Registry::new();
    registry.register(Box::new(ProcessCollector::for_self()))?;
    let settings = Settings {
        max_groups: args.max_groups as usize,
        retention: Retention {
            time: args.retention,
            ..Retention::default()
        },
        durations: histogram(&registry, SNAPSHOT_DURATION, &SNAPSHOT_BUCKETS)?,
        reap_delays: histogram(&registry, REAP_DELAY, &REAP_BUCKETS)?,
    };
    give_back_memory();
    let engine = Engine::start(source, settings)?;
    let shared = Shared::new(engine, registry);
    let address = listener
        .local_addr()
        .context("cannot tell the listening address")?;
    eprintln!("procprobe: serving http://{address}/metrics");
    let draining = tokio::spawn(drain(shared.clone()));
    let refreshing = tokio::spawn(refresh(shared.clone()));
    let sampling = tokio::spawn(sample_cost(shared.clone()));
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let server = axum::serve(listener, router(shared)).with_graceful_shutdown(async {
        let _ = stopped.await;
    });
    let server = tokio::spawn(server.into_future());
    interrupted().await?;
    let _ = stop.send(());
    // A scraper that never reads must not keep us.
    let _ = tokio::time::timeout(GRACE, server).await;
    for task in [draining, refreshing, sampling] {
        task.abort();
    }
    Ok(())
}

/// Loading parses the kernel's type information, tens of megabytes that are free again by now; glibc would keep them.
fn give_back_memory() {
    // SAFETY: no memory is touched but the allocator's own free lists.
    unsafe { libc::malloc_trim(0) };
}

/// One arena for all threads: those that serve requests come and go, and each would keep megabytes of its own.
fn share_one_arena() {
    // SAFETY: sets a number; called before any other thread exists.
    unsafe { libc::mallopt(libc::M_ARENA_MAX, 1) };
}

/// A histogram that `prometheus` keeps itself.
fn histogram(registry: &Registry, metric: Metric, buckets: &[f64]) -> anyhow::Result<Histogram> {
    let options = HistogramOpts::new(metric.name, metric.help).buckets(buckets.to_vec());
    let histogram = Histogram::with_opts(options)?;
    registry.register(Box::new(histogram.clone()))?;
    Ok(histogram)
}

/// Runs something with the engine on a thread that may block.
async fn with_engine<T: Send + 'static>(
    shared: &Shared,
    work: impl FnOnce(&mut Engine) -> T + Send + 'static,
) -> Option<T> {
    let shared = shared.clone();
    tokio::task::spawn_blocking(move || work(&mut shared.engine()))
        .await
        .ok()
}

async fn drain(shared: Shared) {
    loop {
        let wait = with_engine(&shared, Engine::drain).await.unwrap_or(IDLE_WAIT);
        tokio::time::sleep(wait).await;
    }
}

async fn refresh(shared: Shared) {
    loop {
        tokio::time::sleep(REFRESH_EVERY).await;
        if let Some(Err(error)) = with_engine(&shared, |engine| engine.refresh().map(|_| ())).await {
            tracing::warn!(%error, "periodic snapshot failed");
        }
    }
}

async fn sample_cost(shared: Shared) {
    loop {
        with_engine(&shared, Engine::begin_cost_sample).await;
        tokio::time::sleep(SAMPLE).await;
        with_engine(&shared, Engine::end_cost_sample).await;
        tokio::time::sleep(SAMPLE_EVERY.saturating_sub(SAMPLE)).await;
    }
}
