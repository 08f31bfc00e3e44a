//! The HTTP side: metrics, health, and the same JSON as the verbs.
//!
//! Every look is taken by the engine's own thread, and every answer drawn on a worker's, so a slow scraper or
//! a long snapshot delays nobody else's connection. How much of an answer is told is decided by the door it
//! leaves through ([`Disclosure`]).

use std::path::Path;
use std::time::Duration;

use axum::Router;
use axum::extract::rejection::QueryRejection;
use axum::extract::{FromRequestParts, Query, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use prometheus::Registry;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::compression::Coding;
use super::engine::Engine;
use super::engine_thread::EngineThread;
use super::format::Format as MetricsFormat;
use super::scrapes::Scrapes;
use super::workers::Workers;
use super::{catalog, collector};
use crate::config::complaint;
use crate::config::metrics::Families;
use crate::kernel::snapshot::SnapshotError;
use crate::model::ancestry::with_ancestry;
use crate::model::snapshot::{Losses, Snapshot};
use crate::model::window::By;
use crate::model::{orphans, tree, zombies};
use crate::source::describe::{Descriptions, describe, describe_some};
use crate::source::limits::pid_limit;
use crate::source::symbols;
use crate::view;
use crate::view::json::{Answer, Disclosure, Withhold};

/// What the handlers share.
#[derive(Clone)]
pub struct Shared {
    /// Who has the picture.
    pub engine: EngineThread,
    /// Who draws answers.
    pub workers: Workers,
    scrapes: Scrapes,
}

impl Shared {
    /// Of an engine, the threads that draw answers, the registry of what `prometheus` keeps itself, and the
    /// metrics to show.
    pub fn new(engine: EngineThread, workers: Workers, registry: Registry, shown: Families) -> Self {
        let asked = engine.clone();
        Self {
            scrapes: Scrapes::new(workers.clone(), move || gather(&asked, &registry, &shown)),
            engine,
            workers,
        }
    }
}

/// All families of one look.
fn gather(
    engine: &EngineThread,
    registry: &Registry,
    shown: &Families,
) -> anyhow::Result<Vec<prometheus::proto::MetricFamily>> {
    let looked = engine.ask_first(|engine| Ok::<_, SnapshotError>(collector::families(&engine.view()?)))?;
    let mut families = looked?;
    let cpu = collector::cpu_time();
    let kept = registry.gather().into_iter();
    families.extend(kept.filter(|family| family.name() != catalog::CPU.name));
    families.extend(cpu);
    families.retain(|family| !family.get_metric().is_empty() && shown.shows(family.name()));
    families.sort_by(|a, b| a.name().cmp(b.name()));
    Ok(families)
}

/// The routes.
pub fn router(shared: Shared) -> Router {
    Router::new()
        .route(
            "/",
            get(|| async { ([(header::CONTENT_TYPE, "text/html; charset=utf-8")], INDEX) }),
        )
        .route("/metrics", get(metrics))
        .route("/healthz", get(health))
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

/// Parameters of a request; one that there is not, or that makes no sense, is answered with 400: who mistypes
/// a filter should not take what comes for the filtered answer.
struct Asked<T>(T);

impl<S: Send + Sync, T: DeserializeOwned + Send> FromRequestParts<S> for Asked<T> {
    type Rejection = (StatusCode, String);

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Self::Rejection> {
        match Query::<T>::from_request_parts(parts, state).await {
            Ok(Query(asked)) => Ok(Self(asked)),
            Err(rejection) => Err((StatusCode::BAD_REQUEST, why(&rejection))),
        }
    }
}

/// One line on a query that was refused.
fn why(rejection: &QueryRejection) -> String {
    let mut causes = std::iter::successors(std::error::Error::source(rejection), |error| error.source());
    let text = causes.find_map(|cause| cause.source().is_none().then(|| cause.to_string()));
    line(&text.unwrap_or_else(|| rejection.to_string()))
}

/// The same of serde's words, which come behind the parameter that they are about.
fn line(text: &str) -> String {
    let said = text.find("unknown field").map_or(text, |at| &text[at..]);
    let line = match complaint::unknown_field(said) {
        Some((name, known)) if known.is_empty() => {
            format!("unknown parameter {name} (this takes no parameters)")
        }
        Some((name, known)) => format!("unknown parameter {name} ({})", complaint::hint(name, &known)),
        None => text.to_owned(),
    };
    format!("{}\n", crate::model::escape(line.as_bytes()))
}

/// No parameters.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Nothing {}

/// How an answer leaves.
struct Leaving {
    told: Disclosure,
    coding: Option<Coding>,
}

impl<S: Send + Sync> FromRequestParts<S> for Leaving {
    type Rejection = std::convert::Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Self::Rejection> {
        // Where nobody has decided, nobody is told more than everybody may know.
        let told = parts.extensions.get::<Disclosure>().copied();
        Ok(Self {
            told: told.unwrap_or(Disclosure {
                details: false,
                cmdline: false,
            }),
            coding: Coding::preferred(&parts.headers),
        })
    }
}

impl Leaving {
    /// The answer as JSON, without what this door does not tell.
    fn json<T: Serialize + Withhold>(&self, answer: Answer<T>, total: &Losses) -> anyhow::Result<Response> {
        let answer = self.told.apply(answer.of_agent(total));
        Ok(self.body("application/json", serde_json::to_vec(&answer)?))
    }

    fn body(&self, kind: &'static str, bytes: Vec<u8>) -> Response {
        match self.coding.and_then(|coding| coding.compressed(&bytes)) {
            Some(packed) => respond(kind, self.coding, packed),
            None => respond(kind, None, bytes),
        }
    }
}

fn respond(kind: &'static str, coding: Option<Coding>, body: impl IntoResponse) -> Response {
    let headers = [
        (header::CONTENT_TYPE, kind),
        (header::VARY, "accept, accept-encoding"),
    ];
    match coding {
        Some(coding) => (headers, [(header::CONTENT_ENCODING, coding.name())], body).into_response(),
        None => (headers, body).into_response(),
    }
}

fn failed(error: &anyhow::Error) -> Response {
    (StatusCode::INTERNAL_SERVER_ERROR, format!("{error:#}\n")).into_response()
}

/// Draws an answer on a worker's thread.
async fn drawn(
    shared: &Shared,
    work: impl FnOnce() -> anyhow::Result<Response> + Send + 'static,
) -> Response {
    match shared.workers.run(work).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(error)) => failed(&error),
        Err(error) => failed(&error.into()),
    }
}

