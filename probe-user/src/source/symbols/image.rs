//! A process's memory as far as it is needed to name things: its mappings, and reading a few bytes.

use std::path::{Path, PathBuf};

use procfs::process::{MMPermissions, MMapPath};

use super::super::reader::files::{Directory, LINE, Memory};
use crate::model::escape;
use crate::namer::file::{Checked, FileId, open_mapped};
use crate::namer::id_of;

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
    /// Whether it is the kernel's own code, which every process has.
    pub vdso: bool,
    /// Its device and inode.
    pub id: FileId,
}

/// A file that is mapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Module<'a> {
    /// As the process sees it.
    pub path: &'a Path,
    /// Its device and inode.
    pub id: FileId,
    /// Where its first mapping begins.
    pub start: u64,
    /// Where its last one ends.
    pub end: u64,
}

/// See the module.
pub struct Image {
    mappings: Vec<Mapping>,
    memory: Option<Memory>,
    directory: Directory,
}

impl Image {
    /// Reads a process's mappings; `None` if it has ended or may not be looked at.
    pub fn read(proc: &Path, pid: u32) -> Option<Self> {
        let directory = Directory::of(proc, pid);
        let mappings = directory.maps()?;
        let mappings = mappings.iter().map(|map| Mapping {
            start: map.address.0,
            end: map.address.1,
            executable: map.perms.contains(MMPermissions::EXECUTE),
            path: match &map.pathname {
                MMapPath::Path(path) => Some(path.clone()),
                _ => None,
            },
            vdso: map.pathname == MMapPath::Vdso,
            id: id_of(map),
        });
        Some(Self {
            mappings: mappings.collect(),
            memory: directory.memory().ok(),
            directory,
        })
    }

    /// The mapping an address is in; they are in order.
    pub fn mapping(&self, address: u64) -> Option<&Mapping> {
        let behind = self.mappings.partition_point(|mapping| mapping.end <= address);
        let found = self.mappings.get(behind);
        found.filter(|mapping| mapping.start <= address)
    }

    /// The file whose image an address is in: the last one that begins at or below it. Variables that start
    /// as zero lie behind the file's own mappings.
    pub fn module(&self, address: u64) -> Option<Module<'_>> {
        let mut below = self.mappings.iter().filter(|mapping| mapping.start <= address);
        let last = below.rfind(|mapping| mapping.path.is_some())?;
        self.module_of(last)
    }

    /// The file of a mapping, with all of its mappings.
    pub fn module_of<'a>(&'a self, mapping: &'a Mapping) -> Option<Module<'a>> {
        let path = mapping.path.as_deref()?;
        let same = |other: &&Mapping| other.id == mapping.id && other.path == mapping.path;
        Some(Module {
            path,
            id: mapping.id,
            start: self.mappings.iter().find(same)?.start,
            end: self.mappings.iter().rfind(same)?.end,
        })
    }

    /// Mappings that code runs in.
    pub fn code(&self) -> impl Iterator<Item = &Mapping> {
        self.mappings.iter().filter(|mapping| mapping.executable)
    }

    /// Whether a thread is blocked with these values of its stack and instruction pointers.
    pub fn is_at(&self, tid: u32, sp: u64, ip: u64) -> bool {
        let text = self
            .directory
            .thread(tid)
            .read("syscall", LINE)
            .unwrap_or_default();
        // "202 0x… … 0x7ffc…sp 0x7f…ip", or "running".
        text.trim_ascii_end()
            .ends_with(format!(" {sp:#x} {ip:#x}").as_bytes())
    }

    /// Opens a file of it, if it still is the one that is mapped.
    pub fn open(&self, module: &Module<'_>) -> Option<Checked> {
        open_mapped(self.directory.path(), module.path, module.id).ok()
    }

    /// Reads memory; how much of it could be read.
    pub fn read_at(&self, address: u64, into: &mut [u8]) -> usize {
        let memory = self.memory.as_ref();
        memory
            .and_then(|memory| memory.read_at(into, address).ok())
            .unwrap_or(0)
    }

    /// Where an address is when no symbol says it: "libfoo.so+0x1234", "libfoo.so (deleted)+0x1234", or the
    /// address with what is there.
    pub fn place(&self, address: u64) -> String {
        let Some(mapping) = self.mapping(address) else {
            return format!("{address:#x}");
        };
        match self.module_of(mapping) {
            Some(module) => {
                let name = module.path.file_name().unwrap_or_default();
                format!(
                    "{}+{:#x}",
                    escape(name.as_encoded_bytes()),
                    address - module.start
                )
            }
            None if mapping.vdso => format!("[vdso]+{:#x}", address - mapping.start),
            // No file: made while running, by a just-in-time compiler or a trampoline. Its maker knows what
            // it is called; a file that says so could be written by anybody.
            None if mapping.executable => format!("[jit]+{address:#x}"),
            None => format!("{address:#x}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn code_without_a_name_is_called_what_it_is() {
        let mapping = |start, path: Option<&str>| Mapping {
            start,
            end: start + 0x1000,
            executable: true,
            path: path.map(PathBuf::from),
            vdso: false,
            id: (1, start),
        };
        let image = Image {
            mappings: vec![
                mapping(0x1000, Some("/usr/lib/libgone.so (deleted)")),
                mapping(0x2000, None),
                mapping(0x3000, Some("/memfd:code (deleted)")),
                Mapping {
                    vdso: true,
                    ..mapping(0x4000, None)
                },
            ],
            memory: None,
            directory: Directory::of(Path::new(""), 0),
        };
        assert_eq!(image.place(0x1010), "libgone.so (deleted)+0x10");
        assert_eq!(image.place(0x2010), "[jit]+0x2010");
        assert_eq!(image.place(0x3010), "memfd:code (deleted)+0x10");
        assert_eq!(image.place(0x4010), "[vdso]+0x10");
        assert_eq!(image.place(0x9000), "0x9000");
    }
}
