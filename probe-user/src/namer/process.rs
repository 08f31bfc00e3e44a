//! The namer as a process, whoever started it: a child of this one, or of the aide's.

use std::os::fd::OwnedFd;
use std::process::Child;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Signal, pidfd_send_signal};

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

impl Process {
    /// One that this process started.
    pub fn of_child(child: Child) -> Self {
        Self(Kind::Child(child))
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

    /// Kills it, if it has not ended.
    pub fn kill(&mut self) {
        let _ = match &mut self.0 {
            Kind::Child(child) => child.kill(),
            Kind::OfAide { end, .. } => pidfd_send_signal(end, Signal::KILL).map_err(Into::into),
        };
    }

    /// Whether it has ended. A child is reaped then.
    pub fn has_ended(&mut self) -> bool {
        match &mut self.0 {
            Kind::Child(child) => !matches!(child.try_wait(), Ok(None)),
            Kind::OfAide { end, .. } => {
                let mut end = [PollFd::new(end, PollFlags::IN)];
                !matches!(poll(&mut end, Some(&Timespec::default())), Ok(0))
            }
        }
    }
}
