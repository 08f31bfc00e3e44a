//! Small worlds of threads and locks, for the tests of this folder and of what shows it.

use std::collections::HashMap;
use std::sync::Arc;

use probe_ebpf::histogram::bucket_of;
use probe_ebpf::lock::{
    BY_OWNER, EdgeKey, EdgeStats, Expected, FutexWait, LIVE_BEFORE, LIVE_WORDS, LiveFutex, LockKey,
    LockStats, Outcome, SEVERAL,
};
use probe_ebpf::state::State;
use probe_ebpf::waiting::{Class, flag, op};

use super::memory::SignalHandlers;
use super::site::{Library, Site};
use super::{LockId, Look, Tables};
use crate::model::snapshot::Snapshot;
use crate::model::thread::{Condition, OpenWait, Switches, Thread};
use crate::model::tracker::tests::{snapshot, thread};

/// A process of the scene: pid and address space.
pub const PID: u32 = 100;
/// Its address space.
pub const SPACE: u64 = 7;
const SECOND: u64 = 1_000_000_000;

/// Threads and tables that a test puts together.
#[derive(Clone, Default)]
pub struct World {
    threads: Vec<Thread>,
    /// Sums of the kernel side.
    pub tables: Tables,
    /// Futexes in memory that processes share.
    pub places: HashMap<LockKey, LockId>,
    /// Processes that map those files: pid, device, inode.
    pub mapped: Vec<(u32, u64, u64)>,
}

/// Where a scene's code waits, by the kind of lock: an address for each site.
fn ip(kind: &str) -> u64 {
    match kind {
        "rust" | "parker" => 2,
        "barrier" => 3,
        "musl" => 4,
        _ => 1,
    }
}

/// Whose code is at these addresses.
fn site(ip: u64) -> Arc<Site> {
    let (library, function) = match ip {
        2 => (Library::Syscall, Some("syscall")),
        3 => (Library::Glibc, Some("pthread_barrier_wait")),
        4 => (Library::Musl, None),
        _ => (Library::Glibc, None),
    };
    Arc::new(Site {
        library,
        function: function.map(str::to_owned),
        caller: None,
    })
}

/// A wait as one kind of lock makes it.
pub fn wait(kind: &str, address: u64, owner: u32) -> FutexWait {
    const GLIBC: u8 = flag::PRIVATE | flag::REALTIME;
    let (operation, flags, value, word) = match kind {
        "glibc" => (op::WAIT, flag::PRIVATE, 2, 2),
        "pi" => (op::LOCK_PI, flag::PRIVATE, 0, owner | 1 << 31),
        "rust" => (op::WAIT_BITSET, flag::PRIVATE, 2, 2),
        "condvar" | "semaphore" => (op::WAIT_BITSET, GLIBC, 0, 0),
        "rwlock" => (op::WAIT_BITSET, GLIBC, 3, 3),
        "barrier" => (op::WAIT, flag::PRIVATE, 7, 7),
        "parker" => (op::WAIT_BITSET, flag::PRIVATE, u32::MAX, u32::MAX),
        "join" => (op::WAIT_BITSET, flag::REALTIME, owner, owner),
        "timed" => (op::WAIT_BITSET, GLIBC | flag::TIMED, 0, 0),
        "musl" => (op::WAIT, flag::PRIVATE, 1 << 31 | 16, 1 << 31 | 16),
        other => panic!("no such kind: {other}"),
    };
    FutexWait {
        address,
        ip: ip(kind),
        word,
        next: u32::from(kind == "semaphore"),
        value,
        owner: if kind == "glibc" || kind == "pi" { owner } else { 0 },
        op: operation,
        flags: flags | flag::READ,
        class: Class::Futex as u8,
        expected: Expected::of(value) as u8,
        padding: 0,
    }
}

/// What memory says of that wait's lock.
fn memory(kind: &str, wait: &FutexWait) -> LiveFutex {
    let mut live = LiveFutex {
        valid: u32::try_from(LIVE_WORDS * 4).unwrap(),
        ..LiveFutex::default()
    };
    let first = (LIVE_BEFORE / 4) as usize;
    live.words[first] = wait.word;
    live.words[first + 1] = wait.next;
    if kind == "glibc" {
        live.words[first + 2] = wait.owner;
        live.words[first + 3] = 1;
    }
    if kind == "condvar" {
        // __g_refs of the group and __wrefs: one waiter.
        live.words[first - 6] = 2;
        live.words[first - 1] = 8;
    }
    live
}

impl World {
    /// Adds a thread that runs.
    pub fn runs(&mut self, tid: u32, comm: &str) -> &mut Self {
        let thread = Thread {
            condition: Condition::Alive(State::Running),
            space: SPACE,
            ..thread(PID, tid, comm, None, 0)
        };
        self.threads.push(thread);
        self
    }

