//! Command lines and executables.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::reader::files::{CMDLINE, Directory};
use super::reader::{self, Budget, questions};
use crate::kernel::preflight::in_initial_pid_namespace;
use crate::model::escape;
use crate::model::locks::memory::MemoryGap;
use crate::model::snapshot::{Losses, Snapshot, SourceKind};
use crate::model::thread::Condition;

/// How long to wait for all of them together: 20,000 take half of it.
const DEADLINE: Duration = Duration::from_millis(500);

/// Since this process began.
static LOST: AtomicU64 = AtomicU64::new(0);

/// Processes that were not described, since this process began.
pub fn lost() -> u64 {
    LOST.load(Ordering::Relaxed)
}

/// What a process runs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Description {
    /// Arguments, escaped; empty for kernel threads and zombies.
    pub cmdline: Vec<String>,
    /// Path of the executable, escaped.
    pub exe: Option<String>,
}

/// What could be read of those that were asked for.
#[derive(Debug, Default)]
pub struct Descriptions {
    /// By pid.
    pub of: HashMap<u32, Description>,
    /// What could not be read in time.
    pub losses: Losses,
    /// The processes that are the reason.
    pub gaps: BTreeMap<u32, MemoryGap>,
}

impl Descriptions {
    /// Of a process.
    pub fn get(&self, pid: u32) -> Option<&Description> {
        self.of.get(&pid)
    }
}

/// Describes every process of a snapshot; what could not be read in time is missing, and counted.
pub fn describe(root: &Path, snapshot: &Snapshot) -> Descriptions {
    describe_some(root, snapshot, |_| true)
}

/// Describes the processes with a wanted pid.
pub fn describe_some(root: &Path, snapshot: &Snapshot, wanted: impl Fn(u32) -> bool) -> Descriptions {
    let tids = tids(snapshot, wanted);
    let mut losses = Losses::none();
    if snapshot.source == SourceKind::Bpf && !in_initial_pid_namespace() {
        // Under the same number /proc has somebody else.
        losses.add("namespace", tids.len() as u64);
        return Descriptions {
            losses,
            ..Descriptions::default()
        };
    }
    let root: PathBuf = root.to_owned();
    let asked = reader::shared().ask(
        &mut Budget::new(DEADLINE),
        questions(snapshot, tids),
        move |_, (): &mut (), subject, tid| vec![(subject.pid, read(&root, subject.pid, tid))],
    );
    LOST.fetch_add(asked.lost, Ordering::Relaxed);
    losses.add("descriptions", asked.lost);
    Descriptions {
        of: asked.answers.into_iter().collect(),
        losses,
        gaps: asked.gaps,
    }
}

/// The thread of each process that has something to say: a first thread that has ended has not, the others
/// still have.
fn tids(snapshot: &Snapshot, wanted: impl Fn(u32) -> bool) -> HashMap<u32, u32> {
    let mut unwanted: HashSet<u32> = HashSet::new();
    let mut tids: HashMap<u32, u32> = HashMap::new();
    let living = |condition| matches!(condition, Condition::Alive(_));
    for thread in snapshot.threads.iter().filter(|thread| !thread.kernel) {
        let pid = thread.pid;
        if !living(thread.condition) || unwanted.contains(&pid) {
            continue;
        }
        if !tids.contains_key(&pid) && !wanted(pid) {
            unwanted.insert(pid);
        } else if thread.is_leader() || !tids.contains_key(&pid) {
            tids.insert(pid, thread.id.tid);
        }
    }
    tids
}

fn read(root: &Path, pid: u32, tid: u32) -> Description {
    let process = Directory::of(root, pid);
    let directory = if tid == pid { process } else { process.thread(tid) };
    let cmdline = directory.read("cmdline", CMDLINE).unwrap_or_default();
    let exe = directory.link("exe").ok();
    Description {
        cmdline: arguments(&cmdline),
        exe: exe.map(|path| escape(path.as_os_str().as_bytes())),
    }
}

/// Splits at NULs. A process that wrote over its arguments (`setproctitle`) has one long one, padded with NULs.
fn arguments(cmdline: &[u8]) -> Vec<String> {
    let end = cmdline
        .iter()
        .rposition(|&byte| byte != 0)
        .map_or(0, |last| last + 1);
    if end == 0 {
        return Vec::new();
    }
    cmdline[..end].split(|&byte| byte == 0).map(escape).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_are_split_and_escaped() {
        assert_eq!(
            arguments(b"sh\0-c\0echo \x1b[31m\n\0"),
            ["sh", "-c", "echo \\u{1b}[31m\\n"]
        );
        assert_eq!(
            arguments(b"postgres: checkpointer\0\0\0\0"),
            ["postgres: checkpointer"]
        );
        assert_eq!(arguments(b"a\0\0b\0"), ["a", "", "b"]);
        assert!(arguments(b"").is_empty());
        assert!(arguments(b"\0\0").is_empty());
    }
}
