//! What was found out about memory that waiters and owners may share: which file and byte a futex is, who
//! maps that file.
//!
//! A tid that memory names can only be the owner if that thread could have written it, so its process has to
//! map the same memory. Filled in by `source/`, for the few waits where it matters.

use std::collections::{BTreeMap, HashMap, HashSet};

use probe_ebpf::lock::LockKey;

use super::LockId;
use super::site::Runtime;
use crate::model::thread::ThreadId;

/// Code of a process's own that a signal starts, and that may release a semaphore.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SignalHandlers {
    /// There is none.
    None,
    /// It ends a wait of the main thread, and does nothing else (Python's for SIGINT).
    MainThread,
    /// There may be any.
    Any,
}

/// Why memory of a process was not read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum MemoryGap {
    /// Its memory map is locked by a writer, or a writer waits for it.
    Locked,
    /// A futex lies in a page of a file whose file system may not answer.
    OfFile,
    /// A read of its memory did not come back.
    Hangs,
    /// Reads of several other processes of its user did not come back, and hold all that one user may.
    UserHangs,
    /// A thread of it has long been in uninterruptible sleep, and whether its memory map is locked cannot be
    /// seen.
    Asleep,
}

impl MemoryGap {
    /// All there are.
    pub const ALL: [Self; 5] = [
        Self::Locked,
        Self::OfFile,
        Self::Hangs,
        Self::UserHangs,
        Self::Asleep,
    ];

    /// The name used in JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Locked => "memory_map_locked",
            Self::OfFile => "file_may_not_answer",
            Self::Hangs => "does_not_answer",
            Self::UserHangs => "user_does_not_answer",
            Self::Asleep => "uninterruptible_sleep",
        }
    }

    /// For people.
    pub const fn text(self) -> &'static str {
        match self {
            Self::Locked => "its memory map is locked",
            Self::OfFile => "it lies in a file whose file system may not answer",
            Self::Hangs => "reading it did not come back",
            Self::UserHangs => "reading other processes of its user did not come back",
            Self::Asleep => "a thread of it has long been in uninterruptible sleep",
        }
    }
}

/// See the module.
#[derive(Clone, Debug, Default)]
pub struct SharedMemory {
    /// Where futexes lie: `Some` for a byte of a file that several processes can map, `None` for memory of
    /// one address space.
    pub places: HashMap<LockKey, Option<LockId>>,
    /// Processes whose mappings were read.
    pub read: HashSet<u32>,
    /// Process, device and inode of the files that those map shared, as far as somebody waits in them.
    pub mapped: HashSet<(u32, u64, u64)>,
    /// Priority-inheriting mutexes that the stack of a thread points to that sleeps for ever in
    /// `pthread_mutex_lock()`, with their owners' tids: one of them is what it wanted.
    pub endless: HashMap<ThreadId, Vec<(u64, u32)>>,
    /// The code of their own by which processes handle signals; only of those that were asked.
    pub signal_handlers: HashMap<u32, SignalHandlers>,
    /// Processes whose memory was not read.
    pub gaps: BTreeMap<u32, MemoryGap>,
    /// Run-time systems, by process.
    pub runtimes: BTreeMap<u32, Runtime>,
}

impl SharedMemory {
    /// Where a futex lies; `None` if that is not known.
    pub fn place(&self, key: &LockKey) -> Option<Option<LockId>> {
        self.places.get(key).copied()
    }

    /// What a process may do when a signal comes: what is not known may be anything.
    pub fn signal_handlers(&self, pid: u32) -> SignalHandlers {
        self.signal_handlers
            .get(&pid)
            .copied()
            .unwrap_or(SignalHandlers::Any)
    }

    /// Whether a process maps the file of a shared lock; `None` if that is not known.
    pub fn maps(&self, pid: u32, lock: LockId) -> Option<bool> {
        let LockId::Shared { device, inode, .. } = lock else {
            return None;
        };
        let read = self.read.contains(&pid);
        read.then(|| self.mapped.contains(&(pid, device, inode)))
    }
}
