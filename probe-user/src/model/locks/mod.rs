//! Who waits on whom: locks, holders, deadlocks and stalls, from futex waits.
//!
//! A futex wait is not contention until the evidence says so. What comes in is what the kernel side added up per lock
//! ([`Tables`]) and the waits that are open in a [`Snapshot`]; what comes out is a [`report::Report`].
//!
//! | module | answers |
//! |---|---|
//! | [`site`] | whose code waits |
//! | [`protocol`] | what a futex is: its kind, whether waiting is contention, who owns it |
//! | [`memory`] | which processes share the memory that a futex lies in |
//! | [`thread_index`] | which thread a tid in memory means |
//! | [`evidence`] | what is known about one lock |
//! | [`classification`] | what kind of thing it is, and whether it is contended |
//! | [`deadlock`] | which threads wait in a circle |
//! | [`stall`] | which threads wait for what no thread is left to end |
//! | [`report_builder`] | how that is told |
//! | [`delta`] | what was gained since an earlier snapshot |
//! | [`parallelism`] | how parallel processes are for all that waiting |
//! | [`window`] | what was waited between two moments |
//! | [`report`] | all of it, as views show it |
//! | [`aggregator`] | running totals per group, for metrics |

pub mod aggregator;
pub mod classification;
pub mod deadlock;
pub mod delta;
pub mod evidence;
pub mod memory;
pub mod parallelism;
pub mod protocol;
pub mod report;
pub mod report_builder;
pub mod site;
pub mod stall;
pub mod thread_index;
pub mod window;

#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::Arc;

use probe_ebpf::lock::{EdgeKey, EdgeStats, FutexWait, LockKey, LockStats};
use probe_ebpf::waiting::{flag, op};

use self::site::Site;
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
    /// Code that waited, by address space and instruction.
    pub sites: HashMap<(u64, u64), Arc<Site>>,
    /// The same with the callers, by lock, where the instruction alone does not tell.
    pub callers: HashMap<LockKey, Arc<Site>>,
}

impl Tables {
    /// Which lock a key means.
    pub fn id(&self, key: LockKey) -> LockId {
        let private = LockId::Private(key.space, key.address);
        self.aliases.get(&key).copied().unwrap_or(private)
    }

    /// The code that made a wait.
    pub fn site(&self, key: LockKey, wait: &FutexWait) -> &Site {
        let site = || self.sites.get(&(key.space, wait.ip));
        let found = self.callers.get(&key).or_else(site);
        found.map_or(&Site::UNREAD, |site| site)
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

/// Whether two words side by side are one lock: condition variables and readers-writer locks of glibc have a
/// pair, and threads that take turns alternate between both; writers of Rust's readers-writer lock wait at a
/// count behind its state.
pub fn is_pair(first: &FutexWait, second: &FutexWait) -> bool {
    const RUST_QUEUED: u32 = 0xc000_0000;
    let of_glibc = |wait: &FutexWait| {
        wait.op == op::WAIT_BITSET
            && wait.flags & (flag::REALTIME | flag::TIMED) != 0
            && wait.value != u32::MAX
    };
    let of_rust = |wait: &FutexWait| wait.op == op::WAIT_BITSET && wait.flags & flag::REALTIME == 0;
    let glibc = second.address & 7 == 4 && of_glibc(first) && of_glibc(second);
    let queued = first.value & RUST_QUEUED != 0 && first.value != u32::MAX;
    glibc || (queued && of_rust(first) && of_rust(second))
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

    /// Whether it keeps others out, so that time spent waiting is time lost.
    pub const fn is_lock(self) -> bool {
        matches!(self, Self::Mutex | Self::PiMutex | Self::Rwlock)
    }

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
