//! Scrapes that come at the same time share one look.
//!
//! Each begins after it was asked for, so nobody gets an old answer, and at most one is taken at a time: a
//! hundred scrapers at once cost what two do, and none of them waits for a turn behind the others.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::body::Bytes;
use prometheus::proto::MetricFamily;
use tokio::sync::oneshot;

use super::compression::Coding;
use super::format::Format;
use super::workers::Workers;

/// How a scraper wants its answer: the format, and how compressed.
pub type Shape = (Format, Option<Coding>);
/// The answer, and how it is compressed.
pub type Body = Result<(Bytes, Option<Coding>), String>;
type Gather = dyn Fn() -> anyhow::Result<Vec<MetricFamily>> + Send + Sync;

/// Those who wait.
#[derive(Clone)]
pub struct Scrapes {
    waiting: Arc<Mutex<Waiting>>,
    gather: Arc<Gather>,
    workers: Workers,
}

#[derive(Default)]
struct Waiting {
    is_running: bool,
    scrapers: Vec<(Shape, oneshot::Sender<Body>)>,
}

impl Scrapes {
    /// Of what `gather` gives.
    pub fn new(
        workers: Workers,
        gather: impl Fn() -> anyhow::Result<Vec<MetricFamily>> + Send + Sync + 'static,
    ) -> Self {
        Self {
            waiting: Arc::default(),
            gather: Arc::new(gather),
            workers,
        }
    }

    /// One scrape.
    ///
    /// # Errors
    /// One line, if there was no look.
    pub async fn scrape(&self, shape: Shape) -> Body {
        let (sender, answer) = oneshot::channel();
        let begins = {
            let mut waiting = self.waiting();
            waiting.scrapers.push((shape, sender));
            !std::mem::replace(&mut waiting.is_running, true)
        };
        if begins {
            // On its own: it goes on for the others if this client leaves.
            tokio::spawn(self.clone().serve());
        }
        answer
            .await
            .unwrap_or_else(|_| Err("the scrape failed (the log says why)".to_owned()))
    }

    /// Looks until nobody waits.
    async fn serve(self) {
        loop {
            let scrapers = {
                let mut waiting = self.waiting();
                waiting.is_running = !waiting.scrapers.is_empty();
                std::mem::take(&mut waiting.scrapers)
            };
            if scrapers.is_empty() {
                return;
            }
            let gather = Arc::clone(&self.gather);
            // A panic drops those who wait, which is their answer; the next ones get a look of their own.
            let _ = self.workers.run(move || answer(scrapers, &*gather)).await;
        }
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One look, encoded once for each shape that somebody wants.
fn answer(scrapers: Vec<(Shape, oneshot::Sender<Body>)>, gather: &Gather) {
    let families = gather().map_err(|error| format!("{error:#}"));
    let mut bodies: BTreeMap<Shape, Body> = BTreeMap::new();
    for (shape, scraper) in scrapers {
        let body = bodies
            .entry(shape)
            .or_insert_with(|| encode(families.as_deref(), shape))
            .clone();
        let _ = scraper.send(body);
    }
}

fn encode(families: Result<&[MetricFamily], &String>, (format, coding): Shape) -> Body {
    let bytes = format
        .encode(families.map_err(String::clone)?)
        .map_err(|error| error.to_string())?;
    match coding.and_then(|coding| coding.compressed(&bytes)) {
        Some(packed) => Ok((packed.into(), coding)),
        None => Ok((bytes.into(), None)),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn many_at_once_cost_two_looks_and_a_late_one_gets_its_own() {
        let looks = Arc::new(AtomicU32::new(0));
        let count = Arc::clone(&looks);
        let scrapes = Scrapes::new(Workers::start(2).unwrap(), move || {
            count.fetch_add(1, Ordering::SeqCst);
            std::thread::sleep(Duration::from_millis(50));
            Ok(Vec::new())
        });
        let all: Vec<_> = (0..100)
            .map(|_| {
                let scrapes = scrapes.clone();
                tokio::spawn(async move { scrapes.scrape((Format::Text, None)).await })
            })
            .collect();
        for one in all {
            assert_eq!(one.await.unwrap(), Ok((Bytes::new(), None)));
        }
        assert!(looks.load(Ordering::SeqCst) <= 2, "{looks:?}");
        let before = looks.load(Ordering::SeqCst);
        scrapes.scrape((Format::Text, None)).await.unwrap();
        assert_eq!(looks.load(Ordering::SeqCst), before + 1);
    }

    #[tokio::test]
    async fn a_look_that_panics_fails_for_those_who_waited_for_it_alone() {
        let first = Arc::new(AtomicU32::new(0));
        let scrapes = Scrapes::new(Workers::start(1).unwrap(), move || {
            assert!(first.fetch_add(1, Ordering::SeqCst) > 0, "on purpose");
            Ok(Vec::new())
        });
        assert!(scrapes.scrape((Format::Text, None)).await.is_err());
        assert!(scrapes.scrape((Format::Text, None)).await.is_ok());
    }
}
