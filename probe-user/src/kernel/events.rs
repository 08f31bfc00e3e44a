//! The event ring: births, execs and deaths as the kernel tells them.

use std::time::Duration;

use aya::maps::{MapData, RingBuf};
use probe_ebpf::record::{EVENT_EXEC, EVENT_EXIT, EVENT_FORK, EVENT_REAP, EventRecord, ExitRecord};

use super::load::{Probe, take_map};
use super::load_error::{LoadError, map_error};

/// How long to wait before looking at the ring again. The kernel side wakes nobody; 4 MiB hold some 3,500 exits; a
/// fork storm here makes 1,000 in the time.
pub const IDLE_WAIT: Duration = Duration::from_millis(100);
/// The same while much is happening.
pub const BUSY_WAIT: Duration = Duration::from_millis(10);
/// This many events at one look mean that much is happening.
pub const BUSY: usize = 256;

/// One event.
#[derive(Clone, Debug)]
pub enum RawEvent {
    /// A process or thread was born.
    Fork(EventRecord),
    /// A process runs a new program.
    Exec(EventRecord),
    /// A thread died.
    Exit(Box<ExitRecord>),
    /// A dead process was released.
    Reap(EventRecord),
}

/// The reading end. There is one.
pub struct Events {
    ring: RingBuf<MapData>,
    malformed: u64,
}

impl Probe {
    /// Takes the reading end of the ring.
    ///
    /// # Errors
    /// [`LoadError`] if it was taken before or cannot be mapped.
    pub fn take_events(&mut self) -> Result<Events, LoadError> {
        let map = take_map(&mut self.ebpf, "EVENTS")?;
        let ring = RingBuf::try_from(map).map_err(|source| map_error("EVENTS", source))?;
        Ok(Events { ring, malformed: 0 })
    }
}

impl Events {
    /// The next event, `None` if there is none now.
    fn take(&mut self) -> Option<RawEvent> {
        loop {
            let item = self.ring.next()?;
            if let Some(event) = decode(&item) {
                return Some(event);
            }
            self.malformed += 1;
        }
    }

    /// Hands every waiting event to `visit`; returns how long to wait before looking again.
    pub fn drain(&mut self, mut visit: impl FnMut(RawEvent)) -> Duration {
        let mut seen = 0;
        while let Some(event) = self.take() {
            visit(event);
            seen += 1;
        }
        if seen >= BUSY { BUSY_WAIT } else { IDLE_WAIT }
    }

    /// Records that did not follow the contract: always 0 unless there is a defect.
    pub fn malformed(&self) -> u64 {
        self.malformed
    }
}

/// One record of the ring; `None` if it does not follow the contract. Never panics, whatever the bytes are.
pub(crate) fn decode(bytes: &[u8]) -> Option<RawEvent> {
    let head: EventRecord = bytemuck::pod_read_unaligned(bytes.get(..size_of::<EventRecord>())?);
    match (head.kind, bytes.len()) {
        (EVENT_FORK, _) => Some(RawEvent::Fork(head)),
        (EVENT_EXEC, _) => Some(RawEvent::Exec(head)),
        (EVENT_REAP, _) => Some(RawEvent::Reap(head)),
        (EVENT_EXIT, length) if length >= size_of::<ExitRecord>() => Some(RawEvent::Exit(Box::new(
            bytemuck::pod_read_unaligned(&bytes[..size_of::<ExitRecord>()]),
        ))),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn never_panics_on_noise(kind in 0_u32..6, noise in proptest::collection::vec(any::<u8>(), 0..2048)) {
            let mut bytes = kind.to_ne_bytes().to_vec();
            bytes.extend(noise);
            let decoded = decode(&bytes);
            prop_assert_eq!(decoded.is_some(), match kind {
                EVENT_FORK | EVENT_EXEC | EVENT_REAP => bytes.len() >= size_of::<EventRecord>(),
                EVENT_EXIT => bytes.len() >= size_of::<ExitRecord>(),
                _ => false,
            });
        }
    }
}
