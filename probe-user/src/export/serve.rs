//! Connections: for how long, and for how long nothing may happen on one.
//!
//! A client that is slow, silent or gone costs one of the connections for a bounded time, and nothing else.
//! Who has to go when there are too many is [`super::connections`]' business.

use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use tokio_io_timeout::TimeoutStream;
use tokio_rustls::TlsAcceptor;
use tower::ServiceExt;

use super::connections::{Connections, Seat};
use super::guard::{Rules, Way, guarded};
use super::peer::{Caller, Peer, Trusted};
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
/// Said to those whom the socket is not for.
const NOT_FOR_YOU: &[u8] = b"HTTP/1.1 403 Forbidden\r\nconnection: close\r\ncontent-type: text/plain\r\n\
content-length: 54\r\n\r\nfor root and members of the group of this socket only\n";

/// What every connection of a door needs.
#[derive(Clone)]
pub struct Server {
    router: Router,
    limits: Limits,
    rules: Rules,
    stop: watch::Receiver<bool>,
    connections: Arc<Connections>,
}

impl Server {
    /// Serves the routes, behind a gate of its own, until `stop` says so.
    pub fn new(router: Router, limits: &Limits, rules: Rules, stop: watch::Receiver<bool>) -> Self {
        Self {
            router: guarded(router, limits, rules.clone()),
            connections: Connections::new(limits.max_connections, limits.max_connections_per_peer),
            limits: limits.clone(),
            rules,
            stop,
        }
    }

    /// Serves at an address; then lets open connections finish, for a moment.
    pub async fn serve_tcp(mut self, listener: TcpListener) {
        loop {
            tokio::select! {
                accepted = listener.accept() => match accepted {
                    Ok((stream, address)) => {
                        heard().await;
                        self.admit_tcp(stream, Peer::of(address));
                    }
                    Err(error) => pause(&error).await,
                },
                _ = self.stop.changed() => break,
            }
        }
        drop(listener);
        // A client that never reads must not keep us.
        let _ = timeout(GRACE, self.connections.all_left()).await;
    }

    /// Serves at a socket, for whom it is meant.
    pub async fn serve_unix(mut self, listener: UnixListener, trusted: Trusted) {
        loop {
            tokio::select! {
                accepted = listener.accept() => match accepted {
                    Ok((stream, _)) => {
                        heard().await;
                        self.admit_unix(stream, trusted);
                    }
                    Err(error) => pause(&error).await,
                },
                _ = self.stop.changed() => break,
            }
        }
        drop(listener);
        let _ = timeout(GRACE, self.connections.all_left()).await;
    }

    fn admit_tcp(&self, stream: TcpStream, peer: Peer) {
        if let Some(seat) = self.connections.admit(peer) {
            tokio::spawn(self.clone().tcp(stream, seat));
            return;
        }
        tracing::info!("a connection too many");
        if self.rules.web.borrow().tls.is_none() {
            // As much as fits: nobody waits for a client here.
            let _ = stream.try_write(TOO_MANY);
        }
    }

    fn admit_unix(&self, stream: UnixStream, trusted: Trusted) {
        match Caller::of(&stream) {
            Ok(caller) if caller.is_trusted(trusted) => {
                if let Some(seat) = self.connections.admit(Peer::User(caller.uid)) {
                    tokio::spawn(self.clone().unix(stream, seat));
                } else {
                    let _ = stream.try_write(TOO_MANY);
                }
            }
            Ok(caller) => {
                tracing::info!(caller.uid, "refused at the socket");
                refuse(stream);
            }
            Err(error) => {
                tracing::warn!(%error, "the kernel does not say who is at the socket");
                refuse(stream);
            }
        }
    }

