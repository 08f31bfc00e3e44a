//! Who has a connection, and who has to go when there are too many.
//!
//! A connection that asks for nothing is worth nothing: when a place is needed, the one goes that has been
//! idle for longest; if none is, the one that takes longest to read its answer. So nobody keeps others out by
//! holding connections, and one peer alone never has all of them.

use std::collections::BTreeMap;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::Notify;

use super::peer::Peer;

/// Places that clients on this host, of whom nobody knows who is who, leave to others.
const RESERVED: usize = 4;
/// A client that takes a piece of its answer at least this often is reading.
const READING: Duration = Duration::from_secs(1);

/// The connections of a door.
pub struct Connections {
    most: usize,
    most_of_peer: usize,
    began: Instant,
    open: Mutex<Open>,
    /// Somebody has left.
    left: Notify,
}

#[derive(Default)]
struct Open {
    next: u64,
    places: BTreeMap<u64, Arc<Place>>,
}

/// What is known of one connection.
struct Place {
    peer: Peer,
    /// When something last went over it, milliseconds since the door opened.
    active_ms: AtomicU64,
    /// A request is being answered.
    is_busy: AtomicBool,
    /// Part of an answer waits for the client to read on.
    is_writing: AtomicBool,
    /// Since when an answer is being written, as above; 0 if none is.
    answered_ms: AtomicU64,
    end: Notify,
}

/// A connection's place; given back when dropped.
pub struct Seat {
    connections: Arc<Connections>,
    number: u64,
    place: Arc<Place>,
}

impl Connections {
    /// For so many at a time, and so many of one peer.
    pub fn new(most: usize, most_of_peer: usize) -> Arc<Self> {
        Arc::new(Self {
            most,
            most_of_peer,
            began: Instant::now(),
            open: Mutex::default(),
            left: Notify::new(),
        })
    }

    /// A place for another connection, if need be that of the one that has been idle for longest; `None` if
    /// all are busy.
    pub fn admit(self: &Arc<Self>, peer: Peer) -> Option<Seat> {
        let now = self.now_ms();
        let mut open = self.open();
        let of_peer = open.places.values().filter(|place| place.peer == peer).count();
        if of_peer >= self.limit(peer) {
            open.end_oldest(now, |place| place.peer == peer)?;
        } else if open.places.len() >= self.most {
            open.end_oldest(now, |_| true)?;
        }
        let number = open.next;
        open.next += 1;
        let place = Arc::new(Place {
            peer,
            active_ms: AtomicU64::new(now),
            is_busy: AtomicBool::new(false),
            is_writing: AtomicBool::new(false),
            answered_ms: AtomicU64::new(0),
            end: Notify::new(),
        });
        open.places.insert(number, Arc::clone(&place));
        Some(Seat {
            connections: Arc::clone(self),
            number,
            place,
        })
    }

    /// Waits until all have left.
    pub async fn all_left(&self) {
        while !self.open().places.is_empty() {
            self.left.notified().await;
        }
    }

    fn limit(&self, peer: Peer) -> usize {
        let limit = match peer {
            Peer::Loopback => self.most.saturating_sub(RESERVED),
            Peer::Host(_) | Peer::User(_) => self.most_of_peer.min(self.most),
        };
        limit.max(1)
    }

    fn open(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

impl Open {
    /// Ends the connection, among some, that has been idle for longest, or else the one that has been reading
    /// for longest; `None` if all wait for their answers.
    fn end_oldest(&mut self, now: u64, among: impl Fn(&Place) -> bool) -> Option<()> {
        let places = || self.places.iter().filter(|(_, place)| among(place));
        let idle = places().filter(|(_, place)| place.is_idle(now));
        let idle = idle.min_by_key(|(_, place)| place.active_ms.load(Ordering::Relaxed));
        let slow = places().filter(|(_, place)| place.is_slow(now));
        let slow = slow.min_by_key(|(_, place)| place.answered_ms.load(Ordering::Relaxed));
        let number = *idle.or(slow)?.0;
        self.places.remove(&number)?.end.notify_one();
        Some(())
    }
}

impl Place {
    fn is_idle(&self, now: u64) -> bool {
        let quiet = now.saturating_sub(self.active_ms.load(Ordering::Relaxed));
        let is_reading = self.is_writing.load(Ordering::Relaxed) && u128::from(quiet) < READING.as_millis();
        !self.is_busy.load(Ordering::Relaxed) && !is_reading
    }
}

impl Place {
    /// Whether its client takes long to read an answer that is there.
    fn is_slow(&self, now: u64) -> bool {
        let since = self.answered_ms.load(Ordering::Relaxed);
        since != 0 && u128::from(now.saturating_sub(since)) >= READING.as_millis()
    }
}

impl Seat {
    /// Ends when somebody else needs the place.
    pub async fn needed(&self) {
        self.place.end.notified().await;
    }

    /// Busy until the returned value is dropped.
    pub fn busy(&self) -> Busy {
        self.place.is_busy.store(true, Ordering::Relaxed);
        // Whatever was asked before is read.
        self.place.answered_ms.store(0, Ordering::Relaxed);
        Busy(Arc::clone(&self.place))
    }

    /// A stream that tells when something goes over it.
    pub fn watch<S>(&self, stream: S) -> Watched<S> {
        Watched {
            stream,
            connections: Arc::clone(&self.connections),
            place: Arc::clone(&self.place),
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.connections.open().places.remove(&self.number);
        self.connections.left.notify_one();
    }
}

/// A request that is being answered.
pub struct Busy(Arc<Place>);

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.is_busy.store(false, Ordering::Relaxed);
    }
}

/// See [`Seat::watch`].
pub struct Watched<S> {
    stream: S,
    connections: Arc<Connections>,
    place: Arc<Place>,
}

impl<S> Watched<S> {
    fn note<T>(&self, outcome: &Poll<io::Result<T>>) {
        if let Poll::Ready(Ok(_)) = outcome {
            let now = self.connections.now_ms();
            self.place.active_ms.store(now, Ordering::Relaxed);
        }
    }

