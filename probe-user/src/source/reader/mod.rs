//! The one door to what /proc says of other processes: their files are read by a thread that may hang.
//!
//! `/proc/PID/maps`, `cmdline` and `mem` take the lock of the process's memory map, `mem` faults pages in as well,
//! and opening them waits for whoever is in the middle of an exec there. Even `stat` holds on to the memory
//! map for a moment: if the process ends meanwhile it is the reader that takes the map down, and waits for
//! the servers of files in it (`mmput()` in `do_task_stat()`, `fuse_vma_close()`). What holds those can be
//! made to last for ever. So:
//! - a thread from a small pool reads, and is replaced when it hangs; a look goes on behind the process that
//!   it hangs in, which is left alone for a minute ([`left_alone`]);
//! - all questions of a look have one [`Budget`] of time, and every file a limit in bytes ([`files`]);
//! - who costs much time waits longest ([`fair`]);
//! - what was not answered is counted, and the process named that it is for.
//!
//! | module | does |
//! |---|---|
//! | [`budget`] | how long a look may wait |
//! | [`fair`] | whose turn it is |
//! | [`files`] | a process's directory: what is read of it, and how much |
//! | [`left_alone`] | who is not asked, and why |
//! | [`pool`] | the threads, and seeing that one hangs |
//! | [`subject`] | whom a question is about |

pub mod budget;
mod fair;
pub mod files;
mod left_alone;
mod pool;
pub mod subject;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::model::locks::memory::MemoryGap;
pub use budget::Budget;
use fair::{Accounts, Queue, user_of};
use left_alone::LeftAlone;
pub use pool::{Desk, elsewhere};
use pool::{Pool, Progress, Worker};
pub use subject::{Subject, questions, subjects};

/// How often the one that waits looks whether there is progress.
const TICK: Duration = Duration::from_millis(10);
/// A question about a process that takes so long hangs. A page from a disk takes a tenth of it.
const PATIENCE: Duration = Duration::from_millis(100);

/// See the module.
#[derive(Default)]
pub struct Reader {
    pool: Arc<Pool>,
    left_alone: Mutex<LeftAlone>,
    accounts: Mutex<Accounts>,
}

/// What came of some questions.
#[derive(Debug)]
pub struct Asked<A> {
    /// The answers, as far as there are any.
    pub answers: Vec<A>,
    /// Questions that have none: not asked, or not answered in time.
    pub lost: u64,
    /// The processes that are the reason.
    pub gaps: BTreeMap<u32, MemoryGap>,
}

impl<A> Default for Asked<A> {
    fn default() -> Self {
        Self {
            answers: Vec::new(),
            lost: 0,
            gaps: BTreeMap::new(),
        }
    }
}

/// The reader of this process.
pub fn shared() -> &'static Reader {
    static SHARED: LazyLock<Reader> = LazyLock::new(Reader::default);
    &SHARED
}

impl Reader {
    /// Asks `read` about each subject, on another thread, for as long as the budget lasts. `S` is what a
    /// thread keeps between questions.
    pub fn ask<S, Q, A>(
        &self,
        budget: &mut Budget,
        questions: impl IntoIterator<Item = (Subject, Q)>,
        read: impl Fn(&Desk, &mut S, &Subject, Q) -> Vec<A> + Send + Sync + 'static,
    ) -> Asked<A>
    where
        S: Default + 'static,
        Q: Send + 'static,
        A: Send + 'static,
    {
        let mut asked = Asked::default();
        let open = self.sift(questions, &mut asked);
        if open.is_empty() || budget.left().is_zero() {
            asked.lost += open.len() as u64;
            return asked;
        }
        let queue = Queue::new(open, &locked(&self.accounts), Instant::now());
        let job = Arc::new(Job::new(queue));
        let work = {
            let job = Arc::clone(&job);
            Arc::new(move |desk: &Desk| job.run(desk, &read))
        };
        let began = Instant::now();
        self.wait(&job, began + budget.left(), &mut asked, || {
            let work = Arc::clone(&work);
            Box::new(move |desk: &Desk| work(desk))
        });
        budget.spend(began.elapsed());
        for (user, time) in job.end(&mut asked) {
            locked(&self.accounts).charge(user, time, Instant::now());
        }
        asked
    }

    /// Makes the first threads, of which a host may have none left to give later.
    pub fn prepare(&self) {
        self.pool.prepare();
    }

    /// Why a process is not asked at the moment.
    pub fn leaves_alone(&self, subject: &Subject) -> Option<MemoryGap> {
        self.left_alone().reason(subject)
    }

    /// Leaves out those that are left alone, which is counted.
    fn sift<Q, A>(
        &self,
        questions: impl IntoIterator<Item = (Subject, Q)>,
        asked: &mut Asked<A>,
    ) -> Vec<(Subject, Q)> {
        let mut left_alone = self.left_alone();
        left_alone.sweep(Instant::now());
        let questions = questions.into_iter();
        questions
            .filter(|(subject, _)| match left_alone.reason(subject) {
                Some(gap) => {
                    asked.lost += 1;
                    asked.gaps.insert(subject.pid, gap);
                    false
                }
                None => true,
            })
            .collect()
    }

