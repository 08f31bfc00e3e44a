//! What children took that have ended and were waited for.

/// So far.
#[derive(Clone, Copy)]
pub struct Usage {
    /// CPU time, user's and system's.
    pub cpu_s: f64,
    /// Times that a thread let go of its CPU because it had to wait.
    pub sleeps: u64,
}

/// All children's.
pub fn of_children() -> Usage {
    // SAFETY: all zeros is a valid rusage, and it is ours to write.
    let usage = unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        libc::getrusage(libc::RUSAGE_CHILDREN, &raw mut usage);
        usage
    };
    let seconds = |time: libc::timeval| time.tv_sec as f64 + time.tv_usec as f64 / 1e6;
    Usage {
        cpu_s: seconds(usage.ru_utime) + seconds(usage.ru_stime),
        sleeps: u64::try_from(usage.ru_nvcsw).unwrap_or(0),
    }
}
