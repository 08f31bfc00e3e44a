//! Which files are opened: the one that is mapped, if it is a regular one, and no other. Nothing is drained,
//! waited for or read in its place.

use std::ffi::CString;
use std::fs::{self, File};
use std::os::fd::{AsRawFd, FromRawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::{Path, PathBuf};

use probe_user::namer::file::{FileId, Refusal, open_below, open_mapped};

use super::{id, libc_path, open};

const HERE: &str = "/proc/self";

fn refusal(path: &Path, id: FileId) -> Refusal {
    open_mapped(Path::new(HERE), path, id).expect_err("it must not be opened")
}

fn scene() -> (tempfile::TempDir, PathBuf, FileId) {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("mapped");
    fs::copy(libc_path(), &path).expect("a file");
    let id = id(&path);
    (directory, path, id)
}

fn fifo(path: &Path) {
    let path = CString::new(path.as_os_str().as_bytes()).expect("a path");
    // SAFETY: a valid path.
    assert_eq!(unsafe { libc::mkfifo(path.as_ptr(), 0o600) }, 0);
}

#[test]
fn the_mapped_file_is_opened() {
    let (_directory, path, id) = scene();
    let checked = open_mapped(Path::new(HERE), &path, id).expect("it is the one");
    let file = File::from(checked.file);
    let metadata = file.metadata().expect("its metadata");
    assert_eq!(metadata.ino(), id.1);
    // SAFETY: asks for flags.
    let flags = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_GETFL) };
    assert_eq!(flags & libc::O_ACCMODE, libc::O_RDONLY);
    let below = Path::new("/proc/self/root").join(path.strip_prefix("/").expect("it is absolute"));
    assert!(open_below(&below, id).is_ok());
    assert_eq!(
        open_below(&path, id).expect_err("not in /proc"),
        Refusal::Unreachable
    );
}

#[test]
fn whatever_took_its_place_is_not() {
    let (directory, path, id) = scene();
    // A file that is mapped keeps its number.
    let _mapped = File::open(&path).expect("opening it");
    let other = directory.path().join("secret");
    fs::copy(libc_path(), &other).expect("another file");
    fs::remove_file(&path).expect("removing it");
    let absent = |what: &str| {
        let refusal = refusal(&path, id);
        let fits = matches!(refusal, Refusal::Unreachable | Refusal::NotInMemory);
        assert!(fits, "{what}: {refusal:?}");
    };
    absent("nothing");
    symlink(&other, &path).expect("a link");
    assert_eq!(refusal(&path, id), Refusal::AnotherFile, "a link to another");
    fs::remove_file(&path).expect("removing it");
    symlink("/proc/self/exe", &path).expect("a link");
    absent("a magic link");
    fs::remove_file(&path).expect("removing it");
    fs::copy(&other, &path).expect("another file");
    assert_eq!(refusal(&path, id), Refusal::AnotherFile, "another file");
    fs::remove_file(&path).expect("removing it");
    fs::create_dir(&path).expect("a directory");
    assert_eq!(refusal(&path, id), Refusal::NotRegular, "a directory");
    fs::remove_dir(&path).expect("removing it");
    fifo(&path);
    assert_eq!(refusal(&path, id), Refusal::NotRegular, "a FIFO");
}

/// A FIFO that somebody writes to, with the numbers that `maps` has: opening it would drain it, or wait.
#[test]
fn fifos_and_devices_are_not_even_opened() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("fifo");
    fifo(&path);
    assert_eq!(open(&path).expect_err("a FIFO"), Refusal::NotRegular);
    assert_eq!(
        open(Path::new("/dev/zero")).expect_err("a device"),
        Refusal::NotRegular
    );
    assert_eq!(
        open(Path::new("/dev/tty")).expect_err("a terminal"),
        Refusal::NotRegular
    );
}

#[test]
fn deleted_files_are_not_looked_for() {
    let (directory, path, id) = scene();
    let named = directory.path().join("mapped (deleted)");
    fs::rename(&path, &named).expect("renaming it");
    assert_eq!(refusal(&named, id), Refusal::Deleted);
    // SAFETY: a valid name; the descriptor is nobody else's.
    let memfd = unsafe { File::from_raw_fd(libc::memfd_create(c"code".as_ptr(), libc::MFD_CLOEXEC)) };
    let link = fs::read_link(format!("/proc/self/fd/{}", memfd.as_raw_fd())).expect("its name");
    assert_eq!(refusal(&link, (0, 1)), Refusal::Deleted, "{link:?}");
}

#[test]
fn links_do_not_lead_out_of_the_processs_root() {
    let (directory, path, id) = scene();
    let up = directory.path().join("up");
    symlink("../../../../../../../../..", &up).expect("a link");
    let around = up.join(path.strip_prefix("/").expect("it is absolute"));
    // Inside the root it is the same file, by whatever way.
    assert!(open_mapped(Path::new(HERE), &around, id).is_ok());
    assert_eq!(
        open_mapped(Path::new("/proc/0"), &path, id).expect_err("nobody"),
        Refusal::Unreachable
    );
}
