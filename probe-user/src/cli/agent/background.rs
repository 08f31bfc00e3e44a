//! What goes on between requests, besides what the engine's own thread does; and what happens when part of it
//! ends.

use std::future::Future;
use std::os::fd::OwnedFd;
use std::time::Duration;

use tokio::io::unix::AsyncFd;
use tokio::sync::oneshot;
use tokio::task::JoinSet;

use super::memory;
use crate::export::workers::Workers;

const GIVE_BACK_EVERY: Duration = Duration::from_secs(60);

/// Gives memory back that nobody uses any more.
pub async fn give_back(workers: Workers) {
    loop {
        tokio::time::sleep(GIVE_BACK_EVERY).await;
        let _ = workers.run(memory::give_back).await;
    }
}

/// Waits until a process has ended, whose pidfd it is.
pub async fn end_of(process: AsyncFd<OwnedFd>) {
    let _ = process.readable().await;
}

/// Tasks none of which ever ends by itself: an agent without one of them would seem well and do half of what
/// it is there for.
#[derive(Default)]
pub struct Supervised {
    running: JoinSet<&'static str>,
    named: Vec<&'static str>,
}

impl Supervised {
    /// Adds a task, with what to call it.
    pub fn add(&mut self, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        self.named.push(name);
        self.running.spawn(async move {
            task.await;
            name
        });
    }

    /// Waits until one ends, or the engine; says which, and why as far as that is known.
    pub async fn first_end(&mut self, engine: &mut oneshot::Receiver<String>) -> String {
        tokio::select! {
            why = engine => format!("the engine ended: {}", why.unwrap_or_else(|_| "its thread is gone".to_owned())),
            ended = self.running.join_next() => match ended {
                Some(Ok(name)) => format!("{name} ended"),
                Some(Err(error)) => format!("a task failed: {error}"),
                None => std::future::pending().await,
            },
        }
    }

    /// Waits until all of a name have ended, which they were told to, and drops the others.
    pub async fn finish(mut self, name: &str) {
        let mut left = self.named.iter().filter(|task| **task == name).count();
        while left > 0 {
            match self.running.join_next().await {
                Some(Ok(ended)) => left -= usize::from(ended == name),
                Some(Err(_)) => {}
                None => return,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_first_to_end_is_named_whatever_it_ended_of() {
        let (_running, mut engine) = oneshot::channel();
        let mut tasks = Supervised::default();
        tasks.add("one", std::future::pending());
        tasks.add("two", async {});
        assert_eq!(tasks.first_end(&mut engine).await, "two ended");
        tasks.add("three", async { panic!("on purpose") });
        let said = tasks.first_end(&mut engine).await;
        assert!(said.contains("on purpose"), "{said}");
        let (ended, mut engine) = oneshot::channel();
        ended.send("it panicked: at noon".to_owned()).unwrap();
        assert_eq!(
            tasks.first_end(&mut engine).await,
            "the engine ended: it panicked: at noon"
        );
    }
}
