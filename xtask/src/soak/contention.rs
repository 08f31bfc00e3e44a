//! Locks that come and go, and threads that fight for them: in a process that lives as long as the churn, which never uses the
//! same memory twice, and in processes that are gone after a moment.

use std::{
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, ensure};

use crate::programs::Directory;

/// Rounds of a process that is gone after a moment.
const ROUNDS: &str = "3";

/// Four threads that go through the same locks, each of which they hold for a moment; then the next ones, on a page of their own.
/// The argument is the number of rounds, 0 for no end. The reserved memory is a gigabyte: a page a round lasts for hours.
const PROGRAM: &str = r"
#define _GNU_SOURCE
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <unistd.h>
enum { THREADS = 4, LOCKS = 64, PAGE = 4096, PAGES = 1 << 18 };
struct spaced { pthread_mutex_t mutex; char space[64 - sizeof(pthread_mutex_t)]; };
static struct spaced *locks;
static pthread_barrier_t round_begins, round_ends;
static void *fight(void *nothing) {
    for (;;) {
        pthread_barrier_wait(&round_begins);
        for (int i = 0; i < LOCKS; i++) {
            pthread_mutex_lock(&locks[i].mutex);
            usleep(20);
            pthread_mutex_unlock(&locks[i].mutex);
        }
        pthread_barrier_wait(&round_ends);
    }
    return nothing;
}
int main(int count, char **values) {
    long rounds = count > 1 ? atol(values[1]) : 1;
    pthread_t thread;
    char *memory = mmap(0, (size_t)PAGES * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED) return 1;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    pthread_barrier_init(&round_begins, 0, THREADS + 1);
    pthread_barrier_init(&round_ends, 0, THREADS + 1);
    for (int i = 0; i < THREADS; i++) if (pthread_create(&thread, 0, fight, 0)) return 1;
    for (long round = 0; rounds == 0 || round < rounds; round++) {
        char *page = memory + (size_t)(round % PAGES) * PAGE;
        locks = (struct spaced *)page;
        for (int i = 0; i < LOCKS; i++) pthread_mutex_init(&locks[i].mutex, 0);
        pthread_barrier_wait(&round_begins);
        pthread_barrier_wait(&round_ends);
        madvise(page, PAGE, MADV_DONTNEED);
        usleep(100000);
    }
    return 0;
}
";

/// The one that lives on; ends when dropped.
pub struct Contention {
    child: Child,
    directory: Directory,
}

impl Contention {
    /// From the end of one that is soon gone to the beginning of the next.
    pub const BETWEEN: Duration = Duration::from_millis(200);

    pub fn start() -> Result<Self> {
        let directory = Directory::new("soak-locks")?;
        let program = directory.compile("contend", PROGRAM)?;
        let child = Command::new(&program).arg("0").stdin(Stdio::null()).spawn();
        Ok(Self {
            child: child.with_context(|| format!("starting {}", program.display()))?,
            directory,
        })
    }

    /// Runs one that is soon gone, again and again as it is called.
    pub fn passing(&self) -> impl Fn(u64) -> Result<()> + Send + 'static {
        let program = self.directory.0.join("contend");
        move |_| {
            let status = Command::new(&program).arg(ROUNDS).stdin(Stdio::null()).status();
            let status = status.with_context(|| format!("starting {}", program.display()))?;
            ensure!(status.success(), "the fight for locks ended with {status}");
            Ok(())
        }
    }

    /// Fails if it does not go on.
    pub fn expect_running(&mut self) -> Result<()> {
        let ended = self
            .child
            .try_wait()
            .context("asking after the fight for locks")?;
        ensure!(ended.is_none(), "the fight for locks has ended");
        Ok(())
    }
}

impl Drop for Contention {
    fn drop(&mut self) {
        // Fails only if it has ended already, which is what is wanted.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
