//! The agent's side: starts the namer, asks it, and goes on without it when it dies or is late.
//!
//! A file that it died of, or took too long over, is not given to it again for a while, longer each time:
//! nobody keeps the others' names away by a file that takes a second. Too long is what it runs or sleeps: on
//! a busy host, or under a quota, it may get no CPU for longer than that, and no file is to blame.

use std::cell::Cell;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rustix::event::Timespec;

use super::file::Checked;
use super::process::{Activity, Process};
use super::protocol::{Answer, FileKey, FromAgent, FromNamer, LARGEST, Question, receive, send};
use super::spoilers::Spoilers;
use crate::aide::client as aide;
use crate::confine::own;

/// How long an answer may take, all files included.
const DEADLINE: Duration = Duration::from_millis(600);
/// How often it is given as long again, if it wants to run and mostly did not.
const EXTENSIONS: u32 = 4;
/// How long it may take to start: mostly reading its own binary.
const START: Duration = Duration::from_secs(3);
/// Before it is started again after it could not be.
const PAUSE: Duration = Duration::from_secs(10);
/// How long it is waited for after it was killed; beyond that it is looked after later.
const LAST_WORDS: Duration = Duration::from_millis(20);
/// Killed ones that do not end (the kernel waits for a disk in their name). With so many, no other is
/// started.
const ABANDONED: usize = 4;
/// Questions of this process that got no answer, or one without a file that is kept away.
static LOST: AtomicU64 = AtomicU64::new(0);

thread_local! {
    /// Those of this thread.
    static LOST_HERE: Cell<u64> = const { Cell::new(0) };
}

/// Questions that got no answer, or less of one than there is, since this process began.
pub fn lost() -> u64 {
    LOST.load(Ordering::Relaxed)
}

/// Those that this thread asked.
pub fn lost_here() -> u64 {
    LOST_HERE.get()
}

fn count_loss() {
    LOST.fetch_add(1, Ordering::Relaxed);
    LOST_HERE.set(LOST_HERE.get() + 1);
}

/// What is started as the namer.
#[derive(Clone, Debug)]
pub enum Program {
    /// This program itself.
    Own,
    /// Another build of it, for tests that are not it.
    At(PathBuf),
    /// A thread instead, not confined: in unit tests this program is not the agent.
    #[cfg(test)]
    Thread,
}

/// See the module.
pub struct Namer {
    program: Program,
    /// How long an answer may take.
    patience: Duration,
    running: Option<Running>,
    abandoned: Vec<Process>,
    /// Why it could not be started, and when.
    unfit: Option<(String, Instant)>,
    spoilers: Spoilers,
    buffer: Vec<u8>,
}

struct Running {
    /// `None` for a thread.
    process: Option<Process>,
    socket: OwnedFd,
}

impl Namer {
    /// None is started before something is asked.
    pub fn new(program: Program) -> Self {
        #[cfg(test)]
        let patience = match program {
            // It cannot be killed, and unit tests are not optimised.
            Program::Thread => Duration::from_secs(60),
            _ => DEADLINE,
        };
        #[cfg(not(test))]
        let patience = DEADLINE;
        Self {
            program,
            patience,
            running: None,
            abandoned: Vec::new(),
            unfit: None,
            spoilers: Spoilers::default(),
            buffer: vec![0; LARGEST],
        }
    }

    /// Asks; `files` are those that the question speaks of, by number. `None` if there is no answer, which is
    /// counted.
    pub fn ask(&mut self, question: Question, files: &[Option<Checked>]) -> Option<Answer> {
        let is_spoiled = |file: &Checked| self.spoilers.has(&file.key, Instant::now());
        if !matches!(question, Question::Walk(_)) && files.iter().flatten().any(is_spoiled) {
            // Without its file it would say that there is nothing.
            count_loss();
            return None;
        }
        let mut held = None;
        match self.try_ask(question, files, &mut held) {
            Ok(answer) => Some(answer),
            Err(error) => {
                let file = held.map(|key| (key.device >> 32, key.device & 0xffff_ffff, key.inode));
                tracing::info!(
                    ?file,
                    "no answer from the namer: {error} (file: major, minor, inode)"
                );
                count_loss();
                self.end();
                if let Some(key) = held {
                    self.spoilers.add(key, Instant::now());
                }
                None
            }
        }
    }

