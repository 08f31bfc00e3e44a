//! Whose code an address in a file is: by the symbols that say so for the C libraries and the runtimes that
//! make system calls. The symbols of a C library survive stripping: it exports them.
//!
//! Besides: whether the function there is one that waits by `syscall()`, where `CPython` keeps its state, and
//! which function of a program waits at its semaphores.

use super::elf::Elf;
use super::protocol::{SiteAnswer, WireLibrary, shortened};
use super::table::{Kind, Symbol};
use crate::model::locks::protocol::callers::{semaphore_of, wait_of};

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

/// What the functions are called that lead to system calls in C libraries: no others are told.
const OF_LIBRARIES: [&[u8]; 18] = [
    b"syscall",
    b"__lll_",
    b"__futex",
    b"pthread_",
    b"__pthread",
    b"___pthread",
    b"__condvar",
    b"sem_",
    b"__new_sem",
    b"_dl_",
    b"_IO_",
    b"__syscall_cp",
    b"sccp",
    b"__cp_",
    b"__wait",
    b"__timedwait",
    b"__lock",
    b"__tl_",
];

/// How far behind its beginning an instruction of hand-written assembly, which has no size, can be.
const LONGEST_UNSIZED: u64 = 256;

/// Functions that are kept of one file: the largest C library has a tenth.
const MOST_FUNCTIONS: usize = 32_768;

/// The sites at some bytes of a file.
pub fn sites(elf: &Elf, offsets: &[u64]) -> Vec<SiteAnswer> {
    let code = elf.code.get_or_init(|| FileCode::read(elf));
    let answer = |offset: &u64| code.answer(elf, elf.address(*offset));
    offsets.iter().map(answer).collect()
}

/// What the names in a file say of all of it. Put together once: a program in Rust with debug information has
/// a hundred thousand names.
pub struct FileCode {
    library: FileLibrary,
    /// Those that are wanted; of several at the same place the last one counts: the full table comes behind
    /// the one for linking.
    functions: Vec<Symbol>,
    /// Where `CPython` keeps its state.
    python: Option<(u64, u64)>,
    /// The function that waits at the program's semaphores.
    semaphores: Option<Vec<u8>>,
    has_symbols: bool,
}

impl FileCode {
    fn read(elf: &Elf) -> Self {
        let mut names = Names::default();
        let mut functions = Vec::new();
        elf.symbols(|symbol| {
            names.has_symbols |= !symbol.dynamic && symbol.kind == Kind::Function;
            // Of the names in large tables nothing else is known: a browser's tell nothing of the C library.
            let Some(name) = elf.name_at_hand(&symbol) else {
                return;
            };
            names.learn(&symbol, name);
            if functions.len() < MOST_FUNCTIONS && is_wanted(&symbol, name) {
                functions.push(symbol);
            }
        });
        let library = match names.library() {
            _ if elf.go() => FileLibrary::Go,
            FileLibrary::None if elf.has_musl() => FileLibrary::StrippedMusl,
            library => library,
        };
        Self {
            library,
            functions,
            python: names.python,
            semaphores: names.semaphores,
            has_symbols: names.has_symbols,
        }
    }

    fn answer(&self, elf: &Elf, address: Option<u64>) -> SiteAnswer {
        let function = address.and_then(|address| self.function(elf, address));
        SiteAnswer {
            library: of_place(self.library, function),
            function: function.map(text),
            caller: address
                .and_then(|address| caller(elf, address))
                .as_deref()
                .map(text),
            has_symbols: self.has_symbols,
            python: address.and_then(|at| {
                let (start, end) = self.python?;
                Some((start.wrapping_sub(at), end.wrapping_sub(at)))
            }),
            semaphores: self.semaphores.as_deref().map(text),
        }
    }

