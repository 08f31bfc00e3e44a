//! The lives of processes: who was born to whom, died of what, lost its parent, was reaped after how long.
//!
//! Events bring births, execs, deaths and reapings; every one of them, and every snapshot, also says who the parent is
//! now. A parent changes only when it dies (`forget_original_parent()` in kernel/exit.c), which happens before its own
//! exit event; so a changed parent is how an orphan shows, and the parent it had before is the one it lost.
//!
//! The dead are kept for a while, bounded in time and number, so that an orphan's ancestry has names.

use std::collections::VecDeque;
use std::time::Duration;

use foldhash::{HashMap, HashSet};

use super::event::{Event, EventKind, Exit};
use super::life::{AdopterKind, Death, Happening, Life, Loss, ProcessId, id_of, parent_of};
use super::snapshot::Snapshot;
use super::thread::{Comm, Condition};

/// How much of the dead is kept.
#[derive(Clone, Copy, Debug)]
pub struct Retention {
    /// For how long.
    pub time: Duration,
    /// How many.
    pub count: usize,
}

impl Default for Retention {
    fn default() -> Self {
        Self {
            time: Duration::from_secs(600),
            count: 20_000,
        }
    }
}

/// See the module.
pub struct Lives {
    retention: Retention,
    lives: HashMap<ProcessId, Life>,
    alive: HashMap<u32, ProcessId>,
    children: HashMap<ProcessId, HashSet<ProcessId>>,
    /// Those that are gone, the longest gone first, with the time of their death.
    dead: VecDeque<(u64, ProcessId)>,
}

impl Lives {
    /// Nobody known yet.
    pub fn new(retention: Retention) -> Self {
        Self {
            retention,
            lives: HashMap::default(),
            alive: HashMap::default(),
            children: HashMap::default(),
            dead: VecDeque::new(),
        }
    }

    /// A process by identity, alive or kept.
    pub fn get(&self, id: ProcessId) -> Option<&Life> {
        self.lives.get(&id)
    }

    /// A living process (a zombie included) by pid.
    pub fn alive(&self, pid: u32) -> Option<&Life> {
        self.alive.get(&pid).and_then(|id| self.lives.get(id))
    }

    /// Living processes that lost their parent while we looked.
    pub fn orphans(&self) -> impl Iterator<Item = (&Life, &Loss)> {
        self.alive.values().filter_map(|id| {
            let life = self.lives.get(id)?;
            life.death.is_none().then_some(())?;
            Some((life, life.orphan.as_ref()?))
        })
    }

    /// The living children of a process.
    pub fn children(&self, id: ProcessId) -> Vec<u32> {
        self.children
            .get(&id)
            .map(|children| children.iter().map(|id| id.pid).collect())
            .unwrap_or_default()
    }

    /// Brings everybody up to date with a snapshot: who is new, who has another parent, who is gone.
    pub fn snapshot(&mut self, snapshot: &Snapshot) -> Vec<Happening> {
        let mut happened = Vec::new();
        let mut seen = HashSet::default();
        for leader in snapshot.threads.iter().filter(|thread| thread.is_leader()) {
            let id = id_of(leader);
            seen.insert(id);
            self.meet(id, leader.comm, parent_of(leader), leader.cgroup_id);
            if let Some(life) = self.lives.get_mut(&id) {
                life.comm = leader.comm;
                life.is_namespace_init = leader.ns_tids.last() == Some(&1);
            }
            happened.extend(self.see_parent(id, parent_of(leader), snapshot.began_ns));
            if leader.condition == Condition::Zombie && leader.live_threads == 0 {
                self.die(id, lost_death(snapshot.began_ns, true));
            }
        }
        // Born since the snapshot began: not in it, and not gone either.
        let newest_ns = snapshot
            .threads
            .iter()
            .map(|thread| thread.id.start_ns)
            .max()
            .unwrap_or(0);
        let gone: Vec<ProcessId> = self
            .alive
            .values()
            .copied()
            .filter(|id| !seen.contains(id) && id.start_ns < newest_ns)
            .collect();
        for id in gone {
            self.die(id, lost_death(snapshot.began_ns, false));
            self.leave(id);
        }
        self.prune(snapshot.began_ns);
        happened
    }

