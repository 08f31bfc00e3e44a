//! The namer as a process, started by this one or by the aide.

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Signal, pidfd_send_signal};

use super::child::Child;
use crate::confine::own;

/// A namer that was started.
pub struct Process(Kind);

enum Kind {
    Child(Child),
    /// The aide reaps it.
    OfAide {
        end: OwnedFd,
        pid: u32,
    },
}

/// What a namer does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Activity {
    /// Whether it runs, or would if it had a CPU.
    pub wants_to_run: bool,
    /// CPU time so far.
    pub ran: Duration,
}

impl Process {
    /// Starts one as a child of this process.
    ///
    /// # Errors
    /// The system's.
    pub fn start(program: &Path, line: OwnedFd) -> io::Result<Self> {
        // The command has the child's end of the line, and goes at the end: ours is then the only other one.
        let mut command = own::command(program, super::ARGUMENT, line);
        Ok(Self(Kind::Child(Child::spawn(&mut command)?)))
    }

    /// One that the aide started.
    pub fn of((end, pid): (OwnedFd, u32)) -> Self {
        Self(Kind::OfAide { end, pid })
    }

    /// Its pid.
    pub fn id(&self) -> u32 {
        match &self.0 {
            Kind::Child(child) => child.id(),
            Kind::OfAide { pid, .. } => *pid,
        }
    }

    /// What it does; `None` if it has ended.
    pub fn activity(&self) -> Option<Activity> {
        let pid = self.id().cast_signed();
        let stat = procfs::process::Process::new(pid).and_then(|process| process.stat());
        let stat = stat.ok()?;
        let ticks = u32::try_from(stat.utime + stat.stime).ok()?;
        Some(Activity {
            wants_to_run: stat.state == 'R',
            ran: Duration::from_secs(1) * ticks / u32::try_from(procfs::ticks_per_second()).ok()?,
        })
    }

    /// Kills it, if it has not ended.
    pub fn kill(&self) {
        match &self.0 {
            Kind::Child(child) => child.kill(),
            Kind::OfAide { end, .. } => {
                let _ = pidfd_send_signal(end, Signal::KILL);
            }
        }
    }

    /// Whether it has ended.
    pub fn has_ended(&self) -> bool {
        self.ends_within(Duration::ZERO)
    }

    /// Gives it so long to end.
    pub fn ends_within(&self, time: Duration) -> bool {
        match &self.0 {
            Kind::Child(child) => child.ends_within(time),
            Kind::OfAide { end, .. } => {
                let time = Timespec::try_from(time).unwrap_or_default();
                let mut end = [PollFd::new(end, PollFlags::IN)];
                !matches!(poll(&mut end, Some(&time)), Ok(0))
            }
        }
    }
}