    /// Adds a thread that waits at a lock, for so long.
    pub fn waits(&mut self, tid: u32, comm: &str, kind: &str, address: u64, owner: u32) -> &mut Self {
        let wait = wait(kind, address, owner);
        let thread = Thread {
            condition: Condition::Alive(State::Sleeping),
            condition_ns: Some(5 * SECOND),
            space: SPACE,
            futex: Some(OpenWait {
                wait,
                age_ns: 5 * SECOND,
                counted_ns: 2 * SECOND,
                live: Some(Box::new(memory(kind, &wait))),
                site: site(wait.ip),
            }),
            ..thread(PID, tid, comm, None, 0)
        };
        self.threads.push(thread);
        self
    }

    /// All of them have waited for so long.
    pub fn all_wait_for(&mut self, ns: u64) {
        for open in self.threads.iter_mut().filter_map(|thread| thread.futex.as_mut()) {
            open.age_ns = ns;
        }
    }

    /// The thread added last.
    pub fn last(&mut self) -> &mut Thread {
        self.threads.last_mut().unwrap()
    }

    /// Adds waits that ended: so many, of so many nanoseconds each, one way.
    pub fn waited(
        &mut self,
        kind: &str,
        address: u64,
        count: u32,
        each_ns: u64,
        outcome: Outcome,
    ) -> &mut Self {
        let key = LockKey {
            space: SPACE,
            address,
        };
        let sample = wait(kind, address, 0);
        let mut stats: LockStats = bytemuck::Zeroable::zeroed();
        stats.wait_ns = u64::from(count) * each_ns;
        stats.max_ns = each_ns;
        stats.pid = PID;
        stats.waiter = SEVERAL;
        stats.sample = sample;
        stats.outcomes[outcome as usize] = count;
        stats.expected[usize::from(sample.expected)] = count;
        stats.histogram[bucket_of(each_ns)] = count;
        if sample.flags & flag::TIMED != 0 {
            stats.timed = count;
        }
        self.tables.locks.push((key, stats));
        self.tables.sites.insert((SPACE, sample.ip), site(sample.ip));
        self
    }

    /// The stats added last.
    pub fn last_stats(&mut self) -> &mut LockStats {
        &mut self.tables.locks.last_mut().unwrap().1
    }

    /// Adds who waited for whom.
    pub fn edge(
        &mut self,
        address: u64,
        waiter: u32,
        holder: u32,
        by_owner: bool,
        waits: u64,
        wait_ns: u64,
    ) -> &mut Self {
        let key = EdgeKey {
            lock: LockKey {
                space: SPACE,
                address,
            },
            waiter,
            holder: if by_owner { holder | BY_OWNER } else { holder },
        };
        let stats = EdgeStats {
            wait_ns,
            waits,
            max_ns: wait_ns / waits.max(1),
            last_ns: 1,
        };
        self.tables.edges.push((key, stats));
        self
    }

    /// The threads at a moment, having switched so often.
    pub fn snapshot(&self, at_ns: u64, switches: u64) -> Snapshot {
        let threads = self.threads.iter().cloned().map(|thread| Thread {
            switches: Switches {
                voluntary: switches,
                involuntary: 0,
            },
            ..thread
        });
        let mut snapshot = snapshot(at_ns, threads.collect());
        let waits = self
            .threads
            .iter()
            .filter_map(|thread| Some((thread, thread.futex.as_ref()?)));
        for (thread, open) in waits {
            snapshot
                .memory
                .places
                .entry(super::key_of(thread, open))
                .or_insert(None);
            snapshot
                .memory
                .signal_handlers
                .insert(thread.pid, SignalHandlers::None);
            if open.wait.flags & flag::PRIVATE != 0 {
                continue;
            }
            let mut others = snapshot.threads.iter_mut();
            if let Some(joined) = others.find(|other| other.id.tid == open.wait.value) {
                joined.clear_child_tid = open.wait.address;
            }
        }
        for (key, place) in &self.places {
            snapshot.memory.places.insert(*key, Some(*place));
        }
        snapshot
            .memory
            .read
            .extend(self.threads.iter().map(|thread| thread.pid));
        snapshot.memory.mapped.extend(&self.mapped);
        snapshot
    }
}

/// Nothing happened yet.
pub fn no_tables() -> Tables {
    Tables {
        aliases: HashMap::new(),
        ..Tables::default()
    }
}

/// A look.
pub fn look<'a>(snapshot: &'a Snapshot, tables: &'a Tables) -> Look<'a> {
    Look { snapshot, tables }
}
