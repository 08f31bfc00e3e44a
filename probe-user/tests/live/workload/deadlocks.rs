//! Threads that will wait for each other for ever: by twos, by fives, alone, across processes and in a namespace.

use std::os::unix::ffi::OsStrExt;
use std::sync::atomic::{AtomicI32, AtomicU32, AtomicU64, Ordering::SeqCst};
use std::sync::{Mutex, PoisonError};

use crate::arena::{self, Flavour, PthreadMutex, Shareable, address, in_futex, map, memory, nap_until};
use crate::{ready, sys};

/// More than any scene has.
const MOST: usize = 8;
const KEYS: [[&str; 3]; MOST] = [
    ["tid0", "lock0", "pid0"],
    ["tid1", "lock1", "pid1"],
    ["tid2", "lock2", "pid2"],
    ["tid3", "lock3", "pid3"],
    ["tid4", "lock4", "pid4"],
    ["tid5", "lock5", "pid5"],
    ["tid6", "lock6", "pid6"],
    ["tid7", "lock7", "pid7"],
];

/// Thread `n` takes mutex `n`, waits until the others have theirs, and wants the one after it.
#[repr(C)]
struct Knot {
    mutexes: [PthreadMutex; MOST],
    holding: AtomicU32,
    /// By the initial namespace, whatever the threads think they are called.
    tids: [AtomicI32; MOST],
    pids: [AtomicI32; MOST],
    /// Where thread `n` sees its own mutex.
    seen_at: [AtomicU64; MOST],
}

// SAFETY: atomics, for which zero is a value, and mutexes that are initialised before anybody uses them.
unsafe impl Shareable for Knot {}

/// The calling thread's process and its own number, as whoever mounted /proc sees them.
fn names() -> (i32, i32) {
    let link = std::fs::read_link("/proc/thread-self").expect("a link");
    let text = String::from_utf8_lossy(link.as_os_str().as_bytes()).into_owned();
    let numbers: Vec<i32> = text.split('/').filter_map(|part| part.parse().ok()).collect();
    (numbers[0], numbers[1])
}

impl Knot {
    fn new(file: &std::fs::File, flavour: Flavour) -> &'static Self {
        let knot: &'static Self = map(file);
        for mutex in &knot.mutexes {
            mutex.init(flavour);
        }
        knot
    }

    /// What the thread at a place does, for ever.
    fn tie(&self, place: usize, places: usize) {
        let (pid, tid) = names();
        self.pids[place].store(pid, SeqCst);
        let seen_at = u64::try_from(address(&self.mutexes[place])).expect("an address");
        self.seen_at[place].store(seen_at, SeqCst);
        self.mutexes[place].lock();
        self.holding.fetch_add(1, SeqCst);
        nap_until(|| self.holding.load(SeqCst) as usize == places);
        self.tids[place].store(tid, SeqCst);
        self.mutexes[(place + 1) % places].lock();
    }

    /// Once all wait: who they are and what they hold.
    fn report(&self, places: usize) {
        nap_until(|| {
            self.tids[..places]
                .iter()
                .all(|tid| tid.load(SeqCst) > 0 && in_futex(tid.load(SeqCst)))
        });
        let mut facts = vec![("pid", self.pids[0].load(SeqCst).into())];
        for (place, [tid, lock, pid]) in KEYS.into_iter().enumerate().take(places) {
            let seen_at = i64::try_from(self.seen_at[place].load(SeqCst)).expect("an address");
            facts.extend([
                (tid, self.tids[place].load(SeqCst).into()),
                (lock, seen_at),
                (pid, self.pids[place].load(SeqCst).into()),
            ]);
        }
        ready(&facts);
    }

    fn start_threads(&'static self, places: usize) {
        for place in 0..places {
            arena::thread(&format!("pp-knot-{place}"), move || self.tie(place, places));
        }
    }

    fn start_hostile_threads(&'static self) {
        for (place, name) in HOSTILE.into_iter().enumerate() {
            arena::thread(name, move || self.tie(place, HOSTILE.len()));
        }
    }
}

/// A cycle of so many threads; a single one locks its mutex twice.
pub fn cycle(count: usize) {
    sys::set_name(b"pp-cycle");
    let knot = Knot::new(&memory::<Knot>(), Flavour::Plain);
    knot.start_threads(count);
    knot.report(count);
}