    /// Starts it if it does not run.
    ///
    /// # Errors
    /// Why it cannot.
    pub fn start(&mut self) -> Result<(), String> {
        self.sweep();
        if self.running.is_some() {
            return Ok(());
        }
        if let Some((why, when)) = &self.unfit
            && when.elapsed() < PAUSE
        {
            return Err(why.clone());
        }
        self.unfit = None;
        if self.abandoned.len() >= ABANDONED {
            return Err(format!("{ABANDONED} that were killed do not end"));
        }
        self.begin().inspect_err(|why| {
            self.end();
            self.unfit = Some((why.clone(), Instant::now()));
        })
    }

    /// Ends the one that runs, if one does.
    pub fn retire(&mut self) {
        self.end();
    }

    /// Its pid.
    pub fn pid(&self) -> Option<u32> {
        self.running.as_ref()?.process.as_ref().map(Process::id)
    }

    fn begin(&mut self) -> Result<(), String> {
        let running = launch(&self.program).map_err(|error| format!("cannot be started: {error}"))?;
        let running = self.running.insert(running);
        let said = receive(running.socket.as_fd(), &mut self.buffer, Some(timespec(START)));
        match said {
            Ok(Some((FromNamer::Ready, _))) => Ok(()),
            Ok(Some((FromNamer::Unfit(why), _))) => Err(format!("cannot be confined: {why}")),
            Ok(Some(_)) => Err("does not follow the protocol".to_owned()),
            Ok(None) => Err("ended at once".to_owned()),
            Err(error) => Err(format!("does not start: {error}")),
        }
    }

    /// `held` is the file that it has in hand.
    fn try_ask(
        &mut self,
        question: Question,
        files: &[Option<Checked>],
        held: &mut Option<FileKey>,
    ) -> io::Result<Answer> {
        let question = FromAgent::Question(question);
        self.start().map_err(io::Error::other)?;
        let mut term = self.term();
        if self.say(&question, None, term.end).is_err() {
            // It ended just now, of boredom.
            self.end();
            self.start().map_err(io::Error::other)?;
            term = self.term();
            self.say(&question, None, term.end)?;
        }
        loop {
            let number = match self.hear(&mut term)? {
                FromNamer::Answer(answer) => return Ok(answer),
                FromNamer::Needs(number) => number,
                _ => return Err(io::Error::other("it does not follow the protocol")),
            };
            let file = files.get(number as usize).and_then(Option::as_ref);
            let Some(file) = file.filter(|file| !self.spoilers.has(&file.key, Instant::now())) else {
                if file.is_some() {
                    count_loss();
                }
                self.say(&FromAgent::NoFile, None, term.end)?;
                continue;
            };
            *held = Some(file.key);
            self.say(&FromAgent::File(file.key), Some(&file.file), term.end)?;
        }
    }

    fn say(&mut self, message: &FromAgent, file: Option<&OwnedFd>, deadline: Instant) -> io::Result<()> {
        let running = self.running.as_ref().ok_or(io::ErrorKind::NotConnected)?;
        let file = file.map(AsFd::as_fd);
        send(running.socket.as_fd(), message, file, Some(left(deadline)))
    }

    fn hear(&mut self, term: &mut Term) -> io::Result<FromNamer> {
        loop {
            let running = self.running.as_ref().ok_or(io::ErrorKind::NotConnected)?;
            let heard = receive(running.socket.as_fd(), &mut self.buffer, Some(left(term.end)));
            return match heard {
                Ok(Some((message, _))) => Ok(message),
                Ok(None) => Err(io::Error::other("it died")),
                Err(late) if late.kind() == io::ErrorKind::TimedOut => {
                    let activity = running.process.as_ref().and_then(Process::activity);
                    if term.is_extended(activity, self.patience) {
                        continue;
                    }
                    Err(late)
                }
                Err(error) => Err(error),
            };
        }
    }

    /// For the answer to a question that is asked now.
    fn term(&self) -> Term {
        let process = self.running.as_ref().and_then(|running| running.process.as_ref());
        Term {
            end: Instant::now() + self.patience,
            ran: process.and_then(Process::activity).map(|activity| activity.ran),
            extensions: EXTENSIONS,
        }
    }

