//! A process's directory in /proc: what is read of it, and how much at most.
//!
//! How long these files are is up to others: "arguments" may be 64 GiB (`PR_SET_MM_MAP`), mappings 65,530
//! with a path of 4 KiB each.

use std::fs::{self, File};
use std::io::{self, BufReader, Read};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use procfs::FromBufRead;
use procfs::process::{MemoryMap, MemoryMaps};

/// Of a command line.
pub const CMDLINE: u64 = 4096;
/// Of `comm`, `stat`, `syscall`: a line.
pub const LINE: u64 = 4096;
/// Of `status`, with up to 65,536 groups in it.
pub const STATUS: u64 = 1 << 20;
/// Of `maps`: some 10,000 mappings with paths of ordinary length. A process may have 65,530, and each takes
/// 250 bytes of each thread that reads them.
pub const MAPS: u64 = 1 << 20;

/// See the module.
#[derive(Clone, Debug)]
pub struct Directory(PathBuf);

impl Directory {
    /// Of a process; `root` is where /proc is mounted.
    pub fn of(root: &Path, pid: u32) -> Self {
        Self(root.join(pid.to_string()))
    }

    /// Of one of its threads.
    #[must_use]
    pub fn thread(&self, tid: u32) -> Self {
        Self(self.0.join(format!("task/{tid}")))
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// A file, or its beginning.
    ///
    /// # Errors
    /// The system's.
    pub fn read(&self, name: &str, most: u64) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        File::open(self.0.join(name))?
            .take(most)
            .read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    /// Where a link leads.
    ///
    /// # Errors
    /// The system's.
    pub fn link(&self, name: &str) -> io::Result<PathBuf> {
        fs::read_link(self.0.join(name))
    }

    /// Its mappings; `None` if it has ended, may not be looked at, or has more of them than are read.
    pub fn maps(&self) -> Option<Vec<MemoryMap>> {
        let mut file = File::open(self.0.join("maps")).ok()?.take(MAPS);
        let maps = MemoryMaps::from_buf_read(BufReader::with_capacity(64 << 10, &mut file)).ok()?;
        (file.limit() > 0).then(|| maps.into_iter().collect())
    }

    /// Its memory.
    ///
    /// # Errors
    /// The system's.
    pub fn memory(&self) -> io::Result<Memory> {
        File::open(self.0.join("mem")).map(Memory)
    }
}

/// A process's memory. Whoever reads says how much.
#[derive(Debug)]
pub struct Memory(File);

impl Memory {
    /// Reads; how much could be read.
    ///
    /// # Errors
    /// The system's: nothing is mapped there.
    pub fn read_at(&self, into: &mut [u8], address: u64) -> io::Result<usize> {
        self.0.read_at(into, address)
    }

    /// Reads all that is asked for.
    ///
    /// # Errors
    /// The system's, or there is less.
    pub fn read_exact_at(&self, into: &mut [u8], address: u64) -> io::Result<()> {
        self.0.read_exact_at(into, address)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_file_is_read_beyond_its_limit() {
        let root = tempfile::tempdir().unwrap();
        let directory = Directory::of(root.path(), 7);
        fs::create_dir_all(directory.path()).unwrap();
        // "Arguments" of 64 GiB.
        let file = File::create(directory.path().join("cmdline")).unwrap();
        file.set_len(64 << 30).unwrap();
        assert_eq!(directory.read("cmdline", CMDLINE).unwrap().len(), 4096);
        let path = "x".repeat(4000);
        let map = |at: u64| format!("{at:x}000-{at:x}800 r--p 00000000 00:01 7 /{path}\n");
        let of = |count: u64| (1..=count).map(map).collect::<String>();
        fs::write(directory.path().join("maps"), of(100)).unwrap();
        assert_eq!(directory.maps().unwrap().len(), 100);
        fs::write(directory.path().join("maps"), of(3000)).unwrap();
        assert!(
            directory.maps().is_none(),
            "half of the mappings would look like all"
        );
    }
}
