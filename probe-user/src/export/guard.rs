//! What stands before the routes: passwords, the size of requests, and turns for those that look at every thread.
//!
//! `/healthz` never waits for a turn, so it says whether the agent is there however busy it is.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::HttpBody;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use rustls::ServerConfig;
use tokio::sync::{Semaphore, watch};

use super::auth::Users;
use super::tls;
use crate::config::Limits;
use crate::config::complaint::Complaint;
use crate::config::web::{ClientAuth, WebConfig};

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
    /// Reads certificates and prepares passwords. The path is for complaints.
    ///
    /// # Errors
    /// A [`Complaint`] about the file that is wrong; the system's errors.
    pub fn new(path: &std::path::Path, config: WebConfig) -> anyhow::Result<Arc<Self>> {
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
            users: Users::new(config.basic_auth_users)?,
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

/// What requests have to pass.
#[derive(Clone)]
struct Gate {
    web: watch::Receiver<Arc<Web>>,
    scrapes: Arc<Semaphore>,
    windows: Arc<Semaphore>,
    timeout: Duration,
}

/// Puts the gate before the routes.
pub fn guarded(router: Router, limits: &Limits, web: watch::Receiver<Arc<Web>>) -> Router {
    let gate = Gate {
        web,
        scrapes: Arc::new(Semaphore::new(limits.max_scrapes)),
        windows: Arc::new(Semaphore::new(MAX_WINDOWS)),
        timeout: limits.request_timeout,
    };
    router
        .layer(from_fn_with_state(gate.clone(), take_turn))
        .layer(from_fn_with_state(gate, admit))
}

/// Nobody sees anything without a password, if there are any; not even which paths there are.
async fn admit(State(gate): State<Gate>, request: Request, next: Next) -> Response {
    let web = gate.web.borrow().clone();
    let header = request.headers().get(header::AUTHORIZATION);
    let mut response = if !web.users.admit(header).await {
        let ask = [(header::WWW_AUTHENTICATE, "Basic realm=\"procprobe\"")];
        (StatusCode::UNAUTHORIZED, ask, "Unauthorized\n").into_response()
    } else if request
        .body()
        .size_hint()
        .upper()
        .is_none_or(|size| size > LONGEST_BODY)
    {
        (StatusCode::PAYLOAD_TOO_LARGE, "no request needs a body\n").into_response()
    } else {
        next.run(request).await
    };
    response.headers_mut().extend(web.headers.clone());
    response
}

/// At most so many at a time look at every thread. The others wait, but not for ever.
async fn take_turn(State(gate): State<Gate>, request: Request, next: Next) -> Response {
    let path = request.uri().path();
    if WINDOWS.contains(&path) {
        let Ok(_turn) = gate.windows.try_acquire() else {
            return busy("too many windows are open");
        };
        return next.run(request).await;
    }
    if path != "/metrics" && path != "/readyz" && !path.starts_with("/api/") {
        return next.run(request).await;
    }
    let answered = async {
        let turn = gate.scrapes.acquire_owned().await.ok()?;
        // To its end even if the client leaves: the work goes on in any case, and only then is the turn over.
        let work = tokio::spawn(async move {
            let _turn = turn;
            next.run(request).await
        });
        work.await.ok()
    };
    match tokio::time::timeout(gate.timeout, answered).await {
        Ok(Some(response)) => response,
        Ok(None) => (StatusCode::INTERNAL_SERVER_ERROR, "the request failed\n").into_response(),
        Err(_) => busy("no answer within http.request_timeout"),
    }
}

fn busy(why: &str) -> Response {
    let later = [(header::RETRY_AFTER, "5")];
    (StatusCode::SERVICE_UNAVAILABLE, later, format!("busy: {why}\n")).into_response()
}
