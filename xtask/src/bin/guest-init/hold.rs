//! Keeps the tracepoints and the statistics that the agent uses switched on, so that no kernel code is rewritten while tests run.
//!
//! The first two programs at a tracepoint, and the last two that leave it, make the kernel rewrite the code there, by way of
//! a breakpoint. QEMU 7.2's translator lets another CPU run into one that is gone: the kernel panics over "int3", in
//! `__schedule` of all places, or hangs. The same goes for the statistics of eBPF programs, which the agent switches on now and
//! then. The checks and tests attach some hundred times. With two programs that do nothing held at each, the agent's only
//! join a list; while they are attached, the guest has no other CPU yet.

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

use anyhow::{Context, Result};

/// What the agent attaches to.
const TRACEPOINTS: [&CStr; 8] = [
    c"sched_switch",
    c"sched_waking",
    c"sched_process_fork",
    c"sched_process_exec",
    c"sched_process_free",
    c"sched_process_wait",
    c"signal_generate",
    c"mark_victim",
];

/// Commands and a program type of `bpf(2)`.
const PROG_LOAD: libc::c_int = 5;
const RAW_TRACEPOINT_OPEN: libc::c_int = 17;
const ENABLE_STATS: libc::c_int = 32;
const RAW_TRACEPOINT: u32 = 17;
/// `r0 = 0; exit`.
const NOTHING: [u64; 2] = [0xb7, 0x95];

/// The first members of `union bpf_attr` for `BPF_PROG_LOAD`.
#[repr(C)]
struct Load {
    kind: u32,
    count: u32,
    instructions: u64,
    license: u64,
    log: [u64; 3],
}

/// Those for `BPF_RAW_TRACEPOINT_OPEN`.
#[repr(C)]
struct Open {
    name: u64,
    program: u32,
    padding: u32,
}

/// How many programs are held.
pub const PROGRAMS: usize = 2;

/// Attaches two programs to each tracepoint, and switches the statistics on, until the files are closed.
pub fn all() -> Result<Vec<OwnedFd>> {
    let mut held = vec![statistics().context("switching statistics on")?];
    for _ in 0..PROGRAMS {
        let program = load().context("loading a program that does nothing")?;
        for name in TRACEPOINTS {
            held.push(open(name, &program).with_context(|| format!("attaching to {name:?}"))?);
        }
        held.push(program);
    }
    Ok(held)
}

fn statistics() -> io::Result<OwnedFd> {
    // SAFETY: takes a number, `BPF_STATS_RUN_TIME`.
    unsafe { bpf(ENABLE_STATS, &0_u32) }
}

fn load() -> io::Result<OwnedFd> {
    let attribute = Load {
        kind: RAW_TRACEPOINT,
        count: u32::try_from(NOTHING.len()).unwrap_or_default(),
        instructions: NOTHING.as_ptr().expose_provenance() as u64,
        license: c"GPL".as_ptr().expose_provenance() as u64,
        log: [0; 3],
    };
    // SAFETY: what the attribute points to lives for the call.
    unsafe { bpf(PROG_LOAD, &attribute) }
}

fn open(name: &CStr, program: &OwnedFd) -> io::Result<OwnedFd> {
    let attribute = Open {
        name: name.as_ptr().expose_provenance() as u64,
        program: program.as_raw_fd().cast_unsigned(),
        padding: 0,
    };
    // SAFETY: the name lives for the call.
    unsafe { bpf(RAW_TRACEPOINT_OPEN, &attribute) }
}

/// A call of `bpf(2)` that returns a file.
///
/// # Safety
/// The attribute has to be one of that command, and its pointers valid.
unsafe fn bpf<T>(command: libc::c_int, attribute: &T) -> io::Result<OwnedFd> {
    // SAFETY: the attribute is valid for reads of the size that is passed; the rest is the caller's to see to.
    let outcome = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            command,
            std::ptr::from_ref(attribute),
            size_of::<T>(),
        )
    };
    match RawFd::try_from(outcome) {
        // SAFETY: the kernel has just made it, for us alone.
        Ok(descriptor) if descriptor >= 0 => Ok(unsafe { OwnedFd::from_raw_fd(descriptor) }),
        _ => Err(io::Error::last_os_error()),
    }
}
