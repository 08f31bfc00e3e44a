//! A process's memory as far as it is needed to name things: its mappings, and reading a few bytes.

use std::fs::{self, File};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use procfs::process::{MMPermissions, MMapPath, Process};

use crate::model::escape;

/// A mapping of a file.
#[derive(Clone, Debug)]
pub struct Mapping {
    /// First address.
    pub start: u64,
    /// One behind the last.
    pub end: u64,
    /// Whether code runs there.
    pub executable: bool,
    /// The file, as the process sees it; `None` if it is not of a file.
    pub path: Option<PathBuf>,
}

/// See the module.
pub struct Image {
    mappings: Vec<Mapping>,
    memory: Option<File>,
    /// In /proc.
    directory: PathBuf,
    /// Where the process's file system begins: it may be a container's.
    root: PathBuf,
}

impl Image {
    /// Reads a process's mappings; `None` if it has ended or may not be looked at.
    pub fn read(proc: &Path, pid: u32) -> Option<Self> {
        let directory = proc.join(pid.to_string());
        let process = Process::new_with_root(directory.clone()).ok()?;
        let mappings = process.maps().ok()?.into_iter().map(|map| Mapping {
            start: map.address.0,
            end: map.address.1,
            executable: map.perms.contains(MMPermissions::EXECUTE),
            path: match map.pathname {
                MMapPath::Path(path) => Some(path),
                _ => None,
            },
        });
        Some(Self {
            mappings: mappings.collect(),
            memory: File::open(directory.join("mem")).ok(),
            root: directory.join("root"),
            directory,
        })
    }

    /// The mapping an address is in.
    pub fn mapping(&self, address: u64) -> Option<&Mapping> {
        let mut mappings = self.mappings.iter();
        mappings.find(|mapping| (mapping.start..mapping.end).contains(&address))
    }

    /// The file whose image an address is in, with where that image begins: the last one that begins at or below it.
    /// Variables that start as zero lie behind the file's own mappings.
    pub fn module(&self, address: u64) -> Option<(&Path, u64)> {
        let below = self.mappings.iter().filter(|mapping| mapping.start <= address);
        let path = below.filter_map(|mapping| mapping.path.as_deref()).next_back()?;
        let mut of_file = self.mappings.iter();
        let first = of_file.find(|mapping| mapping.path.as_deref() == Some(path))?;
        Some((path, first.start))
    }

    /// From the first to the last address of a file's mappings.
    pub fn extent(&self, path: &Path) -> Option<Range<u64>> {
        let of_file = |mapping: &&Mapping| mapping.path.as_deref() == Some(path);
        let first = self.mappings.iter().find(of_file)?;
        let last = self.mappings.iter().rfind(of_file)?;
        Some(first.start..last.end)
    }

    /// Whether a thread is blocked with these values of its stack and instruction pointers.
    pub fn is_at(&self, tid: u32, sp: u64, ip: u64) -> bool {
        let path = self.directory.join(format!("task/{tid}/syscall"));
        let text = fs::read_to_string(path).unwrap_or_default();
        // "202 0x… … 0x7ffc…sp 0x7f…ip", or "running".
        text.trim_end().ends_with(&format!(" {sp:#x} {ip:#x}"))
    }

    /// The file as this process can open it.
    pub fn reachable(&self, path: &Path) -> PathBuf {
        self.root.join(path.strip_prefix("/").unwrap_or(path))
    }

    /// Reads memory; how much of it could be read.
    pub fn read_at(&self, address: u64, into: &mut [u8]) -> usize {
        let memory = self.memory.as_ref();
        memory
            .and_then(|memory| memory.read_at(into, address).ok())
            .unwrap_or(0)
    }

    /// Reads a word.
    pub fn word(&self, address: u64) -> Option<u64> {
        let mut bytes = [0; 8];
        (self.read_at(address, &mut bytes) == 8).then(|| u64::from_le_bytes(bytes))
    }

    /// "libfoo.so+0x1234", or the address where no file is.
    pub fn place(&self, address: u64) -> String {
        match self.module(address) {
            Some((path, base)) => {
                let name = path.file_name().unwrap_or_default();
                format!("{}+{:#x}", escape(name.as_encoded_bytes()), address - base)
            }
            None => format!("{address:#x}"),
        }
    }
}
