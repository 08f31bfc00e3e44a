//! Who waits on whom: locks, holders, deadlocks and stalls, from futex waits.
//!
//! A futex wait is not contention until the evidence says so. What comes in is what the kernel side added up per lock
//! ([`Tables`]) and the waits that are open in a [`Snapshot`]; what comes out is a [`report::Report`].
//!
//! | module | answers |
//! |---|---|
//! | [`people`] | which thread a tid in memory means |
//! | [`evidence`] | what is known about one lock |
//! | [`classify`] | what kind of thing it is, and whether it is contended |
//! | [`verdicts`] | the same of all locks of a look, some of which are parts of others |
//! | [`deadlock`] | who waits in a circle |
//! | [`stall`] | who waits while nobody is left to end it |
//! | [`teller`] | how that is told |
//! | [`growth`] | what was gained since an earlier look |
//! | [`parallelism`] | how parallel processes are for all that waiting |
//! | [`window`] | what was waited between two moments |
//! | [`report`] | all of it, as views show it |
//! | [`books`] | running totals per group, for metrics |

pub mod books;
pub mod classify;
pub mod deadlock;
pub mod evidence;
pub mod growth;
pub mod parallelism;
pub mod people;
pub mod report;
pub mod stall;
pub mod teller;
pub mod verdicts;
pub mod window;

#[cfg(test)]
pub(crate) mod scenes;
#[cfg(test)]
mod tests;

use std::collections::HashMap;

use probe_ebpf::lock::{EdgeKey, EdgeStats, FutexWait, LockKey, LockStats};
use probe_ebpf::waiting::{flag, op};

use super::snapshot::Snapshot;
use super::thread::{Comm, OpenWait, Thread};

/// Which lock. Waiters of several processes at one lock have one of these in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum LockId {
    /// Known to one address space.
    Private(u64, u64),
    /// In a file, or in memory that processes share.
    Shared {
        /// Device of the file.
        device: u64,
        /// Its inode.
        inode: u64,
        /// Byte in it.
        offset: u64,
    },
}

/// What the kernel side added up, with the locks of several processes told.
#[derive(Clone, Debug, Default)]
pub struct Tables {
    /// Waits by lock.
    pub locks: Vec<(LockKey, LockStats)>,
    /// Waits by waiter and holder.
    pub edges: Vec<(EdgeKey, EdgeStats)>,
    /// Keys of locks that go by another name: in shared memory, or by the first word of a pair.
    pub aliases: HashMap<LockKey, LockId>,
}

impl Tables {
    /// Which lock a key means.
    pub fn id(&self, key: LockKey) -> LockId {
        let private = LockId::Private(key.space, key.address);
        self.aliases.get(&key).copied().unwrap_or(private)
    }
}

/// Everything about one moment.
#[derive(Clone, Copy)]
pub struct Look<'a> {
    /// Threads.
    pub snapshot: &'a Snapshot,
    /// Sums.
    pub tables: &'a Tables,
}

impl<'a> Look<'a> {
    /// Every open futex wait: who waits, how, and at which lock.
    pub fn open_waits(self) -> impl Iterator<Item = (&'a Thread, &'a OpenWait, LockId)> {
        let Look { snapshot, tables } = self;
        snapshot.threads.iter().filter_map(move |thread| {
            let open = thread.futex.as_ref()?;
            Some((thread, open, tables.id(key_of(thread, open))))
        })
    }
}

/// The key of an open wait.
pub fn key_of(thread: &Thread, open: &OpenWait) -> LockKey {
    LockKey {
        space: thread.space,
        address: open.wait.address,
    }
}

/// Whether two words side by side are one lock: condition variables and readers-writer locks of glibc have a pair, and those
/// who take turns alternate between both. Both are waited at as glibc does it; the first lies at a multiple of 8.
pub fn is_pair(first: &FutexWait, second: &FutexWait) -> bool {
    let of_glibc = |wait: &FutexWait| {
        wait.op == op::WAIT_BITSET
            && wait.flags & (flag::REALTIME | flag::TIMED) != 0
            && wait.value != u32::MAX
    };
    second.address & 7 == 4 && of_glibc(first) && of_glibc(second)
}

/// Whether other processes can be waiting at the same lock.
pub fn is_shared(wait: &FutexWait) -> bool {
    wait.flags & flag::PRIVATE == 0
}

/// What kind of thing is waited at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// A mutex.
    Mutex,
    /// A priority-inheriting one.
    PiMutex,
    /// A readers-writer lock.
    Rwlock,
    /// A condition variable.
    Condvar,
    /// A semaphore.
    Semaphore,
    /// A barrier.
    Barrier,
    /// The end of a thread.
    Join,
    /// Where one thread waits for work or its turn, and no other ever waits: Java, Go, `parking_lot`, tokio.
    Parker,
    /// Not enough is known.
    Unknown,
}

impl Kind {
    /// All of them, in the order of metrics.
    pub const ALL: [Self; 9] = [
        Self::Mutex,
        Self::PiMutex,
        Self::Rwlock,
        Self::Condvar,
        Self::Semaphore,
        Self::Barrier,
        Self::Join,
        Self::Parker,
        Self::Unknown,
    ];

    /// The name used in JSON, labels and text.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Mutex => "mutex",
            Self::PiMutex => "pi_mutex",
            Self::Rwlock => "rwlock",
            Self::Condvar => "condvar",
            Self::Semaphore => "semaphore",
            Self::Barrier => "barrier",
            Self::Join => "join",
            Self::Parker => "parker",
            Self::Unknown => "unknown",
        }
    }
}

/// How a holder is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Grade {
    /// The lock's memory names it.
    Owner,
    /// It released the same lock.
    Waker,
    /// It is not.
    None,
}

impl Grade {
    /// The name used in JSON and text.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Owner => "owner",
            Self::Waker => "waker",
            Self::None => "none",
        }
    }
}

/// A thread as reports name it; it may have ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Party {
    /// Its process; 0 if unknown.
    pub pid: u32,
    /// Its tid in the initial pid namespace.
    pub tid: u32,
    /// Its name; empty if unknown.
    pub comm: Comm,
}

impl Party {
    /// A thread that is there.
    pub fn of(thread: &Thread) -> Self {
        Self {
            pid: thread.pid,
            tid: thread.id.tid,
            comm: thread.comm,
        }
    }
}
