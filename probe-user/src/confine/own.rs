//! How this program starts itself once more, as one of the processes that may do little.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

/// The file that runs, also when another version has taken its name since.
pub const PROGRAM: &str = "/proc/self/exe";

/// The two ends of what such a process and its starter talk by: a packet a message.
///
/// # Errors
/// If there are no more descriptors.
pub fn line() -> io::Result<(OwnedFd, OwnedFd)> {
    let (kind, flags) = (SocketType::SEQPACKET, SocketFlags::CLOEXEC);
    Ok(socketpair(AddressFamily::UNIX, kind, flags, None)?)
}

/// What starts `program`, which is this one, with the argument that says what it is to be, and its end of the
/// line.
pub fn command(program: &Path, argument: &str, line: OwnedFd) -> Command {
    let mut command = Command::new(program);
    command
        .arg0("procprobe")
        .arg(argument)
        .env_clear()
        // Ctrl-C is for the agent.
        .process_group(0)
        .stdin(Stdio::from(line))
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    command
}

/// Starts it.
///
/// # Errors
/// The system's.
pub fn start(argument: &str, line: OwnedFd) -> io::Result<Child> {
    command(Path::new(PROGRAM), argument, line).spawn()
}

/// Whether this process was started to be that.
pub fn is_wanted(argument: &str) -> bool {
    std::env::args_os().nth(1).is_some_and(|found| found == argument)
}
