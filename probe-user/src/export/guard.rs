//! What stands before the routes: whether the request means this host, passwords, the size of requests, and
//! turns for those that look at every thread.
//!
//! `/healthz` never waits for a turn, so it says whether the agent is there however busy it is.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes, HttpBody};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use hyper::body::{Frame, SizeHint};
use rustls::ServerConfig;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

use super::auth::Users;
use super::host::Names;
use super::tls;
use super::workers::Workers;
use crate::config::Limits;
use crate::config::complaint::Complaint;
use crate::config::web::{ClientAuth, WebConfig};
use crate::view::json::Disclosure;

/// No route reads a body; anything longer than this is refused unread.
const LONGEST_BODY: u64 = 64 << 10;
/// Routes that take a window, which is mostly waiting. They have turns of their own, or they would starve scrapes.
const WINDOWS: [&str; 2] = ["/api/v1/states", "/api/v1/locks"];
/// Windows open at a time.
const MAX_WINDOWS: usize = 16;

/// What a web configuration comes to.
pub struct Web {
    /// TLS, unless plain HTTP is wanted.
    pub tls: Option<Arc<ServerConfig>>,
    asks_for_certificate: bool,
    users: Arc<Users>,
    headers: HeaderMap,
}

impl Web {
    /// Reads certificates and prepares passwords, which are tried on workers' threads. The path is for
    /// complaints.
    ///
    /// # Errors
    /// A [`Complaint`] about the file that is wrong; the system's errors.
    pub fn new(path: &std::path::Path, config: WebConfig, workers: &Workers) -> anyhow::Result<Arc<Self>> {
        let mut headers = HeaderMap::new();
        for (name, value) in &config.http_server_config.headers {
            let wrong = |_| Complaint::about(path, format!("{name}: {value:?} is no header value"));
            let value = HeaderValue::from_str(value).map_err(wrong)?;
            headers.insert(HeaderName::from_bytes(name.as_bytes())?, value);
        }
        let tls = config.tls_server_config.as_ref().map(tls::server).transpose()?;
        let client_auth = config.tls_server_config.map(|tls| tls.client_auth_type);
        Ok(Arc::new(Self {
            tls,
            asks_for_certificate: client_auth == Some(ClientAuth::RequireAndVerifyClientCert),
            users: Users::new(config.basic_auth_users, workers.clone())?,
            headers,
        }))
    }
}

impl Web {
    /// Whether anybody may see everything.
    pub fn is_open(&self) -> bool {
        self.users.is_empty() && !self.asks_for_certificate
    }
}

/// How a request came, as its connection tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// Through the socket, by somebody who may see everything.
    Socket,
    /// Over TCP.
    Tcp {
        /// Without TLS, to an address that only this host reaches.
        plain_loopback: bool,
    },
}

/// What the configuration says of who may see what over TCP; a reload changes it.
#[derive(Clone, Debug)]
pub struct Policy {
    /// What everybody is told.
    pub told: Disclosure,
    /// Names of this host.
    pub names: Names,
}

/// What decides about requests; a reload changes it.
#[derive(Clone)]
pub struct Rules {
    /// TLS, users and headers.
    pub web: watch::Receiver<Arc<Web>>,
    /// Who may see what.
    pub policy: watch::Receiver<Arc<Policy>>,
}

/// What requests have to pass.
#[derive(Clone)]
struct Gate {
    rules: Rules,
    /// Requests of the API that wait, are answered, or whose answer is not read yet.
    queries: Arc<Semaphore>,
    /// KiB of answers that are not read yet.
    unread: Arc<Semaphore>,
    turns: Arc<Semaphore>,
    windows: Arc<Semaphore>,
    timeout: Duration,
}

/// Pages of other origins can have a browser fetch anything, though not read it. With these it does not even
/// hand the answer to the page's process, nor try it as a script.
const FOR_BROWSERS: [(HeaderName, &str); 2] = [
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (
        HeaderName::from_static("cross-origin-resource-policy"),
        "same-origin",
    ),
];

/// The share of the connections that requests of the API may have, as a divisor; the rest is for scrapes and
/// health checks.
const API_SHARE: usize = 2;
/// KiB of answers of the API that clients have not read to their end, all together. A larger one goes out
/// when there is no other.
const UNREAD: u32 = 32 << 10;

/// Puts the gate before the routes. Each door has one of its own, so that a crowd at one is none at the
/// other.
pub fn guarded(router: Router, limits: &Limits, rules: Rules) -> Router {
    let gate = Gate {
        rules,
        queries: Arc::new(Semaphore::new((limits.max_connections / API_SHARE).max(1))),
        unread: Arc::new(Semaphore::new(UNREAD as usize)),
        turns: Arc::new(Semaphore::new(limits.max_scrapes)),
        windows: Arc::new(Semaphore::new(MAX_WINDOWS)),
        timeout: limits.request_timeout,
    };
    router
        .layer(from_fn_with_state(gate.clone(), take_turn))
        .layer(from_fn_with_state(gate, admit))
}

/// Nobody sees anything without a password, if there are any; not even which paths there are.
async fn admit(State(gate): State<Gate>, mut request: Request, next: Next) -> Response {
    let web = gate.rules.web.borrow().clone();
    let way = request.extensions().get::<Way>().copied();
    let refusal = foreign(&gate.rules.policy.borrow(), way, &request);
    let authorization = request.headers().get(header::AUTHORIZATION).cloned();
    let told = match refusal {
        Some(refusal) => Err(refusal),
        None => told(&gate, &web, way, authorization.as_ref()).await,
    };
    let mut response = match told {
        Err(refusal) => refusal,
        Ok(_) if is_too_long(&request) => {
            (StatusCode::PAYLOAD_TOO_LARGE, "no request needs a body\n").into_response()
        }
        Ok(told) => {
            request.extensions_mut().insert(told);
            next.run(request).await
        }
    };
    if way != Some(Way::Socket) {
        response
            .headers_mut()
            .extend(FOR_BROWSERS.map(|(name, value)| (name, HeaderValue::from_static(value))));
        response.headers_mut().extend(web.headers.clone());
    }
    response
}

