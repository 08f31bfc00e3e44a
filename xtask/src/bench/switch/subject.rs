//! A process whose programs are measured.

use std::{
    process::Command,
    sync::atomic::AtomicBool,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, bail};

use super::super::{
    check,
    stats::{self, Cost, Program},
};
use crate::{environment, process::Background};

const ATTACH_LIMIT: Duration = Duration::from_secs(30);

/// A process whose programs are measured; it ends with its owner.
pub struct Subject {
    pub name: &'static str,
    process: Background,
    before: Vec<Program>,
}

impl Subject {
    /// Starts a process and waits until its programs have run: loaded is not yet attached.
    pub fn start(
        name: &'static str,
        command: &mut Command,
        names: &[&str],
        interrupted: &AtomicBool,
    ) -> Result<Self> {
        let mut process = Background::start(name, environment::scrub(command))?;
        let deadline = Instant::now() + ATTACH_LIMIT;
        loop {
            check(interrupted)?;
            process.expect_running()?;
            let programs = stats::owned_by(process.child.id())?;
            let runs = |wanted: &&str| {
                programs
                    .iter()
                    .any(|it| it.name.starts_with(wanted) && it.run_cnt > 0)
            };
            if names.iter().all(runs) {
                return Ok(Self {
                    name,
                    process,
                    before: programs,
                });
            }
            if Instant::now() >= deadline {
                bail!(
                    "{name} did not attach {} within {} s: see its output above",
                    names.join(" and "),
                    ATTACH_LIMIT.as_secs()
                );
            }
            thread::sleep(Duration::from_millis(200));
        }
    }

    /// The counts from which [`Self::finish`] counts.
    pub fn look(&mut self) -> Result<()> {
        self.before = stats::owned_by(self.process.child.id())?;
        Ok(())
    }

    /// What its programs took since.
    pub fn finish(&mut self) -> Result<Vec<Cost>> {
        self.process.expect_running()?;
        let after = stats::owned_by(self.process.child.id())?;
        Ok(stats::delta(&self.before, &after))
    }
}
