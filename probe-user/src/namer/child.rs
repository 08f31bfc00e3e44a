//! A child process that is reaped as soon as it ends.
//!
//! The namer ends by itself when nobody asks it anything, and there may be no next question for hours:
//! without anybody who waits for it, a tool that reports zombies would leave one.

use std::io;
use std::os::fd::OwnedFd;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

/// What the thread that waits needs.
const STACK: usize = 64 << 10;

/// A child and the thread that waits for it.
pub struct Child {
    pid: u32,
    /// Names the child even when its pid is another's.
    handle: OwnedFd,
    ended: Arc<AtomicBool>,
}

impl Child {
    /// Starts it.
    ///
    /// # Errors
    /// If it, or the thread that waits for it, cannot be started.
    pub fn spawn(command: &mut Command) -> io::Result<Self> {
        let mut child = command.spawn()?;
        let pid = child.id();
        let handle = pidfd_open(Pid::from_child(&child), PidfdFlags::empty())
            .map_err(io::Error::from)
            .inspect_err(|_| {
                let _ = child.kill();
                let _ = child.wait();
            })?;
        let ended = Arc::new(AtomicBool::new(false));
        let waiter = std::thread::Builder::new()
            .name("waits for namer".to_owned())
            .stack_size(STACK);
        let is_over = Arc::clone(&ended);
        let started = waiter.spawn(move || {
            let _ = child.wait();
            is_over.store(true, Ordering::Release);
        });
        let child = Self { pid, handle, ended };
        match started {
            Ok(_) => Ok(child),
            Err(error) => {
                child.kill();
                Err(error)
            }
        }
    }

    /// Its pid.
    pub fn id(&self) -> u32 {
        self.pid
    }

    /// Kills it, if it is still there.
    pub fn kill(&self) {
        let _ = pidfd_send_signal(&self.handle, Signal::KILL);
    }

    /// Whether it has ended and was reaped.
    fn has_ended(&self) -> bool {
        self.ended.load(Ordering::Acquire)
    }

    /// Gives it so long to end.
    pub fn ends_within(&self, time: Duration) -> bool {
        let until = Instant::now() + time;
        while !self.has_ended() {
            if Instant::now() >= until {
                return false;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_child_that_ends_is_reaped_though_nobody_asks() {
        let child = Child::spawn(&mut Command::new("true")).unwrap();
        let status = format!("/proc/{}/status", child.id());
        assert!(child.ends_within(Duration::from_secs(60)));
        assert!(!std::path::Path::new(&status).exists(), "it is no zombie");
        child.kill();
    }

    #[test]
    fn a_child_is_killed() {
        let child = Child::spawn(Command::new("sleep").arg("600")).unwrap();
        assert!(!child.ends_within(Duration::from_millis(50)));
        child.kill();
        assert!(child.ends_within(Duration::from_secs(60)));
    }
}
