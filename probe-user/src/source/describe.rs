//! Command lines and executables.
//!
//! `/proc/PID/cmdline` takes the process's `mmap_lock`. When that is held by a thread in uninterruptible sleep, the
//! reader sleeps too; that is how `ps` hangs on the very hosts it is needed on. So: processes with such a thread are not
//! asked at all, everything is read by a thread of its own, and after a deadline we go on without what is missing.

use std::collections::HashMap;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use probe_ebpf::state::State;

use crate::model::escape;
use crate::model::snapshot::Snapshot;
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
    let stuck: std::collections::HashSet<u32> = snapshot
        .threads
        .iter()
        .filter(|thread| thread.condition == Condition::Alive(State::Uninterruptible))
        .map(|thread| thread.pid)
        .collect();
    let pids: Vec<u32> = snapshot
        .threads
        .iter()
        .filter(|thread| thread.is_leader() && !thread.kernel && thread.condition != Condition::Zombie)
        .map(|thread| thread.pid)
        .filter(|pid| !stuck.contains(pid) && wanted(*pid))
        .collect();
    let (sender, receiver) = mpsc::channel();
    let root: PathBuf = root.to_owned();
    let reader = std::thread::Builder::new()
        .name("describe".to_owned())
        .spawn(move || {
            for pid in pids {
                if sender.send((pid, read(&root, pid))).is_err() {
                    return;
                }
            }
        });
    let mut found = HashMap::new();
    if reader.is_err() {
        return found;
    }
    let deadline = Instant::now() + DEADLINE;
    // Ends when the reader is done and has dropped its end, or at the deadline with the reader left behind.
    while let Ok((pid, description)) =
        receiver.recv_timeout(deadline.saturating_duration_since(Instant::now()))
    {
        found.insert(pid, description);
    }
    found
}

fn read(root: &Path, pid: u32) -> Description {
    let directory = root.join(pid.to_string());
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
