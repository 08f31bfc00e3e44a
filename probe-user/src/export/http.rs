//! The HTTP side: metrics, health, and the same JSON as the verbs.
//!
//! Every look at the engine runs on a thread that may block, so a slow scraper or a long snapshot delays nobody else's
//! connection.

use std::collections::HashMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::extract::{Query, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use prometheus::Registry;
use serde::Deserialize;

use super::engine::Engine;
use super::format::Format as MetricsFormat;
use super::{catalog, collector};
use crate::kernel::snapshot::SnapshotError;
use crate::model::ancestry::with_ancestry;
use crate::model::snapshot::Snapshot;
use crate::model::window::By;
use crate::model::{orphans, tree, zombies};
use crate::source::describe::{Description, describe, describe_some};
use crate::source::limits::pid_limit;
use crate::source::symbols;
use crate::view;

/// What the handlers share.
#[derive(Clone)]
pub struct Shared {
    engine: Arc<Mutex<Engine>>,
    registry: Registry,
    expose_cmdline: Arc<AtomicBool>,
}

impl Shared {
    /// Wraps an engine, and the registry of what `prometheus` keeps itself.
    pub fn new(engine: Engine, registry: Registry) -> Self {
        Self {
            engine: Arc::new(Mutex::new(engine)),
            registry,
            expose_cmdline: Arc::default(),
        }
    }

    /// Whether the API shows command lines, which may hold secrets.
    pub fn expose_cmdline(&self, shown: bool) {
        self.expose_cmdline.store(shown, Ordering::Relaxed);
    }

    fn descriptions(&self, snapshot: &Snapshot) -> HashMap<u32, Description> {
        let mut descriptions = describe(Path::new(PROC), snapshot);
        if !self.expose_cmdline.load(Ordering::Relaxed) {
            for description in descriptions.values_mut() {
                description.cmdline.clear();
            }
        }
        descriptions
    }

    /// The engine. A handler that panicked leaves it usable: every look begins with a fresh snapshot.
    pub fn engine(&self) -> MutexGuard<'_, Engine> {
        self.engine.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The routes.
pub fn router(shared: Shared) -> Router {
    Router::new()
        .route(
            "/",
            get(|| async { ([(header::CONTENT_TYPE, "text/html; charset=utf-8")], INDEX) }),
        )
        .route("/metrics", get(metrics))
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .route("/api/v1/tree", get(tree))
        .route("/api/v1/states", get(states))
        .route("/api/v1/locks", get(locks))
        .route("/api/v1/zombies", get(zombies_report))
        .route("/api/v1/orphans", get(orphans_report))
        .with_state(shared)
}

const PROC: &str = "/proc";
const INDEX: &str = "<!doctype html><title>procprobe</title><h1>procprobe</h1>\
<ul><li><a href=\"/metrics\">/metrics</a><li><a href=\"/api/v1/tree\">/api/v1/tree</a>\
<li><a href=\"/api/v1/states\">/api/v1/states</a>\
<li><a href=\"/api/v1/locks\">/api/v1/locks</a>\
<li><a href=\"/api/v1/zombies\">/api/v1/zombies</a><li><a href=\"/api/v1/orphans\">/api/v1/orphans</a>\
<li><a href=\"/healthz\">/healthz</a><li><a href=\"/readyz\">/readyz</a></ul>\n";

/// Runs something that blocks, and turns its error into an answer.
async fn blocking<T: IntoResponse + Send + 'static>(
    work: impl FnOnce() -> anyhow::Result<T> + Send + 'static,
) -> Response {
    match tokio::task::spawn_blocking(work).await {
        Ok(Ok(answer)) => answer.into_response(),
        Ok(Err(error)) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error:#}\n")).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response(),
    }
}

async fn metrics(State(shared): State<Shared>, headers: HeaderMap) -> Response {
    let format = MetricsFormat::preferred(&headers);
    blocking(move || {
        let mut families = {
            let mut engine = shared.engine();
            collector::families(&engine.view()?)
        };
        let cpu = collector::cpu_time();
        families.extend(
            shared
                .registry
                .gather()
                .into_iter()
                .filter(|family| family.name() != catalog::CPU.name),
        );
        families.extend(cpu);
        families.retain(|family| !family.get_metric().is_empty());
        families.sort_by(|a, b| a.name().cmp(b.name()));
        Ok((
            [(header::CONTENT_TYPE, format.content_type())],
            format.encode(&families)?,
        ))
    })
    .await
}

/// Ready: a snapshot can be taken.
async fn ready(State(shared): State<Shared>) -> Response {
    blocking(move || {
        shared.engine().refresh()?;
        Ok("ready\n")
    })
    .await
}

/// Parameters of `/api/v1/tree`.
#[derive(Deserialize)]
struct TreeQuery {
    pid: Option<u32>,
    /// Dead ancestors too.
    #[serde(default)]
    ancestry: bool,
    /// "json", or "text" as `procprobe tree` prints it.
    #[serde(default)]
    format: Format,
    /// For text: threads, kernel threads, width.
    #[serde(default)]
    threads: bool,
    #[serde(default)]
    kernel: bool,
    width: Option<usize>,
}

#[derive(Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Format {
    #[default]
    Json,
    Text,
}

