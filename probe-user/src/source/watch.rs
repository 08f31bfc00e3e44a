//! Follows the lives of processes with the kernel's help: when a parent dies, its children are asked at once who has them
//! now, since no event tells.

use std::path::Path;

use crate::model::event::{Event, EventKind};
use crate::model::life::{Happening, ProcessId};
use crate::model::lives::{Lives, Retention};
use crate::model::snapshot::Snapshot;

use super::proc::parent_now;

/// [`Lives`], kept current.
pub struct Watch {
    lives: Lives,
}

impl Watch {
    /// Begins with who is there.
    pub fn begin(snapshot: &Snapshot, retention: Retention) -> Self {
        let mut lives = Lives::new(retention);
        lives.snapshot(snapshot);
        Self { lives }
    }

    /// Everybody known.
    pub fn lives(&self) -> &Lives {
        &self.lives
    }

    /// Brings everybody up to date with a snapshot.
    pub fn snapshot(&mut self, snapshot: &Snapshot) -> Vec<Happening> {
        self.lives.snapshot(snapshot)
    }

    /// Takes an event into account.
    pub fn event(&mut self, event: &Event) -> Vec<Happening> {
        let parent = match &event.kind {
            EventKind::Exit(exit) if exit.last => self.lives.alive(event.pid).map(|life| life.id),
            _ => None,
        };
        let mut happened = self.lives.event(event);
        if let Some(parent) = parent {
            happened.extend(self.ask_children(parent, event.at_ns));
        }
        happened
    }

    /// Who has the children of a process that just died?
    fn ask_children(&mut self, parent: ProcessId, at_ns: u64) -> Vec<Happening> {
        let mut happened = Vec::new();
        for pid in self.lives.children(parent) {
            let Some(child) = self.lives.alive(pid).map(|life| life.id) else {
                continue;
            };
            let Some((ppid, comm)) = parent_now(Path::new("/proc"), pid, child.start_ns) else {
                continue;
            };
            self.lives.renamed(pid, comm);
            let start_ns = self.lives.alive(ppid).map_or(0, |life| life.id.start_ns);
            happened.extend(
                self.lives
                    .reparented(pid, ProcessId { pid: ppid, start_ns }, at_ns),
            );
        }
        happened
    }
}
