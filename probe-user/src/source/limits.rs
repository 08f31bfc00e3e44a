//! How much of something this host has: pids, CPUs.

use std::fs;
use std::path::Path;

/// The smaller of `kernel.pid_max` and `kernel.threads-max`: whichever is reached first, no fork succeeds any more.
pub fn pid_limit(proc_root: &Path) -> Option<u64> {
    let read = |name: &str| -> Option<u64> {
        fs::read_to_string(proc_root.join("sys/kernel").join(name))
            .ok()?
            .trim()
            .parse()
            .ok()
    };
    match (read("pid_max"), read("threads-max")) {
        (Some(pids), Some(threads)) => Some(pids.min(threads)),
        (one, other) => one.or(other),
    }
}

/// CPUs that are online; 0 if nobody says. Not those that this process may use, which a cgroup may narrow.
pub fn available_cpus() -> usize {
    // SAFETY: takes a plain number.
    let count = unsafe { libc::sysconf(libc::_SC_NPROCESSORS_ONLN) };
    usize::try_from(count).unwrap_or(0)
}
