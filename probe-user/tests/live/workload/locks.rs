//! Contended locks whose every wait is logged by the program itself: who waited, how long, who held the lock when the
//! wait began, and who gave it up before.
//!
//! Rounds keep the log exact. In each, one thread takes the lock and keeps it until all others sleep in the futex; then
//! they get it in turn, each keeps it for a moment, and nobody comes back before all are through. So each call of lock
//! blocks, once, and nobody gets in between the one who unlocks and the one who is woken.

use std::sync::atomic::{AtomicI32, AtomicU32, AtomicU64, Ordering::SeqCst};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use crate::arena::{self, Flavour, PthreadMutex, Shareable, address, in_futex, map, memory, nap, nap_until};
use crate::{command, say, sys};

/// Threads of a scene.
const THREADS: usize = 8;
/// Those that wait for a mutex whose owners die, in its place; the others are the owners, one a round.
const SURVIVORS: usize = 4;
/// Places in the log.
const SLOTS: usize = 32;
/// How long a holder sleeps on the lock once all others wait for it, and each of those after it, microseconds.
const HOLD_US: u64 = 3_000;
const TURN_US: u64 = 400;

/// What all threads of a scene share, in one process or in two.
#[repr(C)]
struct Arena {
    mutex: PthreadMutex,
    /// How many rounds there are to be, and how many have begun.
    rounds: AtomicU32,
    round: AtomicU32,
    /// Who has the lock in this round, and who gave it up last.
    holder: AtomicU32,
    released: AtomicU32,
    /// How many have been through, over all rounds.
    through: AtomicU32,
    pids: [AtomicI32; 2],
    /// Where each process sees the lock.
    addresses: [AtomicU64; 2],
    tids: [AtomicI32; SLOTS],
    waits: AtomicU64,
    wait_ns: AtomicU64,
    max_ns: AtomicU64,
    begin: [[AtomicU64; SLOTS]; SLOTS],
    wake: [[AtomicU64; SLOTS]; SLOTS],
}

// SAFETY: atomics, for which zero is a value, and a mutex that is initialised before anybody uses it.
unsafe impl Shareable for Arena {}

/// The lock of the scene with Rust's own: a static one has a symbol.
static STD_LOCK: Mutex<()> = Mutex::new(());

/// What the rounds go for.
#[derive(Clone, Copy)]
enum Lock {
    Pthread,
    Std,
}

impl Arena {
    /// Takes the lock, does something with it, and gives it up.
    fn with(&self, lock: Lock, slot: usize, body: impl FnOnce()) {
        let released = u32::try_from(slot).expect("a place");
        match lock {
            Lock::Std => {
                let _guard = STD_LOCK.lock().unwrap_or_else(PoisonError::into_inner);
                body();
                self.released.store(released, SeqCst);
            }
            Lock::Pthread => {
                if self.mutex.lock() == libc::EOWNERDEAD {
                    self.mutex.recover();
                }
                body();
                self.released.store(released, SeqCst);
                self.mutex.unlock();
            }
        }
    }

    /// The holder's part of a round, with the lock taken.
    fn hold(&self, slot: usize, round: u32, waiters: usize) {
        self.holder.store(u32::try_from(slot).expect("a place"), SeqCst);
        self.round.store(round + 1, SeqCst);
        for (other, tid) in self.tids.iter().enumerate().take(waiters) {
            if other != slot {
                nap_until(|| in_futex(tid.load(SeqCst)));
            }
        }
        nap(HOLD_US);
    }

    /// A waiter's part: one wait, logged.
    fn queue(&self, lock: Lock, slot: usize, round: u32) {
        nap_until(|| self.round.load(SeqCst) > round);
        self.begin[slot][self.holder.load(SeqCst) as usize].fetch_add(1, SeqCst);
        let began = Instant::now();
        self.with(lock, slot, || {
            let waited = u64::try_from(began.elapsed().as_nanos()).expect("it is not that long");
            self.waits.fetch_add(1, SeqCst);
            self.wait_ns.fetch_add(waited, SeqCst);
            self.max_ns.fetch_max(waited, SeqCst);
            self.wake[slot][self.released.load(SeqCst) as usize].fetch_add(1, SeqCst);
            nap(TURN_US);
        });
    }

    /// A thread of the scene: its turn as the holder comes every so many rounds.
    fn play(&self, lock: Lock, slot: usize) {
        self.tids[slot].store(sys::gettid(), SeqCst);
        let players = u32::try_from(THREADS).expect("a few");
        let mut round = 0;
        loop {
            while self.rounds.load(SeqCst) <= round {
                nap(1_000);
            }
            if round % players == u32::try_from(slot).expect("a place") {
                self.with(lock, slot, || self.hold(slot, round, THREADS));
            } else {
                self.queue(lock, slot, round);
            }
            self.arrive(round, players);
            round += 1;
        }
    }

    /// Nobody begins another round before all are through with this one.
    fn arrive(&self, round: u32, players: u32) {
        self.through.fetch_add(1, SeqCst);
        nap_until(|| self.through.load(SeqCst) >= (round + 1) * players);
    }

    fn await_tids(&self, count: usize) {
        nap_until(|| self.tids[..count].iter().all(|tid| tid.load(SeqCst) > 0));
    }

