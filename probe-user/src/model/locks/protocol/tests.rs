//! Each protocol by the calls it makes, and what merely looks like it.

use probe_ebpf::lock::{Expected, FutexWait, HAS_WAITERS, LIVE_BEFORE, LIVE_WORDS, LiveFutex, OWNER_DIED};
use probe_ebpf::waiting::{flag, op};

use super::{Protocol, Role, Wait, identify};
use crate::model::locks::Kind;
use crate::model::locks::site::{Caller, Library, Site};

const AT: usize = (LIVE_BEFORE / 4) as usize;

fn call(operation: u8, flags: u8, value: u32) -> FutexWait {
    FutexWait {
        address: 0x1000,
        op: operation,
        flags,
        value,
        word: value,
        expected: Expected::of(value) as u8,
        ..FutexWait::default()
    }
}

/// A wait by a library's code, with words of memory at places around the futex word.
fn protocol(library: Library, call: &FutexWait, words: &[(isize, u32)]) -> Protocol {
    called(library, None, call, words)
}

/// The same by a known caller.
fn called(library: Library, caller: Option<Caller>, call: &FutexWait, words: &[(isize, u32)]) -> Protocol {
    let mut live = LiveFutex {
        valid: u32::try_from(4 * LIVE_WORDS).unwrap(),
        ..LiveFutex::default()
    };
    live.words[AT] = call.word;
    for &(at, word) in words {
        live.words[AT.checked_add_signed(at).unwrap()] = word;
    }
    let site = Site {
        library,
        function: None,
        caller,
    };
    identify(Wait {
        call,
        site: &site,
        memory: Some(&live),
        sp: 0x1000_0000,
    })
}

/// Owner, users and kind of a mutex of glibc.
fn mutex(owner: u32, kind: u32) -> [(isize, u32); 3] {
    [(2, owner), (3, 1), (4, kind)]
}

const PRIVATE: u8 = flag::PRIVATE;

#[test]
fn mutexes_of_glibc_name_their_owner() {
    let owner =
        |value, kind| protocol(Library::Glibc, &call(op::WAIT, PRIVATE, value), &mutex(42, kind)).owner;
    assert_eq!(owner(2, 0), Some(42));
    assert_eq!(owner(HAS_WAITERS | 0x2a, 16), Some(42), "robust");
    assert_eq!(owner(9 << 19 | 2, 0x40), Some(42), "with a priority ceiling");
    let normal = protocol(Library::Glibc, &call(op::WAIT, PRIVATE, 2), &mutex(42, 0));
    assert!(normal.can_own_itself);
    let recursive = protocol(Library::Glibc, &call(op::WAIT, PRIVATE, 2), &mutex(42, 1));
    assert!(!recursive.can_own_itself);
    // An internal lock of malloc has the same call and value, and no owner behind it.
    let arena = protocol(
        Library::Glibc,
        &call(op::WAIT, PRIVATE, 2),
        &[(2, 1), (4, 0x7f_0000)],
    );
    assert_eq!(
        (arena.kind, arena.role, arena.owner),
        (Kind::Mutex, Role::Lock, None)
    );
}

/// The memory of a mutex of glibc proves nothing where other code waits.
#[test]
fn other_code_has_no_owner_whatever_its_memory() {
    for (library, operation, flags) in [
        (Library::Syscall, op::WAIT, 0),
        (Library::Syscall, op::WAIT_BITSET, PRIVATE),
        (Library::Musl, op::WAIT, PRIVATE),
        (Library::Go, op::WAIT, PRIVATE),
        (Library::Unread, op::WAIT, PRIVATE),
    ] {
        let found = protocol(library, &call(operation, flags, 2), &mutex(42, 0));
        assert_eq!((found.owner, found.has_owner), (None, false), "{library:?}");
    }
}

