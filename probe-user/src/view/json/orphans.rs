//! Payload of `orphans`: the adopted, with the parent they lost.

use serde::{Deserialize, Serialize};

use super::{Named, Word};
use crate::model::orphans::Orphan;

/// Payload of `orphans`.
#[derive(Debug, Serialize)]
pub struct Orphans {
    pub(super) orphans: Vec<OrphanJson>,
}

#[derive(Debug, Serialize)]
pub(super) struct OrphanJson {
    pid: u32,
    comm: String,
    original_parent: Named,
    ancestry: Vec<Named>,
    adopter: AdopterJson,
    orphaned_ns: Option<u64>,
    guess: bool,
}

/// Who has an orphan now.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct AdopterJson {
    pub(crate) pid: u32,
    pub(crate) comm: Option<String>,
    kind: Word,
    reaps: Option<bool>,
    zombies: u64,
}

/// The orphans of a process tree, as `tree` shows them.
#[derive(Debug, Serialize, Deserialize)]
pub struct OrphanMark {
    pub(crate) original_parent: Named,
    pub(crate) adopter: AdopterJson,
    pub(crate) guess: bool,
}

fn adopter(orphan: &Orphan<'_>) -> AdopterJson {
    AdopterJson {
        pid: orphan.adopter_pid,
        comm: orphan.adopter_comm.map(|comm| comm.to_string()),
        kind: orphan.kind.name().into(),
        reaps: orphan.adopter_reaps,
        zombies: orphan.adopter_zombies,
    }
}

pub(super) fn orphan_mark(orphan: &Orphan<'_>) -> OrphanMark {
    OrphanMark {
        original_parent: Named::new(orphan.original_pid, orphan.original_comm),
        adopter: adopter(orphan),
        guess: orphan.guess,
    }
}

/// The orphans.
pub fn orphans(found: &[Orphan<'_>]) -> Orphans {
    let orphan = |orphan: &Orphan<'_>| OrphanJson {
        pid: orphan.thread.pid,
        comm: orphan.thread.comm.to_string(),
        original_parent: Named::new(orphan.original_pid, orphan.original_comm),
        ancestry: orphan
            .ancestry
            .iter()
            .map(|&(pid, comm)| Named::new(pid, Some(comm)))
            .collect(),
        adopter: adopter(orphan),
        orphaned_ns: orphan.orphaned_ns,
        guess: orphan.guess,
    };
    Orphans {
        orphans: found.iter().map(orphan).collect(),
    }
}
