//! The kernel's own counts of threads, from /proc.

use std::{
    collections::BTreeMap,
    fs,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};

/// What the scheduler counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub running_ns: u64,
    pub runnable_ns: u64,
    pub voluntary: u64,
    pub involuntary: u64,
}

impl Counts {
    fn add(&mut self, other: Self) {
        self.running_ns += other.running_ns;
        self.runnable_ns += other.runnable_ns;
        self.voluntary += other.voluntary;
        self.involuntary += other.involuntary;
    }

    /// What came since.
    fn since(self, earlier: Self) -> Self {
        Self {
            running_ns: self.running_ns.saturating_sub(earlier.running_ns),
            runnable_ns: self.runnable_ns.saturating_sub(earlier.runnable_ns),
            voluntary: self.voluntary.saturating_sub(earlier.voluntary),
            involuntary: self.involuntary.saturating_sub(earlier.involuntary),
        }
    }
}

/// The sums over all threads of each process; no thread of theirs may end in between.
pub fn counts(pids: &[u32]) -> Result<BTreeMap<u32, Counts>> {
    let of = |&pid: &u32| {
        let mut sum = Counts::default();
        for tid in threads(pid)? {
            sum.add(of_thread(&Path::new("/proc").join(format!("{pid}/task/{tid}")))?);
        }
        Ok((pid, sum))
    };
    pids.iter().map(of).collect()
}

/// [`counts`], once nothing is added any more: who says that it is done has yet to fall asleep.
pub fn counts_at_rest(pids: &[u32]) -> Result<BTreeMap<u32, Counts>> {
    const LIMIT: Duration = Duration::from_secs(10);
    let deadline = Instant::now() + LIMIT;
    let mut before = counts(pids)?;
    loop {
        thread::sleep(Duration::from_millis(100));
        let now = counts(pids)?;
        if now == before {
            return Ok(now);
        }
        ensure!(
            Instant::now() < deadline,
            "the load does not come to rest within {} s",
            LIMIT.as_secs()
        );
        before = now;
    }
}

/// What came between two looks.
pub fn growth(before: &BTreeMap<u32, Counts>, after: &BTreeMap<u32, Counts>) -> BTreeMap<u32, Counts> {
    let pairs = after
        .iter()
        .filter_map(|(pid, after)| Some((*pid, after.since(*before.get(pid)?))));
    pairs.collect()
}

/// The threads of a process.
fn threads(pid: u32) -> Result<Vec<u32>> {
    let path = format!("/proc/{pid}/task");
    let entries = fs::read_dir(&path).with_context(|| format!("reading {path}"))?;
    Ok(entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .collect())
}

fn of_thread(directory: &Path) -> Result<Counts> {
    let read = |name: &str| {
        let path = directory.join(name);
        fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))
    };
    parse(&read("schedstat")?, &read("status")?)
        .with_context(|| format!("{} says no counts", directory.display()))
}

fn parse(schedstat: &str, status: &str) -> Option<Counts> {
    let mut times = schedstat
        .split_ascii_whitespace()
        .map_while(|field| field.parse().ok());
    let field = |name: &str| {
        status
            .lines()
            .find_map(|line| line.strip_prefix(name))?
            .trim()
            .parse()
            .ok()
    };
    Some(Counts {
        running_ns: times.next()?,
        runnable_ns: times.next()?,
        voluntary: field("voluntary_ctxt_switches:")?,
        involuntary: field("nonvoluntary_ctxt_switches:")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_two_kinds_of_switches_are_told_apart() {
        let counts = parse(
            "12 34 5\n",
            "Name:\tx\nvoluntary_ctxt_switches:\t7\nnonvoluntary_ctxt_switches:\t8\n",
        );
        let counts = counts.unwrap();
        assert_eq!((counts.running_ns, counts.runnable_ns), (12, 34));
        assert_eq!((counts.voluntary, counts.involuntary), (7, 8));
        assert_eq!(parse("", ""), None);
    }
}