fn is_too_long(request: &Request) -> bool {
    let longest = request.body().size_hint().upper();
    longest.is_none_or(|size| size > LONGEST_BODY)
}

/// The answer to a request that means another host.
fn foreign(policy: &Policy, way: Option<Way>, request: &Request) -> Option<Response> {
    let is_plain_loopback = way == Some(Way::Tcp { plain_loopback: true });
    if !is_plain_loopback || policy.names.include(request.uri(), request.headers()) {
        return None;
    }
    let text =
        "this is not the host you named (ask by address or as localhost, or add the name to http.hosts)\n";
    Some((StatusCode::MISDIRECTED_REQUEST, text).into_response())
}

/// What may be told to whoever sent a request, or why nothing.
async fn told(
    gate: &Gate,
    web: &Web,
    way: Option<Way>,
    authorization: Option<&HeaderValue>,
) -> Result<Disclosure, Response> {
    if way == Some(Way::Socket) {
        return Ok(Disclosure::ALL);
    }
    if !web.users.admit(authorization).await {
        let ask = [(header::WWW_AUTHENTICATE, "Basic realm=\"procprobe\"")];
        return Err((StatusCode::UNAUTHORIZED, ask, "Unauthorized\n").into_response());
    }
    let told = gate.rules.policy.borrow().told;
    Ok(Disclosure {
        details: told.details || !web.is_open(),
        ..told
    })
}

/// At most so many at a time look at every thread. The others wait, but not for ever, and not all
/// connections: scrapes and health checks need some. Scrapes take no turn, since they share their looks.
async fn take_turn(State(gate): State<Gate>, request: Request, next: Next) -> Response {
    let path = request.uri().path();
    if path == "/metrics" || path == "/readyz" {
        return in_time(gate.timeout, async { Some(next.run(request).await) }).await;
    }
    if !path.starts_with("/api/") {
        return next.run(request).await;
    }
    let Ok(query) = Arc::clone(&gate.queries).try_acquire_owned() else {
        return busy("too many requests");
    };
    if WINDOWS.contains(&path) {
        let Ok(turn) = gate.windows.try_acquire() else {
            return busy("too many windows are open");
        };
        let response = next.run(request).await;
        drop(turn);
        return until_read(response, query, &gate.unread);
    }
    let unread = Arc::clone(&gate.unread);
    let answered = async {
        let turn = gate.turns.acquire_owned().await.ok()?;
        // To its end even if the client leaves: the work goes on in any case, and only then is the turn over.
        let work = tokio::spawn(async move {
            let _held = turn;
            let response = next.run(request).await;
            until_read(response, query, &unread)
        });
        work.await.ok()
    };
    in_time(gate.timeout, answered).await
}

/// An answer that keeps its place until the client has read it, or is gone: a crowd that asks and does not
/// read would otherwise have the agent hold as many answers as there are connections.
fn until_read(response: Response, query: OwnedSemaphorePermit, unread: &Arc<Semaphore>) -> Response {
    let size = response.body().size_hint().lower() >> 10;
    let size = u32::try_from(size).unwrap_or(u32::MAX).min(UNREAD);
    let Ok(room) = Arc::clone(unread).try_acquire_many_owned(size) else {
        return busy("too many answers are being read");
    };
    response.map(|body| {
        Body::new(Held {
            body,
            _place: (query, room),
        })
    })
}

/// A body with its place.
struct Held {
    body: Body,
    _place: (OwnedSemaphorePermit, OwnedSemaphorePermit),
}

impl HttpBody for Held {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

async fn in_time(limit: Duration, answered: impl Future<Output = Option<Response>>) -> Response {
    match tokio::time::timeout(limit, answered).await {
        Ok(Some(response)) => response,
        Ok(None) => (StatusCode::INTERNAL_SERVER_ERROR, "the request failed\n").into_response(),
        Err(_) => busy("no answer within http.request_timeout"),
    }
}

fn busy(why: &str) -> Response {
    let later = [(header::RETRY_AFTER, "5")];
    (StatusCode::SERVICE_UNAVAILABLE, later, format!("busy: {why}\n")).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(kib: usize) -> Response {
        vec![0_u8; kib << 10].into_response()
    }

    #[tokio::test]
    async fn an_answer_has_its_place_until_it_is_read() {
        let (queries, unread) = (
            Arc::new(Semaphore::new(9)),
            Arc::new(Semaphore::new(UNREAD as usize)),
        );
        let query = || Arc::clone(&queries).try_acquire_owned().unwrap();
        let most = UNREAD as usize;
        let first = until_read(answer(most - 1), query(), &unread);
        let refused = until_read(answer(2), query(), &unread);
        assert_eq!(refused.status(), StatusCode::SERVICE_UNAVAILABLE);
        let small = until_read(answer(1), query(), &unread);
        assert_eq!((small.status(), queries.available_permits()), (StatusCode::OK, 7));
        let read = axum::body::to_bytes(first.into_body(), usize::MAX).await.unwrap();
        assert_eq!(read.len(), (most - 1) << 10);
        drop(small);
        assert_eq!(
            (queries.available_permits(), unread.available_permits()),
            (9, most)
        );
        let largest = until_read(answer(most + 7), query(), &unread);
        assert_eq!(largest.status(), StatusCode::OK, "there is no other");
    }
}
