//! The watchers as processes, and what libbpf-tools print.

use std::{
    fs::File,
    io::{Read, Seek},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};

use super::distribution::Distribution;
use crate::{bench::stats, process::say};

const ATTACH_LIMIT: Duration = Duration::from_secs(60);
/// offcputime resolves the symbols of every stack at the end.
const END_LIMIT: Duration = Duration::from_secs(120);

/// A program that watches until it is told to end, and then prints.
pub struct Tool {
    name: String,
    child: Child,
    output: File,
}

impl Tool {
    pub fn start(name: &str, command: &mut Command) -> Result<Self> {
        let path = std::env::temp_dir().join(format!("procprobe-truth-{name}-{}", std::process::id()));
        let output = File::options()
            .create(true)
            .truncate(true)
            .read(true)
            .write(true)
            .open(&path);
        let output = output.with_context(|| format!("creating {}", path.display()))?;
        // Open is enough.
        std::fs::remove_file(&path).with_context(|| format!("removing {}", path.display()))?;
        let stdout = output.try_clone().context("duplicating a file")?;
        let child = command
            .stdin(Stdio::null())
            .stdout(stdout)
            .stderr(Stdio::null())
            .spawn();
        Ok(Self {
            name: name.to_owned(),
            child: child.with_context(|| format!("starting {name}"))?,
            output,
        })
    }

    /// Its programs run: it holds some, and they have been seen to stay the same for a while.
    pub fn wait_until_attached(&mut self) -> Result<()> {
        let deadline = Instant::now() + ATTACH_LIMIT;
        let mut steady = 0;
        let mut before = 0;
        while steady < 5 {
            if let Some(status) = self
                .child
                .try_wait()
                .with_context(|| format!("asking after {}", self.name))?
            {
                bail!("{} ended early ({status})", self.name);
            }
            ensure!(
                Instant::now() < deadline,
                "{} did not attach in {} s",
                self.name,
                ATTACH_LIMIT.as_secs()
            );
            thread::sleep(Duration::from_millis(200));
            let now = stats::owned_by(self.child.id())?.len();
            steady = if now > 0 && now == before { steady + 1 } else { 0 };
            before = now;
        }
        Ok(())
    }

    /// Tells it to end, and reads all that it printed.
    pub fn finish(&mut self) -> Result<String> {
        kill_process(Pid::from_child(&self.child), Signal::INT)
            .with_context(|| format!("ending {}", self.name))?;
        let deadline = Instant::now() + END_LIMIT;
        while self
            .child
            .try_wait()
            .with_context(|| format!("waiting for {}", self.name))?
            .is_none()
        {
            ensure!(
                Instant::now() < deadline,
                "{} did not end in {} s",
                self.name,
                END_LIMIT.as_secs()
            );
            thread::sleep(Duration::from_millis(50));
        }
        let mut bytes = Vec::new();
        self.output.rewind().context("rewinding a file")?;
        self.output.read_to_end(&mut bytes).context("reading a file")?;
        say(&format!("{} printed {} kB", self.name, bytes.len() / 1000));
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }
}

impl Drop for Tool {
    fn drop(&mut self) {
        // Fails only for one that has ended, which is what is wanted.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// A histogram of one process.
#[derive(Debug, PartialEq)]
pub struct Named {
    pub pid: u32,
    pub comm: String,
    pub distribution: Distribution,
}

/// A histogram that is being read: process, name, buckets.
type Open = (u32, String, Vec<(u64, u64)>);

/// What `runqlat -P` and `cpudist -P` print: `pid = 12 name`, a heading, and lines such as `4 -> 7 : 12 |***|`.
pub fn histograms(text: &str) -> Vec<Named> {
    let mut all = Vec::new();
    let mut current: Option<Open> = None;
    let mut close = |current: Option<Open>| {
        if let Some((pid, comm, buckets)) = current {
            all.push(Named {
                pid,
                comm,
                distribution: Distribution::new(buckets),
            });
        }
    };
    for line in text.lines() {
        if let Some((pid, comm)) = line
            .trim()
            .strip_prefix("pid = ")
            .and_then(|rest| rest.split_once(' '))
        {
            close(current.take());
            current = pid.parse().ok().map(|pid| (pid, comm.to_owned(), Vec::new()));
        } else if let (Some(bucket), Some((_, _, buckets))) = (bucket(line), &mut current) {
            buckets.push(bucket);
        }
    }
    close(current);
    all
}

/// A line's exclusive upper bound in nanoseconds, and its count.
pub fn bucket(line: &str) -> Option<(u64, u64)> {
    let (range, rest) = line.split_once(':')?;
    let (_, last) = range.split_once("->")?;
    let last: u64 = last.trim().parse().ok()?;
    let count = rest.split('|').next()?.trim().parse().ok()?;
    Some((last.checked_add(1)?.checked_mul(1000)?, count))
}

/// What `offcputime` prints: a stack, `-  name (tid)`, and a line with microseconds. Returns their sum.
pub fn sum(text: &str) -> u64 {
    let mut sum = 0;
    let mut lines = text.lines().map(str::trim).peekable();
    while let Some(line) = lines.next() {
        let is_thread = line.starts_with("- ") && line.ends_with(')');
        let microseconds = lines.peek().and_then(|line| line.parse::<u64>().ok());
        sum += microseconds.filter(|_| is_thread).unwrap_or(0);
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn histograms_of_processes() {
        let text = "Tracing...\n\npid = 12 cc1 x\n     usecs               : count    distribution\n         0 -> 1          : 1        |**   |\n        \
                    16 -> 31         : 60       |*****|\n\npid = 13 as\n         2 -> 3          : 5        |**|\n";
        let all = histograms(text);
        assert_eq!((all[0].pid, all[0].comm.as_str(), all[1].pid), (12, "cc1 x", 13));
        assert_eq!(all[0].distribution, Distribution::new([(2000, 1), (32_000, 60)]));
        assert_eq!(all[1].distribution.count(), 5);
    }

    #[test]
    fn sums_of_threads() {
        let text = "Tracing off-CPU time\n    schedule\n    -                lto cgu.0 (b) (19037)\n        1832\n\n    x\n    -   \
                    lto (19037)\n        8\n    -   y (7)\n        1\n";
        assert_eq!(sum(text), 1841);
    }
}
