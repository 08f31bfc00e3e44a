//! Names for what is in files that anybody may have written: symbols, unwinding and the parsing of ELF files
//! are done by a process of their own, the *namer*. It is this program again, with no capability, no file
//! system, no network, a filter of system calls, limits, and a deadline for every answer. The agent gives it
//! descriptors that it has checked and copies of stacks, and takes back bounded answers. When it dies, that
//! is a loss (`lost.symbols`), and the next question starts another.
//!
//! | module | does | on whose side |
//! |---|---|---|
//! | [`protocol`] | what the two say to each other | both |
//! | [`client`] | starts it, asks it, ends it | agent |
//! | [`process`] | the process itself, started here or by the aide | agent |
//! | [`child`] | a child that is reaped as soon as it ends | agent |
//! | [`spoilers`] | files that it is not given again for a while | agent |
//! | [`file`] | opens the file that a process has mapped, and no other | agent |
//! | [`server`] | answers | namer |
//! | [`sandbox`] | what it gives up first | namer |
//! | [`elf`], [`table`], [`bounded`] | read files, with bounds | namer |
//! | [`site`] | whose code it is | namer |
//! | [`names`] | functions and variables | namer |
//! | [`walk`] | unwinds | namer |

mod bounded;
mod child;
pub mod client;
mod elf;
pub mod file;
mod names;
mod process;
pub mod protocol;
mod sandbox;
pub mod server;
mod site;
mod spoilers;
mod table;
mod walk;

use std::path::Path;
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use procfs::process::{MMPermissions, MMapPath, MemoryMap, Process};

use client::{Namer, Program};
use file::FileId;
use protocol::{Answer, Question};

/// What the agent starts itself with. No verb: nobody else does.
pub const ARGUMENT: &str = "--be-the-namer";

/// The namer of this process. Nothing may be done with it in hand that can take long: files are opened
/// before.
pub fn shared() -> MutexGuard<'static, Namer> {
    #[cfg(not(test))]
    const PROGRAM: Program = Program::Own;
    #[cfg(test)]
    const PROGRAM: Program = Program::Thread;
    static SHARED: LazyLock<Mutex<Namer>> = LazyLock::new(|| Mutex::new(Namer::new(PROGRAM)));
    SHARED.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Starts the namer and has it read this program; how long that took.
///
/// # Errors
/// What it does instead, as the rest of a sentence.
pub fn trial() -> Result<Duration, String> {
    let began = Instant::now();
    let maps = Process::myself().and_then(|process| process.maps());
    let maps = maps.map_err(|error| format!("cannot be tried: {error}"))?;
    let is_code = |map: &&MemoryMap| map.perms.contains(MMPermissions::EXECUTE);
    let file = maps.iter().filter(is_code).find_map(|map| match &map.pathname {
        MMapPath::Path(path) => Some(file::open_mapped(Path::new("/proc/self"), path, id_of(map))),
        _ => None,
    });
    let file = match file {
        Some(Ok(file)) => file,
        Some(Err(why)) => return Err(format!("cannot be given this program ({why})")),
        None => return Err("cannot be tried: this program is not in /proc/self/maps".to_owned()),
    };
    let mut namer = shared();
    namer.start()?;
    match namer.ask(Question::Sites(vec![0]), &[Some(file)]) {
        Some(Answer::Sites(Some(_))) => Ok(began.elapsed()),
        Some(_) => Err("cannot read this program".to_owned()),
        None => Err("does not answer".to_owned()),
    }
}

/// Device and inode of a mapping.
pub fn id_of(map: &MemoryMap) -> FileId {
    let (major, minor) = map.dev;
    let device = u64::from(major.unsigned_abs()) << 32 | u64::from(minor.unsigned_abs());
    (device, map.inode)
}
