//! The namer's own side: answers questions until the agent hangs up. Whatever goes wrong here ends this
//! process, and nothing else.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::fd::BorrowedFd;
use std::sync::Arc;

use rustix::event::Timespec;
use rustix::net::SocketType;
use rustix::net::sockopt::socket_type;

use super::elf::Elf;
use super::protocol::{Answer, FileKey, FromAgent, FromNamer, LARGEST, Question, receive, send};
use super::{names, sandbox, site, walk};

/// Without a question for so long it ends; the agent starts another when it has one.
const IDLE: Timespec = Timespec {
    tv_sec: 60,
    tv_nsec: 0,
};
/// The agent asks and gives files one after the other: between them it has little to do.
const PATIENCE: Timespec = Timespec {
    tv_sec: 10,
    tv_nsec: 0,
};
/// Bytes of files that are remembered.
const REMEMBERED: usize = 32 << 20;
/// Files that are remembered.
pub(super) const FILES: usize = 256;

/// The whole life of a namer, which was started with its socket as standard input.
///
/// # Errors
/// If it was started by something else than the agent, or cannot be confined.
pub fn main() -> anyhow::Result<()> {
    // SAFETY: standard input stays open as long as this process lives.
    let socket = unsafe { BorrowedFd::borrow_raw(0) };
    if socket_type(socket).ok() != Some(SocketType::SEQPACKET) {
        anyhow::bail!("this is a part of procprobe that it starts itself (procprobe --help shows the verbs)");
    }
    let _ = rustix::thread::set_name(c"procprobe-namer");
    // What a panic says would go to /dev/null; finding out where it was takes files.
    std::panic::set_hook(Box::new(|_| {}));
    if let Err(why) = sandbox::enter() {
        send(socket, &FromNamer::Unfit(why.clone()), None, Some(PATIENCE))?;
        anyhow::bail!("cannot be confined: {why}");
    }
    Ok(serve(socket)?)
}

/// Answers until the other side hangs up, or this process has had enough.
///
/// # Errors
/// If the other side does not keep to the protocol.
pub fn serve(socket: BorrowedFd<'_>) -> io::Result<()> {
    let mut buffer = vec![0; LARGEST];
    let mut known = Known::default();
    send(socket, &FromNamer::Ready, None, Some(PATIENCE))?;
    loop {
        let question = match receive::<FromAgent>(socket, &mut buffer, Some(IDLE)) {
            Ok(Some((FromAgent::Question(question), _))) => question,
            Ok(Some(_)) => return Err(io::ErrorKind::InvalidData.into()),
            Ok(None) => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::TimedOut => return Ok(()),
            Err(error) => return Err(error),
        };
        let mut files = Files {
            socket,
            buffer: &mut buffer,
            known: &mut known,
            given: HashMap::new(),
            broken: None,
        };
        let answer = answer(&question, &mut files);
        if let Some(error) = files.broken {
            return Err(error);
        }
        send(socket, &FromNamer::Answer(answer), None, Some(PATIENCE))?;
        if is_spent() {
            return Ok(());
        }
    }
}

fn answer(question: &Question, files: &mut Files<'_, '_>) -> Answer {
    match question {
        Question::Sites(offsets) => Answer::Sites(files.get(0).map(|elf| site::sites(&elf, offsets))),
        Question::Variable { base, address } => Answer::Variable(files.get(0).and_then(|elf| {
            let address = address.wrapping_sub(elf.bias(*base)?);
            names::variable(&elf, address)
        })),
        Question::Walk(asked) => walk::walk(asked, &mut |number| files.get(number)),
    }
}

/// Whether half of the CPU time it may use is used: time for another one. Of this thread, which is all there
/// is of a namer, and not of a unit test that has it as one of many.
fn is_spent() -> bool {
    let mut usage = std::mem::MaybeUninit::<libc::rusage>::zeroed();
    // SAFETY: there is room for one.
    let failed = unsafe { libc::getrusage(libc::RUSAGE_THREAD, usage.as_mut_ptr()) } != 0;
    // SAFETY: all zeroes are one, whether the kernel wrote it or not.
    let usage = unsafe { usage.assume_init() };
    let seconds = usage.ru_utime.tv_sec + usage.ru_stime.tv_sec;
    !failed && seconds.cast_unsigned() >= sandbox::CPU_SECONDS / 2
}

/// Files that were read, by what they are; `None` of those that cannot be.
#[derive(Default)]
struct Known {
    files: HashMap<FileKey, Option<Arc<Elf>>>,
    bytes: usize,
}

impl Known {
    fn get(&mut self, key: FileKey, file: File) -> Option<Arc<Elf>> {
        if let Some(known) = self.files.get(&key) {
            return known.clone();
        }
        if self.bytes > REMEMBERED || self.files.len() >= FILES {
            *self = Self::default();
        }
        let elf = Elf::read(file, key.size).map(Arc::new);
        self.bytes += elf.as_ref().map_or(0, |elf| elf.size);
        self.files.insert(key, elf.clone());
        elf
    }
}

/// The files of one question.
struct Files<'a, 'socket> {
    socket: BorrowedFd<'socket>,
    buffer: &'a mut [u8],
    known: &'a mut Known,
    given: HashMap<u32, Option<Arc<Elf>>>,
    /// Why the agent cannot be talked to any more.
    broken: Option<io::Error>,
}

impl Files<'_, '_> {
    /// Asks the agent for a file, once.
    fn get(&mut self, number: u32) -> Option<Arc<Elf>> {
        if let Some(given) = self.given.get(&number) {
            return given.clone();
        }
        let elf = match self.ask(number) {
            Ok(given) => given.and_then(|(key, file)| self.known.get(key, file)),
            Err(error) => {
                self.broken = Some(error);
                None
            }
        };
        self.given.insert(number, elf.clone());
        elf
    }

    fn ask(&mut self, number: u32) -> io::Result<Option<(FileKey, File)>> {
        send(self.socket, &FromNamer::Needs(number), None, Some(PATIENCE))?;
        match receive(self.socket, self.buffer, Some(PATIENCE))? {
            Some((FromAgent::File(key), Some(file))) => Ok(Some((key, file.into()))),
            Some((FromAgent::NoFile, _)) => Ok(None),
            _ => Err(io::ErrorKind::InvalidData.into()),
        }
    }
}