    /// Ends it, whatever it does.
    fn end(&mut self) {
        let Some(Running { process, socket }) = self.running.take() else {
            return;
        };
        drop(socket);
        let Some(process) = process else { return };
        process.kill();
        if !process.ends_within(LAST_WORDS) {
            self.abandoned.push(process);
        }
    }

    /// Forgets those that have ended.
    fn sweep(&mut self) {
        self.abandoned.retain(|process| !process.has_ended());
        let process = self.running.as_ref().and_then(|running| running.process.as_ref());
        if process.is_some_and(Process::has_ended) {
            self.running = None;
        }
    }
}

/// How long an answer may take.
struct Term {
    end: Instant,
    /// What the namer had run when it began.
    ran: Option<Duration>,
    extensions: u32,
}

impl Term {
    /// Whether it is given as long again: it wants to run, and did less than half of the time.
    fn is_extended(&mut self, now: Option<Activity>, patience: Duration) -> bool {
        let (Some(before), Some(now)) = (self.ran, now) else {
            return false;
        };
        if self.extensions == 0 || !now.wants_to_run || now.ran.saturating_sub(before) * 2 > patience {
            return false;
        }
        self.extensions -= 1;
        self.ran = Some(now.ran);
        self.end += patience;
        true
    }
}

impl Drop for Namer {
    fn drop(&mut self) {
        self.end();
    }
}

fn launch(program: &Program) -> io::Result<Running> {
    let (ours, theirs) = own::line()?;
    let process = match program {
        Program::Own => match aide::shared() {
            // A confined agent starts nothing itself.
            Some(aide) => Some(Process::of(aide.start_namer(&theirs)?)),
            None => Some(Process::start(Path::new(own::PROGRAM), theirs)?),
        },
        Program::At(path) => Some(Process::start(path, theirs)?),
        #[cfg(test)]
        Program::Thread => {
            std::thread::spawn(move || super::server::serve(theirs.as_fd()));
            None
        }
    };
    Ok(Running {
        process,
        socket: ours,
    })
}

fn left(deadline: Instant) -> Timespec {
    timespec(deadline.saturating_duration_since(Instant::now()))
}

fn timespec(duration: Duration) -> Timespec {
    duration.try_into().unwrap_or(Timespec {
        tv_sec: 1,
        tv_nsec: 0,
    })
}

#[cfg(test)]
mod tests {
    use super::super::file::open_mapped;
    use super::*;

    #[test]
    fn of_a_file_that_is_kept_away_nothing_is_said() {
        let mut namer = Namer::new(Program::Thread);
        let checked = || {
            let maps = procfs::process::Process::myself().unwrap().maps().unwrap();
            let mut maps = maps.iter();
            maps.find_map(|map| match &map.pathname {
                procfs::process::MMapPath::Path(path) => (0..100)
                    .find_map(|_| open_mapped(Path::new("/proc/self"), path, super::super::id_of(map)).ok()),
                _ => None,
            })
            .unwrap()
        };
        let ask = |namer: &mut Namer| namer.ask(Question::Sites(vec![0]), &[Some(checked())]);
        assert!(matches!(ask(&mut namer), Some(Answer::Sites(Some(_)))));
        namer.spoilers.add(checked().key, Instant::now());
        let before = lost_here();
        assert!(ask(&mut namer).is_none(), "it would say that it is no code");
        assert_eq!(lost_here() - before, 1);
    }

    #[test]
    fn who_gets_no_cpu_has_longer() {
        let patience = Duration::from_millis(900);
        let began = Instant::now();
        let term = |extensions| Term {
            end: began + patience,
            ran: Some(Duration::from_millis(300)),
            extensions,
        };
        let now = |wants_to_run, ran| {
            Some(Activity {
                wants_to_run,
                ran: Duration::from_millis(ran),
            })
        };
        assert!(!term(4).is_extended(now(true, 1_000), patience), "it ran");
        assert!(
            !term(4).is_extended(now(false, 310), patience),
            "it sleeps: in a file"
        );
        assert!(!term(4).is_extended(None, patience), "it has ended");
        assert!(!term(0).is_extended(now(true, 310), patience), "not for ever");
        let mut starved = term(2);
        assert!(starved.is_extended(now(true, 700), patience));
        assert_eq!(starved.end, began + 2 * patience);
        assert!(
            !starved.is_extended(now(true, 1_200), patience),
            "half of the second term"
        );
    }
}
