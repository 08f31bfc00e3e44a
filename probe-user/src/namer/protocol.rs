//! What the agent and the namer say to each other: one packet a message, with a file's descriptor beside it
//! where one is given.
//!
//! The agent asks one question at a time. The namer asks back for the files that it needs, by their numbers
//! in the question, and then answers. So the agent opens only what is looked at, and knows which file the
//! namer had in hand when it died.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::model::locks::site::Library;

/// The largest message. Less than what a socket takes by default (`net.core.wmem_default`, 208 KiB), with the
/// kernel's own share of it.
pub const LARGEST: usize = 160 << 10;
/// Bytes of a stack that are copied at most.
pub const STACK: usize = 96 << 10;
/// Mappings with code that are told of at most; frames in others end the walk.
pub const RANGES: usize = 1_500;
/// Frames that are told at most.
pub const FRAMES: usize = 8;
/// Bytes of a name at most.
pub const NAME: usize = 1_024;
/// Places that are asked for at a time.
pub const OFFSETS: usize = 64;

/// Which file it is and which state of it: an answer about it holds for as long as this stays the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct FileKey {
    /// As stat(2) has it.
    pub device: u64,
    /// As stat(2) has it.
    pub inode: u64,
    /// Bytes.
    pub size: u64,
    /// Of the last change of its content, seconds and nanoseconds.
    pub modified: (i64, i64),
    /// Of the last change of its inode.
    pub changed: (i64, i64),
}

/// What the agent says.
#[derive(Debug, Serialize, Deserialize)]
pub enum FromAgent {
    /// A question.
    Question(Question),
    /// The file that was asked for comes with this message.
    File(FileKey),
    /// The file that was asked for cannot be had.
    NoFile,
}

/// What the namer says.
#[derive(Debug, Serialize, Deserialize)]
pub enum FromNamer {
    /// Confined, and waiting for questions.
    Ready,
    /// It cannot be confined, for this reason.
    Unfit(String),
    /// It needs the file of this number.
    Needs(u32),
    /// The answer; nothing more is said until the next question.
    Answer(Answer),
}

/// What can be asked.
#[derive(Debug, Serialize, Deserialize)]
pub enum Question {
    /// Whose code is at these bytes of file 0, and what else its symbols say of them.
    Sites(Vec<u64>),
    /// Which variable is at an address. File 0 is mapped from `base` on.
    Variable {
        /// Where the file's first mapping begins.
        base: u64,
        /// The address in the process.
        address: u64,
    },
    /// Which functions a thread came through.
    Walk(Walk),
}

/// A thread that waits, with a copy of its stack.
#[derive(Debug, Serialize, Deserialize)]
pub struct Walk {
    /// The instruction behind the system call.
    pub ip: u64,
    /// Where the copy of the stack begins.
    pub sp: u64,
    /// The frame pointer.
    pub bp: u64,
    /// The stack from `sp` on.
    pub stack: Vec<u8>,
    /// Mappings that code runs in.
    pub code: Vec<CodeRange>,
    /// Of each file: from the first to the last address of its mappings.
    pub files: Vec<(u64, u64)>,
}

/// A mapping that code runs in.
#[derive(Debug, Serialize, Deserialize)]
pub struct CodeRange {
    /// First address.
    pub start: u64,
    /// One behind the last.
    pub end: u64,
    /// The number of its file, if it can be opened.
    pub file: Option<u32>,
    /// Whether it is the C library's, whose frames are not told.
    pub hidden: bool,
}

/// What can be answered.
#[derive(Debug, Serialize, Deserialize)]
pub enum Answer {
    /// The sites in the order of the offsets; `None` if the file cannot be read.
    Sites(Option<Vec<SiteAnswer>>),
    /// The variable.
    Variable(Option<String>),
    /// The frames, innermost first, and whether the way ended before its beginning.
    Walk {
        /// Addresses inside the calls, with the functions where a symbol covers them.
        frames: Vec<(u64, Option<String>)>,
        /// Whether the way could not be followed to its beginning.
        cut: bool,
    },
}

