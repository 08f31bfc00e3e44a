//! Which thread a tid means: in the initial pid namespace, or as it stands in memory that some thread wrote.

use std::cell::OnceCell;

use foldhash::HashMap;
use probe_ebpf::lock::LockKey;
use probe_ebpf::waiting::op;

use super::protocol::{self, Protocol, Wait, musl};
use super::{LockId, Party, key_of};
use crate::model::event::Event;
use crate::model::snapshot::Snapshot;
use crate::model::thread::{Condition, OpenWait, Thread};

/// Threads that have ended since, by tid; bounded.
const REMEMBERED: usize = 65_536;

/// The threads of a moment.
pub struct ThreadIndex<'a> {
    snapshot: &'a Snapshot,
    /// Made when a thread is looked for: mostly none waits at a lock.
    tables: OnceCell<Tables<'a>>,
}

#[derive(Default)]
struct Tables<'a> {
    by_tid: HashMap<u32, &'a Thread>,
    /// By tid in the thread's own pid namespace: one for each namespace that has it.
    by_inner: HashMap<u32, Vec<&'a Thread>>,
    /// By address space and the word that the kernel clears at the thread's end.
    /// `None` if several threads have the same: all of musl's clear the lock of its list of threads.
    by_clear_tid: HashMap<(u64, u64), Option<&'a Thread>>,
    /// Processes by their address space; `None` if several share it.
    by_space: HashMap<u64, Option<u32>>,
}

/// What an owner word says.
#[derive(Clone, Copy, Debug)]
pub enum Owner<'a> {
    /// A living thread that could have written it.
    Live(&'a Thread),
    /// A thread of the process that this one was forked from: it held the lock at that moment, and neither it
    /// nor its copy is here to release it.
    Parent(&'a Thread),
    /// A tid that no living thread has that could have written it; `None` if memory says that the owner has
    /// ended, but not who it was.
    Exited(Option<u32>),
    /// A tid that several threads may mean, or of which too little is known.
    Ambiguous,
}

/// For whom an open wait is, proved by memory and by the kernel.
#[derive(Clone, Copy, Debug)]
pub struct Target<'a> {
    /// Who.
    pub owner: Owner<'a>,
    /// Whether the wait is for the thread's end, not for a lock.
    pub joins: bool,
}

impl<'a> ThreadIndex<'a> {
    /// All threads of a snapshot that have not ended.
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

    /// Living threads that have a tid in their own pid namespaces.
    pub fn named(&self, tid: u32) -> &[&'a Thread] {
        self.tables().by_inner.get(&tid).map_or(&[], Vec::as_slice)
    }