    /// The last wanted function that begins at or below an address, if it goes that far.
    fn function<'a>(&self, elf: &'a Elf, address: u64) -> Option<&'a [u8]> {
        let below = self.functions.iter().filter(|symbol| symbol.address <= address);
        let symbol = below.max_by_key(|symbol| symbol.address)?;
        let size = if symbol.size == 0 {
            LONGEST_UNSIZED
        } else {
            symbol.size
        };
        (address - symbol.address < size)
            .then(|| elf.name_at_hand(symbol))
            .flatten()
    }
}

/// The function at an address, if it is one that waits by `syscall()`. Its name is read by itself where the
/// names are not at hand: that a function has another name than those says something, too.
fn caller(elf: &Elf, address: u64) -> Option<Vec<u8>> {
    let mut found = None;
    elf.symbols(|symbol| {
        let behind = address.checked_sub(symbol.address);
        let inside = symbol.kind == Kind::Function && behind.is_some_and(|behind| behind < symbol.size);
        let waits = |name: &Vec<u8>| is(name, |name| wait_of(name).is_some());
        if inside && let Some(name) = elf.name(&symbol).filter(waits) {
            found = Some(name);
        }
    });
    found
}

fn text(name: &[u8]) -> String {
    shortened(String::from_utf8_lossy(name).into_owned())
}

fn is(name: &[u8], what: impl Fn(&str) -> bool) -> bool {
    std::str::from_utf8(name).is_ok_and(what)
}

/// Labels in hand-written assembly have no type.
fn is_wanted(symbol: &Symbol, name: &[u8]) -> bool {
    matches!(symbol.kind, Kind::Function | Kind::Label)
        && OF_LIBRARIES.iter().any(|start| name.starts_with(start))
}

/// Whose code it is, by whose the file is and by the function.
fn of_place(library: FileLibrary, function: Option<&[u8]>) -> WireLibrary {
    let in_library = |library| {
        if function.is_some() {
            library
        } else {
            WireLibrary::Other
        }
    };
    match library {
        FileLibrary::Go => WireLibrary::Go,
        FileLibrary::StrippedMusl => WireLibrary::StrippedMusl,
        FileLibrary::None => WireLibrary::Other,
        _ if function == Some(b"syscall") => WireLibrary::Syscall,
        FileLibrary::Glibc => WireLibrary::Glibc,
        FileLibrary::Musl => WireLibrary::Musl,
        FileLibrary::StaticGlibc => in_library(WireLibrary::Glibc),
        FileLibrary::StaticMusl => in_library(WireLibrary::Musl),
    }
}

/// What the names in a file's symbol tables say of it.
#[derive(Default)]
struct Names {
    /// The library that a symbol says the file is, or contains; the first of [`FileLibrary`] wins.
    library: Option<FileLibrary>,
    dynamic_musl: [bool; 2],
    /// Where `CPython` keeps its state.
    python: Option<(u64, u64)>,
    /// The function that waits at the program's semaphores.
    semaphores: Option<Vec<u8>>,
    has_symbols: bool,
}

impl Names {
    fn learn(&mut self, symbol: &Symbol, name: &[u8]) {
        let dynamic = symbol.dynamic;
        match name {
            b"_PyRuntime" => {
                self.python = Some((symbol.address, symbol.address.saturating_add(symbol.size)));
            }
            // libc.so.6; libpthread.so.0 before 2.34; the loader.
            b"gnu_get_libc_version" | b"__pthread_mutex_lock" | b"_rtld_global" if dynamic => {
                self.found(FileLibrary::Glibc);
            }
            b"__libc_start_main" if dynamic => self.dynamic_musl[0] = true,
            b"pthread_create" if dynamic => self.dynamic_musl[1] = true,
            b"__lll_lock_wait_private" | b"__lll_lock_wait" if !dynamic => {
                self.found(FileLibrary::StaticGlibc);
            }
            b"__syscall_cp_c" | b"__init_libc" if !dynamic => self.found(FileLibrary::StaticMusl),
            _ if symbol.kind == Kind::Function && is(name, |name| semaphore_of(name).is_some()) => {
                self.semaphores = Some(name.to_vec());
            }
            _ => {}
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