async fn metrics(State(shared): State<Shared>, headers: HeaderMap) -> Response {
    let format = MetricsFormat::preferred(&headers);
    match shared.scrapes.scrape((format, Coding::preferred(&headers))).await {
        Ok((body, coding)) => respond(format.content_type(), coding, body),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response(),
    }
}

/// An engine that has been busy with one thing for so long will not come back.
const LONGEST_SILENCE: Duration = Duration::from_secs(60);

/// Healthy: the engine answers, or has only just begun not to. Never waits for it.
async fn health(State(shared): State<Shared>) -> Response {
    let silent = shared.engine.silent_for();
    if silent <= LONGEST_SILENCE {
        return "ok\n".into_response();
    }
    let text = format!("the engine has not answered for {} s\n", silent.as_secs());
    (StatusCode::SERVICE_UNAVAILABLE, text).into_response()
}

/// Ready: a snapshot can be taken.
async fn ready(State(shared): State<Shared>) -> Response {
    match shared
        .engine
        .answer_first(|engine| engine.refresh().map(|_| ()))
        .await
    {
        Ok(Ok(())) => "ready\n".into_response(),
        Ok(Err(error)) => failed(&error.into()),
        Err(error) => failed(&error.into()),
    }
}

/// Parameters of `/api/v1/tree`.
#[derive(Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields)]
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

/// What one look was, and what it and the agent lost.
struct Looked {
    snapshot: Snapshot,
    losses: Losses,
    total: Losses,
}

impl Looked {
    fn now(engine: &mut Engine) -> Result<Self, SnapshotError> {
        let (snapshot, losses) = engine.look()?;
        let total = engine.total()?;
        Ok(Self {
            snapshot,
            losses,
            total,
        })
    }
}

