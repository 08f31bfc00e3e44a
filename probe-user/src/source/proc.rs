//! Snapshots from /proc alone: current states, no times. For hosts where eBPF is not to be had, and for the few
//! processes that the kernel's iterator does not show.
//!
//! The root directory is a parameter, so tests can lay one out. Command lines are not read here, see
//! [`super::describe`].

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};
use std::{fs, io};

use probe_ebpf::state::{PF_KTHREAD, State};
use procfs::process::{Process, Stat, Status};
use procfs::{FromRead, ProcError, ProcResult};
use thiserror::Error;

use super::cgroup::Cgroups;
use super::reader::files::{Directory, LINE, STATUS};
use super::reader::{self, Budget, Subject};
use crate::kernel::clock;
use crate::model::locks::memory::SharedMemory;
use crate::model::snapshot::{Losses, Snapshot, SourceKind};
use crate::model::thread::{Comm, Condition, ReadFrom, Switches, Thread, ThreadId};

/// How long to wait for all of it: 100,000 threads take three of these seconds.
const PATIENCE: Duration = Duration::from_secs(10);

/// Why /proc cannot be used at all.
#[derive(Debug, Error)]
pub enum ProcSourceError {
    /// The directory cannot be listed.
    #[error("cannot list {}: {source} (mount it: mount -t proc proc /proc)", root.display())]
    List {
        /// The directory.
        root: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// Reads a /proc.
pub struct ProcSource {
    root: PathBuf,
    /// Cgroup units, by id like everywhere; looked up by path.
    pub cgroups: Cgroups,
}

impl ProcSource {
    /// Reads the /proc at `root`.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        let root = root.into();
        let cgroups = Cgroups::new(&root);
        Self { root, cgroups }
    }

    /// Looks at every thread now. What vanishes while it is read is left out; what cannot be read is counted.
    ///
    /// # Errors
    /// [`ProcSourceError::List`] if the directory cannot be listed.
    pub fn snapshot(&mut self) -> Result<Snapshot, ProcSourceError> {
        let began_ns = clock::monotonic_ns();
        let started = Instant::now();
        let (mut threads, losses) = self.threads(pids(&self.root)?);
        threads.sort_by_key(|thread| thread.id.tid);
        Ok(Snapshot {
            taken_at: SystemTime::now(),
            began_ns,
            ended_ns: clock::monotonic_ns(),
            boottime_ns: clock::boottime_ns(),
            source: SourceKind::Proc,
            threads,
            losses,
            took: started.elapsed(),
            hidden: 0,
            memory: SharedMemory::default(),
        })
    }

    fn threads(&self, pids: Vec<u32>) -> (Vec<Thread>, Losses) {
        let root = self.root.clone();
        let questions = pids.into_iter().map(|pid| (Subject::of(pid, 0), ()));
        let asked = reader::shared().ask(
            &mut Budget::new(PATIENCE),
            questions,
            move |_, (): &mut (), subject, ()| vec![threads_of(&root, subject.pid)],
        );
        let mut losses = Losses::none();
        losses.add("unread", asked.lost);
        let mut threads = Vec::new();
        for answer in asked.answers {
            match answer {
                Ok(found) => threads.extend(found),
                Err(error) if is_gone(&error) => {}
                Err(_) => losses.add("unread", 1),
            }
        }
        (threads, losses)
    }
}

/// The process ids a /proc lists.
///
/// # Errors
/// [`ProcSourceError::List`] if the directory cannot be listed.
pub fn pids(root: &Path) -> Result<Vec<u32>, ProcSourceError> {
    let failed = |source| ProcSourceError::List {
        root: root.to_owned(),
        source,
    };
    let entries = fs::read_dir(root).map_err(failed)?;
    let mut pids: Vec<u32> = entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .collect();
    if pids.is_empty() {
        return Err(failed(io::Error::other("it lists no processes")));
    }
    pids.sort_unstable();
    Ok(pids)
}

fn is_gone(error: &ProcError) -> bool {
    match error {
        ProcError::NotFound(_) => true,
        ProcError::Io(error, _) => error.raw_os_error() == Some(libc::ESRCH),
        _ => false,
    }
}

/// The pid of a process's parent now, and the process's name; `None` if it is gone, or its pid is somebody else's by now.
pub fn parent_now(root: &Path, pid: u32, start_ns: u64) -> Option<(u32, Comm)> {
    let directory = Directory::of(root, pid);
    let comm = directory.read("comm", LINE).ok()?;
    let stat = stat(&directory).ok()?;
    let tick_ns = 1_000_000_000 / procfs::ticks_per_second().max(1);
    (stat.starttime == start_ns / tick_ns).then(|| (stat.ppid.unsigned_abs(), comm_of(&comm)))
}

/// A name as `comm` has it.
fn comm_of(line: &[u8]) -> Comm {
    let mut bytes = [0; 16];
    let length = line.strip_suffix(b"\n").unwrap_or(line).len().min(15);
    bytes[..length].copy_from_slice(&line[..length]);
    Comm::from_kernel(bytes)
}

/// All threads of a process.
///
/// # Errors
/// The process's own; a thread that vanishes meanwhile is left out.
pub fn threads_of(root: &Path, pid: u32) -> ProcResult<Vec<Thread>> {
    let directory = Directory::of(root, pid);
    let process = Process::new_with_root(directory.path().to_owned())?;
    let status = status(&directory)?;
    let mut threads = Vec::new();
    for task in process.tasks()?.flatten() {
        let tid = task.tid.unsigned_abs();
        let directory = directory.thread(tid);
        let (Ok(stat), Ok(thread_status)) = (stat(&directory), self::status(&directory)) else {
            continue;
        };
        let comm = directory.read("comm", LINE).unwrap_or_default();
        threads.push(thread(pid, tid, &comm, &stat, &thread_status, &status));
    }
    Ok(threads)
}

/// Reads a `status`. A name in it that is no UTF-8 must not cost us the process; the name itself comes from `comm`.
fn status(directory: &Directory) -> ProcResult<Status> {
    Status::from_read(String::from_utf8_lossy(&read(directory, "status", STATUS)?).as_bytes())
}

/// Reads a `stat`. procfs panics at one whose name closes before it opens, or ends the line, or is followed by anything but
/// ASCII.
fn stat(directory: &Directory) -> ProcResult<Stat> {
    let bytes = read(directory, "stat", LINE)?;
    let opens = bytes.iter().position(|&byte| byte == b'(');
    let closes = bytes.iter().rposition(|&byte| byte == b')');
    let rest = closes
        .filter(|_| opens.is_some() && opens < closes)
        .and_then(|at| bytes.get(at + 1..));
    let has_more = |rest: &[u8]| rest.starts_with(b" ") && rest.is_ascii() && !rest.trim_ascii().is_empty();
    if !rest.is_some_and(has_more) {
        return Err(ProcError::Incomplete(Some(directory.path().join("stat"))));
    }
    Stat::from_read(bytes.as_slice())
}

fn read(directory: &Directory, name: &str, most: u64) -> ProcResult<Vec<u8>> {
    let failed = |error: io::Error| {
        let path = Some(directory.path().join(name));
        match error.kind() {
            io::ErrorKind::NotFound => ProcError::NotFound(path),
            _ => ProcError::Io(error, path),
        }
    };
    directory.read(name, most).map_err(failed)
}

fn thread(pid: u32, tid: u32, comm: &[u8], stat: &Stat, status: &Status, process: &Status) -> Thread {
    let ticks = procfs::ticks_per_second().max(1);
    Thread {
        id: ThreadId {
            tid,
            start_ns: stat.starttime.saturating_mul(1_000_000_000 / ticks),
        },
        pid,
        ppid: stat.ppid.unsigned_abs(),
        parent_start_ns: 0,
        tracer: u32::try_from(status.tracerpid).ok().filter(|&tracer| tracer != 0),
        comm: comm_of(comm),
        kernel: stat.flags & PF_KTHREAD != 0,
        uid: Some(process.euid),
        nice: i32::try_from(stat.nice).unwrap_or(0),
        policy: stat.policy.unwrap_or(0),
        ns_tids: status
            .nspid
            .as_deref()
            .unwrap_or_default()
            .iter()
            .skip(1)
            .map(|tid| tid.unsigned_abs())
            .collect(),
        cgroup_id: 0,
        condition: condition(stat.state),
        frozen: None,
        map_locked: None,
        executed: false,
        ends_with: None,
        condition_ns: None,
        is_lower_bound: false,
        blocked_on: None,
        page_fault: false,
        descriptor: None,
        futex: None,
        space: 0,
        sp: 0,
        clear_child_tid: 0,
        pid_namespace: 0,
        exit_status: stat
            .exit_code
            .map(i32::unsigned_abs)
            .filter(|_| condition(stat.state) == Condition::Zombie && live_threads(stat) == 0),
        live_threads: live_threads(stat),
        threads: u32::try_from(stat.num_threads).unwrap_or(0),
        sid: stat.session.unsigned_abs(),
        pgid: stat.pgrp.unsigned_abs(),
        subreaper: None,
        last_wait_ns: None,
        lifetime_running_ns: Some(
            stat.utime
                .saturating_add(stat.stime)
                .saturating_mul(1_000_000_000 / ticks),
        ),
        switches: Switches {
            voluntary: status.voluntary_ctxt_switches.unwrap_or(0),
            involuntary: status.nonvoluntary_ctxt_switches.unwrap_or(0),
        },
        account: None,
        read_from: ReadFrom::Proc,
    }
}

/// Threads that have not begun to exit. /proc counts those that are not released, of which a dead first thread is one.
fn live_threads(stat: &Stat) -> u32 {
    let threads = u32::try_from(stat.num_threads).unwrap_or(0);
    if condition(stat.state) == Condition::Zombie {
        threads.saturating_sub(1)
    } else {
        threads
    }
}

/// /proc does not tell running from runnable: both are R.
fn condition(letter: char) -> Condition {
    match letter {
        'S' => Condition::Alive(State::Sleeping),
        'D' => Condition::Alive(State::Uninterruptible),
        'T' => Condition::Alive(State::Stopped),
        't' => Condition::Alive(State::Traced),
        'I' => Condition::Alive(State::Idle),
        'P' => Condition::Alive(State::Parked),
        'Z' => Condition::Zombie,
        'X' | 'x' => Condition::Dead,
        _ => Condition::Alive(State::Running),
    }
}

#[cfg(test)]
#[path = "proc_tests.rs"]
mod tests;