#[test]
fn bit_31_is_not_always_a_tid() {
    let plain = call(op::WAIT, PRIVATE, HAS_WAITERS | 0x10);
    let found = protocol(Library::Musl, &plain, &[(-1, 0)]);
    assert_eq!(
        (found.kind, found.role, found.owner),
        (Kind::Mutex, Role::Lock, None),
        "EBUSY"
    );
    let typed = call(op::WAIT, PRIVATE, HAS_WAITERS | 0x2a);
    assert_eq!(
        protocol(Library::Musl, &typed, &[(-1, 1)]).owner,
        Some(42),
        "recursive"
    );
    assert_eq!(
        protocol(Library::Musl, &typed, &[(-1, 0x5555)]).owner,
        None,
        "no mutex at all"
    );
    let latch = call(op::WAIT, PRIVATE, HAS_WAITERS | 0x3);
    assert_eq!(
        protocol(Library::Syscall, &latch, &mutex(3, 16)).owner,
        None,
        "a latch of InnoDB"
    );
    let readers = call(op::WAIT_BITSET, PRIVATE, 0xc000_0004);
    let found = protocol(Library::Syscall, &readers, &[]);
    assert_eq!(
        (found.kind, found.owner),
        (Kind::Rwlock, None),
        "readers of Rust's lock"
    );
}

#[test]
fn glibcs_common_site_is_told_by_memory() {
    let shared = PRIVATE | flag::REALTIME;
    let zero = call(op::WAIT_BITSET, shared, 0);
    let condvar = protocol(Library::Glibc, &zero, &[(-6, 2), (-1, 8)]);
    assert_eq!((condvar.kind, condvar.role), (Kind::Condvar, Role::ByBehaviour));
    assert_eq!(protocol(Library::Glibc, &zero, &[(1, 3)]).kind, Kind::Semaphore);
    // The second word of a condition variable's pair is no semaphore, whatever stands behind it.
    let second = FutexWait {
        address: 0x1004,
        ..zero
    };
    assert_eq!(
        protocol(Library::Glibc, &second, &[(-2, 8), (-6, 2), (1, 3)]).kind,
        Kind::Condvar
    );
    let writer = call(op::WAIT_BITSET, shared, 3);
    let rwlock = protocol(Library::Glibc, &writer, &[(4, 42)]);
    assert_eq!((rwlock.kind, rwlock.owner), (Kind::Rwlock, Some(42)));
    let in_line = call(op::WAIT_BITSET, shared, 14);
    assert_eq!(protocol(Library::Glibc, &in_line, &[]).kind, Kind::Rwlock);
}

#[test]
fn a_sleep_without_end_is_a_lock_that_was_refused() {
    let mut zero = call(op::WAIT_BITSET, PRIVATE | flag::REALTIME, 0);
    zero.address = 0x1000_0040;
    let found = protocol(Library::Glibc, &zero, &[]);
    assert_eq!((found.kind, found.role), (Kind::PiMutex, Role::Lock));
    let of_musl = FutexWait {
        op: op::WAIT,
        flags: PRIVATE,
        ..zero
    };
    let found = protocol(Library::Musl, &of_musl, &[]);
    assert_eq!((found.kind, found.role), (Kind::PiMutex, Role::Lock));
    let timed = FutexWait {
        flags: PRIVATE | flag::TIMED,
        ..of_musl
    };
    assert_ne!(protocol(Library::Musl, &timed, &[]).role, Role::Lock);
}

/// Variables of a function that waits at them itself.
#[test]
fn what_lies_on_the_stack_may_be_woken() {
    let mut zero = call(op::WAIT_BITSET, PRIVATE | flag::REALTIME, 0);
    zero.address = 0x1000_0040;
    let semaphore = protocol(Library::Glibc, &zero, &[(1, 1)]);
    assert_eq!(
        (semaphore.kind, semaphore.role),
        (Kind::Semaphore, Role::ByBehaviour)
    );
    let condvar = protocol(Library::Glibc, &zero, &[(-6, 2), (-1, 8)]);
    assert_eq!((condvar.kind, condvar.role), (Kind::Condvar, Role::ByBehaviour));
    // A park of Rust's is private as well, and has no clock.
    zero.flags = PRIVATE;
    let parked = protocol(Library::Syscall, &zero, &[]);
    assert_ne!(parked.kind, Kind::PiMutex);
}

