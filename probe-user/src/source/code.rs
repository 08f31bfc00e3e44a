//! Whose code an address in a file is: by the symbols that say so for the C libraries and the runtimes that
//! make system calls.
//!
//! Read once for each file. The symbols of a C library survive stripping: it exports them.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::Path;

use object::read::elf::ElfFile;
use object::{Object, ObjectSection, ObjectSegment, ObjectSymbol, ReadCache, ReadRef, SymbolKind};

use crate::model::escape;
use crate::model::locks::protocol::callers;
use crate::model::locks::site::{Caller, Library, Site};

/// Symbols and their names that are read of a file: a browser's with debug information has hundreds of
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

    /// How far behind a byte of a file the state of `CPython` begins in memory, and where it ends.
    pub fn python(&mut self, id: FileId, offset: u64, path: &Path) -> Option<Range<i128>> {
        let code = self.known.entry(id).or_insert_with(|| read(path)).as_ref()?;
        let (at, python) = (i128::from(code.address(offset)?), code.python.clone()?);
        Some(i128::from(python.start) - at..i128::from(python.end) - at)
    }

    /// The function that waits at the semaphores of a program, if it has one that is known.
    pub fn semaphores(&mut self, id: FileId, path: &Path) -> Option<Caller> {
        let code = self.known.entry(id).or_insert_with(|| read(path)).as_ref()?;
        let mut functions = code.callers.values().map(|(_, name)| name);
        Some(Caller {
            function: Some(
                functions
                    .find(|name| callers::semaphore_of(name).is_some())?
                    .clone(),
            ),
            has_symbols: code.has_symbols,
        })
    }

    /// The function at a byte of a file, if it is one of those that wait by `syscall()`; as [`Self::site`].
    pub fn caller(&mut self, id: FileId, offset: u64, path: &Path) -> Option<Caller> {
        let code = self.known.entry(id).or_insert_with(|| read(path));
        code.as_ref().map(|code| code.caller(offset))
    }
}

/// What of a file's symbols matters here.
#[derive(Debug)]
struct FileCode {
    /// File range and address of each segment.
    segments: Vec<(Range<u64>, u64)>,
    library: FileLibrary,
    /// Functions of C libraries that wait.
    functions: Functions,
    /// Functions of other libraries that call `syscall()` to wait.
    callers: Functions,
    /// Where `CPython` keeps its state.
    python: Option<Range<u64>>,
    /// Whether there is a symbol table besides that of the exported ones.
    has_symbols: bool,
}

/// By address, with their end (0 if it has no size).
type Functions = BTreeMap<u64, (u64, String)>;

/// Which C library a file is or contains.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum FileLibrary {
    Glibc,
    Musl,
    StaticGlibc,
    StaticMusl,
    StrippedMusl,
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
fn read(path: &Path) -> Option<FileCode> {
    // A regular file: others may block, or do something when they are opened.
    if !std::fs::metadata(path).ok()?.is_file() {
        return None;
    }
    let file = File::open(path).ok()?;
    let sections = {
        let headers = ReadCache::new(&file);
        parse(&headers, sections, sections)?
    };
    let data = Sparse::read(&file, &sections)?;
    let mut found = parse(&data, code, code)?;
    if found.library == FileLibrary::None && has_musl(&file) {
        found.library = FileLibrary::StrippedMusl;
    }
    Some(found)
}

/// The beginning of musl's table of messages (`src/errno/__strerror.h`), which `printf()` brings into every
/// static program: what is left of the library when its symbols are gone.
const OF_MUSL: &[u8] = b"No error information\0Illegal byte sequence\0Domain error\0";
/// Constants that are searched of a file.
const CONSTANTS: u64 = 16 << 20;

/// Whether a file is a static program with musl in it.
fn has_musl(file: &File) -> bool {
    let headers = ReadCache::new(file);
    let Some(Some(Range { start, end })) = parse(&headers, constants, constants) else {
        return false;
    };
    let size = end.saturating_sub(start).min(CONSTANTS);
    let Ok(size) = usize::try_from(size) else {
        return false;
    };
    let mut bytes = vec![0; size];
    file.read_exact_at(&mut bytes, start).is_ok() && memchr::memmem::find(&bytes, OF_MUSL).is_some()
}

/// Where the constants of a static program stand in its file.
fn constants<'data>(elf: &impl Object<'data>) -> Option<Range<u64>> {
    if elf.section_by_name(".interp").is_some() {
        return None;
    }
    let (start, size) = elf.section_by_name(".rodata")?.file_range()?;
    Some(start..start.saturating_add(size))
}

/// Where the sections with symbols and their names stand, and the tables of sections and segments.
fn sections<'data>(elf: &impl Object<'data>) -> Vec<Range<u64>> {
    let wanted = |name: &[u8]| {
        matches!(
            name,
            b".symtab" | b".strtab" | b".dynsym" | b".dynstr" | b".shstrtab"
        )
    };
    elf.sections()
        .filter(|section| section.name_bytes().is_ok_and(wanted))
        .filter_map(|section| section.file_range())
        .map(|(start, size)| start..start.saturating_add(size))
        .collect()
}

/// Parts of a file: a symbol table that is read name by name takes a hundred times as long, and the rest of
/// the file is not needed.
struct Sparse {
    parts: Vec<(u64, Vec<u8>)>,
    length: u64,
}

/// What is read of a file besides its symbols: the ELF header with the segments in front, the table of
/// sections at its end.
const HEADERS: u64 = 64 << 10;

