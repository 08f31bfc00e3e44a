//! The JSON shapes that scripts rely on: `procprobe/v1`.
//!
//! Every answer is one object: the envelope ([`Answer`]) and a payload beside it. Times are integer nanoseconds in fields
//! ending `_ns`. What is not known is `null`, never 0 or "". Adding fields is fine; renaming or removing is not.
//!
//! One module per payload; what several of them use is here. [`redaction`] decides what of them a door does
//! not tell.

mod locks;
mod orphans;
mod redaction;
mod states;
mod tree;
mod zombies;

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::model::blocked;
use crate::model::locks::is_shared;
use crate::model::locks::memory::MemoryGap;
use crate::model::snapshot::{Losses, Snapshot};
use crate::model::thread::{Comm, OpenWait, Switches, Thread};
use crate::model::waits::class_name;
use crate::source::describe::Descriptions;
use probe_ebpf::ledger::BlockedOn;
use probe_ebpf::waiting::{CLASSES, Class};

pub use locks::{Locks, lock_id, locks};
pub use orphans::{OrphanMark, Orphans, orphans};
pub use redaction::{Disclosure, Withhold};
pub use states::{States, states};
pub use tree::{ProcessJson, ThreadJson, Tree, tree};
pub use zombies::{Zombies, zombies};

/// The version of the shapes.
pub const SCHEMA: &str = "procprobe/v1";

/// A word of a fixed set, or whatever an agent of another version said in its place.
pub type Word = Cow<'static, str>;

/// Who answered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Origin {
    /// Programs of the command's own, or /proc.
    #[default]
    Programs,
    /// A running agent.
    Agent,
}

/// What every answer begins with.
#[derive(Debug, Serialize, Deserialize)]
pub struct Answer<T> {
    pub(crate) schema: Word,
    pub(crate) taken_at: String,
    pub(crate) window_ns: u64,
    pub(crate) source: Word,
    pub(crate) complete: bool,
    pub(crate) lost: BTreeMap<Word, u64>,
    /// What the agent has lost in all its life; `null` where nothing lived before the question.
    #[serde(default)]
    pub(crate) lost_total: Option<BTreeMap<Word, u64>>,
    #[serde(default)]
    pub(crate) from: Origin,
    /// What there is and this door does not tell: see [`Disclosure`].
    #[serde(default)]
    pub(crate) withheld: Vec<Word>,
    #[serde(flatten)]
    pub(crate) payload: T,
}

impl<T> Answer<T> {
    /// Wraps a payload that was drawn from a snapshot, over a window (0 for one look). `losses` are those of
    /// this answer.
    pub fn new(snapshot: &Snapshot, window_ns: u64, losses: &Losses, payload: T) -> Self {
        Self {
            schema: SCHEMA.into(),
            taken_at: humantime::format_rfc3339_nanos(snapshot.taken_at).to_string(),
            window_ns,
            source: snapshot.source.name().into(),
            from: Origin::Programs,
            complete: losses.is_empty(),
            lost: by_reason(losses),
            lost_total: None,
            withheld: Vec::new(),
            payload,
        }
    }

    /// The same from an agent, which has lost so much since it began.
    #[must_use]
    pub fn of_agent(self, total: &Losses) -> Self {
        Self {
            from: Origin::Agent,
            lost_total: Some(by_reason(total)),
            ..self
        }
    }
}

fn by_reason(losses: &Losses) -> BTreeMap<Word, u64> {
    losses
        .iter()
        .map(|(reason, count)| (reason.into(), count))
        .collect()
}

/// What a thread is blocked in.
#[derive(Debug, Serialize, Deserialize)]
pub struct BlockedOnJson {
    pub(crate) syscall: String,
    pub(crate) futex: Option<FutexJson>,
}

/// A futex wait.
#[derive(Debug, Serialize, Deserialize)]
pub struct FutexJson {
    /// `null` where it is withheld.
    pub(crate) address: Option<String>,
    pub(crate) op: Word,
    pub(crate) shared: bool,
}

/// Context switches.
#[derive(Debug, Serialize, Deserialize)]
pub struct SwitchesJson {
    pub(crate) voluntary: u64,
    pub(crate) involuntary: u64,
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
            address: Some(format!("{:#x}", wait.address)),
            op: json
                .futex
                .map_or_else(|| blocked::op_name(wait.op).into(), |futex| futex.op),
            shared: is_shared(wait),
        });
    }
    Some(json)
}

fn blocked_on_json(blocked_on: &BlockedOn) -> Option<BlockedOnJson> {
    let futex = blocked::futex(blocked_on).map(|wait| FutexJson {
        address: Some(format!("{:#x}", wait.address)),
        op: wait.op.into(),
        shared: wait.shared,
    });
    Some(BlockedOnJson {
        syscall: blocked::syscall_name(blocked_on)?,
        futex,
    })
}

/// Blocked time by what was waited in; what did not happen is left out.
fn blocked_ns(sums: &[u64; CLASSES]) -> BTreeMap<Word, u64> {
    let classes = Class::ALL.into_iter().zip(sums);
    classes
        .filter(|(_, ns)| **ns > 0)
        .map(|(class, &ns)| (class_name(class).into(), ns))
        .collect()
}

/// A process of which something could not be read: the holders of its locks, its command line and executable
/// are not known.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct MemoryGapJson {
    pub(crate) pid: u32,
    pub(crate) comm: Option<String>,
    pub(crate) reason: Word,
}

/// Those of an answer.
fn memory_gaps(gaps: &BTreeMap<u32, (MemoryGap, Comm)>) -> Vec<MemoryGapJson> {
    let gap = |(&pid, (gap, comm)): (&u32, &(MemoryGap, Comm))| MemoryGapJson {
        pid,
        comm: Some(comm.to_string()).filter(|comm| !comm.is_empty()),
        reason: gap.name().into(),
    };
    gaps.iter().map(gap).collect()
}

/// Those of a look, and those that were met when its processes were described.
fn gaps_of(snapshot: &Snapshot, descriptions: &Descriptions) -> Vec<MemoryGapJson> {
    let mut gaps = descriptions.gaps.clone();
    gaps.extend(&snapshot.memory.gaps);
    memory_gaps(&snapshot.named(&gaps))
}

/// A process by pid and name.
#[derive(Debug, Serialize, Deserialize)]
pub struct Named {
    pub(crate) pid: u32,
    pub(crate) comm: Option<String>,
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
