//! Connections: how many, how long, and for how long nothing may happen on one.
//!
//! A client that is slow, silent or gone costs one of the connections for a bounded time, and nothing else.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::{sleep, timeout};
use tokio_io_timeout::TimeoutStream;
use tokio_rustls::TlsAcceptor;

use super::guard::Web;
use crate::config::Limits;

/// Bytes of a request's head; more is refused.
const LONGEST_HEAD: usize = 16 << 10;
/// A connection ends after this, with the answer that is under way: somebody who reads a byte now and then is not stuck,
/// but nobody needs one for ever.
const OLDEST: Duration = Duration::from_secs(600);
/// How long open connections may take to finish at the end.
const GRACE: Duration = Duration::from_secs(2);
/// Said to those who are too many, in place of an answer.
const TOO_MANY: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\nconnection: close\r\nretry-after: 5\r\n\
content-type: text/plain\r\ncontent-length: 27\r\n\r\nbusy: too many connections\n";

/// What every connection needs.
#[derive(Clone)]
struct Server {
    router: Router,
    limits: Limits,
    web: watch::Receiver<Arc<Web>>,
    stop: watch::Receiver<bool>,
}

/// Serves until `stop` says so; then lets open connections finish, for a moment.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    limits: Limits,
    web: watch::Receiver<Arc<Web>>,
    mut stop: watch::Receiver<bool>,
) {
    let slots = Arc::new(Semaphore::new(limits.max_connections));
    let all = u32::try_from(limits.max_connections).unwrap_or(u32::MAX);
    let server = Server {
        router,
        limits,
        web,
        stop: stop.clone(),
    };
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => admit(&server, &slots, stream),
                Err(error) => pause(&error).await,
            },
            _ = stop.changed() => break,
        }
    }
    drop(listener);
    // Every slot free: every connection has ended. A client that never reads must not keep us.
    let _ = timeout(GRACE, slots.acquire_many(all)).await;
}

/// Out of descriptors or memory: that passes. An accept that fails at once would spin.
async fn pause(error: &io::Error) {
    tracing::warn!(%error, "cannot accept a connection");
    sleep(Duration::from_millis(100)).await;
}

fn admit(server: &Server, slots: &Arc<Semaphore>, stream: TcpStream) {
    if let Ok(slot) = Arc::clone(slots).try_acquire_owned() {
        tokio::spawn(connection(server.clone(), stream, slot));
        return;
    }
    tracing::info!("a connection too many");
    if server.web.borrow().tls.is_none() {
        // As much as fits: nobody waits for a client here.
        let _ = stream.try_write(TOO_MANY);
    }
}

async fn connection(server: Server, stream: TcpStream, _slot: OwnedSemaphorePermit) {
    let _ = stream.set_nodelay(true);
    let mut stream = TimeoutStream::new(stream);
    stream.set_write_timeout(Some(server.limits.write_timeout));
    let stream = Box::pin(stream);
    let tls = server.web.borrow().tls.clone();
    let Some(config) = tls else {
        return requests(server, stream).await;
    };
    let handshake = TlsAcceptor::from(config).accept(stream);
    match timeout(server.limits.header_timeout, handshake).await {
        Ok(Ok(stream)) => requests(server, stream).await,
        Ok(Err(error)) => tracing::info!(%error, "TLS handshake"),
        Err(_) => tracing::info!("TLS handshake: too slow"),
    }
}

/// Serves the requests of one connection.
async fn requests(mut server: Server, stream: impl AsyncRead + AsyncWrite + Unpin + 'static) {
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(server.limits.header_timeout)
        .max_buf_size(LONGEST_HEAD)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(server.router));
    let mut connection = std::pin::pin!(connection);
    let outcome = tokio::select! {
        outcome = connection.as_mut() => outcome,
        _ = server.stop.changed() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
        () = sleep(OLDEST) => {
            connection.as_mut().graceful_shutdown();
            match timeout(server.limits.write_timeout, connection).await {
                Ok(outcome) => outcome,
                Err(_) => return,
            }
        }
    };
    if let Err(error) = outcome {
        tracing::debug!(%error, "connection");
    }
}
