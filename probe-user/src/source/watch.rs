//! Follows the lives of processes with the kernel's help: when a parent dies, its children are asked at once who has them
//! now, since no event tells.

use std::path::Path;
use std::time::Duration;

use crate::model::event::{Event, EventKind};
use crate::model::life::{Happening, ProcessId};
use crate::model::lives::{Lives, Retention};
use crate::model::snapshot::Snapshot;

use super::proc::parent_now;
use super::reader::{self, Budget, Subject};

/// How long to wait for the answers of all children. Those that do not answer are seen in the next snapshot.
const PATIENCE: Duration = Duration::from_millis(100);

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
        let children = self.lives.children(parent).into_iter();
        let children = children.filter_map(|pid| {
            let child = self.lives.alive(pid)?.id;
            Some((Subject::of(pid, child.start_ns), ()))
        });
        let children: Vec<_> = children.collect();
        let asked = reader::shared().ask(
            &mut Budget::new(PATIENCE),
            children,
            |_, (): &mut (), child, ()| {
                let parent = parent_now(Path::new("/proc"), child.pid, child.start_ns);
                parent.map(|parent| (child.pid, parent)).into_iter().collect()
            },
        );
        let mut happened = Vec::new();
        for (pid, (ppid, comm)) in asked.answers {
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
