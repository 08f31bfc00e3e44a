//! What file descriptors stand for, from /proc/PID/fd: looked up for all threads of a snapshot that wait at
//! one.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::reader::files::Directory;
use super::reader::{self, Budget, questions};
use crate::model::snapshot::Snapshot;
use crate::model::waits::Files;

/// A descriptor may be closed and used again: what was found out holds for so long.
const FRESH: Duration = Duration::from_secs(60);
/// Descriptors remembered at most.
const REMEMBERED: usize = 16_384;

/// See the module.
pub struct Descriptors {
    root: PathBuf,
    known: HashMap<(u32, u64), (Option<&'static str>, Instant)>,
}

impl Descriptors {
    /// Nothing known yet; `root` is where /proc is mounted.
    pub fn new(root: &Path) -> Self {
        Self {
            root: root.to_owned(),
            known: HashMap::new(),
        }
    }

    /// Looks up what the threads of a snapshot wait at, as far as that is not known; how many could not be.
    pub fn look(&mut self, snapshot: &Snapshot, budget: &mut Budget) -> u64 {
        let now = Instant::now();
        if self.known.len() >= REMEMBERED {
            self.known.clear();
        }
        let is_known = |key: &(u32, u64)| {
            let known = self.known.get(key);
            known.is_some_and(|(_, checked)| now.duration_since(*checked) < FRESH)
        };
        let mut wanted: HashMap<u32, HashSet<u64>> = HashMap::new();
        for thread in &snapshot.threads {
            if let Some(descriptor) = thread.descriptor
                && !is_known(&(thread.pid, descriptor))
            {
                wanted.entry(thread.pid).or_default().insert(descriptor);
            }
        }
        let root = self.root.clone();
        let wanted = questions(snapshot, wanted);
        let asked = reader::shared().ask(budget, wanted, move |_, (): &mut (), subject, descriptors| {
            let directory = Directory::of(&root, subject.door);
            let kind = |descriptor| {
                let target = directory.link(&format!("fd/{descriptor}")).ok();
                let kind = target.and_then(|target| kind_of(&target.to_string_lossy()));
                ((subject.pid, descriptor), kind)
            };
            descriptors.into_iter().map(kind).collect()
        });
        let found = asked.answers.into_iter();
        self.known.extend(found.map(|(key, kind)| (key, (kind, now))));
        asked.lost
    }
}

impl Files for Descriptors {
    fn kind(&mut self, pid: u32, descriptor: u64) -> Option<&'static str> {
        self.known.get(&(pid, descriptor))?.0
    }
}

/// By what the kernel calls it.
fn kind_of(target: &str) -> Option<&'static str> {
    if target.starts_with("pipe:") {
        Some("pipe")
    } else if target.starts_with("socket:") {
        Some("socket")
    } else if target.starts_with("/dev/pts/") || target.starts_with("/dev/tty") || target == "/dev/console" {
        Some("terminal")
    } else if target.starts_with("/dev/") || !target.starts_with('/') {
        None
    } else {
        Some("file")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_tell_what_they_are() {
        assert_eq!(kind_of("pipe:[1234]"), Some("pipe"));
        assert_eq!(kind_of("socket:[1]"), Some("socket"));
        assert_eq!(kind_of("/dev/pts/0"), Some("terminal"));
        assert_eq!(kind_of("/var/log/x (deleted)"), Some("file"));
        assert_eq!(kind_of("anon_inode:[eventfd]"), None);
        assert_eq!(kind_of("/dev/kmsg"), None);
    }
}
