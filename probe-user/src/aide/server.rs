//! The aide's own side.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::process::Child;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use caps::{CapSet, CapsHashSet};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::SocketType;
use rustix::net::sockopt::socket_type;
use rustix::process::{DumpableBehavior, Pid, PidfdFlags, pidfd_open, set_dumpable_behavior};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use super::{Asked, Ready, Said, Wish};
use crate::confine::refused::Role;
use crate::confine::{capabilities, landlock, own, refused, user};
use crate::kernel::{cost, privileges};
use crate::namer::{self, protocol};

/// For the agent to take an answer.
const PATIENCE: Timespec = Timespec {
    tv_sec: 10,
    tv_nsec: 0,
};
/// Namers at a time: one, and those that were killed and do not end.
const NAMERS: usize = 8;
/// Bytes of what is heard: a word.
const LONGEST: usize = 64;

/// The whole life of an aide, which was started with its end of the line as standard input.
///
/// # Errors
/// If it was started by something else than the agent, or cannot be confined.
pub fn main() -> anyhow::Result<()> {
    // SAFETY: standard input stays open as long as this process lives.
    let line = unsafe { BorrowedFd::borrow_raw(0) };
    if socket_type(line).ok() != Some(SocketType::SEQPACKET) {
        anyhow::bail!("this is a part of procprobe that it starts itself (procprobe --help shows the verbs)");
    }
    let _ = rustix::thread::set_name(c"procprobe-aide");
    match confine() {
        Ok(ready) => protocol::send(line, &Said::Ready(ready), None, Some(PATIENCE))?,
        Err(why) => {
            protocol::send(line, &Said::Unfit(why.clone()), None, Some(PATIENCE))?;
            anyhow::bail!("cannot be confined: {why}");
        }
    }
    serve(line)
}

fn confine() -> Result<Ready, String> {
    // It ends with the agent, whatever a service manager or a terminal tells all processes together.
    for signal in [SIGHUP, SIGINT, SIGTERM] {
        // A handler, since what is ignored stays so for whom it starts.
        signal_hook::flag::register(signal, Arc::new(AtomicBool::new(false)))
            .map_err(|error| format!("signals: {error}"))?;
    }
    rustix::thread::set_no_new_privs(true).map_err(|error| format!("no_new_privs: {error}"))?;
    let _ = user::leave_root();
    let keep = CapsHashSet::from([privileges::MEASURE]);
    capabilities::keep_only(&keep).map_err(|error| error.to_string())?;
    set_dumpable_behavior(DumpableBehavior::NotDumpable).map_err(|error| format!("dumpable: {error}"))?;
    let landlock = landlock::own_program_only().map_err(|why| format!("Landlock: {why}"))?;
    refused::apply(Role::Aide).map_err(|why| format!("system call filter: {why}"))?;
    let held = caps::read(None, CapSet::Effective).unwrap_or_default();
    Ok(Ready {
        landlock,
        measures: held.contains(&privileges::MEASURE),
    })
}

/// A namer that was started, to be reaped.
struct Started {
    child: Child,
    /// Says when it has ended.
    end: OwnedFd,
}

/// Does what it is told until the agent is gone.
fn serve(line: BorrowedFd<'_>) -> anyhow::Result<()> {
    let mut namers: Vec<Started> = Vec::new();
    let mut buffer = [0; LONGEST];
    loop {
        wait(line, &namers)?;
        namers.retain_mut(|namer| matches!(namer.child.try_wait(), Ok(None)));
        let now = Timespec::default();
        let (asked, given) = match protocol::receive::<Asked>(line, &mut buffer, Some(now)) {
            Ok(Some(asked)) => asked,
            Ok(None) => return Ok(()),
            Err(error) if error.kind() == std::io::ErrorKind::TimedOut => continue,
            Err(error) => return Err(error.into()),
        };
        let (said, descriptor) = match fulfil(asked.wish, given, &mut namers) {
            Ok((descriptor, pid)) => {
                let number = asked.number;
                (Said::Done { number, pid }, Some(descriptor))
            }
            Err(why) => {
                let number = asked.number;
                (Said::Failed { number, why }, None)
            }
        };
        protocol::send(line, &said, descriptor.as_ref().map(AsFd::as_fd), Some(PATIENCE))?;
    }
}

/// Until the agent says something, or one of the namers ends.
fn wait(line: BorrowedFd<'_>, namers: &[Started]) -> rustix::io::Result<()> {
    let ends = namers.iter().map(|namer| namer.end.as_fd());
    let all = std::iter::once(line).chain(ends);
    let mut all: Vec<_> = all
        .map(|one| PollFd::from_borrowed_fd(one, PollFlags::IN))
        .collect();
    match poll(&mut all, None) {
        Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
        Err(error) => Err(error),
    }
}

fn fulfil(wish: Wish, given: Option<OwnedFd>, namers: &mut Vec<Started>) -> Result<(OwnedFd, u32), String> {
    match wish {
        Wish::Statistics => {
            let on = cost::statistics().ok_or("the kernel refuses")?;
            Ok((on, 0))
        }
        Wish::Namer => {
            let theirs = given.ok_or("no line for it came")?;
            if namers.len() >= NAMERS {
                return Err(format!("{NAMERS} that were started do not end"));
            }
            let started = start(theirs).map_err(|error| error.to_string())?;
            let end = started.end.try_clone().map_err(|error| error.to_string())?;
            let pid = started.child.id();
            namers.push(started);
            Ok((end, pid))
        }
    }
}

fn start(theirs: OwnedFd) -> std::io::Result<Started> {
    let mut child = own::start(namer::ARGUMENT, theirs)?;
    // Not reaped yet, so the pid is still its own.
    match pidfd_open(Pid::from_child(&child), PidfdFlags::empty()) {
        Ok(end) => Ok(Started { child, end }),
        Err(error) => {
            let _ = child.wait();
            Err(error.into())
        }
    }
}
