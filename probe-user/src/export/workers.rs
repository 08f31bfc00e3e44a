//! Threads for work that blocks, made at the start: a host that is out of threads, which is one to be looked
//! at, has none left to give when a request comes.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};

use crossbeam_channel::{Receiver, Sender, unbounded};
use tokio::sync::oneshot;

type Job = Box<dyn FnOnce() + Send>;

/// The threads.
#[derive(Clone)]
pub struct Workers(Sender<Job>);

/// The work panicked, and there is no result.
#[derive(Debug, thiserror::Error)]
#[error("it failed in a way that nobody foresaw (the log has it; please report it)")]
pub struct Panicked;

/// Threads that are not made yet.
///
/// Each waits at the channel itself. At a mutex around the receiver of `std::sync::mpsc`, all but one would
/// wait for the lock that the one sleeps with, which `procprobe locks` names as contention (10 waits, 22 s).
pub struct Planned(Receiver<Job>);

impl Planned {
    /// Makes them. They have the capabilities that the thread has that makes them.
    ///
    /// # Errors
    /// If the system gives no threads.
    pub fn start(self, count: usize) -> io::Result<()> {
        for number in 0..count {
            let jobs = self.0.clone();
            std::thread::Builder::new()
                .name(format!("worker-{number}"))
                .spawn(move || work(&jobs))?;
        }
        Ok(())
    }
}

impl Workers {
    /// What to send work to, and the threads that will do it.
    pub fn plan() -> (Self, Planned) {
        let (sender, jobs) = unbounded();
        (Self(sender), Planned(jobs))
    }

    /// Both at once.
    ///
    /// # Errors
    /// If the system gives no threads.
    pub fn start(count: usize) -> io::Result<Self> {
        let (workers, planned) = Self::plan();
        planned.start(count)?;
        Ok(workers)
    }

    /// Runs something on one of them; it is run to its end even if nobody waits for it any more.
    ///
    /// # Errors
    /// If it panicked.
    pub async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Panicked> {
        let (answer, answered) = oneshot::channel();
        let job: Job = Box::new(move || {
            let _ = answer.send(work());
        });
        self.0.send(job).map_err(|_| Panicked)?;
        answered.await.map_err(|_| Panicked)
    }
}

/// Ends when nobody can send jobs any more. A job that panics takes nothing with it: all it had is its own.
fn work(jobs: &Receiver<Job>) {
    for job in jobs {
        if catch_unwind(AssertUnwindSafe(job)).is_err() {
            tracing::error!("a request failed in a way that nobody foresaw (please report it)");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn work_is_done_and_a_panic_costs_one_answer() {
        let workers = Workers::start(1).unwrap();
        for _ in 0..3 {
            assert!(workers.run(|| panic!("on purpose")).await.is_err());
            assert_eq!(workers.run(|| 6 * 7).await.unwrap(), 42);
        }
    }
}