    /// Takes an event into account. When it is the death of a process, its children have a new parent by now: see
    /// [`Self::children`] and [`Self::reparented`] for knowing at once instead of with the next snapshot.
    pub fn event(&mut self, event: &Event) -> Vec<Happening> {
        let id = ProcessId {
            pid: event.pid,
            start_ns: event.id.start_ns,
        };
        let is_leader = event.id.tid == event.pid;
        let parent = ProcessId {
            pid: event.ppid,
            start_ns: event.parent_start_ns,
        };
        match &event.kind {
            EventKind::Fork { .. } if is_leader => {
                self.meet(id, event.comm, parent, event.cgroup_id);
                // Its children may be orphans before the next snapshot.
                if let Some(life) = self.lives.get_mut(&id) {
                    life.is_namespace_init = event.namespace_init;
                }
                Vec::new()
            }
            EventKind::Fork { .. } => Vec::new(),
            EventKind::Exec { .. } => {
                self.meet(id, event.comm, parent, event.cgroup_id);
                if let Some(life) = self.lives.get_mut(&id) {
                    life.comm = event.comm;
                }
                self.see_parent(id, parent, event.at_ns).into_iter().collect()
            }
            EventKind::Exit(exit) => self.exited(id, parent, event, exit),
            EventKind::Reap => {
                let happened = self.reaped(id, event.at_ns);
                self.prune(event.at_ns);
                happened
            }
        }
    }

    fn exited(&mut self, id: ProcessId, parent: ProcessId, event: &Event, exit: &Exit) -> Vec<Happening> {
        let is_leader = event.id.tid == event.pid;
        if is_leader {
            self.meet(id, event.comm, parent, event.cgroup_id);
            // A process may have renamed itself since; this is the name it is remembered by.
            if let Some(life) = self.lives.get_mut(&id) {
                life.comm = event.comm;
            }
        }
        // The last thread of a process need not be its first.
        let Some(&id) = self.alive.get(&event.pid) else {
            return Vec::new();
        };
        let happened = self.see_parent(id, parent, event.at_ns);
        if exit.last {
            // Whether somebody has to wait is the first thread's to say; it may have died before.
            let zombie = if is_leader { exit.zombie } else { true };
            let death = Death {
                at_ns: event.at_ns,
                status: Some(exit.status),
                reason: Some(exit.reason()),
                killer: exit.killer,
                zombie,
            };
            self.die(id, death);
            if !zombie {
                self.leave(id);
            }
        }
        happened.into_iter().collect()
    }

    /// Says what a living process is called now: no event tells that it renamed itself.
    pub fn renamed(&mut self, pid: u32, comm: Comm) {
        if let Some(life) = self.alive.get(&pid).and_then(|id| self.lives.get_mut(id)) {
            life.comm = comm;
        }
    }

    /// Says who a living process's parent is now.
    pub fn reparented(&mut self, pid: u32, parent: ProcessId, at_ns: u64) -> Option<Happening> {
        let id = *self.alive.get(&pid)?;
        self.see_parent(id, parent, at_ns)
    }

    fn meet(&mut self, id: ProcessId, comm: Comm, parent: ProcessId, cgroup_id: u64) {
        if self.lives.contains_key(&id) {
            return;
        }
        // The pid was somebody else's: its end went unnoticed.
        if let Some(&former) = self.alive.get(&id.pid) {
            self.die(former, lost_death(0, false));
            self.leave(former);
        }
        self.alive.insert(id.pid, id);
        self.children.entry(parent).or_default().insert(id);
        self.lives.insert(
            id,
            Life {
                id,
                comm,
                parent,
                cgroup_id,
                death: None,
                orphan: None,
                children_reaped: 0,
                is_namespace_init: false,
            },
        );
    }