    /// Answers `done` with the totals, and who waited how often for whom (`begin`) and was woken by whom (`wake`), by tid.
    fn report(&self) {
        let number = |value: &AtomicU64| i64::try_from(value.load(SeqCst)).expect("a count");
        let mut facts = vec![
            ("waits".to_owned(), number(&self.waits)),
            ("wait_ns".to_owned(), number(&self.wait_ns)),
            ("max_ns".to_owned(), number(&self.max_ns)),
        ];
        for (name, matrix) in [("begin", &self.begin), ("wake", &self.wake)] {
            for (waiter, row) in matrix.iter().enumerate() {
                for (holder, count) in row.iter().enumerate().filter(|(_, count)| number(count) > 0) {
                    let [waiter, holder] = [waiter, holder].map(|slot| self.tids[slot].load(SeqCst));
                    facts.push((format!("{name}_{waiter}_{holder}"), number(count)));
                }
            }
        }
        let facts: Vec<_> = facts.iter().map(|(key, value)| (key.as_str(), *value)).collect();
        say("done", &facts);
    }

    /// Says that the scene stands; then plays so many rounds for each line with a number.
    fn obey(&self, seen_at: i64) {
        let pid = |place: usize| i64::from(self.pids[place].load(SeqCst));
        let elsewhere = i64::try_from(self.addresses[1].load(SeqCst)).expect("an address");
        say(
            "ready",
            &[
                ("pid", pid(0)),
                ("address", seen_at),
                ("pid2", pid(1)),
                ("address2", elsewhere),
            ],
        );
        let players = u32::try_from(THREADS).expect("a few");
        while let Some(line) = command() {
            let rounds: u32 = line.parse().expect("a number");
            let rounds = self.rounds.fetch_add(rounds, SeqCst) + rounds;
            while self.through.load(SeqCst) < rounds * players {
                nap(1_000);
            }
            self.report();
        }
    }
}

fn myself() -> i32 {
    i32::try_from(std::process::id()).expect("a pid")
}

/// Eight threads and one lock of a kind, in one process. Each line with a number is that many rounds.
pub fn rounds(kind: &str) {
    let arena: &'static Arena = map(&memory::<Arena>());
    let (lock, flavour) = match kind {
        "std" => (Lock::Std, Flavour::Plain),
        "pi" => (Lock::Pthread, Flavour::Inheriting),
        "pthread" => (Lock::Pthread, Flavour::Plain),
        other => panic!("no lock called {other:?}"),
    };
    arena.mutex.init(flavour);
    sys::set_name(b"pp-rounds");
    arena.pids[0].store(myself(), SeqCst);
    for slot in 0..THREADS {
        arena::thread(&format!("pp-player-{slot}"), move || arena.play(lock, slot));
    }
    arena.await_tids(THREADS);
    arena.obey(match lock {
        Lock::Std => address(&STD_LOCK),
        Lock::Pthread => address(&arena.mutex),
    });
}

/// The same with a mutex that two processes share, four threads in each, and each sees it somewhere else.
pub fn rounds_between_processes() {
    let file = memory::<Arena>();
    let here: &'static Arena = map(&file);
    here.mutex.init(Flavour::Shared);
    let start = |arena: &'static Arena, place: usize| {
        arena.pids[place].store(myself(), SeqCst);
        let seen_at = u64::try_from(address(&arena.mutex)).expect("an address");
        arena.addresses[place].store(seen_at, SeqCst);
        for slot in (place..THREADS).step_by(2) {
            arena::thread(&format!("pp-player-{slot}"), move || {
                arena.play(Lock::Pthread, slot);
            });
        }
    };
    sys::set_name(b"pp-rounds");
    sys::fork(|| {
        sys::set_name(b"pp-rounds2");
        // While the inherited mapping is still there, so that the new one is elsewhere.
        start(map(&file), 1);
        sys::pause();
    });
    start(here, 0);
    here.await_tids(THREADS);
    here.obey(address(&here.mutex));
}

/// A robust mutex whose owners end without giving it up, one in each round, with four threads that wait for it.
pub fn rounds_of_the_dying() {
    let arena: &'static Arena = map(&memory::<Arena>());
    arena.mutex.init(Flavour::Robust);
    sys::set_name(b"pp-rounds");
    arena.pids[0].store(myself(), SeqCst);
    let survivors = u32::try_from(SURVIVORS).expect("a few");
    for slot in 0..SURVIVORS {
        arena::thread(&format!("pp-player-{slot}"), move || {
            arena.tids[slot].store(sys::gettid(), SeqCst);
            for round in 0.. {
                while arena.rounds.load(SeqCst) <= round {
                    nap(1_000);
                }
                arena.queue(Lock::Pthread, slot, round);
                arena.arrive(round, survivors);
            }
        });
    }
    arena.await_tids(SURVIVORS);
    let facts = [
        ("pid", i64::from(myself())),
        ("address", address(&arena.mutex)),
        ("survivors", i64::from(survivors)),
    ];
    say("ready", &facts);
    while let Some(line) = command() {
        let rounds: u32 = line.parse().expect("a number");
        assert_eq!(
            arena.rounds.load(SeqCst),
            0,
            "there are places for one series of owners"
        );
        assert!(rounds as usize <= SLOTS - SURVIVORS, "one place for each owner");
        arena.rounds.store(rounds, SeqCst);
        for round in 0..rounds {
            let slot = SURVIVORS + round as usize;
            arena::thread("pp-mortal", move || {
                arena.tids[slot].store(sys::gettid(), SeqCst);
                assert_eq!(arena.mutex.lock(), 0, "everybody is through with it");
                arena.hold(slot, round, SURVIVORS);
                arena
                    .released
                    .store(u32::try_from(slot).expect("a place"), SeqCst);
            });
            nap_until(|| arena.through.load(SeqCst) >= (round + 1) * survivors);
        }
        // The last mortal may be on its way out.
        nap_until(|| {
            let last = arena.tids[SURVIVORS + rounds as usize - 1].load(SeqCst);
            !std::path::Path::new(&format!("/proc/self/task/{last}")).exists()
        });
        arena.report();
    }
}