/// Both wait for all bits, with the number of waiters behind it; the third word is the futex' flag or its
/// opposite.
#[test]
fn semaphores_and_locks_of_musl_differ_in_their_third_word() {
    for library in [Library::Musl, Library::StrippedMusl] {
        for value in [u32::MAX, HAS_WAITERS] {
            for (flags, private, shared) in [(PRIVATE, 128, 0), (0, 0, 128)] {
                let all = call(op::WAIT, flags, value);
                let semaphore = protocol(library, &all, &[(1, 2), (2, private)]);
                assert_eq!(
                    (semaphore.kind, semaphore.role),
                    (Kind::Semaphore, Role::ByBehaviour)
                );
                let lock = protocol(library, &all, &[(1, 2), (2, shared)]);
                assert_eq!((lock.kind, lock.role), (Kind::Rwlock, Role::Lock), "{library:?}");
            }
        }
    }
    let another = protocol(
        Library::StrippedMusl,
        &call(op::WAIT, PRIVATE, u32::MAX),
        &[(1, 2), (2, 7)],
    );
    assert_eq!((another.kind, another.role), (Kind::Unknown, Role::ByBehaviour));
}

#[test]
fn readers_have_a_lock_of_musl() {
    let readers = call(op::WAIT, PRIVATE, HAS_WAITERS | 3);
    let lock = protocol(Library::Musl, &readers, &[(1, 1)]);
    assert_eq!((lock.kind, lock.role), (Kind::Rwlock, Role::Lock));
    // malloc's: three threads want it, and what stands behind it is another variable.
    let internal = protocol(Library::Musl, &readers, &[(1, 1), (4, 0x5555)]);
    assert_eq!((internal.kind, internal.role), (Kind::Mutex, Role::Lock));
}

/// When a thread of musl ends, it gives its mutexes a mark and forgets who had them.
#[test]
fn a_mutex_of_musl_whose_owner_has_ended() {
    let died = call(op::WAIT, PRIVATE, HAS_WAITERS | OWNER_DIED);
    for kind in [1, 2] {
        let found = protocol(Library::Musl, &died, &[(-1, kind), (1, 1)]);
        assert!(found.abandoned && found.owner.is_none());
        assert_eq!(found.kind, Kind::Mutex);
    }
    let robust = protocol(Library::Musl, &died, &[(-1, 4 | 1), (1, 1)]);
    assert!(!robust.abandoned, "whoever comes next gets it");
    let since = FutexWait { word: 42, ..died };
    assert!(!protocol(Library::Musl, &since, &[(-1, 1), (1, 1)]).abandoned);
}

/// A lock that is the first thing in shared memory: of what stands before it only its own words can be read.
#[test]
fn words_before_the_word_count_as_far_as_they_were_read() {
    let died = call(op::WAIT, 0, HAS_WAITERS | OWNER_DIED);
    let behind = 4 * (LIVE_WORDS - AT);
    for (before, found) in [(0, None), (1, Some(2)), (5, Some(2))] {
        let mut live = LiveFutex {
            valid: u32::try_from(behind + 4 * before).unwrap(),
            ..LiveFutex::default()
        };
        (live.words[AT - 1], live.words[AT], live.words[AT - 2]) = (2, died.word, 7);
        let site = Site {
            library: Library::Musl,
            function: None,
            caller: None,
        };
        let wait = Wait {
            call: &died,
            site: &site,
            memory: Some(&live),
            sp: 0x1000_0000,
        };
        assert_eq!(wait.around(-1), found, "{before}");
        assert_eq!(wait.around(-2), (before > 1).then_some(7), "{before}");
        let last = isize::try_from(LIVE_WORDS - AT).unwrap();
        assert_eq!((wait.around(last - 1), wait.around(last)), (Some(0), None));
        assert_eq!(identify(wait).abandoned, before > 0);
    }
}

/// `flockfile()` of musl: the owner's tid with bit 30.
#[test]
fn streams_of_musl_name_their_owner() {
    let held = call(op::WAIT, PRIVATE, OWNER_DIED | 0x2a);
    let found = protocol(Library::Musl, &held, &[]);
    assert_eq!(
        (found.kind, found.role, found.owner),
        (Kind::Mutex, Role::Lock, Some(0x2a))
    );
    let since = FutexWait {
        word: OWNER_DIED | 0x2b,
        ..held
    };
    assert_eq!(
        protocol(Library::Musl, &since, &[]).owner,
        None,
        "another has it now"
    );
    // Whoever ends with one leaves the bit alone.
    let ended = call(op::WAIT, PRIVATE, OWNER_DIED);
    assert!(protocol(Library::Musl, &ended, &[]).abandoned);
    let timed = FutexWait {
        flags: PRIVATE | flag::TIMED | flag::READ,
        ..held
    };
    assert_eq!(protocol(Library::Musl, &timed, &[]).kind, Kind::Unknown);
}

