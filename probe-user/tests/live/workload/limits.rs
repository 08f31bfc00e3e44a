//! Scenes for what has bounds: very many locks, and very many threads that are moved from one futex to another.

use std::sync::atomic::{AtomicI32, AtomicU32, AtomicU64, Ordering::SeqCst};
use std::time::Instant;

use crate::arena::{self, Flavour, PthreadMutex, address, futex, in_futex, nap, nap_until};
use crate::{command, say, sys};

fn myself() -> i64 {
    i64::from(std::process::id())
}

/// Locks that each see one wait: pairs of threads go through as many as they are told to, all different. Nothing else is
/// waited for in a futex.
pub fn many_locks() {
    const PAIRS: usize = 10;
    sys::set_name(b"pp-many");
    say("ready", &[("pid", myself())]);
    while let Some(line) = command() {
        let count: usize = line.parse().expect("a number");
        let pairs: Vec<_> = (0..PAIRS).map(|_| Pair::start(count / PAIRS)).collect();
        nap_until(|| {
            let done = |pair: &&Pair| pair.done.load(SeqCst) as usize == pair.locks.len();
            pairs.iter().all(done)
        });
        let wait_ns: u64 = pairs.iter().map(|pair| pair.wait_ns.load(SeqCst)).sum();
        let waits: usize = pairs.iter().map(|pair| pair.locks.len()).sum();
        let [waits, wait_ns] = [waits as u64, wait_ns].map(|count| i64::try_from(count).expect("it fits"));
        say("done", &[("waits", waits), ("wait_ns", wait_ns)]);
    }
}

/// A thread that waits once for each of some locks, and one that holds it until the other does.
struct Pair {
    locks: Vec<&'static PthreadMutex>,
    waiter: AtomicI32,
    /// Which lock is held, and up to which the waiter is through, from 1.
    turn: AtomicU32,
    done: AtomicU32,
    wait_ns: AtomicU64,
}

impl Pair {
    fn start(count: usize) -> &'static Self {
        let locks = (0..count).map(|_| PthreadMutex::leak(Flavour::Plain));
        let pair: &'static Self = Box::leak(Box::new(Self {
            locks: locks.collect(),
            waiter: AtomicI32::new(0),
            turn: AtomicU32::new(0),
            done: AtomicU32::new(0),
            wait_ns: AtomicU64::new(0),
        }));
        arena::thread("pp-waiter", || pair.wait());
        arena::thread("pp-keeper", || pair.hold());
        pair
    }

    fn wait(&self) {
        self.waiter.store(sys::gettid(), SeqCst);
        for (number, lock) in (1..).zip(&self.locks) {
            nap_until(|| self.turn.load(SeqCst) == number);
            let began = Instant::now();
            lock.lock();
            let waited = u64::try_from(began.elapsed().as_nanos()).expect("it fits");
            self.wait_ns.fetch_add(waited, SeqCst);
            lock.unlock();
            self.done.store(number, SeqCst);
        }
    }

    fn hold(&self) {
        for (number, lock) in (1..).zip(&self.locks) {
            lock.lock();
            self.turn.store(number, SeqCst);
            nap_until(|| in_futex(self.waiter.load(SeqCst)));
            // Long against what the calls themselves take, which the two measures count differently.
            nap(400);
            lock.unlock();
            nap_until(|| self.done.load(SeqCst) == number);
        }
    }
}

/// Threads of [`requeue`].
const CROWD: usize = 200;

/// Where they wait, and where they are moved; as the mutex of a condition variable would be.
static FIRST: AtomicU32 = AtomicU32::new(0);
static SECOND: AtomicU32 = AtomicU32::new(0);
static TIDS: [AtomicI32; CROWD] = [const { AtomicI32::new(0) }; CROWD];
/// Rounds begun, waits that ended well, and calls that never slept.
static ROUND: AtomicU32 = AtomicU32::new(0);
static WAITS: AtomicU32 = AtomicU32::new(0);
static AWAKE: AtomicU32 = AtomicU32::new(0);

/// Two hundred threads that wait at one address. Lines: `block` has them all wait, `requeue` moves them to another
/// address without waking any, as a broadcast does, and `release` wakes the first, which wakes the next, and so on.
pub fn requeue() {
    sys::set_name(b"pp-requeue");
    for tid in &TIDS {
        arena::thread("pp-crowd", || {
            tid.store(sys::gettid(), SeqCst);
            crowd();
        });
    }
    nap_until(|| TIDS.iter().all(|tid| tid.load(SeqCst) > 0));
    say(
        "ready",
        &[
            ("pid", myself()),
            ("threads", i64::try_from(CROWD).expect("a few")),
            ("first", address(&FIRST)),
            ("second", address(&SECOND)),
        ],
    );
    while let Some(line) = command() {
        let moved = match line.as_str() {
            "block" => {
                FIRST.fetch_add(1, SeqCst);
                ROUND.fetch_add(1, SeqCst);
                nap_until(|| TIDS.iter().all(|tid| in_futex(tid.load(SeqCst))));
                0
            }
            "requeue" => requeue_all(),
            _ => {
                futex_wake(&SECOND);
                let all = ROUND.load(SeqCst) * u32::try_from(CROWD).expect("a few");
                nap_until(|| WAITS.load(SeqCst) + AWAKE.load(SeqCst) == all);
                0
            }
        };
        let [waits, awake] = [&WAITS, &AWAKE].map(|count| i64::from(count.load(SeqCst)));
        say("done", &[("moved", moved), ("waits", waits), ("awake", awake)]);
    }
}

fn crowd() {
    for round in 1.. {
        while ROUND.load(SeqCst) < round {
            nap(5_000);
        }
        let operation = libc::FUTEX_WAIT | libc::FUTEX_PRIVATE_FLAG;
        let outcome = futex(FIRST.as_ptr(), operation, round, std::ptr::null());
        let count = if outcome == 0 { &WAITS } else { &AWAKE };
        futex_wake(&SECOND);
        count.fetch_add(1, SeqCst);
    }
}

fn futex_wake(word: &AtomicU32) {
    let operation = libc::FUTEX_WAKE | libc::FUTEX_PRIVATE_FLAG;
    futex(word.as_ptr(), operation, 1, std::ptr::null());
}

/// Moves all who wait at the first address to the second. Returns how many.
fn requeue_all() -> i64 {
    let operation = libc::FUTEX_CMP_REQUEUE | libc::FUTEX_PRIVATE_FLAG;
    // SAFETY: two words that live for ever; wakes nobody and moves everybody.
    unsafe {
        libc::syscall(
            libc::SYS_futex,
            FIRST.as_ptr(),
            operation,
            0,
            i32::MAX,
            SECOND.as_ptr(),
            FIRST.load(SeqCst),
        )
    }
}
