//! What the kernel itself says about threads, read plainly from /proc: the truth that answers are held against.

use std::collections::BTreeMap;
use std::fs;

/// One thread.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Task {
    /// Its process.
    pub pid: u32,
    /// The process's parent.
    pub ppid: u32,
    /// State letter.
    pub state: char,
    /// Start, in clock ticks after boot.
    pub start: u64,
}

/// The numbers a directory of /proc lists.
fn numbers(path: &str) -> Vec<u32> {
    let Ok(entries) = fs::read_dir(path) else {
        return Vec::new();
    };
    entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .collect()
}

/// All threads by tid; what vanishes meanwhile is left out.
pub fn tasks() -> BTreeMap<u32, Task> {
    let mut tasks = BTreeMap::new();
    for pid in numbers("/proc") {
        for tid in numbers(&format!("/proc/{pid}/task")) {
            if let Some(task) = task(pid, tid) {
                tasks.insert(tid, task);
            }
        }
    }
    tasks
}

/// One thread, from its `stat`.
pub fn task(pid: u32, tid: u32) -> Option<Task> {
    let stat = fs::read(format!("/proc/{pid}/task/{tid}/stat")).ok()?;
    // The name may hold anything, parentheses too: what follows the last one is numbers.
    let end = stat.iter().rposition(|&byte| byte == b')')?;
    let rest = String::from_utf8_lossy(&stat[end + 2..]).into_owned();
    let fields: Vec<&str> = rest.split(' ').collect();
    Some(Task {
        pid,
        ppid: fields.get(1)?.parse().ok()?,
        state: fields.first()?.chars().next()?,
        start: fields.get(19)?.parse().ok()?,
    })
}

/// The state letter of a process's first thread; `None` once it is gone.
pub fn state(pid: u32) -> Option<char> {
    task(pid, pid).map(|task| task.state)
}

/// What the scheduler counted for a thread.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Nanoseconds on a CPU.
    pub running_ns: u64,
    /// Nanoseconds in a run queue.
    pub runnable_ns: u64,
    /// Voluntary switches.
    pub voluntary: u64,
    /// Involuntary switches.
    pub involuntary: u64,
}

/// What the scheduler counted, for all threads by tid.
pub fn counts() -> BTreeMap<u32, Counts> {
    let tids = |pid: u32| {
        numbers(&format!("/proc/{pid}/task"))
            .into_iter()
            .map(move |tid| (pid, tid))
    };
    let all = numbers("/proc").into_iter().flat_map(tids);
    all.filter_map(|(pid, tid)| Some((tid, counts_of(pid, tid)?)))
        .collect()
}

/// What the scheduler counted, for the threads of a process.
pub fn counts_of_process(pid: u32) -> Vec<Counts> {
    let tids = numbers(&format!("/proc/{pid}/task"));
    tids.into_iter().filter_map(|tid| counts_of(pid, tid)).collect()
}

fn counts_of(pid: u32, tid: u32) -> Option<Counts> {
    let schedstat = fs::read_to_string(format!("/proc/{pid}/task/{tid}/schedstat")).ok()?;
    let mut fields = schedstat
        .split_ascii_whitespace()
        .map_while(|field| field.parse().ok());
    // A name that is no UTF-8 stands in `status` as it is.
    let status = fs::read(format!("/proc/{pid}/task/{tid}/status")).ok()?;
    let status = String::from_utf8_lossy(&status);
    let switches = |key: &str| {
        status
            .lines()
            .find_map(|line| line.strip_prefix(key))?
            .trim()
            .parse()
            .ok()
    };
    Some(Counts {
        running_ns: fields.next()?,
        runnable_ns: fields.next()?,
        voluntary: switches("voluntary_ctxt_switches:")?,
        involuntary: switches("nonvoluntary_ctxt_switches:")?,
    })
}

/// Processes and threads born since boot.
///
/// # Panics
/// If the kernel does not say.
pub fn births() -> u64 {
    let stat = fs::read_to_string("/proc/stat").expect("reading /proc/stat");
    let line = stat.lines().find_map(|line| line.strip_prefix("processes "));
    line.and_then(|count| count.parse().ok())
        .expect("a count of forks")
}

/// Time that interrupts and the hypervisor have taken from all CPUs together since boot, as far as the kernel says: in ticks.
///
/// # Panics
/// If the kernel does not say.
pub fn taken_ns() -> u64 {
    const TICK_NS: u64 = 10_000_000;
    let stat = fs::read_to_string("/proc/stat").expect("reading /proc/stat");
    let line = stat
        .lines()
        .find(|line| line.starts_with("cpu "))
        .expect("a line of all CPUs");
    // user, nice, system, idle, iowait, irq, softirq, steal.
    let ticks: Vec<u64> = line
        .split_whitespace()
        .skip(6)
        .take(3)
        .filter_map(|word| word.parse().ok())
        .collect();
    assert_eq!(ticks.len(), 3, "{line}");
    ticks.iter().sum::<u64>() * TICK_NS
}

/// A field of a process's `status`, in kB.
pub fn status_kb(pid: u32, key: &str) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix(key)?.strip_prefix(':'))?;
    line.trim().strip_suffix(" kB")?.parse().ok()
}

/// A child of a process, or a child's child, by its name.
pub fn child_named(pid: u32, name: &str) -> Option<u32> {
    let tasks = tasks();
    let children = |of: u32| -> Vec<u32> {
        let own = tasks
            .iter()
            .filter(|(tid, task)| **tid == task.pid && task.ppid == of);
        own.map(|(tid, _)| *tid).collect()
    };
    let first = children(pid);
    let second = first.iter().flat_map(|&child| children(child));
    let all: Vec<u32> = first.iter().copied().chain(second).collect();
    all.into_iter().find(|pid| {
        let comm = fs::read_to_string(format!("/proc/{pid}/comm"));
        comm.is_ok_and(|comm| comm.trim_end() == name)
    })
}

/// The fields of a `status`, by name.
pub struct Status(BTreeMap<String, String>);

impl Status {
    /// Of the directory of a process or a thread; `None` once it is gone.
    pub fn at(directory: &std::path::Path) -> Option<Self> {
        let text = fs::read_to_string(directory.join("status")).ok()?;
        let fields = text.lines().filter_map(|line| line.split_once(':'));
        Some(Self(
            fields
                .map(|(name, value)| (name.to_owned(), value.trim().to_owned()))
                .collect(),
        ))
    }

    /// A field.
    pub fn field(&self, name: &str) -> &str {
        self.0.get(name).map_or("", String::as_str)
    }
}

/// Whether a process catches SIGINT: a verb with a window does so once its first look is behind it.
pub fn handles_interrupts(pid: u32) -> bool {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigCgt:"));
    let mask = mask
        .and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .unwrap_or(0);
    mask & (1 << (libc::SIGINT - 1)) != 0
}
