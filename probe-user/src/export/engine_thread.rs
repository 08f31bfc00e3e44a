//! The thread that has the engine: made at the start, alone with it until the end.
//!
//! Everybody else sends questions. Between them it books events, keeps the picture fresh and samples the cost
//! of our programs; when it ends, the agent has to.

use std::any::Any;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, select, unbounded};
use tokio::sync::oneshot;

use super::engine::Engine;

/// A snapshot this often even if nobody scrapes: it bounds what a lost exit event can cost.
const REFRESH_EVERY: Duration = Duration::from_secs(15);
/// Cost of our programs: a sample of this length …
const SAMPLE: Duration = Duration::from_secs(1);
/// … this often.
const SAMPLE_EVERY: Duration = Duration::from_secs(30);

type Question = Box<dyn FnOnce(&mut Engine) + Send>;

/// Sends questions to the engine.
#[derive(Clone)]
pub struct EngineThread {
    /// Those that wait for nothing but the question in hand.
    urgent: Sender<Question>,
    questions: Sender<Question>,
    pulse: Arc<Pulse>,
}

/// Questions as they come in.
struct Asked {
    urgent: Receiver<Question>,
    others: Receiver<Question>,
}

impl Asked {
    /// The next one. Windows that somebody opens one after the other, each a look of its own, must not keep a
    /// scrape waiting (3.6 s behind eight clients that did).
    fn next(&self, wait: Duration) -> Result<Question, RecvTimeoutError> {
        if let Ok(question) = self.urgent.try_recv() {
            return Ok(question);
        }
        let ended = |_| RecvTimeoutError::Disconnected;
        select! {
            recv(self.urgent) -> question => question.map_err(ended),
            recv(self.others) -> question => question.map_err(ended),
            default(wait) => Err(RecvTimeoutError::Timeout),
        }
    }
}

/// The engine gave no answer.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("the engine gave no answer (the log says why; the agent restarts if it has ended)")]
pub struct NoAnswer;

/// When the engine was last between two questions.
struct Pulse {
    began: Instant,
    last_ms: AtomicU64,
}

impl Pulse {
    fn beat(&self) {
        let now = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.last_ms.store(now, Ordering::Relaxed);
    }
}

impl EngineThread {
    /// Makes the thread. What is returned beside it says why it ended, once it has.
    ///
    /// # Errors
    /// If the system gives no thread.
    pub fn start(engine: Engine) -> io::Result<(Self, oneshot::Receiver<String>)> {
        let ((urgent, first), (questions, others)) = (unbounded(), unbounded());
        let asked = Asked {
            urgent: first,
            others,
        };
        let (ended, end) = oneshot::channel();
        let pulse = Arc::new(Pulse {
            began: Instant::now(),
            last_ms: AtomicU64::new(0),
        });
        let beat = Arc::clone(&pulse);
        std::thread::Builder::new()
            .name("engine".to_owned())
            .spawn(move || {
                let outcome = catch_unwind(AssertUnwindSafe(|| run(engine, &asked, &beat)));
                let why = match outcome {
                    Ok(()) => "nobody asks it any more".to_owned(),
                    Err(panic) => format!("it panicked: {}", said(&*panic)),
                };
                let _ = ended.send(why);
            })?;
        let engine = Self {
            urgent,
            questions,
            pulse,
        };
        Ok((engine, end))
    }