async fn tree(State(shared): State<Shared>, Query(query): Query<TreeQuery>) -> Response {
    blocking(move || {
        let (snapshot, shown) = {
            let mut engine = shared.engine();
            let snapshot = engine.refresh()?;
            let shown = query.ancestry.then(|| with_ancestry(&snapshot, engine.lives()));
            (snapshot, shown)
        };
        let shown = shown.as_ref().unwrap_or(&snapshot);
        let descriptions = shared.descriptions(&snapshot);
        let nodes = tree::layout(shown, query.pid);
        if nodes.is_empty() {
            return Ok((StatusCode::NOT_FOUND, "no such process\n").into_response());
        }
        let mut engine = shared.engine();
        let orphans = orphans::report(&snapshot, Some(engine.lives()));
        Ok(match query.format {
            Format::Json => {
                let cgroups = &mut engine.source.cgroups;
                let answer = view::json::tree(shown, &nodes, &orphans, &descriptions, cgroups);
                (
                    [(header::CONTENT_TYPE, "application/json")],
                    serde_json::to_vec(&answer)?,
                )
                    .into_response()
            }
            Format::Text => {
                let look = view::tree::Look {
                    threads: query.threads,
                    kernel: query.kernel,
                    width: query.width,
                };
                let lines = view::tree::lines(shown, &nodes, &orphans, &descriptions, look);
                (
                    [(header::CONTENT_TYPE, "text/plain; charset=utf-8")],
                    lines.join("\n") + "\n",
                )
                    .into_response()
            }
        })
    })
    .await
}

async fn zombies_report(State(shared): State<Shared>) -> Response {
    blocking(move || {
        let snapshot = shared.engine().refresh()?;
        let mut report = zombies::report(
            &snapshot,
            Some(shared.engine().lives()),
            pid_limit(Path::new(PROC)),
        );
        report.limit_units(|cgroup_id| shared.engine().source.cgroups.pids(cgroup_id));
        let is_culprit = |pid| report.culprits.iter().any(|culprit| culprit.pid == pid);
        // Takes up to a second when a process is stuck: nobody else should wait for that.
        let descriptions = describe_some(Path::new(PROC), &snapshot, is_culprit);
        let payload = view::json::zombies(&report, &descriptions, &mut shared.engine().source.cgroups);
        let body = serde_json::to_vec(&view::json::Answer::new(&snapshot, 0, &snapshot.losses, payload))?;
        Ok(([(header::CONTENT_TYPE, "application/json")], body))
    })
    .await
}

async fn orphans_report(State(shared): State<Shared>) -> Response {
    blocking(move || {
        let mut engine = shared.engine();
        let snapshot = engine.refresh()?;
        let payload = view::json::orphans(&orphans::report(&snapshot, Some(engine.lives())));
        let body = serde_json::to_vec(&view::json::Answer::new(&snapshot, 0, &snapshot.losses, payload))?;
        Ok(([(header::CONTENT_TYPE, "application/json")], body))
    })
    .await
}