/// Whose code it is, the function, and what is known of it as a caller.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SiteAnswer {
    /// See [`Library`].
    pub library: WireLibrary,
    /// As the symbol table has it.
    pub function: Option<String>,
    /// The function, if it is one that waits by the `syscall()` of a C library.
    pub caller: Option<String>,
    /// Whether the file has a table of all its symbols, not only of those it exports.
    pub has_symbols: bool,
    /// How far behind the place the state of `CPython` begins and ends, modulo 2^64.
    pub python: Option<(u64, u64)>,
    /// The function of the program that waits at its semaphores, if it is known.
    pub semaphores: Option<String>,
}

/// [`Library`], as it is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "as in the model")]
pub enum WireLibrary {
    Glibc,
    Syscall,
    Musl,
    StrippedMusl,
    Go,
    Other,
}

impl From<WireLibrary> for Library {
    fn from(library: WireLibrary) -> Self {
        match library {
            WireLibrary::Glibc => Self::Glibc,
            WireLibrary::Syscall => Self::Syscall,
            WireLibrary::Musl => Self::Musl,
            WireLibrary::StrippedMusl => Self::StrippedMusl,
            WireLibrary::Go => Self::Go,
            WireLibrary::Other => Self::Other,
        }
    }
}

/// Sends a message, with a file if there is one; `timeout` is how long the other side may leave no room.
///
/// # Errors
/// If the other side is gone, takes nothing in time, or the message is too large.
pub fn send<T: Serialize>(
    socket: BorrowedFd<'_>,
    message: &T,
    file: Option<BorrowedFd<'_>>,
    timeout: Option<Timespec>,
) -> io::Result<()> {
    let bytes = postcard::to_allocvec(message).map_err(io::Error::other)?;
    if bytes.len() > LARGEST {
        return Err(io::Error::other("the message is too large"));
    }
    wait(socket, PollFlags::OUT, timeout)?;
    let files = file.map(|file| [file]);
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if let Some(files) = &files {
        control.push(SendAncillaryMessage::ScmRights(files));
    }
    let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
    sendmsg(socket, &[IoSlice::new(&bytes)], &mut control, flags)?;
    Ok(())
}

/// Receives a message, and a file if one came with it; `None` at the end. `buffer` has room for [`LARGEST`]
/// bytes.
///
/// # Errors
/// If nothing came in time, or what came is no message.
pub fn receive<T: DeserializeOwned>(
    socket: BorrowedFd<'_>,
    buffer: &mut [u8],
    timeout: Option<Timespec>,
) -> io::Result<Option<(T, Option<OwnedFd>)>> {
    wait(socket, PollFlags::IN, timeout)?;
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT;
    let received = recvmsg(socket, &mut [IoSliceMut::new(buffer)], &mut control, flags)?;
    let mut file = None;
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(files) = message {
            file = files.last();
        }
    }
    if received.bytes == 0 {
        return Ok(None);
    }
    if received.flags.contains(ReturnFlags::TRUNC) {
        return Err(io::Error::other("the message is too large"));
    }
    let bytes = buffer.get(..received.bytes).unwrap_or_default();
    let message = postcard::from_bytes(bytes).map_err(io::Error::other)?;
    Ok(Some((message, file)))
}

fn wait(socket: BorrowedFd<'_>, wanted: PollFlags, timeout: Option<Timespec>) -> io::Result<()> {
    let mut sockets = [PollFd::from_borrowed_fd(socket.as_fd(), wanted)];
    loop {
        match poll(&mut sockets, timeout.as_ref()) {
            Ok(0) => return Err(io::ErrorKind::TimedOut.into()),
            Err(rustix::io::Errno::INTR) => {}
            other => return other.map(|_| ()).map_err(Into::into),
        }
    }
}

/// Of a name, as much as may be sent.
pub fn shortened(mut name: String) -> String {
    if name.len() > NAME {
        let end = (0..=NAME).rev().find(|&at| name.is_char_boundary(at));
        name.truncate(end.unwrap_or(0));
        name.push('…');
    }
    name
}