async fn tree(State(shared): State<Shared>, Asked(query): Asked<TreeQuery>, leaving: Leaving) -> Response {
    let engine = shared.engine.clone();
    drawn(&shared, move || {
        let looked = engine.ask(Looked::now)??;
        // Takes a while when a process is stuck: the engine should not wait for that.
        let descriptions = describe(Path::new(PROC), &looked.snapshot);
        let total = looked.total.and(&descriptions.losses);
        let answer = engine.ask(move |engine| tree_answer(engine, &looked, &descriptions, query))?;
        let Some(answer) = answer else {
            return Ok((StatusCode::NOT_FOUND, "no such process\n").into_response());
        };
        match query.format {
            Format::Json => leaving.json(answer, &total),
            Format::Text => {
                let look = view::tree::Look {
                    threads: query.threads,
                    kernel: query.kernel,
                    width: query.width,
                };
                let text = view::tree::lines(&leaving.told.apply(answer), look).join("\n") + "\n";
                Ok(leaving.body("text/plain; charset=utf-8", text.into_bytes()))
            }
        }
    })
    .await
}

/// `None` if there is no such process.
fn tree_answer(
    engine: &mut Engine,
    looked: &Looked,
    descriptions: &Descriptions,
    query: TreeQuery,
) -> Option<Answer<view::json::Tree>> {
    let snapshot = &looked.snapshot;
    let shown = query.ancestry.then(|| with_ancestry(snapshot, engine.lives()));
    let shown = shown.as_ref().unwrap_or(snapshot);
    let nodes = tree::layout(shown, query.pid);
    if nodes.is_empty() {
        return None;
    }
    let orphans = orphans::report(snapshot, Some(engine.lives()));
    let cgroups = &mut engine.source.cgroups;
    Some(view::json::tree(
        shown,
        &nodes,
        &orphans,
        descriptions,
        cgroups,
        &looked.losses,
    ))
}

async fn zombies_report(
    State(shared): State<Shared>,
    Asked(Nothing {}): Asked<Nothing>,
    leaving: Leaving,
) -> Response {
    let engine = shared.engine.clone();
    drawn(&shared, move || {
        let (looked, culprits) = engine.ask(|engine| {
            let looked = Looked::now(engine)?;
            let report = zombies::report(&looked.snapshot, Some(engine.lives()), None);
            let culprits: Vec<u32> = report.culprits.iter().map(|culprit| culprit.pid).collect();
            Ok::<_, SnapshotError>((looked, culprits))
        })??;
        // Takes a while when a process is stuck: the engine should not wait for that.
        let descriptions = describe_some(Path::new(PROC), &looked.snapshot, |pid| culprits.contains(&pid));
        let limit = pid_limit(Path::new(PROC));
        let total = looked.total.and(&descriptions.losses);
        let answer = engine.ask(move |engine| {
            let Looked { snapshot, losses, .. } = &looked;
            let mut report = zombies::report(snapshot, Some(engine.lives()), limit);
            report.limit_units(|cgroup_id| engine.source.cgroups.pids(cgroup_id));
            let payload = view::json::zombies(snapshot, &report, &descriptions, &mut engine.source.cgroups);
            Answer::new(snapshot, 0, &losses.and(&descriptions.losses), payload)
        })?;
        leaving.json(answer, &total)
    })
    .await
}

async fn orphans_report(
    State(shared): State<Shared>,
    Asked(Nothing {}): Asked<Nothing>,
    leaving: Leaving,
) -> Response {
    let engine = shared.engine.clone();
    drawn(&shared, move || {
        let (answer, total) = engine.ask(|engine| {
            let Looked {
                snapshot,
                losses,
                total,
            } = Looked::now(engine)?;
            let payload = view::json::orphans(&orphans::report(&snapshot, Some(engine.lives())));
            Ok::<_, SnapshotError>((Answer::new(&snapshot, 0, &losses, payload), total))
        })??;
        leaving.json(answer, &total)
    })
    .await
}

/// The longest window a request may ask for: it holds a connection open.
const LONGEST_WINDOW: Duration = Duration::from_secs(60);

/// Parameters of `/api/v1/states`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
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
    engine: EngineThread,
    id: u64,
}

impl Drop for WindowGuard {
    fn drop(&mut self) {
        let id = self.id;
        self.engine.tell(move |engine| engine.drop_window(id));
    }
}

