//! Files that somebody names, read so that no kind of file can keep the agent waiting: regular files only,
//! and not for ever more of them.

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::Path;

/// Longer than any configuration or chain of certificates.
const LONGEST: u64 = 1 << 20;

/// The bytes of a regular file.
///
/// # Errors
/// If there is none, if it is something else (a FIFO would block, a device may do anything), or if it is too
/// long.
pub fn read(path: &Path) -> io::Result<Vec<u8>> {
    // Without opening it: opening alone makes some devices act (a watchdog begins to count).
    let handle = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_PATH | libc::O_CLOEXEC)
        .open(path)?;
    let kind = handle.metadata()?.file_type();
    if !kind.is_file() {
        let what = match () {
            () if kind.is_dir() => "a directory",
            () if kind.is_fifo() => "a FIFO",
            () if kind.is_char_device() || kind.is_block_device() => "a device",
            () => "a socket",
        };
        return Err(io::Error::other(format!("it is {what}, not a regular file")));
    }
    // The very file that was looked at, whatever goes by its name by now. Some of the kernel's own files look
    // regular and wait for news (/proc/kmsg): not for us.
    let by_number = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NONBLOCK | libc::O_CLOEXEC)
        .open(format!("/proc/self/fd/{}", handle.as_raw_fd()));
    let file = match by_number {
        // No /proc here, as in the root directory that a package is installed into.
        Err(error) if error.kind() == io::ErrorKind::NotFound => by_name(path, &handle)?,
        opened => opened?,
    };
    let mut bytes = Vec::new();
    let read = file.take(LONGEST + 1).read_to_end(&mut bytes);
    read.map_err(|error| match error.kind() {
        io::ErrorKind::WouldBlock => io::Error::other("reading it would wait for ever"),
        _ => error,
    })?;
    if bytes.len() as u64 > LONGEST {
        return Err(io::Error::other("it is longer than a megabyte"));
    }
    Ok(bytes)
}

/// Opens a file by its name, if that still leads to the one that was looked at. Whatever it leads to, it does
/// not wait.
fn by_name(path: &Path, looked_at: &File) -> io::Result<File> {
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY | libc::O_CLOEXEC)
        .open(path)?;
    let (opened, wanted) = (file.metadata()?, looked_at.metadata()?);
    if (opened.dev(), opened.ino()) != (wanted.dev(), wanted.ino()) {
        return Err(io::Error::other("it was replaced while it was read"));
    }
    Ok(file)
}

/// The text of a regular file.
///
/// # Errors
/// As [`read`], and if it is not UTF-8.
pub fn read_text(path: &Path) -> io::Result<String> {
    String::from_utf8(read(path)?).map_err(|_| io::Error::other("it is not UTF-8"))
}

#[cfg(test)]
mod tests {
    use std::ffi::CString;
    use std::fs;

    use super::*;

    #[test]
    fn without_proc_it_is_the_same_file_or_none() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        fs::write(&path, "text").unwrap();
        let handle = File::open(&path).unwrap();
        let mut text = String::new();
        by_name(&path, &handle)
            .unwrap()
            .read_to_string(&mut text)
            .unwrap();
        assert_eq!(text, "text");
        fs::rename(&path, directory.path().join("other")).unwrap();
        fs::write(&path, "other").unwrap();
        let error = by_name(&path, &handle).unwrap_err();
        assert!(error.to_string().contains("replaced"), "{error}");
    }

    #[test]
    fn only_regular_files_of_some_length_are_read() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("file");
        fs::write(&file, "text").unwrap();
        assert_eq!(read_text(&file).unwrap(), "text");
        let link = directory.path().join("link");
        std::os::unix::fs::symlink(&file, &link).unwrap();
        assert_eq!(
            read(&link).unwrap(),
            b"text",
            "a link to one is as good: Kubernetes mounts them so"
        );
        fs::write(&file, vec![b'#'; (1 << 20) + 1]).unwrap();
        assert!(read(&file).unwrap_err().to_string().contains("longer"));
        fs::write(&file, [0xff]).unwrap();
        assert!(read_text(&file).unwrap_err().to_string().contains("UTF-8"));
        let fifo = directory.path().join("fifo");
        let name = CString::new(fifo.to_str().unwrap()).unwrap();
        // SAFETY: a path that ends with NUL, and a mode.
        assert_eq!(unsafe { libc::mkfifo(name.as_ptr(), 0o600) }, 0);
        for (path, what) in [
            (fifo.as_path(), "a FIFO"),
            (Path::new("/dev/zero"), "a device"),
            (directory.path(), "a directory"),
        ] {
            let error = read(path).unwrap_err().to_string();
            assert_eq!(error, format!("it is {what}, not a regular file"));
        }
        assert_eq!(
            read(&directory.path().join("none")).unwrap_err().kind(),
            io::ErrorKind::NotFound
        );
    }
}