/// The longest window a request may ask for: it holds a connection open.
const LONGEST_WINDOW: Duration = Duration::from_secs(60);

/// Parameters of `/api/v1/states`.
#[derive(Deserialize)]
struct StatesQuery {
    #[serde(rename = "for", default = "one_second")]
    window: String,
    #[serde(default = "by_comm")]
    by: String,
    pid: Option<u32>,
}

fn one_second() -> String {
    "1s".to_owned()
}

fn by_comm() -> String {
    "comm".to_owned()
}

/// Forgets its window when the request is dropped, which is how a client that hangs up shows.
struct WindowGuard {
    shared: Shared,
    id: u64,
}

impl Drop for WindowGuard {
    fn drop(&mut self) {
        // Not here: the engine may be busy, and this is the thread that everybody's connections share.
        let (shared, id) = (self.shared.clone(), self.id);
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn_blocking(move || shared.engine().drop_window(id));
        }
    }
}

async fn states(State(shared): State<Shared>, Query(query): Query<StatesQuery>) -> Response {
    let by = By::from_name(&query.by);
    let (Some(window), Some(by)) = (window_of(&query.window), by) else {
        let text = "for= takes a duration up to 60s, by= one of thread, process, comm, unit\n";
        return (StatusCode::BAD_REQUEST, text).into_response();
    };
    let open = move |engine: &mut Engine| engine.open_window(by, query.pid);
    over_window(shared, window, open, |shared, id| {
        let Some((report, snapshot, losses)) = shared.engine().close_window(id)? else {
            anyhow::bail!("the window is gone")
        };
        let payload = view::json::states(&report, true);
        let answer = view::json::Answer::new(&snapshot, report.window_ns, &losses, payload);
        Ok(serde_json::to_vec(&answer)?)
    })
    .await
}

/// Parameters of `/api/v1/locks`.
#[derive(Deserialize)]
struct LocksQuery {
    #[serde(rename = "for", default = "one_second")]
    window: String,
    pid: Option<u32>,
}

async fn locks(State(shared): State<Shared>, Query(query): Query<LocksQuery>) -> Response {
    let Some(window) = window_of(&query.window) else {
        return (StatusCode::BAD_REQUEST, "for= takes a duration up to 60s\n").into_response();
    };
    let open = move |engine: &mut Engine| engine.open_lock_window(query.pid);
    over_window(shared, window, open, |shared, id| {
        let closed = shared.engine().close_lock_window(id)?;
        let Some((mut report, snapshot, mut losses)) = closed else {
            anyhow::bail!("the window is gone")
        };
        // Takes a while: nobody else should wait for that.
        losses.add("symbols", symbols::name(&mut report, &snapshot));
        let payload = view::json::locks(&report);
        let answer = view::json::Answer::new(&snapshot, report.window_ns, &losses, payload);
        Ok(serde_json::to_vec(&answer)?)
    })
    .await
}

fn window_of(text: &str) -> Option<Duration> {
    humantime::parse_duration(text)
        .ok()
        .filter(|window| *window <= LONGEST_WINDOW)
}

/// Opens a window, waits, closes it, and answers with the JSON that closing gives.
async fn over_window(
    shared: Shared,
    window: Duration,
    open: impl FnOnce(&mut Engine) -> Result<u64, SnapshotError> + Send + 'static,
    close: impl FnOnce(&Shared, u64) -> anyhow::Result<Vec<u8>> + Send + 'static,
) -> Response {
    let engine = shared.clone();
    let opened = tokio::task::spawn_blocking(move || open(&mut engine.engine())).await;
    let guard = match opened {
        Ok(Ok(id)) => WindowGuard { shared, id },
        Ok(Err(error)) => return (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response(),
        Err(error) => return (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response(),
    };
    tokio::time::sleep(window).await;
    blocking(move || {
        let body = close(&guard.shared, guard.id)?;
        Ok(([(header::CONTENT_TYPE, "application/json")], body))
    })
    .await
}
