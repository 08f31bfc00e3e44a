//! What verbs with a window have in common: watching events until it ends, or is interrupted.

use std::ops::RangeInclusive;
use std::time::Duration;

use super::Interrupts;
use crate::kernel::events::{Events, RawEvent};
use crate::model::event::Event;
use crate::model::snapshot::Snapshot;
use crate::source::happened;

/// How a span of watching ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// Its time was over.
    InTime,
    /// By SIGINT or SIGTERM: the window ends here.
    Interrupted,
}

/// Hands every event since `from_ns` to `each` for as long as `length`, or until SIGINT or SIGTERM.
pub(super) async fn watch(
    events: &mut Events,
    interrupts: &mut Interrupts,
    length: Duration,
    from_ns: u64,
    mut each: impl FnMut(&Event),
) -> Ended {
    let end = tokio::time::sleep(length);
    tokio::pin!(end);
    loop {
        let wait = feed(events, from_ns..=u64::MAX, &mut each);
        tokio::select! {
            () = &mut end => return Ended::InTime,
            () = interrupts.arrived() => return Ended::Interrupted,
            () = tokio::time::sleep(wait) => {}
        }
    }
}

/// Hands the events of a span of time to `each`; returns how long to wait for more.
pub fn feed(events: &mut Events, span: RangeInclusive<u64>, mut each: impl FnMut(&Event)) -> Duration {
    events.drain(|raw: RawEvent| {
        let event = happened::event(&raw);
        if span.contains(&event.at_ns) {
            each(&event);
        }
    })
}

/// Refuses a window on a process that is not there.
///
/// # Errors
/// If no thread of the snapshot is of that process.
pub fn require(snapshot: &Snapshot, pid: Option<u32>) -> anyhow::Result<()> {
    match pid {
        Some(pid) if !snapshot.threads.iter().any(|thread| thread.pid == pid) => {
            anyhow::bail!("no process {pid} (it may have ended; procprobe tree shows all there are)")
        }
        _ => Ok(()),
    }
}