    async fn tcp(self, stream: TcpStream, seat: Seat) {
        let _ = stream.set_nodelay(true);
        let is_loopback = stream
            .local_addr()
            .is_ok_and(|address| address.ip().to_canonical().is_loopback());
        let tls = self.rules.web.borrow().tls.clone();
        let way = Way::Tcp {
            plain_loopback: is_loopback && tls.is_none(),
        };
        let stream = self.bounded(seat.watch(stream));
        let Some(config) = tls else {
            return self.requests(stream, &seat, way).await;
        };
        let handshake = TlsAcceptor::from(config).accept(stream);
        let shaken = tokio::select! {
            shaken = timeout(self.limits.header_timeout, handshake) => shaken,
            () = seat.needed() => return,
        };
        match shaken {
            Ok(Ok(stream)) => self.requests(stream, &seat, way).await,
            Ok(Err(error)) => tracing::info!(%error, "TLS handshake"),
            Err(_) => tracing::info!("TLS handshake: too slow"),
        }
    }

    async fn unix(self, stream: UnixStream, seat: Seat) {
        let stream = self.bounded(seat.watch(stream));
        self.requests(stream, &seat, Way::Socket).await;
    }

    /// A stream that ends when its client does not read on.
    fn bounded<S: AsyncRead + AsyncWrite>(&self, stream: S) -> std::pin::Pin<Box<TimeoutStream<S>>> {
        let mut stream = TimeoutStream::new(stream);
        stream.set_write_timeout(Some(self.limits.write_timeout));
        Box::pin(stream)
    }

    /// Serves the requests of one connection.
    async fn requests(
        mut self,
        stream: impl AsyncRead + AsyncWrite + Unpin + 'static,
        seat: &Seat,
        way: Way,
    ) {
        let router = self.router;
        let service = service_fn(|mut request: hyper::Request<Incoming>| {
            let busy = seat.busy();
            request.extensions_mut().insert(way);
            let answer = router.clone().oneshot(request.map(Body::new));
            async move {
                let answer = answer.await;
                drop(busy);
                Ok::<_, Infallible>(answer.unwrap_or_else(|never| match never {}))
            }
        });
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(self.limits.header_timeout)
            .max_buf_size(LONGEST_HEAD)
            .serve_connection(TokioIo::new(stream), service);
        let mut connection = std::pin::pin!(connection);
        let outcome = tokio::select! {
            outcome = connection.as_mut() => outcome,
            () = seat.needed() => return tracing::info!("an idle connection made room for another"),
            _ = self.stop.changed() => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
            () = sleep(OLDEST) => {
                connection.as_mut().graceful_shutdown();
                match timeout(self.limits.write_timeout, connection).await {
                    Ok(outcome) => outcome,
                    Err(_) => return,
                }
            }
        };
        if let Err(error) = outcome {
            tracing::debug!(%error, "connection");
        }
    }
}

/// Says why, once the request is there or after a moment: an answer to what was not asked yet, clients take
/// for a mistake.
fn refuse(stream: UnixStream) {
    const MOMENT: Duration = Duration::from_millis(200);
    tokio::spawn(async move {
        let _ = timeout(MOMENT, asked(&stream)).await;
        let _ = stream.try_write(NOT_FOR_YOU);
        // Closed with the request unread, the answer would be lost to a reset: the client gets a moment to
        // read.
        sleep(MOMENT).await;
        drop(stream);
    });
}

/// Waits until a client has sent something, or has gone. It is read to know: `readable()` alone may return
/// before.
async fn asked(stream: &UnixStream) {
    while stream.readable().await.is_ok() {
        match stream.try_read(&mut [0; 1 << 10]) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            _ => return,
        }
    }
}

/// Lets the connections that came before have their turn: those of a burst, whose requests nobody has read
/// yet, would look idle, and lose their places to the next of it.
async fn heard() {
    tokio::task::yield_now().await;
}

/// Out of descriptors or memory: that passes. An accept that fails at once would spin.
async fn pause(error: &io::Error) {
    tracing::warn!(%error, "cannot accept a connection");
    sleep(Duration::from_millis(100)).await;
}