    fn wrote(&self, outcome: &Poll<io::Result<usize>>) {
        self.note(outcome);
        let (waits, waited) = (outcome.is_pending(), &self.place.is_writing);
        if !waited.swap(waits, Ordering::Relaxed) && waits {
            let now = self.connections.now_ms().max(1);
            let since = &self.place.answered_ms;
            let _ = since.compare_exchange(0, now, Ordering::Relaxed, Ordering::Relaxed);
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let outcome = Pin::new(&mut self.stream).poll_read(context, buffer);
        self.note(&outcome);
        outcome
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.wrote(&outcome);
        outcome
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.stream).poll_write_vectored(context, slices);
        self.wrote(&outcome);
        outcome
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_ended(seat: &Seat) -> bool {
        use std::future::Future;
        let mut needed = std::pin::pin!(seat.needed());
        let mut context = Context::from_waker(std::task::Waker::noop());
        needed.as_mut().poll(&mut context).is_ready()
    }

    fn host(last: u8) -> Peer {
        Peer::Host([10, 0, 0, last].into())
    }

    #[test]
    fn the_one_idle_for_longest_makes_room_and_a_busy_one_never_does() {
        let connections = Connections::new(3, 3);
        let seats: Vec<Seat> = (0..3)
            .map(|last| connections.admit(host(last)).unwrap())
            .collect();
        for (seat, active) in seats.iter().zip([5, 1, 3]) {
            seat.place.active_ms.store(active, Ordering::Relaxed);
        }
        let busy = seats[1].busy();
        let fourth = connections.admit(host(9)).unwrap();
        fourth.place.active_ms.store(9, Ordering::Relaxed);
        assert_eq!(
            [0, 1, 2].map(|number| is_ended(&seats[number])),
            [false, false, true]
        );
        let all = [seats[0].busy(), fourth.busy()];
        assert!(connections.admit(host(9)).is_none(), "all are busy");
        drop((busy, all));
        assert!(connections.admit(host(9)).is_some());
        assert!(is_ended(&seats[1]));
    }

    #[test]
    fn a_client_that_reads_is_not_idle_and_one_that_stopped_is() {
        let connections = Connections::new(1, 1);
        let reader = connections.admit(host(1)).unwrap();
        reader.place.is_writing.store(true, Ordering::Relaxed);
        assert!(connections.admit(host(2)).is_none());
        assert!(reader.place.is_idle(5_000), "nothing was read for seconds");
    }

    #[test]
    fn who_reads_slowly_makes_room_when_nobody_is_idle() {
        let connections = Connections::new(2, 2);
        let (slow, other) = (
            connections.admit(host(1)).unwrap(),
            connections.admit(host(2)).unwrap(),
        );
        let _busy = other.busy();
        let now = connections.now_ms();
        slow.place.is_writing.store(true, Ordering::Relaxed);
        slow.place.active_ms.store(now + 10_000, Ordering::Relaxed);
        assert!(connections.admit(host(3)).is_none(), "it just began to read");
        slow.place.answered_ms.store(1, Ordering::Relaxed);
        assert!(slow.place.is_slow(2_000) && !other.place.is_slow(2_000));
        let mut open = connections.open();
        assert!(open.end_oldest(2_000, |_| true).is_some());
        assert_eq!(open.places.len(), 1);
    }

    #[test]
    fn one_peer_alone_takes_its_own_places_only() {
        let connections = Connections::new(10, 2);
        let other = connections.admit(host(1)).unwrap();
        let seats: Vec<Seat> = (0..5).map(|_| connections.admit(host(2)).unwrap()).collect();
        assert_eq!(connections.open().places.len(), 3);
        assert!(!is_ended(&other) && !is_ended(&seats[4]) && is_ended(&seats[0]));
        let local: Vec<Seat> = (0..20)
            .map(|_| connections.admit(Peer::Loopback).unwrap())
            .collect();
        assert_eq!(connections.open().places.len(), 3 + 10 - RESERVED);
        drop((other, seats, local));
        assert_eq!(connections.open().places.len(), 0);
    }
}