#[test]
fn what_musl_waits_for_without_bit_31() {
    let kind = |value, flags| {
        let found = protocol(Library::Musl, &call(op::WAIT, flags, value), &[]);
        (found.kind, found.role)
    };
    assert_eq!(kind(0, PRIVATE), (Kind::Barrier, Role::Idle));
    assert_eq!(kind(1, PRIVATE), (Kind::Barrier, Role::Idle));
    assert_eq!(kind(3, PRIVATE), (Kind::Mutex, Role::Lock), "once");
    assert_eq!(kind(3, 0).1, Role::ByBehaviour, "a count that processes share");
}

/// Without symbols the same values may be those of a caller of `syscall()`, unless the place proves
/// otherwise.
#[test]
fn a_stripped_program_with_musl_proves_less() {
    let found = |value, address| {
        let wait = FutexWait {
            address,
            ..call(op::WAIT, PRIVATE, value)
        };
        protocol(Library::StrippedMusl, &wait, &[]).kind
    };
    let stack = 0x1000_0040;
    assert_eq!(found(2, stack), Kind::Condvar);
    assert_eq!(found(1, stack), Kind::Barrier);
    assert_eq!(found(0, stack), Kind::Unknown);
    assert_eq!(found(1, 0x2000), Kind::Unknown, "parked by parking_lot");
    assert_eq!(found(3, 0x2000), Kind::Unknown);
}

#[test]
fn initialisers_and_waits_for_any_value_differ() {
    let guard = protocol(Library::Syscall, &call(op::WAIT, 0, 0x1_0100), &[]);
    assert_eq!((guard.kind, guard.role), (Kind::Mutex, Role::Lock));
    let counter = protocol(Library::Syscall, &call(op::WAIT, 0, 2), &[]);
    assert_eq!(counter.role, Role::ByBehaviour);
}

/// The names as rustc 1.63 and 1.95 mangle them.
#[test]
fn the_caller_tells_a_mutex_of_rust_from_a_count_of_two() {
    let kind = |function: Option<&str>, has_symbols| {
        let caller = Caller {
            function: function.map(str::to_owned),
            has_symbols,
        };
        let found = called(
            Library::Syscall,
            Some(caller),
            &call(op::WAIT_BITSET, PRIVATE, 2),
            &[],
        );
        (found.kind, found.role)
    };
    for mutex in [
        "_ZN3std3sys4sync5mutex5futex5Mutex14lock_contended17h0e7a3f5bd3b1f1a8E",
        "_ZN3std3sys4unix5locks11futex_mutex5Mutex14lock_contended17h5f9d0a7c7d7c4f57E",
    ] {
        assert_eq!(kind(Some(mutex), true), (Kind::Mutex, Role::Lock));
    }
    for condvar in [
        "_ZN3std3sys4sync7condvar5futex7Condvar21wait_optional_timeout17h1b1f4c2a1c9fb0a5E",
        "_ZN3std3sys4unix5locks13futex_condvar7Condvar21wait_optional_timeout17h0E",
    ] {
        assert_eq!(kind(Some(condvar), true), (Kind::Condvar, Role::ByBehaviour));
    }
    assert_eq!(
        kind(None, true),
        (Kind::Unknown, Role::ByBehaviour),
        "a futex of the program's own"
    );
    assert_eq!(
        kind(None, false),
        (Kind::Mutex, Role::LikelyLock),
        "stripped: behaviour decides"
    );
}

#[test]
fn condition_variables_inside_python_are_its_gil() {
    let wait = |operation, flags, value| protocol(Library::Python, &call(operation, flags, value), &[]);
    let gil = wait(op::WAIT_BITSET, PRIVATE | flag::TIMED, 0);
    assert_eq!(
        (gil.name, gil.kind, gil.role),
        ("the GIL", Kind::Mutex, Role::Lock)
    );
    let inside = protocol(Library::Python, &call(op::WAIT, PRIVATE, 2), &mutex(42, 0));
    assert_eq!(
        (inside.name, inside.owner),
        ("mutex", Some(42)),
        "the mutex that guards it"
    );
}
