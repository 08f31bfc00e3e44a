//! Command lines and executables.
//!
//! Read with [`super::patience`]: a process that is stuck must not make us wait.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::patience::{stuck, within};
use crate::kernel::preflight::in_initial_pid_namespace;
use crate::model::escape;
use crate::model::snapshot::{Snapshot, SourceKind};
use crate::model::thread::Condition;

/// How long to wait for all of them together.
const DEADLINE: Duration = Duration::from_secs(1);
/// Longer command lines are cut here.
const MAX_CMDLINE: usize = 4096;

/// What a process runs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Description {
    /// Arguments, escaped; empty for kernel threads and zombies.
    pub cmdline: Vec<String>,
    /// Path of the executable, escaped.
    pub exe: Option<String>,
}

/// Describes every process of a snapshot; what could not be read in time is missing.
pub fn describe(root: &Path, snapshot: &Snapshot) -> HashMap<u32, Description> {
    describe_some(root, snapshot, |_| true)
}

/// Describes the processes with a wanted pid.
pub fn describe_some(
    root: &Path,
    snapshot: &Snapshot,
    wanted: impl Fn(u32) -> bool,
) -> HashMap<u32, Description> {
    if snapshot.source == SourceKind::Bpf && !in_initial_pid_namespace() {
        // Under the same number /proc has somebody else.
        return HashMap::new();
    }
    let stuck = stuck(snapshot);
    let mut tids: BTreeMap<u32, u32> = BTreeMap::new();
    for thread in snapshot.threads.iter().filter(|thread| !thread.kernel) {
        // A first thread that has ended has nothing to say any more; the others still have it.
        if matches!(thread.condition, Condition::Alive(_))
            && (thread.is_leader() || !tids.contains_key(&thread.pid))
        {
            tids.insert(thread.pid, thread.id.tid);
        }
    }
    tids.retain(|pid, _| !stuck.contains(pid) && wanted(*pid));
    let root: PathBuf = root.to_owned();
    let found = within("describe", DEADLINE, move |sender| {
        for (pid, tid) in tids {
            if sender.send((pid, read(&root, pid, tid))).is_err() {
                return;
            }
        }
    });
    found.into_iter().collect()
}

fn read(root: &Path, pid: u32, tid: u32) -> Description {
    let mut directory = root.join(pid.to_string());
    if tid != pid {
        directory = directory.join("task").join(tid.to_string());
    }
    let mut cmdline = fs::read(directory.join("cmdline")).unwrap_or_default();
    cmdline.truncate(MAX_CMDLINE);
    let exe = fs::read_link(directory.join("exe")).ok();
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