    /// Asks, on a thread that may block.
    ///
    /// # Errors
    /// If the question panicked, or the engine has ended.
    pub fn ask<T: Send + 'static>(
        &self,
        question: impl FnOnce(&mut Engine) -> T + Send + 'static,
    ) -> Result<T, NoAnswer> {
        Self::send(&self.questions, question)?
            .blocking_recv()
            .map_err(|_| NoAnswer)
    }

    /// The same, before all questions that are not asked so: for what has to come in time, whatever else is
    /// asked.
    ///
    /// # Errors
    /// As [`Self::ask`].
    pub fn ask_first<T: Send + 'static>(
        &self,
        question: impl FnOnce(&mut Engine) -> T + Send + 'static,
    ) -> Result<T, NoAnswer> {
        Self::send(&self.urgent, question)?
            .blocking_recv()
            .map_err(|_| NoAnswer)
    }

    /// The same, where nothing may block.
    ///
    /// # Errors
    /// As [`Self::ask`].
    pub async fn answer_first<T: Send + 'static>(
        &self,
        question: impl FnOnce(&mut Engine) -> T + Send + 'static,
    ) -> Result<T, NoAnswer> {
        Self::send(&self.urgent, question)?.await.map_err(|_| NoAnswer)
    }

    /// Asks, where nothing may block.
    ///
    /// # Errors
    /// As [`Self::ask`].
    pub async fn answer<T: Send + 'static>(
        &self,
        question: impl FnOnce(&mut Engine) -> T + Send + 'static,
    ) -> Result<T, NoAnswer> {
        Self::send(&self.questions, question)?.await.map_err(|_| NoAnswer)
    }

    /// Tells it something that has no answer.
    pub fn tell(&self, what: impl FnOnce(&mut Engine) + Send + 'static) {
        let _ = self.questions.send(Box::new(what));
    }

    /// How long ago the engine was last ready for a question.
    pub fn silent_for(&self) -> Duration {
        let last = Duration::from_millis(self.pulse.last_ms.load(Ordering::Relaxed));
        self.pulse.began.elapsed().saturating_sub(last)
    }

    /// One whose engine has been busy with something for so long.
    ///
    /// # Panics
    /// If this host was started later than that.
    #[cfg(test)]
    pub fn stuck_for(time: Duration) -> Self {
        let pulse = Pulse {
            began: Instant::now().checked_sub(time).unwrap(),
            last_ms: AtomicU64::new(0),
        };
        Self {
            urgent: unbounded().0,
            questions: unbounded().0,
            pulse: Arc::new(pulse),
        }
    }

    fn send<T: Send + 'static>(
        to: &Sender<Question>,
        question: impl FnOnce(&mut Engine) -> T + Send + 'static,
    ) -> Result<oneshot::Receiver<T>, NoAnswer> {
        let (answer, answered) = oneshot::channel();
        let question = move |engine: &mut Engine| {
            // Who hangs up while the question stands in line has no use for the answer: a client that asks
            // and leaves would keep the engine busy for ever.
            if !answer.is_closed() {
                let _ = answer.send(question(engine));
            }
        };
        to.send(Box::new(question)).map_err(|_| NoAnswer)?;
        Ok(answered)
    }
}

/// What a panic said.
fn said(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("(no message)")
}

fn run(mut engine: Engine, asked: &Asked, pulse: &Pulse) {
    let mut chores = Chores::new(Instant::now());
    loop {
        let wait = engine.drain();
        pulse.beat();
        chores.perform(&mut engine, Instant::now());
        match asked.next(wait) {
            // One that panicked leaves the engine usable: every look begins with a fresh snapshot.
            Ok(question) => {
                if let Err(panic) = catch_unwind(AssertUnwindSafe(|| question(&mut engine))) {
                    tracing::error!("a question failed: {} (please report it)", said(&*panic));
                }
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
    }
}

/// What is done now and then, and when it is due.
struct Chores {
    refresh: Instant,
    sample: Instant,
    is_sampling: bool,
}

impl Chores {
    fn new(now: Instant) -> Self {
        Self {
            refresh: now + REFRESH_EVERY,
            sample: now,
            is_sampling: false,
        }
    }

    fn perform(&mut self, engine: &mut Engine, now: Instant) {
        if now >= self.sample {
            if self.is_sampling {
                engine.end_cost_sample();
                self.sample = now + SAMPLE_EVERY.saturating_sub(SAMPLE);
            } else {
                engine.begin_cost_sample();
                self.sample = now + SAMPLE;
            }
            self.is_sampling = !self.is_sampling;
        }
        if now >= self.refresh {
            self.refresh = now + REFRESH_EVERY;
            if let Err(error) = engine.refresh() {
                tracing::warn!(%error, "periodic snapshot failed");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_urgent_comes_first_whoever_asked_before() {
        let ((urgent, first), (questions, others)) = (unbounded::<Question>(), unbounded());
        let asked = Asked {
            urgent: first,
            others,
        };
        for _ in 0..3 {
            questions.send(Box::new(|_| {})).unwrap();
        }
        urgent.send(Box::new(|_| {})).unwrap();
        assert!(asked.next(Duration::ZERO).is_ok());
        assert!(asked.urgent.is_empty(), "the scrape was answered first");
        assert_eq!(asked.others.len(), 3);
        for _ in 0..3 {
            assert!(
                asked.next(Duration::from_secs(1)).is_ok(),
                "the others have their turn"
            );
        }
        assert!(matches!(
            asked.next(Duration::ZERO),
            Err(RecvTimeoutError::Timeout)
        ));
    }
}