    /// Notes the parent a process has now; a changed one is a loss.
    fn see_parent(&mut self, id: ProcessId, parent: ProcessId, at_ns: u64) -> Option<Happening> {
        let before = self.lives.get(&id)?.parent;
        if before.pid == parent.pid || parent.pid == 0 || before.pid == 0 {
            return None;
        }
        let original_comm = self.lives.get(&before).map(|life| life.comm).unwrap_or_default();
        let kind = self.adopter_kind(parent);
        let life = self.lives.get_mut(&id)?;
        let (original, original_comm) = match &life.orphan {
            Some(loss) => (loss.original, loss.original_comm),
            None => (before, original_comm),
        };
        let loss = Loss {
            original,
            original_comm,
            adopter: parent,
            kind,
            at_ns,
        };
        life.orphan = Some(loss);
        life.parent = parent;
        let comm = life.comm;
        if let Some(siblings) = self.children.get_mut(&before) {
            siblings.remove(&id);
        }
        self.children.entry(parent).or_default().insert(id);
        Some(Happening::Orphaned { id, comm, loss })
    }

    fn adopter_kind(&self, adopter: ProcessId) -> AdopterKind {
        match self.alive(adopter.pid) {
            _ if adopter.pid == 1 => AdopterKind::Init,
            Some(life) if life.is_namespace_init => AdopterKind::PidnsInit,
            _ => AdopterKind::Subreaper,
        }
    }

    fn die(&mut self, id: ProcessId, death: Death) {
        if let Some(life) = self.lives.get_mut(&id)
            && life.death.is_none()
        {
            life.death = Some(death);
        }
    }

    fn reaped(&mut self, id: ProcessId, at_ns: u64) -> Vec<Happening> {
        let Some(life) = self.lives.get(&id) else {
            return Vec::new();
        };
        let (parent, comm) = (life.parent, life.comm);
        let delay_ns = life
            .death
            .as_ref()
            .filter(|death| death.zombie && death.status.is_some())
            .map(|death| at_ns.saturating_sub(death.at_ns));
        self.die(id, lost_death(at_ns, true));
        self.leave(id);
        if let Some(parent) = self.lives.get_mut(&parent) {
            parent.children_reaped += 1;
        }
        delay_ns
            .map(|delay_ns| Happening::Reaped {
                id,
                comm,
                parent,
                delay_ns,
                at_ns,
            })
            .into_iter()
            .collect()
    }

    /// Takes a process out of the living; its record stays for the ancestry.
    fn leave(&mut self, id: ProcessId) {
        if self.alive.get(&id.pid) == Some(&id) {
            self.alive.remove(&id.pid);
            let at_ns = self
                .lives
                .get(&id)
                .and_then(|life| life.death.as_ref())
                .map_or(0, |death| death.at_ns);
            self.dead.push_back((at_ns, id));
        }
        if let Some(parent) = self.lives.get(&id).map(|life| life.parent)
            && let Some(siblings) = self.children.get_mut(&parent)
        {
            siblings.remove(&id);
            if siblings.is_empty() {
                self.children.remove(&parent);
            }
        }
    }

    /// Forgets the dead that are too old or too many. Zombies are not among them: they are still there.
    fn prune(&mut self, now_ns: u64) {
        let keep_ns = u64::try_from(self.retention.time.as_nanos()).unwrap_or(u64::MAX);
        while let Some(&(at_ns, id)) = self.dead.front() {
            let too_old = at_ns.saturating_add(keep_ns) < now_ns;
            if !too_old && self.dead.len() <= self.retention.count {
                break;
            }
            self.dead.pop_front();
            self.lives.remove(&id);
            self.children.remove(&id);
        }
    }
}

/// A death that no event told of.
fn lost_death(at_ns: u64, zombie: bool) -> Death {
    Death {
        at_ns,
        status: None,
        reason: None,
        killer: None,
        zombie,
    }
}

#[cfg(test)]
#[path = "lives_tests.rs"]
mod tests;
