//! What a futex is: the one place that says so. Known protocols, one file each, with the versions they were
//! checked against.
//!
//! | module | protocols |
//! |---|---|
//! | [`kernel`] | priority-inheriting mutexes, whose word the kernel itself defines |
//! | [`glibc`] | mutexes, condition variables, semaphores, readers-writer locks, barriers, once, internal locks |
//! | [`musl`] | mutexes (plain ones name no owner), condition variables, semaphores, readers-writer locks, internal locks |
//! | [`python`] | the global interpreter lock of `CPython` |
//! | [`callers`] | users of the exported `syscall()`: Rust, libstdc++, `parking_lot`, latches of databases |
//! | [`own`] | programs with system calls of their own: Go, static programs without symbols |
//!
//! A protocol is recognised by the site, the operation and the expected value. The momentary word decides
//! nothing: with short holds it has changed by the time it is read (of 96,222 waits at one glibc mutex 3,626
//! still showed "contended"). Memory only tells apart what the same site waits for, and names an owner where
//! the protocol defines one.

pub mod callers;
pub mod glibc;
pub mod kernel;
pub mod musl;
pub mod own;
pub mod python;

use probe_ebpf::lock::{FutexWait, LIVE_BEFORE, LIVE_WORDS, LiveFutex, WORDS};

use super::Kind;
use super::site::{Library, Site};

/// Whether waiting is contention.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// A lock: every wait is for another thread's release.
    Lock,
    /// Never a lock.
    Idle,
    /// Looks like a lock; a few waits with the same expected value, or waiters that also wake, make it one.
    LikelyLock,
    /// Used either way (semaphores as locks, condition variables around a flag): who waits and wakes decides.
    ByBehaviour,
    /// A lock or not, and memory, which was not read, would tell: nothing is contended here as far as that
    /// goes.
    MemoryWouldTell,
}

/// What a futex turned out to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Protocol {
    /// For people: "glibc mutex".
    pub name: &'static str,
    /// Which kind of thing.
    pub kind: Kind,
    /// Whether waiting is contention.
    pub role: Role,
    /// Tid that memory names as the owner now, in the pid namespace of the thread that wrote it. `None` if
    /// the protocol defines none, or memory does not follow it at this moment.
    pub owner: Option<u32>,
    /// Whether the protocol defines an owner at all: only then does an owner noted when a wait began count.
    pub has_owner: bool,
    /// Whether a thread can wait for a lock that it holds itself: recursive and error-checking locks never
    /// do.
    pub can_own_itself: bool,
    /// Whether memory says that the owner has ended, though no longer who that was, and nobody can release
    /// it.
    pub abandoned: bool,
}

/// A protocol without an owner.
const fn unowned(name: &'static str, kind: Kind, role: Role) -> Protocol {
    Protocol {
        name,
        kind,
        role,
        owner: None,
        has_owner: false,
        can_own_itself: false,
        abandoned: false,
    }
}

/// A lock with an owner, as far as memory names it.
const fn owned(name: &'static str, kind: Kind, owner: Option<u32>, can_own_itself: bool) -> Protocol {
    Protocol {
        name,
        kind,
        role: Role::Lock,
        owner,
        has_owner: true,
        can_own_itself,
        abandoned: false,
    }
}

/// A lock whose owner has ended without a trace of who it was.
const fn abandoned(name: &'static str, kind: Kind) -> Protocol {
    Protocol {
        abandoned: true,
        ..owned(name, kind, None, false)
    }
}

/// Nothing is known.
pub const UNKNOWN: Protocol = unowned("futex", Kind::Unknown, Role::ByBehaviour);
/// A wait for the end of a thread, proved by the word that the kernel clears then.
pub const JOIN: Protocol = unowned("join", Kind::Join, Role::Idle);

/// A wait with all that is known of it.
#[derive(Clone, Copy)]
pub struct Wait<'a> {
    /// The call, and what the kernel side read when it began.
    pub call: &'a FutexWait,
    /// Where it was made.
    pub site: &'a Site,
    /// Memory as it is now, if it was read.
    pub memory: Option<&'a LiveFutex>,
    /// The waiter's stack pointer, 0 if unknown.
    pub sp: u64,
}

impl Wait<'_> {
    /// The words from the futex word on: as they are now, else the two that were read when the wait began.
    fn words(&self) -> [u32; WORDS] {
        self.memory
            .and_then(LiveFutex::words_at)
            .unwrap_or([self.call.word, self.call.next, 0, 0, 0])
    }

    /// A word before (negative) or behind the futex word as it is now.
    fn around(&self, at: isize) -> Option<u32> {
        let first = usize::try_from(LIVE_BEFORE / 4).ok()?;
        let needed = usize::try_from(at).map_or_else(|_| LIVE_WORDS - first + at.unsigned_abs(), |at| at + 1);
        let live = self.memory.filter(|live| live.valid as usize >= 4 * needed)?;
        live.words.get(first.checked_add_signed(at)?).copied()
    }

    /// Whether the word lies on the waiter's own stack, not far above where it waits.
    fn is_on_own_stack(&self) -> bool {
        const NEAR: u64 = 4096;
        self.sp != 0 && (self.sp..self.sp + NEAR).contains(&self.call.address)
    }

    fn flag(&self, bit: u8) -> bool {
        self.call.flags & bit != 0
    }
}

/// What the futex is, by one wait at it.
pub fn identify(wait: Wait<'_>) -> Protocol {
    if let Some(protocol) = kernel::identify(wait) {
        return protocol;
    }
    match wait.site.library {
        Library::Glibc => {
            let found = glibc::identify(wait);
            let used_for = wait.site.calling_function().and_then(callers::semaphore_of);
            used_for
                .filter(|_| found.kind == Kind::Semaphore)
                .unwrap_or(found)
        }
        Library::Musl => musl::identify(wait),
        Library::Python => python::identify(wait),
        Library::Syscall => callers::identify(wait),
        Library::StrippedMusl => musl::proved(wait).unwrap_or_else(|| own::identify(wait)),
        Library::Go | Library::Vdso | Library::Other => own::identify(wait),
        // Nothing is proved by a word whose protocol is not known.
        Library::Unread => Protocol {
            owner: None,
            has_owner: false,
            ..own::identify(wait)
        },
    }
}

/// Whether a C library has put the thread to sleep for ever, since the kernel refused it a lock.
pub fn is_endless(wait: Wait<'_>) -> bool {
    match wait.site.library {
        Library::Glibc | Library::Vdso | Library::Other => glibc::is_endless(wait),
        Library::Musl => musl::is_endless(wait),
        _ => false,
    }
}

#[cfg(test)]
mod tests;