    /// Waits until the job is done, and has another thread go on where one hangs.
    fn wait<Q, A>(
        &self,
        job: &Job<Q, A>,
        deadline: Instant,
        asked: &mut Asked<A>,
        work: impl Fn() -> pool::Work,
    ) {
        loop {
            let Some(worker) = self.pool.begin(work()) else {
                tracing::warn!(
                    "no thread is left to read /proc with: too many hang in processes that do not answer"
                );
                return;
            };
            match watch(job, &worker, deadline) {
                Outcome::Done => {
                    self.pool.give_back(worker);
                    return;
                }
                Outcome::Late => return,
                Outcome::Hangs(subject) => {
                    tracing::warn!(
                        pid = subject.pid,
                        "reading /proc of this process does not come back; it is left alone for a minute"
                    );
                    asked.gaps.insert(subject.pid, MemoryGap::Hangs);
                    self.left_alone().add(&subject, worker.hangs(), Instant::now());
                }
            }
        }
    }

    fn left_alone(&self) -> MutexGuard<'_, LeftAlone> {
        locked(&self.left_alone)
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

enum Outcome {
    Done,
    /// The budget is spent; the thread ends when it has answered what it is at.
    Late,
    Hangs(Subject),
}

/// Waits for a thread: for its work, for the deadline, or for too long without progress.
fn watch<Q, A>(job: &Job<Q, A>, worker: &Worker, deadline: Instant) -> Outcome {
    let mut progress = Progress::default();
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if job.is_done_within(TICK.min(left)) {
            return Outcome::Done;
        }
        if let Some(subject) = progress.hangs(worker, PATIENCE) {
            return Outcome::Hangs(subject);
        }
        if left.is_zero() {
            job.given_up.store(true, Ordering::Relaxed);
            return Outcome::Late;
        }
    }
}

/// Questions, and the answers so far.
struct Job<Q, A> {
    state: Mutex<JobState<Q, A>>,
    done: Condvar,
    given_up: AtomicBool,
}

struct JobState<Q, A> {
    queue: Queue<Q>,
    /// Questions that a thread has taken and not answered: about which user, and since when.
    in_hand: Vec<(u32, Instant)>,
    answers: Vec<A>,
    is_done: bool,
}

impl<Q, A> JobState<Q, A> {
    /// Takes the answer to a question about a user's process.
    fn put(&mut self, user: u32, answers: Vec<A>) {
        if let Some(at) = self.in_hand.iter().position(|(of, _)| *of == user) {
            let (_, since) = self.in_hand.swap_remove(at);
            self.queue.charge(user, since.elapsed());
        }
        self.answers.extend(answers);
    }
}

impl<Q, A> Job<Q, A> {
    const fn new(queue: Queue<Q>) -> Self {
        Self {
            state: Mutex::new(JobState {
                queue,
                in_hand: Vec::new(),
                answers: Vec::new(),
                is_done: false,
            }),
            done: Condvar::new(),
            given_up: AtomicBool::new(false),
        }
    }

    /// Answers what is left, on one of the pool's threads.
    fn run<S: Default>(&self, desk: &Desk, read: &impl Fn(&Desk, &mut S, &Subject, Q) -> Vec<A>) {
        let mut kept = S::default();
        loop {
            if self.given_up.load(Ordering::Relaxed) {
                return;
            }
            let Some((subject, question)) = self.take() else {
                break;
            };
            desk.turn_to(&subject);
            let answers = read(desk, &mut kept, &subject, question);
            // One that was given up may come back at any time: what it has to say was counted as lost.
            if !desk.leave() {
                return;
            }
            locked(&self.state).put(user_of(&subject), answers);
        }
        locked(&self.state).is_done = true;
        self.done.notify_all();
    }

    fn take(&self) -> Option<(Subject, Q)> {
        let mut state = locked(&self.state);
        let taken = state.queue.take()?;
        state.in_hand.push((user_of(&taken.0), Instant::now()));
        Some(taken)
    }

    fn is_done_within(&self, limit: Duration) -> bool {
        let state = locked(&self.state);
        let waited = self.done.wait_timeout_while(state, limit, |state| !state.is_done);
        waited.unwrap_or_else(PoisonError::into_inner).0.is_done
    }

    /// Takes what there is; the rest is lost. What each user cost.
    fn end(&self, asked: &mut Asked<A>) -> Vec<(u32, Duration)> {
        self.given_up.store(true, Ordering::Relaxed);
        let mut state = locked(&self.state);
        asked.answers = std::mem::take(&mut state.answers);
        asked.lost += (state.queue.len() + state.in_hand.len()) as u64;
        for (user, since) in std::mem::take(&mut state.in_hand) {
            state.queue.charge(user, since.elapsed());
        }
        state.queue.end().collect()
    }
}

#[cfg(test)]
mod tests;
