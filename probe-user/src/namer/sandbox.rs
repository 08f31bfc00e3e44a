//! What the namer gives up before it looks at anything: all capabilities, all descriptors but its socket, and
//! by a filter of system calls everything but reading what it was given, its own memory, and its end. It
//! opens no file and no socket, starts nothing, and takes no more memory, time and descriptors than it needs.

use std::io;

use caps::CapsHashSet;
use rustix::process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit};
use seccompiler::BpfProgram;

use crate::confine::filter::{self, Rules, bits, equal};
use crate::confine::{capabilities, landlock};

/// Memory above what it has at its start: two large files and their tables.
const MEMORY: u64 = 128 << 20;
/// Seconds of CPU time in all of its life; it ends by itself before.
pub const CPU_SECONDS: u64 = 30;
/// Its socket, and the files that it remembers.
const DESCRIPTORS: u64 = super::server::FILES as u64 + 16;

/// Confines this process.
///
/// # Errors
/// What could not be given up.
pub fn enter() -> Result<(), String> {
    let failed = |what: &str, error: io::Error| format!("{what}: {error}");
    // Where memory runs out, it goes before the agent does, which can start another. Where there is no such
    // file, not.
    let _ = std::fs::write("/proc/self/oom_score_adj", "1000");
    // Nobody but root reads its memory, or traces it.
    set_dumpable_behavior(DumpableBehavior::NotDumpable).map_err(|error| failed("dumpable", error.into()))?;
    close_others().map_err(|error| failed("descriptors", error))?;
    limits().map_err(|error| failed("limits", error))?;
    capabilities::keep_only(&CapsHashSet::new()).map_err(|error| format!("capabilities: {error}"))?;
    landlock::nothing().map_err(|why| format!("Landlock: {why}"))?;
    let filter = rules().map_err(|error| format!("system call filter: {error}"))?;
    filter::apply(&filter).map_err(|error| failed("system call filter", error))?;
    tried()
}

/// All from 3 on: 0 is the socket, 1 and 2 lead to /dev/null.
fn close_others() -> io::Result<()> {
    // SAFETY: nothing in this process uses a descriptor from 3 on: it has just begun.
    match unsafe { libc::syscall(libc::SYS_close_range, 3_u32, u32::MAX, 0_u32) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

fn limits() -> io::Result<()> {
    let pages: u64 = std::fs::read_to_string("/proc/self/statm")?
        .split(' ')
        .next()
        .and_then(|pages| pages.parse().ok())
        .unwrap_or(0);
    let memory = pages * rustix::param::page_size() as u64 + MEMORY;
    for (resource, limit) in [
        (Resource::As, memory),
        (Resource::Cpu, CPU_SECONDS),
        (Resource::Nofile, DESCRIPTORS),
        (Resource::Core, 0),
        (Resource::Fsize, 0),
    ] {
        let limit = Rlimit {
            current: Some(limit),
            maximum: Some(limit),
        };
        setrlimit(resource, limit)?;
    }
    Ok(())
}

/// Allowed whatever their arguments are. Memory, its one socket, the files it was given, time, and its end.
const ALLOWED: [libc::c_long; 27] = [
    libc::SYS_recvmsg,
    libc::SYS_sendmsg,
    libc::SYS_poll,
    libc::SYS_ppoll,
    libc::SYS_pread64,
    libc::SYS_read,
    libc::SYS_write,
    libc::SYS_close,
    libc::SYS_munmap,
    libc::SYS_mremap,
    libc::SYS_madvise,
    libc::SYS_brk,
    libc::SYS_futex,
    libc::SYS_getrandom,
    libc::SYS_clock_gettime,
    libc::SYS_clock_nanosleep,
    libc::SYS_getrusage,
    libc::SYS_getpid,
    libc::SYS_gettid,
    libc::SYS_sched_yield,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sigaltstack,
    libc::SYS_restart_syscall,
    libc::SYS_exit,
    libc::SYS_exit_group,
];

fn rules() -> Result<BpfProgram, seccompiler::Error> {
    let mut rules: Rules = ALLOWED.iter().map(|&call| (call, Vec::new())).collect();
    // Memory, but no code.
    for call in [libc::SYS_mmap, libc::SYS_mprotect] {
        rules.insert(call, vec![bits(2, libc::PROT_EXEC as u64, 0)?]);
    }
    // How abort() ends it.
    rules.insert(libc::SYS_tgkill, vec![equal(0, u64::from(std::process::id()))?]);
    filter::allowing(rules)
}

/// Tries what must not work any more.
fn tried() -> Result<(), String> {
    if std::fs::File::open("/").is_ok() {
        return Err("files can still be opened".to_owned());
    }
    if std::net::UdpSocket::bind("127.0.0.1:0").is_ok() {
        return Err("sockets can still be opened".to_owned());
    }
    Ok(())
}