    /// The thread whose end a wait is for: one that clears the word where it waits, or (musl) whose tid
    /// stands before it.
    pub fn joined(&self, thread: &Thread, open: &OpenWait) -> Option<&'a Thread> {
        let tables = self.tables();
        let cleared = tables.by_clear_tid.get(&(thread.space, open.wait.address));
        if let Some(&Some(joined)) = cleared {
            return Some(joined);
        }
        let tid = musl::joined_tid(wait_of(thread, open))?;
        let threads = tables.by_inner.get(&tid)?.iter();
        let mut own = threads.filter(|other| other.space == thread.space && other.id != thread.id);
        own.next().copied()
    }

    /// For whom an open wait is, as memory says now; `None` if it does not.
    ///
    /// Without memory (kernels before 5.18) only joins are known: the word as the wait began may long be
    /// another's.
    pub fn target(&self, thread: &Thread, open: &OpenWait) -> Option<Target<'a>> {
        if let Some(joined) = self.joined(thread, open) {
            return Some(Target {
                owner: Owner::Live(joined),
                joins: true,
            });
        }
        let lock = |owner| Some(Target { owner, joins: false });
        let wait = wait_of(thread, open);
        if protocol::is_endless(wait) {
            return lock(self.refused_by(thread, open)?);
        }
        open.live.as_ref()?;
        let found = protocol::identify(wait);
        if found.abandoned {
            return lock(Owner::Exited(None));
        }
        let owner = self.owner(thread, key_of(thread, open), found.owner?, self.began_ns(open));
        match owner {
            Owner::Live(other) if other.id == thread.id && !found.can_own_itself => None,
            owner => lock(owner),
        }
    }

    /// The owner of the mutex that the kernel refused to let a thread wait for (`EDEADLK`).
    ///
    /// The kernel refuses what would close a circle: of the mutexes that the stack points to, the one whose
    /// owner waits in turn for a mutex of this thread; or, if nobody waited for one of those by then, that
    /// which the thread has itself. What could be either proves nothing.
    fn refused_by(&self, thread: &Thread, open: &OpenWait) -> Option<Owner<'a>> {
        let found = self.snapshot.memory.endless.get(&thread.id)?;
        let owners = found
            .iter()
            .map(|(_, tid)| self.owner(thread, key_of(thread, open), *tid, self.began_ns(open)));
        let (own, others): (Vec<_>, Vec<_>) =
            owners.partition(|owner| matches!(owner, Owner::Live(other) if other.id == thread.id));
        let waits_for_us = |other: &Thread| {
            let wait = other.futex.as_ref();
            let wait = wait.filter(|wait| wait.wait.op == op::LOCK_PI && wait.age_ns >= open.age_ns);
            let tid = wait.and_then(|wait| protocol_of(other, wait).owner);
            tid == Some(thread.inner_tid())
        };
        let threads = self.tables().by_tid.values();
        let wanted = threads
            .filter(|other| other.space == thread.space)
            .any(|other| waits_for_us(other));
        match (wanted, own.as_slice(), others.as_slice()) {
            (false, [one], _) => Some(*one),
            (true, [], _) => {
                let closes = |owner: &&Owner<'a>| matches!(owner, Owner::Live(other) if waits_for_us(other));
                let mut circle = others.iter().filter(closes);
                circle.next().filter(|_| circle.next().is_none()).copied()
            }
            _ => None,
        }
    }

    /// Which thread a tid in the memory of a lock means.
    ///
    /// It could have written it if it shares the waiter's address space, or maps the same byte of a file. It
    /// is in the pid namespace of the thread that wrote it, not in the waiter's. And it was there when the
    /// wait began, `began_ns` in CLOCK_BOOTTIME, if that is known: tids are given again, in small pid
    /// namespaces soon.
    pub fn owner(&self, waiter: &Thread, lock: LockKey, tid: u32, began_ns: u64) -> Owner<'a> {
        let named = self.named(tid).iter().copied();
        let named: Vec<&'a Thread> = named.filter(|other| other.id.start_ns <= began_ns).collect();
        let memory = &self.snapshot.memory;
        if let Some(Some(lock)) = memory.place(&lock) {
            return self.owner_of_shared(waiter, &named, tid, lock);
        }
        // A process made by a bare `clone(CLONE_VM)` takes locks in its maker's name: its C library knows no
        // other.
        if self.tables().by_space.get(&waiter.space) == Some(&None) {
            return Owner::Ambiguous;
        }
        let own =
            |other: &&&Thread| other.space == waiter.space && other.pid_namespace == waiter.pid_namespace;
        if let Some(owner) = named.iter().find(own) {
            return Owner::Live(owner);
        }
        let known_private = memory.place(&lock) == Some(None);
        if !known_private || self.may_be_held_by_a_copy(waiter, lock) {
            return Owner::Ambiguous;
        }
        let mut alive = named
            .iter()
            .filter(|other| other.pid_namespace == waiter.pid_namespace);
        match alive.next() {
            None => Owner::Exited(Some(tid)),
            Some(other) if is_forked_from(waiter, other) => Owner::Parent(other),
            Some(_) => Owner::Ambiguous,
        }
    }

    /// Whether the first thread of the waiter's process may have the lock, though another tid stands in it:
    /// it goes on where a thread of the parent was when that forked, with all the locks that one had.
    fn may_be_held_by_a_copy(&self, waiter: &Thread, lock: LockKey) -> bool {
        let waits = |thread: &Thread| {
            let open = thread.futex.as_ref();
            open.is_some_and(|open| key_of(thread, open) == lock)
        };
        let first = self.get(waiter.pid);
        waiter.executed != Some(true) && first.is_some_and(|first| !waits(first))
    }

    /// Who has the tid and maps the memory. A thread that does not map it may have unmapped it, by
    /// `munmap()` or `exec()`, with the lock held: only if nobody at all has the tid, its owner has ended.
    ///
    /// The waiter itself cannot be told from one of an earlier pid namespace that ended with the lock held: a
    /// restarted container has the same small tids.
    fn owner_of_shared(&self, waiter: &Thread, named: &[&'a Thread], tid: u32, lock: LockId) -> Owner<'a> {
        let memory = &self.snapshot.memory;
        let maps = |thread: &&Thread| memory.maps(thread.pid, lock);
        if named.is_empty() {
            return Owner::Exited(Some(tid));
        }
        if named.iter().any(|thread| maps(thread).is_none()) {
            return Owner::Ambiguous;
        }
        let mut able = named.iter().filter(|thread| maps(thread) == Some(true));
        let nested = !waiter.ns_tids.is_empty();
        match (able.next(), able.next()) {
            (Some(owner), None) if !(nested && owner.id == waiter.id) => Owner::Live(owner),
            _ => Owner::Ambiguous,
        }
    }

    /// When an open wait began, at the latest: CLOCK_BOOTTIME, which does not stand still while a machine
    /// sleeps, as the age does. If that makes no sense, at any time.
    fn began_ns(&self, open: &OpenWait) -> u64 {
        let began = self.snapshot.boottime_ns.checked_sub(open.age_ns);
        began.unwrap_or(u64::MAX)
    }
}

/// Whether a thread is of the parent process of `child`, and older than the fork.
fn is_forked_from(child: &Thread, thread: &Thread) -> bool {
    thread.pid == child.ppid && thread.id.start_ns <= child.id.start_ns
}

/// An open wait with all that is known of it.
pub fn wait_of<'w>(thread: &Thread, open: &'w OpenWait) -> Wait<'w> {
    Wait {
        call: &open.wait,
        site: &open.site,
        memory: open.live.as_deref(),
        sp: thread.sp,
    }
}