impl Sparse {
    /// `None` if the symbols are larger than [`LARGEST`], or the file ends before them.
    fn read(file: &File, sections: &[Range<u64>]) -> Option<Self> {
        let length = file.metadata().ok()?.len();
        let ends = [0..HEADERS.min(length), length.saturating_sub(HEADERS)..length];
        let ranges = sections.iter().cloned().chain(ends);
        let mut parts = Vec::new();
        let mut left = LARGEST;
        for range in ranges {
            let size = range.end.checked_sub(range.start)?;
            left = left.checked_sub(size)?;
            let mut bytes = vec![0; usize::try_from(size).ok()?];
            file.read_exact_at(&mut bytes, range.start).ok()?;
            parts.push((range.start, bytes));
        }
        Some(Self { parts, length })
    }

    fn from(&self, offset: u64) -> Option<&[u8]> {
        let parts = self.parts.iter();
        let mut found = parts.filter_map(|(start, bytes)| {
            let at = usize::try_from(offset.checked_sub(*start)?).ok()?;
            bytes.get(at..).filter(|rest| !rest.is_empty())
        });
        found.next()
    }
}

impl<'data> ReadRef<'data> for &'data Sparse {
    fn len(self) -> Result<u64, ()> {
        Ok(self.length)
    }

    fn read_bytes_at(self, offset: u64, size: u64) -> Result<&'data [u8], ()> {
        if size == 0 {
            return Ok(&[]);
        }
        let size = usize::try_from(size).map_err(drop)?;
        self.from(offset).and_then(|rest| rest.get(..size)).ok_or(())
    }

    fn read_bytes_at_until(self, range: Range<u64>, delimiter: u8) -> Result<&'data [u8], ()> {
        let rest = self.from(range.start).ok_or(())?;
        let most = usize::try_from(range.end.saturating_sub(range.start)).map_err(drop)?;
        let rest = rest.get(..most.min(rest.len())).unwrap_or(rest);
        let end = rest.iter().position(|&byte| byte == delimiter).ok_or(())?;
        rest.get(..end).ok_or(())
    }
}

type Elf64<'data, R> = ElfFile<'data, object::elf::FileHeader64<object::Endianness>, R>;
type Elf32<'data, R> = ElfFile<'data, object::elf::FileHeader32<object::Endianness>, R>;

fn parse<'data, R: ReadRef<'data>, T>(
    data: R,
    wide: impl FnOnce(&Elf64<'data, R>) -> T,
    narrow: impl FnOnce(&Elf32<'data, R>) -> T,
) -> Option<T> {
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
        callers: names.callers,
        python: names.python,
        has_symbols: names.has_symbols,
    }
}

/// What the names in a file's symbol tables say of it.
#[derive(Default)]
struct Names {
    functions: Functions,
    callers: Functions,
    python: Option<Range<u64>>,
    has_symbols: bool,
    /// The library that a symbol says the file is, or contains; the first of [`FileLibrary`] wins.
    library: Option<FileLibrary>,
    dynamic_musl: [bool; 2],
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
                self.found(FileLibrary::Glibc);
            }
            "_PyRuntime" => {
                let end = symbol.address().saturating_add(symbol.size());
                self.python = Some(symbol.address()..end);
            }
            "__libc_start_main" if dynamic => self.dynamic_musl[0] = true,
            "pthread_create" if dynamic => self.dynamic_musl[1] = true,
            "__lll_lock_wait_private" | "__lll_lock_wait" if !dynamic => self.found(FileLibrary::StaticGlibc),
            "__syscall_cp_c" | "__init_libc" if !dynamic => self.found(FileLibrary::StaticMusl),
            _ => {}
        }
        self.has_symbols |= !dynamic && symbol.kind() == SymbolKind::Text;
        let end = symbol.address().saturating_add(symbol.size());
        let end = if symbol.size() == 0 { 0 } else { end };
        let entry = || (end, name.to_owned());
        // Labels in hand-written assembly have no type.
        let is_code = matches!(
            symbol.kind(),
            SymbolKind::Text | SymbolKind::Unknown | SymbolKind::Label
        );
        if is_code && OF_LIBRARIES.iter().any(|start| name.starts_with(start)) {
            self.functions.insert(symbol.address(), entry());
        } else if symbol.kind() == SymbolKind::Text && callers::wait_of(name).is_some() {
            self.callers.insert(symbol.address(), entry());
        }
    }

    fn found(&mut self, library: FileLibrary) {
        let first = self.library.map_or(library, |known| known.min(library));
        self.library = Some(first);
    }

    fn library(&self) -> FileLibrary {
        let musl = (self.dynamic_musl == [true; 2]).then_some(FileLibrary::Musl);
        self.library
            .into_iter()
            .chain(musl)
            .min()
            .unwrap_or(FileLibrary::None)
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
            FileLibrary::StrippedMusl => Library::StrippedMusl,
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
            caller: None,
        }
    }

    fn caller(&self, offset: u64) -> Caller {
        let address = self.address(offset);
        let function = address.and_then(|address| in_table(&self.callers, address));
        Caller {
            function: function.map(|name| escape(name.as_bytes())),
            has_symbols: self.has_symbols,
        }
    }

    /// Where the file wants the byte to be in memory.
    fn address(&self, offset: u64) -> Option<u64> {
        let mut segments = self.segments.iter();
        let (range, address) = segments.find(|(range, _)| range.contains(&offset))?;
        Some(address + (offset - range.start))
    }

    fn function(&self, address: u64) -> Option<&str> {
        in_table(&self.functions, address)
    }
}

/// The function that an address is in.
fn in_table(functions: &Functions, address: u64) -> Option<&str> {
    let (start, (end, name)) = functions.range(..=address).next_back()?;
    let end = if *end == 0 { start + LONGEST_UNSIZED } else { *end };
    (address < end).then_some(name.as_str())
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
