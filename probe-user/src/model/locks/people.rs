//! Which thread a tid means: in the initial pid namespace, or as it stands in another process's memory.

use std::cell::OnceCell;

use foldhash::{HashMap, HashSet};

use super::Party;
use crate::model::event::Event;
use crate::model::snapshot::Snapshot;
use crate::model::thread::{Condition, Thread};

/// Threads that have ended since, by tid; bounded.
const REMEMBERED: usize = 65_536;

/// The threads of a moment.
pub struct People<'a> {
    snapshot: &'a Snapshot,
    /// Made when somebody is looked for: mostly nobody waits at a lock.
    tables: OnceCell<Tables<'a>>,
}

#[derive(Default)]
struct Tables<'a> {
    by_tid: HashMap<u32, &'a Thread>,
    /// By pid namespace and tid in it.
    by_inner: HashMap<(u64, u32), &'a Thread>,
    inner: HashSet<u32>,
}

/// What an owner word says.
#[derive(Clone, Copy, Debug)]
pub enum Owner<'a> {
    /// A thread that is there.
    Alive(&'a Thread),
    /// A tid (of the waiter's pid namespace) that no thread has.
    Gone(u32),
    /// A tid that some thread has, but not one that could be meant: of another pid namespace, of another process.
    Unclear,
}

impl<'a> People<'a> {
    /// Everybody in a snapshot who has not ended.
    pub fn new(snapshot: &'a Snapshot) -> Self {
        Self {
            snapshot,
            tables: OnceCell::new(),
        }
    }

    fn tables(&self) -> &Tables<'a> {
        self.tables.get_or_init(|| Tables::of(self.snapshot))
    }

    /// The thread of a tid in the initial pid namespace.
    pub fn get(&self, tid: u32) -> Option<&'a Thread> {
        self.tables().by_tid.get(&tid).copied()
    }

    /// Whom a tid in `waiter`'s memory means. A lock of one address space is held by a thread of that space alone; one of
    /// several processes by any thread of the pid namespace.
    pub fn owner(&self, waiter: &Thread, tid: u32, shared: bool) -> Owner<'a> {
        let tables = self.tables();
        match tables.by_inner.get(&(waiter.pid_namespace, tid)) {
            Some(owner) if shared || owner.space == waiter.space => Owner::Alive(owner),
            // The holder may live in a pid namespace of its own, and share the lock.
            None if shared && tables.inner.contains(&tid) => Owner::Unclear,
            Some(_) if shared => Owner::Unclear,
            _ => Owner::Gone(tid),
        }
    }
}

impl<'a> Tables<'a> {
    fn of(snapshot: &'a Snapshot) -> Self {
        let mut tables = Self::default();
        let alive = |thread: &&Thread| matches!(thread.condition, Condition::Alive(_)) && !thread.kernel;
        for thread in snapshot.threads.iter().filter(alive) {
            let inner = thread.inner_tid();
            tables.by_tid.insert(thread.id.tid, thread);
            tables.by_inner.insert((thread.pid_namespace, inner), thread);
            tables.inner.insert(inner);
        }
        tables
    }
}

/// Names of threads that were seen, for those that have ended.
#[derive(Default)]
pub struct Names {
    known: HashMap<u32, Party>,
}

impl Names {
    /// Takes in everybody of a snapshot.
    pub fn learn(&mut self, snapshot: &Snapshot) {
        if self.known.len() > REMEMBERED {
            self.known.clear();
        }
        for thread in snapshot.threads.iter().filter(|thread| !thread.kernel) {
            self.known.insert(thread.id.tid, Party::of(thread));
        }
    }

    /// Takes in whom an event is about.
    pub fn event(&mut self, event: &Event) {
        let party = Party {
            pid: event.pid,
            tid: event.id.tid,
            comm: event.comm,
        };
        if self.known.len() <= REMEMBERED {
            self.known.insert(event.id.tid, party);
        }
    }

    /// Who had a tid last.
    pub fn get(&self, tid: u32) -> Option<Party> {
        self.known.get(&tid).copied()
    }
}