/// What the futex of an open wait is.
pub fn protocol_of(thread: &Thread, open: &OpenWait) -> Protocol {
    protocol::identify(wait_of(thread, open))
}

impl<'a> Tables<'a> {
    fn of(snapshot: &'a Snapshot) -> Self {
        let mut tables = Self::default();
        let alive = |thread: &&Thread| matches!(thread.condition, Condition::Alive(_)) && !thread.kernel;
        for thread in snapshot.threads.iter().filter(alive) {
            tables.by_tid.insert(thread.id.tid, thread);
            tables
                .by_inner
                .entry(thread.inner_tid())
                .or_default()
                .push(thread);
            if thread.clear_child_tid != 0 {
                let word = (thread.space, thread.clear_child_tid);
                let same = tables.by_clear_tid.entry(word).or_insert(Some(thread));
                *same = same.filter(|first| first.id == thread.id);
            }
            if thread.space != 0 {
                let only = tables.by_space.entry(thread.space).or_insert(Some(thread.pid));
                *only = only.filter(|&pid| pid == thread.pid);
            }
        }
        tables
    }
}

/// Names of threads that were seen, for those that have ended.
#[derive(Default)]
pub struct NameCache {
    known: HashMap<u32, Party>,
}

impl NameCache {
    /// Takes in all threads of a snapshot.
    pub fn learn(&mut self, snapshot: &Snapshot) {
        if self.known.len() > REMEMBERED {
            self.known.clear();
        }
        for thread in snapshot.threads.iter().filter(|thread| !thread.kernel) {
            self.known.insert(thread.id.tid, Party::of(thread));
        }
    }

    /// Takes in the thread of an event.
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

    /// The thread that had a tid last.
    pub fn get(&self, tid: u32) -> Option<Party> {
        self.known.get(&tid).copied()
    }
}
