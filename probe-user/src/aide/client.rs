//! The agent's side: starts the aide, and asks it.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use rustix::event::Timespec;
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use super::{ARGUMENT, Asked, Ready, Said, Wish};
use crate::confine::own;
use crate::kernel::cost;
use crate::namer::protocol;

/// How long it may take to start: mostly reading its own binary.
const START: Duration = Duration::from_secs(10);
/// How long an answer may take: a fork and an exec.
const DEADLINE: Duration = Duration::from_secs(3);
/// Bytes of an answer at most.
const LONGEST: usize = 4 << 10;

static SHARED: OnceLock<Aide> = OnceLock::new();

/// A running aide.
#[derive(Debug)]
pub struct Aide {
    line: Mutex<Line>,
    /// How it is confined.
    pub ready: Ready,
    /// Its pid.
    pub pid: u32,
    /// Says when it has ended.
    end: OwnedFd,
}

#[derive(Debug)]
struct Line {
    socket: OwnedFd,
    asked: u32,
}

/// The aide of this process, if it has one.
pub fn shared() -> Option<&'static Aide> {
    SHARED.get()
}

/// Starts the aide of this process.
///
/// # Errors
/// Why it cannot, as the rest of a sentence.
pub fn start() -> Result<&'static Aide, String> {
    if let Some(aide) = SHARED.get() {
        return Ok(aide);
    }
    let aide = Aide::start()?;
    Ok(SHARED.get_or_init(|| aide))
}

/// Turns the kernel's run-time statistics on for as long as the result lives: by the aide, where there is
/// one. `None` where the kernel (before 5.8) or privileges refuse.
pub fn statistics() -> Option<OwnedFd> {
    match shared() {
        Some(aide) if aide.ready.measures => Some(aide.ask(Wish::Statistics, None).ok()?.0),
        Some(_) => None,
        None => cost::statistics(),
    }
}

impl Aide {
    fn start() -> Result<Self, String> {
        let failed = |error: &dyn std::fmt::Display| format!("cannot be started: {error}");
        let (ours, theirs) = own::line().map_err(|error| failed(&error))?;
        let child = own::start(ARGUMENT, theirs).map_err(|error| failed(&error))?;
        let end = pidfd_open(Pid::from_child(&child), PidfdFlags::empty()).map_err(|error| failed(&error))?;
        let mut buffer = [0; LONGEST];
        match protocol::receive(ours.as_fd(), &mut buffer, Some(timespec(START))) {
            Ok(Some((Said::Ready(ready), _))) => Ok(Self {
                line: Mutex::new(Line {
                    socket: ours,
                    asked: 0,
                }),
                ready,
                pid: child.id(),
                end,
            }),
            Ok(Some((Said::Unfit(why), _))) => Err(format!("cannot be confined: {why}")),
            Ok(Some(_)) => Err("does not follow the protocol".to_owned()),
            Ok(None) => Err("ended at once".to_owned()),
            Err(error) => Err(format!("does not start: {error}")),
        }
    }

    /// Has a namer started that talks by `theirs`: something to end it with and to see its end, and its pid.
    ///
    /// # Errors
    /// Why there is none.
    pub fn start_namer(&self, theirs: &OwnedFd) -> std::io::Result<(OwnedFd, u32)> {
        self.ask(Wish::Namer, Some(theirs)).map_err(std::io::Error::other)
    }

    /// What becomes readable when it has ended.
    ///
    /// # Errors
    /// If there are no more descriptors.
    pub fn end(&self) -> std::io::Result<OwnedFd> {
        self.end.try_clone()
    }

    fn ask(&self, wish: Wish, given: Option<&OwnedFd>) -> Result<(OwnedFd, u32), String> {
        let mut line = self.line.lock().unwrap_or_else(PoisonError::into_inner);
        let text = |error: std::io::Error| format!("the aide: {error}");
        let deadline = Instant::now() + DEADLINE;
        line.asked = line.asked.wrapping_add(1);
        let number = line.asked;
        let asked = Asked { number, wish };
        let (socket, given) = (line.socket.as_fd(), given.map(AsFd::as_fd));
        protocol::send(socket, &asked, given, Some(timespec(DEADLINE))).map_err(text)?;
        let mut buffer = [0; LONGEST];
        loop {
            let left = timespec(deadline.saturating_duration_since(Instant::now()));
            let heard = protocol::receive(socket, &mut buffer, Some(left)).map_err(text)?;
            match heard.ok_or("the aide is gone")? {
                (Said::Done { number: to, pid }, Some(descriptor)) if to == number => {
                    return Ok((descriptor, pid));
                }
                (Said::Failed { number: to, why }, _) if to == number => return Err(why),
                // To a question that was given up.
                _ => {}
            }
        }
    }
}

fn timespec(duration: Duration) -> Timespec {
    duration.try_into().unwrap_or(Timespec {
        tv_sec: 1,
        tv_nsec: 0,
    })
}
