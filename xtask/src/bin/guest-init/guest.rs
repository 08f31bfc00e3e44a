//! The guest itself: file systems, the loopback device, the kernel's own lists, power.

use std::ffi::CStr;
use std::{fs, io, mem, thread};

use anyhow::{Context, Result, ensure};
use rustix::mount::{MountFlags, mount};
use rustix::process::{Resource, Rlimit, setrlimit};
use rustix::system::{RebootCommand, finit_module, reboot, sethostname};

/// Where, what. tracefs is not mounted by itself on every kernel.
const MOUNTS: [(&str, &str); 10] = [
    ("/proc", "proc"),
    ("/sys", "sysfs"),
    ("/dev", "devtmpfs"),
    ("/dev/pts", "devpts"),
    ("/dev/shm", "tmpfs"),
    ("/run", "tmpfs"),
    ("/tmp", "tmpfs"),
    ("/sys/kernel/tracing", "tracefs"),
    ("/sys/kernel/security", "securityfs"),
    ("/sys/fs/cgroup", "cgroup2"),
];

/// Mounts, and brings the loopback device up.
pub fn prepare() -> Result<()> {
    for (target, kind) in MOUNTS {
        if !target.starts_with("/sys/") {
            fs::create_dir_all(target).with_context(|| format!("creating {target}"))?;
        }
        // The tests' programs lie where they were built, which may be below it.
        if target == "/tmp" && fs::read_dir(target).is_ok_and(|mut entries| entries.next().is_some()) {
            continue;
        }
        let options: Option<&CStr> = None;
        match mount(kind, target, kind, MountFlags::empty(), options) {
            // The kernel may have mounted devtmpfs by itself.
            Ok(()) | Err(rustix::io::Errno::BUSY) => {}
            Err(error) => return Err(error).with_context(|| format!("mounting {kind} on {target}")),
        }
    }
    load_modules()?;
    // A directory, no file system of its own, for the same reason.
    fs::create_dir_all("/var/tmp").context("creating /var/tmp")?;
    like_a_service_manager().context("setting up what a service manager does")?;
    loopback_up().context("bringing lo up")
}

/// Loads what the host has put there for this kernel.
fn load_modules() -> Result<()> {
    let Ok(modules) = fs::read_dir("/modules") else {
        return Ok(());
    };
    for module in modules {
        let path = module.context("listing the modules")?.path();
        let file = fs::File::open(&path).with_context(|| format!("opening {}", path.display()))?;
        finit_module(file, c"", 0).with_context(|| format!("loading {}", path.display()))?;
    }
    Ok(())
}

/// Controllers for the cgroups below the root, as many files as systemd allows, a name.
fn like_a_service_manager() -> Result<()> {
    // Which controllers there are is the kernel's business; tests that need one say so.
    for controller in ["+memory", "+pids", "+cpu"] {
        drop(fs::write("/sys/fs/cgroup/cgroup.subtree_control", controller));
    }
    let files = Rlimit {
        current: Some(1024),
        maximum: Some(524_288),
    };
    setrlimit(Resource::Nofile, files).context("the limit of open files")?;
    sethostname(b"guest").context("the host's name")
}

/// Starts the CPUs that are not running yet.
pub fn all_cpus() -> Result<()> {
    for entry in fs::read_dir("/sys/devices/system/cpu").context("listing the CPUs")? {
        let online = entry.context("listing the CPUs")?.path().join("online");
        // Other directories have no such file, and the first CPU has none where it cannot be stopped.
        if fs::read(&online).is_ok_and(|state| state == b"0\n") {
            fs::write(&online, "1").with_context(|| format!("{}", online.display()))?;
        }
    }
    Ok(())
}

/// What the kernel was booted with; the host's wishes are among it.
pub fn command_line() -> String {
    fs::read_to_string("/proc/cmdline").unwrap_or_default()
}

/// Ends the guest.
pub fn power_off() -> ! {
    // Only fails without the privilege, which pid 1 has.
    if let Err(error) = reboot(RebootCommand::PowerOff) {
        println!("init: cannot power off: {error}");
    }
    loop {
        thread::park();
    }
}

fn loopback_up() -> io::Result<()> {
    let socket = std::net::UdpSocket::bind("0.0.0.0:0")?;
    // SAFETY: plain old data, for which all zeros is a value.
    let mut request: libc::ifreq = unsafe { mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(*b"lo") {
        *to = from.cast_signed();
    }
    request.ifr_ifru.ifru_flags = i16::try_from(libc::IFF_UP | libc::IFF_RUNNING).unwrap_or_default();
    let descriptor = std::os::fd::AsRawFd::as_raw_fd(&socket);
    // SAFETY: an open socket, and a request that lives for the call.
    match unsafe { libc::ioctl(descriptor, libc::SIOCSIFFLAGS, &raw const request) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// The first member of `union bpf_attr` for `BPF_PROG_GET_NEXT_ID`, and room for its answer.
#[repr(C)]
struct NextId {
    start: u32,
    next: u32,
    flags: u32,
}

/// `BPF_PROG_GET_NEXT_ID` of `bpf(2)`.
const PROG_GET_NEXT_ID: libc::c_int = 11;

/// How many eBPF programs the kernel holds.
pub fn loaded_programs() -> Result<usize> {
    let mut attribute = NextId {
        start: 0,
        next: 0,
        flags: 0,
    };
    let mut count = 0;
    loop {
        // SAFETY: the attribute is valid for reads and writes of the size that is passed.
        let outcome = unsafe {
            libc::syscall(
                libc::SYS_bpf,
                PROG_GET_NEXT_ID,
                &raw mut attribute,
                size_of::<NextId>(),
            )
        };
        if outcome != 0 {
            let error = io::Error::last_os_error();
            ensure!(
                error.raw_os_error() == Some(libc::ENOENT),
                "listing eBPF programs: {error}"
            );
            return Ok(count);
        }
        count += 1;
        attribute.start = attribute.next;
    }
}

/// The pids that /proc lists.
pub fn pids() -> Result<Vec<u64>> {
    let entries = fs::read_dir("/proc").context("reading /proc")?;
    Ok(entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .collect())
}