/// Names that could break a drawing.
const HOSTILE: [&str; 3] = ["\"]; a -> b; \\", "x\n--> end|{y}", "<b>&quot;#35;"];

/// A cycle of three threads with such names.
pub fn cycle_of_the_hostile() {
    sys::set_name(b"pp-\"hostile\"");
    let knot = Knot::new(&memory::<Knot>(), Flavour::Plain);
    knot.start_hostile_threads();
    knot.report(HOSTILE.len());
}

/// Two processes with a mutex each, in memory that they see at different addresses.
pub fn cycle_across_processes() {
    sys::set_name(b"pp-across0");
    let file = memory::<Knot>();
    let knot = Knot::new(&file, Flavour::Shared);
    for (place, name) in [b"pp-across0", b"pp-across1"].into_iter().enumerate() {
        sys::fork(|| {
            sys::set_name(name);
            // The inherited mapping is still there, and another one for each before: no two see the same addresses.
            let mappings: Vec<&'static Knot> = (0..=place).map(|_| map(&file)).collect();
            mappings[place].tie(place, 2);
        });
    }
    knot.report(2);
}

/// A cycle of three threads in a pid namespace, where they go by other numbers.
pub fn cycle_in_namespace() {
    sys::set_name(b"pp-outside");
    let knot = Knot::new(&memory::<Knot>(), Flavour::Plain);
    sys::unshare_pids();
    sys::fork(|| {
        sys::set_name(b"pp-inside");
        knot.start_threads(3);
        sys::pause();
    });
    knot.report(3);
}

/// A thread ended with a mutex that another one wants.
pub fn dead_owner() {
    static TIDS: [AtomicI32; 2] = [const { AtomicI32::new(0) }; 2];
    sys::set_name(b"pp-abandoned");
    let mutex = PthreadMutex::leak(Flavour::Plain);
    arena::thread("pp-dead", || {
        mutex.lock();
        TIDS[0].store(sys::gettid(), SeqCst);
    });
    nap_until(|| TIDS[0].load(SeqCst) > 0);
    let dead = TIDS[0].load(SeqCst);
    nap_until(|| {
        arena::asleep_in(dead).is_none() && !std::path::Path::new(&format!("/proc/{dead}")).exists()
    });
    arena::thread("pp-bereft", || {
        TIDS[1].store(sys::gettid(), SeqCst);
        mutex.lock();
    });
    nap_until(|| TIDS[1].load(SeqCst) > 0 && in_futex(TIDS[1].load(SeqCst)));
    ready(&[
        ("pid", std::process::id().into()),
        ("dead", dead.into()),
        ("tid", TIDS[1].load(SeqCst).into()),
        ("lock", address(mutex)),
    ]);
}

/// Two threads, each with one of Rust's mutexes, which do not tell their owner, and each wants the other's. They are
/// alone in their process but for its first thread, which has slept since before: nobody who could end it.
pub fn cycle_without_owners() {
    static LOCKS: [Mutex<()>; 2] = [const { Mutex::new(()) }; 2];
    sys::set_name(b"pp-outside");
    let knot = Knot::new(&memory::<Knot>(), Flavour::Plain);
    let child = sys::fork(|| {
        sys::set_name(b"pp-ownerless");
        for place in 0..2 {
            arena::thread(&format!("pp-knot-{place}"), move || {
                let _mine = LOCKS[place].lock().unwrap_or_else(PoisonError::into_inner);
                knot.holding.fetch_add(1, SeqCst);
                // Two, and a third when all is quiet but for these.
                nap_until(|| knot.holding.load(SeqCst) == 3);
                knot.tids[place].store(sys::gettid(), SeqCst);
                let _other = LOCKS[1 - place].lock().unwrap_or_else(PoisonError::into_inner);
            });
        }
        sys::pause();
    });
    nap_until(|| {
        knot.holding.load(SeqCst) == 2 && arena::asleep_in(child).is_some_and(|call| call == libc::SYS_pause)
    });
    knot.holding.fetch_add(1, SeqCst);
    nap_until(|| {
        let tids = knot.tids[..2].iter().map(|tid| tid.load(SeqCst));
        tids.into_iter().all(|tid| tid > 0 && in_futex(tid))
    });
    ready(&[
        ("pid", child.into()),
        ("tid0", knot.tids[0].load(SeqCst).into()),
        ("tid1", knot.tids[1].load(SeqCst).into()),
    ]);
}
