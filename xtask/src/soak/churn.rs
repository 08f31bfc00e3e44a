//! Processes and threads that come and go, each with a name that nobody had before; and locks that do.

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use anyhow::{Context, Result, anyhow, ensure};

use super::contention::Contention;
use crate::packages::find_program;

/// How long a thread of the churn lives.
const LIFE: Duration = Duration::from_millis(200);

/// Goes on until dropped.
pub struct Churn {
    stop: Arc<AtomicBool>,
    workers: Vec<JoinHandle<Result<()>>>,
    contention: Contention,
    directory: PathBuf,
}

impl Churn {
    /// So many processes and so many threads a second.
    pub fn start(births: u32) -> Result<Self> {
        let directory = std::env::temp_dir().join(format!("procprobe-soak-{}", std::process::id()));
        fs::create_dir_all(&directory).with_context(|| format!("creating {}", directory.display()))?;
        let program = find_program("true").context("no program called true")?;
        let stop = Arc::new(AtomicBool::new(false));
        let pause = Duration::from_secs(1) / births;
        let place = directory.clone();
        let processes = every(pause, &stop, move |number| {
            process(&program, &place.join(format!("soak-{number}")))
        });
        let threads = every(pause, &stop, |number| {
            let named = thread::Builder::new().name(format!("soak-t{number}"));
            named
                .stack_size(64 << 10)
                .spawn(|| thread::sleep(LIFE))
                .map(drop)
                .context("starting a thread")
        });
        let contention = Contention::start()?;
        let locks = every(Contention::BETWEEN, &stop, contention.passing());
        Ok(Self {
            stop,
            workers: vec![processes, threads, locks],
            contention,
            directory,
        })
    }

    /// Fails if it does not go on.
    pub fn expect_running(&mut self) -> Result<()> {
        self.contention.expect_running()?;
        ensure!(
            !self.workers.iter().any(JoinHandle::is_finished),
            "the churn has ended"
        );
        Ok(())
    }
}

/// A process is called by the name of the file it was started from.
fn process(program: &Path, name: &Path) -> Result<()> {
    symlink(program, name).with_context(|| format!("linking {}", name.display()))?;
    let status = Command::new(name).stdin(Stdio::null()).status();
    fs::remove_file(name).with_context(|| format!("removing {}", name.display()))?;
    status
        .map(drop)
        .with_context(|| format!("starting {}", name.display()))
}

fn every(
    pause: Duration,
    stop: &Arc<AtomicBool>,
    act: impl Fn(u64) -> Result<()> + Send + 'static,
) -> JoinHandle<Result<()>> {
    let stop = Arc::clone(stop);
    thread::spawn(move || {
        let mut number = 0;
        while !stop.load(Ordering::Relaxed) {
            number += 1;
            act(number)?;
            thread::sleep(pause);
        }
        Ok(())
    })
}

impl Drop for Churn {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for worker in self.workers.drain(..) {
            let outcome = worker.join().unwrap_or_else(|_| Err(anyhow!("it panicked")));
            if let Err(error) = outcome {
                crate::process::say(&format!("the churn ended early: {error:#}"));
            }
        }
        if let Err(error) = fs::remove_dir_all(&self.directory) {
            crate::process::say(&format!("{} stays: {error}", self.directory.display()));
        }
    }
}