async fn states(
    State(shared): State<Shared>,
    Asked(query): Asked<StatesQuery>,
    leaving: Leaving,
) -> Response {
    let by = By::from_name(&query.by);
    let (Some(window), Some(by)) = (window_of(&query.window), by) else {
        let text = "for= takes a duration up to 60s, by= one of thread, process, comm, unit\n";
        return (StatusCode::BAD_REQUEST, text).into_response();
    };
    let open = move |engine: &mut Engine| engine.open_window(by, query.pid);
    over_window(shared, window, open, move |engine, id| {
        let (closed, total) = engine.ask(move |engine| {
            let closed = engine.close_window(id)?;
            Ok::<_, SnapshotError>((closed, engine.total()?))
        })??;
        let Some((report, snapshot, losses)) = closed else {
            anyhow::bail!("the window is gone")
        };
        let payload = view::json::states(&report, true);
        leaving.json(Answer::new(&snapshot, report.window_ns, &losses, payload), &total)
    })
    .await
}

/// Parameters of `/api/v1/locks`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct LocksQuery {
    #[serde(rename = "for", default = "one_second")]
    window: String,
    pid: Option<u32>,
}

async fn locks(State(shared): State<Shared>, Asked(query): Asked<LocksQuery>, leaving: Leaving) -> Response {
    let Some(window) = window_of(&query.window) else {
        return (StatusCode::BAD_REQUEST, "for= takes a duration up to 60s\n").into_response();
    };
    let open = move |engine: &mut Engine| engine.open_lock_window(query.pid);
    over_window(shared, window, open, move |engine, id| {
        let (closed, mut total) = engine.ask(move |engine| {
            let closed = engine.close_lock_window(id)?;
            Ok::<_, SnapshotError>((closed, engine.total()?))
        })??;
        let Some((mut report, snapshot, mut losses)) = closed else {
            anyhow::bail!("the window is gone")
        };
        // Takes a while: nobody else should wait for that.
        let unnamed = symbols::name(&mut report, &snapshot);
        losses.add("symbols", unnamed);
        // It was asked for before.
        total.add("symbols", unnamed);
        let payload = view::json::locks(&report);
        leaving.json(Answer::new(&snapshot, report.window_ns, &losses, payload), &total)
    })
    .await
}

fn window_of(text: &str) -> Option<Duration> {
    humantime::parse_duration(text)
        .ok()
        .filter(|window| *window <= LONGEST_WINDOW)
}

/// Opens a window, waits, closes it, and answers with what closing gives.
async fn over_window(
    shared: Shared,
    window: Duration,
    open: impl FnOnce(&mut Engine) -> Result<u64, SnapshotError> + Send + 'static,
    close: impl FnOnce(&EngineThread, u64) -> anyhow::Result<Response> + Send + 'static,
) -> Response {
    let engine = shared.engine.clone();
    // Made by the engine: whoever leaves while the answer is on its way leaves no window open.
    let opened = move |of: &mut Engine| open(of).map(|id| WindowGuard { engine, id });
    let guard = match shared.engine.answer(opened).await {
        Ok(Ok(guard)) => guard,
        Ok(Err(error)) => return failed(&error.into()),
        Err(error) => return failed(&error.into()),
    };
    tokio::time::sleep(window).await;
    drawn(&shared, move || close(&guard.engine, guard.id)).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_engine_that_is_stuck_is_unhealthy_and_one_that_is_busy_is_not() {
        let after = async |seconds| {
            let engine = EngineThread::stuck_for(Duration::from_secs(seconds));
            let shared = Shared::new(
                engine,
                Workers::start(1).unwrap(),
                Registry::new(),
                Families::default(),
            );
            health(State(shared)).await
        };
        assert_eq!(after(55).await.status(), StatusCode::OK);
        let answer = after(61).await;
        assert_eq!(answer.status(), StatusCode::SERVICE_UNAVAILABLE);
        let body = axum::body::to_bytes(answer.into_body(), 1000).await.unwrap();
        let body = String::from_utf8(body.to_vec()).unwrap();
        assert!(body.starts_with("the engine has not answered for 61 s"), "{body}");
    }

    /// As axum has the words: a parameter may be called as the words are, too.
    #[test]
    fn a_parameter_that_there_is_not_is_named_with_the_one_that_was_meant() {
        for (words, told) in [
            (
                "pids: unknown field `pids`, expected one of `pid`, `width`",
                "unknown parameter pids (did you mean pid?)\n",
            ),
            (
                "x: unknown field `x`, there are no fields",
                "unknown parameter x (this takes no parameters)\n",
            ),
            (
                "pid: invalid digit found in string",
                "pid: invalid digit found in string\n",
            ),
            ("a\u{1b}[2J: unknown", "a\\u{1b}[2J: unknown\n"),
        ] {
            assert_eq!(line(words), told);
        }
    }
}
