//! Opening the file that another process has mapped, and no other.
//!
//! What `/proc/PID/maps` shows is a text: behind it may be another file by now, a link to one of root's, a
//! FIFO, a device, or a file system that its owner answers for. So the path is looked up inside the process's
//! own root, from what the kernel has in memory (a mapped file's path is there; whatever would have to ask a
//! file system is refused), without opening what it leads to; only a regular file that is the mapped one is
//! opened, by the descriptor that was checked.

use std::fmt;
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use procfs::process::{MountInfo, Process};
use rustix::fs::{AtFlags, FileType, Mode, OFlags, ResolveFlags, Statx, StatxFlags, open, openat2, statx};
use rustix::io::Errno;

use super::protocol::FileKey;

/// Device, major number in the upper half, and inode, as in `maps`.
pub type FileId = (u64, u64);

/// What `maps` has behind the path of a file that has no name any more.
const DELETED: &str = " (deleted)";
/// What the kernel calls a process's root, in the process's directory.
const ROOT: &str = "root";
/// A lookup is repeated when something was renamed meanwhile, anywhere on the host: while compilers run,
/// three were too few, and now and then 20 in a row.
const ATTEMPTS: u32 = 20;
/// From this attempt on it rests in between.
const IMPATIENT: u32 = 10;
/// For so long.
const REST: Duration = Duration::from_micros(200);

/// A file that was checked, open for reading.
#[derive(Debug)]
pub struct Checked {
    /// For reading.
    pub file: OwnedFd,
    /// Which it is.
    pub key: FileKey,
}

/// Why a file is not read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// It has no name any more.
    Deleted,
    /// There is none at its path, or it may not be opened.
    Unreachable,
    /// Finding it would take asking a file system, which may never answer.
    NotInMemory,
    /// A device, a FIFO, a socket, a directory.
    NotRegular,
    /// What is at its path now is not what is mapped.
    AnotherFile,
    /// It is on a file system that a process answers for.
    UserFileSystem,
}

impl fmt::Display for Refusal {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Deleted => "its file is deleted",
            Self::Unreachable => "its file cannot be opened",
            Self::NotInMemory => "finding its file would take asking a file system that may never answer",
            Self::NotRegular => "its file is a device, a FIFO or the like",
            Self::AnotherFile => "another file is at its path",
            Self::UserFileSystem => "its file is on a file system in user space",
        })
    }
}

/// Whether the path in `maps` says that the file has no name any more. One that is really called so is not
/// read either.
pub fn is_deleted(path: &Path) -> bool {
    path.as_os_str().as_encoded_bytes().ends_with(DELETED.as_bytes())
}

/// Opens a mapped file by its path inside the process's root; `process` is the process's directory in /proc.
///
/// # Errors
/// Why it is not opened.
pub fn open_mapped(process: &Path, path: &Path, id: FileId) -> Result<Checked, Refusal> {
    if is_deleted(path) {
        return Err(Refusal::Deleted);
    }
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    let root = open(process.join(ROOT), flags | OFlags::DIRECTORY, Mode::empty());
    let root = root.map_err(|_| Refusal::Unreachable)?;
    let found = look_up(&root, path)?;
    let what = attributes(&found)?;
    if !FileType::from_raw_mode(what.stx_mode.into()).is_file() {
        return Err(Refusal::NotRegular);
    }
    if is_user_file_system(process, &what) {
        return Err(Refusal::UserFileSystem);
    }
    // By the descriptor: nobody can put anything else there.
    let again = format!("/proc/self/fd/{}", found.as_raw_fd());
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let file = open(again, flags, Mode::empty()).map_err(|_| Refusal::Unreachable)?;
    if device_and_inode(&what) != id && mapped_as(&file) != Some(id) {
        return Err(Refusal::AnotherFile);
    }
    Ok(Checked {
        file,
        key: key(&what),
    })
}

/// As [`open_mapped`], by a path through the `root` of a process's directory in /proc.
///
/// # Errors
/// Why it is not opened.
pub fn open_below(path: &Path, id: FileId) -> Result<Checked, Refusal> {
    let (process, inside) = split(path).ok_or(Refusal::Unreachable)?;
    open_mapped(&process, &inside, id)
}

/// The process's directory, and the path in its root.
fn split(path: &Path) -> Option<(PathBuf, PathBuf)> {
    let mut components = path.components();
    let mut process = PathBuf::new();
    for component in components.by_ref() {
        if component == Component::Normal(ROOT.as_ref()) && process.file_name().is_some_and(is_process) {
            return Some((process, Path::new("/").join(components.as_path())));
        }
        process.push(component);
    }
    None
}

fn is_process(name: &std::ffi::OsStr) -> bool {
    name == "self" || name.as_encoded_bytes().iter().all(u8::is_ascii_digit)
}

fn look_up(root: &OwnedFd, path: &Path) -> Result<OwnedFd, Refusal> {
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS | ResolveFlags::CACHED;
    for attempt in 0..ATTEMPTS {
        match openat2(root, path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), resolve) {
            Ok(found) => return Ok(found),
            Err(Errno::AGAIN) if attempt < IMPATIENT => std::thread::yield_now(),
            Err(Errno::AGAIN) => std::thread::sleep(REST),
            Err(_) => return Err(Refusal::Unreachable),
        }
    }
    Err(Refusal::NotInMemory)
}

