//! The JSON shapes that scripts rely on: `procprobe/v1`.
//!
//! Every answer is one object: the envelope ([`Answer`]) and a payload beside it. Times are integer nanoseconds in fields
//! ending `_ns`. What is not known is `null`, never 0 or "". Adding fields is fine; renaming or removing is not.
//!
//! One module per payload; what several of them use is here.

mod locks;
mod orphans;
mod states;
mod tree;
mod zombies;

use std::collections::BTreeMap;

use serde::Serialize;

use crate::model::blocked;
use crate::model::locks::is_shared;
use crate::model::snapshot::{Losses, Snapshot};
use crate::model::thread::{Comm, OpenWait, Switches, Thread};
use crate::model::waits::class_name;
use probe_ebpf::ledger::BlockedOn;
use probe_ebpf::waiting::{CLASSES, Class};

pub use locks::{Locks, lock_id, locks};
pub use orphans::{OrphanMark, Orphans, orphans};
pub use states::{States, states};
pub use tree::{ProcessJson, ThreadJson, Tree, tree};
pub use zombies::{Zombies, zombies};

/// The version of the shapes.
pub const SCHEMA: &str = "procprobe/v1";

/// What every answer begins with.
#[derive(Debug, Serialize)]
pub struct Answer<T: Serialize> {
    schema: &'static str,
    taken_at: String,
    window_ns: u64,
    source: &'static str,
    complete: bool,
    lost: BTreeMap<&'static str, u64>,
    #[serde(flatten)]
    payload: T,
}

impl<T: Serialize> Answer<T> {
    /// Wraps a payload that was drawn from a snapshot, over a window (0 for one look).
    pub fn new(snapshot: &Snapshot, window_ns: u64, losses: &Losses, payload: T) -> Self {
        Self {
            schema: SCHEMA,
            taken_at: humantime::format_rfc3339_nanos(snapshot.taken_at).to_string(),
            window_ns,
            source: snapshot.source.name(),
            complete: losses.is_empty(),
            lost: losses.iter().collect(),
            payload,
        }
    }
}

/// What a thread is blocked in.
#[derive(Debug, Serialize)]
pub struct BlockedOnJson {
    syscall: String,
    futex: Option<FutexJson>,
}

/// A futex wait.
#[derive(Debug, Serialize)]
pub struct FutexJson {
    address: String,
    op: &'static str,
    shared: bool,
}

/// Context switches.
#[derive(Debug, Serialize)]
pub struct SwitchesJson {
    voluntary: u64,
    involuntary: u64,
}

impl From<Switches> for SwitchesJson {
    fn from(switches: Switches) -> Self {
        Self {
            voluntary: switches.voluntary,
            involuntary: switches.involuntary,
        }
    }
}

/// What a thread waits in; of a futex what a snapshot knows, which is more than the arguments say.
fn blocked_on(thread: &Thread) -> Option<BlockedOnJson> {
    let mut json = blocked_on_json(thread.blocked_on.as_ref()?)?;
    if let Some(OpenWait { wait, .. }) = &thread.futex {
        json.futex = Some(FutexJson {
            address: format!("{:#x}", wait.address),
            op: json.futex.map_or(blocked::op_name(wait.op), |futex| futex.op),
            shared: is_shared(wait),
        });
    }
    Some(json)
}

fn blocked_on_json(blocked_on: &BlockedOn) -> Option<BlockedOnJson> {
    let futex = blocked::futex(blocked_on).map(|wait| FutexJson {
        address: format!("{:#x}", wait.address),
        op: wait.op,
        shared: wait.shared,
    });
    Some(BlockedOnJson {
        syscall: blocked::syscall_name(blocked_on)?,
        futex,
    })
}

/// Blocked time by what was waited in; what did not happen is left out.
fn blocked_ns(sums: &[u64; CLASSES]) -> BTreeMap<&'static str, u64> {
    let classes = Class::ALL.into_iter().zip(sums);
    classes
        .filter(|(_, ns)| **ns > 0)
        .map(|(class, &ns)| (class_name(class), ns))
        .collect()
}

/// A process by pid and name.
#[derive(Debug, Serialize)]
pub struct Named {
    pid: u32,
    comm: Option<String>,
}

impl Named {
    /// Of a pid and what is known of its name.
    pub fn new(pid: u32, comm: Option<Comm>) -> Self {
        Self {
            pid,
            comm: comm.map(|comm| comm.to_string()),
        }
    }
}
