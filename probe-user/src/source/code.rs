//! Whose code an address in a file is: by the symbols that say so for the C libraries and the runtimes that make system calls.
//!
//! Read once for each file and offset. The symbols of a C library survive stripping: it exports them.

use std::collections::HashMap;
use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use object::read::elf::ElfFile;
use object::{Object, ObjectSection, ObjectSegment, ObjectSymbol, ReadCache, SymbolKind};

use crate::model::escape;
use crate::model::locks::site::{Library, Site};

/// Symbol tables larger than this are not read: a browser's with debug information has hundreds of megabytes.
const LARGEST: u64 = 64 << 20;
/// Places that are remembered; beyond that all are forgotten and read again.
const REMEMBERED: usize = 65_536;

/// Device and inode.
pub type FileId = (u64, u64);

/// What was found out about files.
#[derive(Default)]
pub struct CodeCache {
    known: HashMap<(FileId, u64), Arc<Site>>,
}

impl CodeCache {
    /// The site at a byte of a file; `path` is where it can be opened.
    pub fn site(&mut self, id: FileId, offset: u64, path: &Path) -> Arc<Site> {
        if self.known.len() > REMEMBERED {
            self.known.clear();
        }
        let read = || Arc::new(read(path, offset).unwrap_or(Site::UNREAD));
        Arc::clone(self.known.entry((id, offset)).or_insert_with(read))
    }
}

/// The site at a byte of a file; `None` if the file cannot be read.
fn read(path: &Path, offset: u64) -> Option<Site> {
    // A regular file: others may block, or do something when they are opened.
    if !std::fs::metadata(path).ok()?.is_file() {
        return None;
    }
    let data = ReadCache::new(File::open(path).ok()?);
    match object::FileKind::parse(&data).ok()? {
        object::FileKind::Elf64 => {
            let elf = ElfFile::<object::elf::FileHeader64<object::Endianness>, _>::parse(&data).ok()?;
            Some(site(&elf, offset))
        }
        object::FileKind::Elf32 => {
            let elf = ElfFile::<object::elf::FileHeader32<object::Endianness>, _>::parse(&data).ok()?;
            Some(site(&elf, offset))
        }
        _ => None,
    }
}

/// What the names in a file's symbol tables say of it, and which of them covers an instruction.
#[derive(Default)]
struct Names {
    covering: Option<(u64, String)>,
    dynamic_glibc: bool,
    dynamic_musl: [bool; 2],
    static_glibc: bool,
    static_musl: bool,
}

fn site<'data>(elf: &impl Object<'data>, offset: u64) -> Site {
    let other = |library| Site {
        library,
        function: None,
    };
    if elf.section_by_name(".go.buildinfo").is_some() || elf.section_by_name(".gopclntab").is_some() {
        return other(Library::Go);
    }
    let Some(address) = virtual_address(elf, offset) else {
        return other(Library::Other);
    };
    let small = |name| {
        elf.section_by_name(name)
            .is_none_or(|table| table.size() <= LARGEST)
    };
    let mut names = Names::default();
    if small(".dynsym") {
        elf.dynamic_symbols()
            .for_each(|symbol| names.learn(&symbol, address, true));
    }
    if small(".symtab") {
        elf.symbols()
            .for_each(|symbol| names.learn(&symbol, address, false));
    }
    let function = names.covering.as_ref().map(|(_, name)| escape(name.as_bytes()));
    Site {
        library: names.library(),
        function,
    }
}

/// Where the file wants the byte to be in memory.
fn virtual_address<'data>(elf: &impl Object<'data>, offset: u64) -> Option<u64> {
    elf.segments().find_map(|segment| {
        let (start, size) = segment.file_range();
        (start..start.saturating_add(size))
            .contains(&offset)
            .then(|| segment.address() + (offset - start))
    })
}

impl Names {
    fn learn<'data>(&mut self, symbol: &impl ObjectSymbol<'data>, address: u64, dynamic: bool) {
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
        // Hand-written assembly has no size: it reaches to the next symbol.
        let start = symbol.address();
        let inside = start <= address && (symbol.size() == 0 || address - start < symbol.size());
        let nearer = self.covering.as_ref().is_none_or(|(best, _)| start >= *best);
        if symbol.kind() == SymbolKind::Text && inside && nearer {
            self.covering = Some((start, name.to_owned()));
        }
    }

    fn library(&self) -> Library {
        let function = self.covering.as_ref().map_or("", |(_, name)| name);
        let starts = |words: &[&str]| words.iter().any(|word| function.starts_with(word));
        let glibc = self.dynamic_glibc || self.static_glibc;
        let musl = self.static_musl || (self.dynamic_musl == [true; 2] && !self.dynamic_glibc);
        if (glibc || musl) && function == "syscall" {
            return Library::Syscall;
        }
        let library = if musl { Library::Musl } else { Library::Glibc };
        if self.dynamic_glibc || self.dynamic_musl == [true; 2] {
            return library;
        }
        let of_glibc = [
            "__lll_",
            "__futex_",
            "pthread_",
            "__pthread",
            "___pthread",
            "__condvar",
            "sem_",
            "__new_sem",
            "_dl_",
            "_IO_",
        ];
        let of_musl = [
            "__syscall_cp",
            "sccp",
            "__cp_",
            "__wait",
            "__timedwait",
            "__futex",
            "__lock",
            "__tl_",
            "pthread_",
            "sem_",
            "cnd_",
        ];
        match (self.static_glibc, self.static_musl) {
            (true, _) if starts(&of_glibc) => Library::Glibc,
            (_, true) if starts(&of_musl) => Library::Musl,
            _ => Library::Other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// This test's own C library, found as the agent finds it.
    #[test]
    fn the_exported_syscall_is_not_the_librarys_own_code() {
        let image = super::super::address_space::tests::mapping_of(libc::syscall as *const () as u64);
        let site = read(&image.0, image.1).unwrap();
        assert_eq!(
            (site.library, site.function.as_deref()),
            (Library::Syscall, Some("syscall"))
        );
        let image =
            super::super::address_space::tests::mapping_of(libc::pthread_mutex_lock as *const () as u64);
        let site = read(&image.0, image.1).unwrap();
        assert_eq!(site.library, Library::Glibc);
    }

    #[test]
    fn what_cannot_be_read_proves_nothing() {
        assert_eq!(read(Path::new("/proc/self/nothing"), 0), None);
        assert_eq!(read(Path::new("/dev/zero"), 0), None);
        assert_eq!(read(Path::new("/proc/self/status"), 0), None);
    }
}