/// From memory as well: without asking the file system whether it is still so.
fn attributes(found: &OwnedFd) -> Result<Statx, Refusal> {
    let flags = AtFlags::EMPTY_PATH | AtFlags::STATX_DONT_SYNC;
    let wanted = StatxFlags::BASIC_STATS | StatxFlags::MNT_ID;
    statx(found, c"", flags, wanted).map_err(|_| Refusal::Unreachable)
}

fn device_and_inode(what: &Statx) -> FileId {
    let device = u64::from(what.stx_dev_major) << 32 | u64::from(what.stx_dev_minor);
    (device, what.stx_ino)
}

fn key(what: &Statx) -> FileKey {
    let (device, inode) = device_and_inode(what);
    FileKey {
        device,
        inode,
        size: what.stx_size,
        modified: (what.stx_mtime.tv_sec, what.stx_mtime.tv_nsec.into()),
        changed: (what.stx_ctime.tv_sec, what.stx_ctime.tv_nsec.into()),
    }
}

/// FUSE: whoever reads there waits for a process, and cannot even be killed meanwhile
/// (`request_wait_answer()` in fs/fuse/dev.c). Told from the mount table: statfs(2) would ask that process.
fn is_user_file_system(process: &Path, what: &Statx) -> bool {
    // Only those of no block device.
    if what.stx_dev_major != 0 {
        return false;
    }
    // One that is not in the table was unmounted, or belongs to a namespace that nobody is in.
    mounted(process, what.stx_mnt_id).is_none_or(|mount| mount.fs_type.starts_with("fuse"))
}

/// A mount of a process's table, which may have 100,000 of them: as far as a look into it goes.
fn mounted(process: &Path, id: u64) -> Option<MountInfo> {
    const MOST: u64 = 1 << 20;
    let table = BufReader::new(File::open(process.join("mountinfo")).ok()?.take(MOST));
    let of_id = |line: &Vec<u8>| {
        let number = line.split(|&byte| byte == b' ').next();
        number.is_some_and(|number| number == id.to_string().as_bytes())
    };
    let line = table.split(b'\n').map_while(Result::ok).find(of_id)?;
    MountInfo::from_line(&String::from_utf8_lossy(&line)).ok()
}

/// What `maps` calls a file when we map it: file systems in layers (overlayfs before 6.8) and with subvolumes
/// (btrfs) have other numbers there than stat(2). The mapping is never touched.
fn mapped_as(file: &OwnedFd) -> Option<FileId> {
    let page = rustix::param::page_size();
    let (protection, flags) = (
        rustix::mm::ProtFlags::READ,
        rustix::mm::MapFlags::PRIVATE | rustix::mm::MapFlags::NORESERVE,
    );
    // SAFETY: a new mapping, wherever the kernel likes; nothing of it is ever read.
    let address = unsafe { rustix::mm::mmap(std::ptr::null_mut(), page, protection, flags, file.as_fd(), 0) };
    let address = address.ok()?;
    let maps = Process::myself().and_then(|process| process.maps());
    // SAFETY: mapped above with this length, and nobody has learnt of it.
    let _ = unsafe { rustix::mm::munmap(address, page) };
    let start = address.expose_provenance() as u64;
    let maps = maps.ok()?;
    let map = maps
        .iter()
        .find(|map| (map.address.0..map.address.1).contains(&start))?;
    Some(super::id_of(map))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_called_the_same_by_maps_here_and_there() {
        let maps = Process::myself().and_then(|process| process.maps()).unwrap();
        let mapped = maps.iter().find_map(|map| match &map.pathname {
            procfs::process::MMapPath::Path(path) => Some((path.clone(), super::super::id_of(map))),
            _ => None,
        });
        let (path, id) = mapped.unwrap();
        let file = open(&path, OFlags::RDONLY, Mode::empty()).unwrap();
        assert_eq!(mapped_as(&file), Some(id));
        let other = open("/proc/self/status", OFlags::RDONLY, Mode::empty()).unwrap();
        assert_eq!(mapped_as(&other), None, "what cannot be mapped");
    }

    #[test]
    fn a_path_in_proc_is_split_at_the_processs_root() {
        let split = |path: &str| split(Path::new(path));
        let through = |process: &str, inside: &str| format!("{process}/{ROOT}{inside}");
        let at = |process: &str, inside: &str| Some((PathBuf::from(process), PathBuf::from(inside)));
        assert_eq!(
            split(&through("/proc/7", "/usr/lib/x")),
            at("/proc/7", "/usr/lib/x")
        );
        assert_eq!(
            split(&through("/proc/self", &through("/proc/7", "/x"))),
            at("/proc/self", &through("/proc/7", "/x"))
        );
        let mounted = through("/host", "/proc/7");
        assert_eq!(split(&through(&mounted, "/x")), at(&mounted, "/x"));
        assert_eq!(split("/usr/lib/x"), None);
        assert_eq!(split("relative"), None);
    }
}
