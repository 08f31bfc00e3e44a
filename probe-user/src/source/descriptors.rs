//! What file descriptors stand for, from /proc/PID/fd.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

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
}

impl Files for Descriptors {
    fn kind(&mut self, pid: u32, descriptor: u64) -> Option<&'static str> {
        let now = Instant::now();
        if let Some((kind, checked)) = self.known.get(&(pid, descriptor))
            && now.duration_since(*checked) < FRESH
        {
            return *kind;
        }
        if self.known.len() >= REMEMBERED {
            self.known.clear();
        }
        let link = self.root.join(format!("{pid}/fd/{descriptor}"));
        let kind = fs::read_link(link)
            .ok()
            .and_then(|target| kind_of(&target.to_string_lossy()));
        self.known.insert((pid, descriptor), (kind, now));
        kind
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
