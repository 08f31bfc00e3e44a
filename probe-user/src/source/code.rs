//! Whose code an address in a file is: by the symbols that say so for the C libraries and the runtimes that
//! make system calls.
//!
//! Read once for each file. The symbols of a C library survive stripping: it exports them.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::path::Path;

use object::read::elf::ElfFile;
use object::{Object, ObjectSegment, ObjectSymbol, ReadCache, ReadRef, SymbolKind};

use crate::model::escape;
use crate::model::locks::site::{Library, Site};

/// Symbols of files larger than this are not read: a browser's with debug information has hundreds of
/// megabytes.
const LARGEST: u64 = 64 << 20;
/// Files that are remembered; beyond that all are forgotten and read again.
const REMEMBERED: usize = 4_096;

/// Device and inode.
pub type FileId = (u64, u64);

/// What was found out about files.
#[derive(Default)]
pub struct CodeCache {
    known: HashMap<FileId, Option<FileCode>>,
}

impl CodeCache {
    /// The site at a byte of a file; `path` is where it can be opened.
    pub fn site(&mut self, id: FileId, offset: u64, path: &Path) -> Site {
        if self.known.len() > REMEMBERED {
            self.known.clear();
        }
        let code = self.known.entry(id).or_insert_with(|| read(path));
        code.as_ref().map_or(Site::UNREAD, |code| code.site(offset))
    }
}

/// What of a file's symbols matters here.
#[derive(Debug)]
struct FileCode {
    /// File range and address of each segment.
    segments: Vec<(std::ops::Range<u64>, u64)>,
    library: FileLibrary,
    /// Functions of C libraries that wait, by address, with their end (0 if it has no size).
    functions: BTreeMap<u64, (u64, String)>,
}

/// Which C library a file is or contains.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum FileLibrary {
    Glibc,
    Musl,
    StaticGlibc,
    StaticMusl,
    Go,
    None,
}

/// What the functions are called that lead to system calls in C libraries: all others need not be kept.
const OF_LIBRARIES: [&str; 18] = [
    "syscall",
    "__lll_",
    "__futex",
    "pthread_",
    "__pthread",
    "___pthread",
    "__condvar",
    "sem_",
    "__new_sem",
    "_dl_",
    "_IO_",
    "__syscall_cp",
    "sccp",
    "__cp_",
    "__wait",
    "__timedwait",
    "__lock",
    "__tl_",
];

/// Reads a file's symbols; `None` if it cannot be read.
///
/// Small files are read as a whole: a symbol table that is read name by name takes a hundred times as long.
/// Of large ones (browsers, compilers) the sections' names have to do.
fn read(path: &Path) -> Option<FileCode> {
    // A regular file: others may block, or do something when they are opened.
    let metadata = std::fs::metadata(path).ok()?;
    if !metadata.is_file() {
        return None;
    }
    if metadata.len() <= LARGEST {
        let data = std::fs::read(path).ok()?;
        return parse(data.as_slice(), code, code);
    }
    let data = ReadCache::new(File::open(path).ok()?);
    let by_sections = |library| FileCode {
        segments: Vec::new(),
        library,
        functions: BTreeMap::new(),
    };
    parse(
        &data,
        |elf| by_sections(runtime(elf)),
        |elf| by_sections(runtime(elf)),
    )
}

type Elf64<'data, R> = ElfFile<'data, object::elf::FileHeader64<object::Endianness>, R>;
type Elf32<'data, R> = ElfFile<'data, object::elf::FileHeader32<object::Endianness>, R>;

fn parse<'data, R: ReadRef<'data>>(
    data: R,
    wide: impl FnOnce(&Elf64<'data, R>) -> FileCode,
    narrow: impl FnOnce(&Elf32<'data, R>) -> FileCode,
) -> Option<FileCode> {
    match object::FileKind::parse(data).ok()? {
        object::FileKind::Elf64 => Some(wide(&Elf64::parse(data).ok()?)),
        object::FileKind::Elf32 => Some(narrow(&Elf32::parse(data).ok()?)),
        _ => None,
    }
}

/// Go, if a section says so.
fn runtime<'data>(elf: &impl Object<'data>) -> FileLibrary {
    let go = [".go.buildinfo", ".gopclntab"];
    if go.iter().any(|name| elf.section_by_name(name).is_some()) {
        FileLibrary::Go
    } else {
        FileLibrary::None
    }
}

fn code<'data>(elf: &impl Object<'data>) -> FileCode {
    let segments = elf.segments().map(|segment| {
        let (start, size) = segment.file_range();
        (start..start.saturating_add(size), segment.address())
    });
    let mut names = Names::default();
    elf.dynamic_symbols()
        .for_each(|symbol| names.learn(&symbol, true));
    elf.symbols().for_each(|symbol| names.learn(&symbol, false));
    let library = match runtime(elf) {
        FileLibrary::None => names.library(),
        library => library,
    };
    FileCode {
        segments: segments.collect(),
        library,
        functions: names.functions,
    }
}

