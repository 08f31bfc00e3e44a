//! Reading what may never answer: `/proc/PID/maps`, `cmdline` and `mem` take the process's `mmap_lock`, and when a thread in
//! uninterruptible sleep holds that, the reader sleeps too. So it is done by a thread of its own, and after a deadline we
//! go on without what is missing.

use std::collections::HashSet;
use std::sync::mpsc::{self, Sender};
use std::time::{Duration, Instant};

use probe_ebpf::state::State;

use crate::model::snapshot::Snapshot;
use crate::model::thread::Condition;

/// Runs `work`, which sends what it finds; returns what came in time. Work that is stuck is left behind.
pub fn within<T: Send + 'static>(
    name: &str,
    limit: Duration,
    work: impl FnOnce(&Sender<T>) + Send + 'static,
) -> Vec<T> {
    let (sender, receiver) = mpsc::channel();
    let worker = std::thread::Builder::new()
        .name(name.to_owned())
        .spawn(move || work(&sender));
    let mut found = Vec::new();
    if worker.is_err() {
        return found;
    }
    let deadline = Instant::now() + limit;
    // Ends when the worker is done and has dropped its end, or at the deadline.
    while let Ok(item) = receiver.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
        found.push(item);
    }
    found
}

/// Waiting for a disk for less than this is nothing special.
const LONG_NS: u64 = 1_000_000_000;

/// Processes with a thread that has long been in uninterruptible sleep, and those whose memory could not be
/// read: better not asked at all.
pub fn stuck(snapshot: &Snapshot) -> HashSet<u32> {
    let threads = snapshot.threads.iter();
    let long = |ns: Option<u64>| ns.is_none_or(|ns| ns >= LONG_NS);
    threads
        .filter(|thread| {
            thread.condition == Condition::Alive(State::Uninterruptible) && long(thread.condition_ns)
        })
        .map(|thread| thread.pid)
        .chain(snapshot.memory.gaps.keys().copied())
        .collect()
}
