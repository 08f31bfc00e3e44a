//! The threads that read, and telling one that hangs from one that has much to do.

use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::locked;
use super::subject::Subject;
use crate::kernel::own_thread::OwnThread;

/// Threads at most, those that hang included. Each takes some 20 KiB, and a place of the 64 that the unit
/// allows.
const MOST: usize = 16;
/// Threads that are kept while there is nothing to read: one for the engine, one for an answer.
const IDLE: usize = 2;

/// What a thread is to do.
pub type Work = Box<dyn FnOnce(&Desk) + Send>;

/// See the module.
#[derive(Default)]
pub struct Pool {
    idle: Mutex<Vec<Worker>>,
    alive: Arc<AtomicUsize>,
}

/// A thread. When this is dropped it ends after what it is at.
pub struct Worker {
    work: Sender<Work>,
    desk: Arc<Desk>,
}

/// Where a thread says what it is at.
#[derive(Default)]
pub struct Desk {
    /// How many questions it has turned to.
    turns: AtomicU64,
    /// The process the question is about; `None` between questions.
    subject: Mutex<Option<Subject>>,
    /// It asks the namer, which has a deadline of its own.
    elsewhere: AtomicBool,
    given_up: AtomicBool,
    thread: Mutex<Option<OwnThread>>,
}

impl Desk {
    /// Says whom the thread asks now.
    pub fn turn_to(&self, subject: &Subject) {
        let mut about = locked(&self.subject);
        *about = Some(*subject);
        self.turns.fetch_add(1, Ordering::Release);
    }

    /// The question is answered; false if it was given up meanwhile.
    pub(super) fn leave(&self) -> bool {
        let mut subject = locked(&self.subject);
        *subject = None;
        !self.given_up.load(Ordering::Acquire)
    }
}

/// A thread that hangs, for as long as it does.
pub struct Hanging(Arc<Desk>);

impl Hanging {
    /// Whether it still does.
    pub fn still(&self) -> bool {
        locked(&self.0.subject).is_some()
    }

    #[cfg(test)]
    pub fn for_tests(still: bool) -> Self {
        let desk = Desk::default();
        *locked(&desk.subject) = still.then_some(Subject::of(1, 1));
        Self(Arc::new(desk))
    }
}

impl Worker {
    /// Gives it up for as long as it hangs.
    pub fn hangs(self) -> Hanging {
        Hanging(self.desk)
    }

    /// Whether it is in a system call that does not return, as opposed to waiting for a CPU.
    fn sleeps(&self) -> bool {
        let thread = locked(&self.desk.thread).clone();
        thread.is_some_and(|thread| thread.sleeps())
    }

    /// Gives it up if it still is at a question; whom that is about.
    fn give_up(&self, turns: u64) -> Option<Subject> {
        let subject = locked(&self.desk.subject);
        let stays = self.desk.turns.load(Ordering::Acquire) == turns;
        let found = subject.filter(|_| stays)?;
        self.desk.given_up.store(true, Ordering::Release);
        Some(found)
    }
}

impl Pool {
    /// Has a thread do something. `None` if there is none to be had.
    pub fn begin(&self, work: Work) -> Option<Worker> {
        let idle = locked(&self.idle).pop();
        let worker = idle.or_else(|| self.hire())?;
        worker.work.send(work).ok()?;
        Some(worker)
    }

    /// Keeps a thread that has done its work, if few are kept.
    pub fn give_back(&self, worker: Worker) {
        let mut idle = locked(&self.idle);
        if idle.len() < IDLE {
            idle.push(worker);
        }
    }

    /// Has threads wait for work, of which a host may have none left to give later.
    pub fn prepare(&self) {
        let mut idle = locked(&self.idle);
        let more = IDLE.saturating_sub(idle.len());
        idle.extend((0..more).map_while(|_| self.hire()));
    }

    #[cfg(test)]
    pub fn alive(&self) -> usize {
        self.alive.load(Ordering::Relaxed)
    }

    fn hire(&self) -> Option<Worker> {
        let place = Place::take(&self.alive)?;
        let (work, works) = channel();
        let desk = Arc::new(Desk::default());
        let thread = std::thread::Builder::new().name("proc".to_owned());
        let of_thread = Arc::clone(&desk);
        let spawned = thread.spawn(move || {
            let _place = place;
            sit(&works, of_thread);
        });
        spawned.ok().map(|_| Worker { work, desk })
    }
}

/// One of [`MOST`].
struct Place(Arc<AtomicUsize>);

impl Place {
    fn take(alive: &Arc<AtomicUsize>) -> Option<Self> {
        let taken = alive.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |count| {
            (count < MOST).then_some(count + 1)
        });
        taken.is_ok().then(|| Self(Arc::clone(alive)))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

thread_local! {
    static DESK: RefCell<Option<Arc<Desk>>> = const { RefCell::new(None) };
}

fn sit(works: &Receiver<Work>, desk: Arc<Desk>) {
    *locked(&desk.thread) = OwnThread::current();
    DESK.set(Some(Arc::clone(&desk)));
    for work in works {
        if catch_unwind(AssertUnwindSafe(|| work(&desk))).is_err() {
            tracing::error!("reading /proc failed in a way that nobody foresaw (please report it)");
            desk.leave();
        }
    }
}

/// Does something that has a deadline of its own: whoever waits for this thread should not hold it against
/// the process that the question is about.
pub fn elsewhere<T>(work: impl FnOnce() -> T) -> T {
    let mark = |elsewhere| {
        DESK.with_borrow(|desk| {
            if let Some(desk) = desk {
                desk.elsewhere.store(elsewhere, Ordering::Relaxed);
                // Time there does not count for what comes behind.
                desk.turns.fetch_add(1, Ordering::Release);
            }
        });
    };
    mark(true);
    let done = work();
    mark(false);
    done
}

/// How far a thread has come.
#[derive(Default)]
pub struct Progress {
    turns: u64,
    since: Option<Instant>,
}

impl Progress {
    /// Whom the thread hangs in, if it has been at one question for so long; it is given up then.
    pub fn hangs(&mut self, worker: &Worker, patience: Duration) -> Option<Subject> {
        let desk = &worker.desk;
        let turns = desk.turns.load(Ordering::Acquire);
        let since = match self.since {
            Some(since) if turns == self.turns && !desk.elsewhere.load(Ordering::Relaxed) => since,
            _ => {
                self.turns = turns;
                self.since = Some(Instant::now());
                return None;
            }
        };
        if since.elapsed() < patience || !worker.sleeps() {
            return None;
        }
        worker.give_up(turns)
    }
}