/// What the names in a file's symbol tables say of it.
#[derive(Default)]
struct Names {
    functions: BTreeMap<u64, (u64, String)>,
    dynamic_glibc: bool,
    dynamic_musl: [bool; 2],
    static_glibc: bool,
    static_musl: bool,
}

impl Names {
    fn learn<'data>(&mut self, symbol: &impl ObjectSymbol<'data>, dynamic: bool) {
        if symbol.is_undefined() {
            return;
        }
        let Ok(name) = symbol.name() else { return };
        match name {
            // libc.so.6; libpthread.so.0 before 2.34; the loader.
            "gnu_get_libc_version" | "__pthread_mutex_lock" | "_rtld_global" if dynamic => {
                self.dynamic_glibc = true;
            }
            "__libc_start_main" if dynamic => self.dynamic_musl[0] = true,
            "pthread_create" if dynamic => self.dynamic_musl[1] = true,
            "__lll_lock_wait_private" | "__lll_lock_wait" if !dynamic => self.static_glibc = true,
            "__syscall_cp_c" | "__init_libc" if !dynamic => self.static_musl = true,
            _ => {}
        }
        let wanted = OF_LIBRARIES.iter().any(|start| name.starts_with(start));
        // Labels in hand-written assembly have no type.
        if wanted
            && matches!(
                symbol.kind(),
                SymbolKind::Text | SymbolKind::Unknown | SymbolKind::Label
            )
        {
            let end = symbol.address().saturating_add(symbol.size());
            let end = if symbol.size() == 0 { 0 } else { end };
            self.functions.insert(symbol.address(), (end, name.to_owned()));
        }
    }

    fn library(&self) -> FileLibrary {
        if self.dynamic_glibc {
            FileLibrary::Glibc
        } else if self.dynamic_musl == [true; 2] {
            FileLibrary::Musl
        } else if self.static_glibc {
            FileLibrary::StaticGlibc
        } else if self.static_musl {
            FileLibrary::StaticMusl
        } else {
            FileLibrary::None
        }
    }
}

/// How far behind its beginning an instruction of hand-written assembly, which has no size, can be.
const LONGEST_UNSIZED: u64 = 256;

impl FileCode {
    fn site(&self, offset: u64) -> Site {
        let function = self.address(offset).and_then(|address| self.function(address));
        let in_library = |library| {
            if function.is_some() {
                library
            } else {
                Library::Other
            }
        };
        let library = match self.library {
            FileLibrary::Go => Library::Go,
            FileLibrary::None => Library::Other,
            _ if function == Some("syscall") => Library::Syscall,
            FileLibrary::Glibc => Library::Glibc,
            FileLibrary::Musl => Library::Musl,
            FileLibrary::StaticGlibc => in_library(Library::Glibc),
            FileLibrary::StaticMusl => in_library(Library::Musl),
        };
        Site {
            library,
            function: function.map(|name| escape(name.as_bytes())),
        }
    }

    /// Where the file wants the byte to be in memory.
    fn address(&self, offset: u64) -> Option<u64> {
        let mut segments = self.segments.iter();
        let (range, address) = segments.find(|(range, _)| range.contains(&offset))?;
        Some(address + (offset - range.start))
    }

    fn function(&self, address: u64) -> Option<&str> {
        let (start, (end, name)) = self.functions.range(..=address).next_back()?;
        let end = if *end == 0 { start + LONGEST_UNSIZED } else { *end };
        (address < end).then_some(name.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// This test's own C library, found as the agent finds it.
    #[test]
    fn the_exported_syscall_is_not_the_librarys_own_code() {
        let image = super::super::address_space::tests::mapping_of(libc::syscall as *const () as u64);
        let site = read(&image.0).unwrap().site(image.1);
        assert_eq!(
            (site.library, site.function.as_deref()),
            (Library::Syscall, Some("syscall"))
        );
        let image =
            super::super::address_space::tests::mapping_of(libc::pthread_mutex_lock as *const () as u64);
        let site = read(&image.0).unwrap().site(image.1);
        assert_eq!(site.library, Library::Glibc);
    }

    #[test]
    fn what_cannot_be_read_proves_nothing() {
        assert!(read(Path::new("/proc/self/nothing")).is_none());
        assert!(read(Path::new("/dev/zero")).is_none());
        assert!(read(Path::new("/proc/self/status")).is_none());
    }
}
