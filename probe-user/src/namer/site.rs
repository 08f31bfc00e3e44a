//! Whose code an address in a file is: by the symbols that say so for the C libraries and the runtimes that
//! make system calls. The symbols of a C library survive stripping: it exports them.
//!
//! Besides: whether the function there is one that waits by `syscall()`, and where `CPython` keeps its state.

use super::elf::Elf;
use super::protocol::{SiteAnswer, WireLibrary, shortened};
use super::table::{Kind, Symbol};
use crate::model::locks::protocol::callers::wait_of;

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

/// The sites at some bytes of a file.
pub fn sites(elf: &Elf, offsets: &[u64]) -> Vec<SiteAnswer> {
    let mut names = Names::default();
    let mut places: Vec<Place> = offsets
        .iter()
        .map(|offset| Place::new(elf.address(*offset)))
        .collect();
    elf.symbols(|symbol| {
        names.has_symbols |= !symbol.dynamic && symbol.kind == Kind::Function;
        for place in places.iter_mut().filter(|place| place.is_inside(&symbol)) {
            place.learn_caller(elf, &symbol);
        }
        // Of the names in large tables nothing else is known: a browser's tell nothing of the C library.
        let Some(name) = elf.name_at_hand(&symbol) else {
            return;
        };
        names.learn(&symbol, name);
        if is_wanted(&symbol, name) {
            for place in &mut places {
                place.learn(&symbol);
            }
        }
    });
    let library = match names.library() {
        _ if elf.go() => FileLibrary::Go,
        FileLibrary::None if elf.has_musl() => FileLibrary::StrippedMusl,
        library => library,
    };
    places
        .into_iter()
        .map(|place| answer(library, &names, elf, place))
        .collect()
}

/// Labels in hand-written assembly have no type.
fn is_wanted(symbol: &Symbol, name: &[u8]) -> bool {
    matches!(symbol.kind, Kind::Function | Kind::Label)
        && OF_LIBRARIES.iter().any(|start| name.starts_with(start))
}

/// A place in the code.
struct Place {
    address: Option<u64>,
    /// The last wanted function that begins at or below it.
    symbol: Option<Symbol>,
    /// The function that it is in, if that is one that waits by `syscall()`.
    caller: Option<Vec<u8>>,
}

impl Place {
    fn new(address: Option<u64>) -> Self {
        Self {
            address,
            symbol: None,
            caller: None,
        }
    }

    /// Of several at the same place the last one counts: the full table comes behind the one for linking.
    fn learn(&mut self, symbol: &Symbol) {
        let below = self.address.is_some_and(|address| symbol.address <= address);
        if below && self.symbol.is_none_or(|known| symbol.address >= known.address) {
            self.symbol = Some(*symbol);
        }
    }

    fn is_inside(&self, symbol: &Symbol) -> bool {
        let behind = self
            .address
            .and_then(|address| address.checked_sub(symbol.address));
        symbol.kind == Kind::Function && behind.is_some_and(|behind| behind < symbol.size)
    }

    /// Read by itself where the names are not at hand, as in programs with debug information: that a function has
    /// another name than those says something, too.
    fn learn_caller(&mut self, elf: &Elf, symbol: &Symbol) {
        let name = elf.name(symbol);
        let waits = |name: &Vec<u8>| std::str::from_utf8(name).is_ok_and(|name| wait_of(name).is_some());
        if let Some(name) = name.filter(waits) {
            self.caller = Some(name);
        }
    }

    fn function(&self) -> Option<&Symbol> {
        let symbol = self.symbol.as_ref()?;
        let size = if symbol.size == 0 {
            LONGEST_UNSIZED
        } else {
            symbol.size
        };
        let behind = self.address? - symbol.address;
        (behind < size).then_some(symbol)
    }
}

fn answer(library: FileLibrary, names: &Names, elf: &Elf, place: Place) -> SiteAnswer {
    let function = place.function().and_then(|symbol| elf.name_at_hand(symbol));
    let text = |name: &[u8]| shortened(String::from_utf8_lossy(name).into_owned());
    SiteAnswer {
        library: of_place(library, function),
        function: function.map(text),
        caller: place.caller.as_deref().map(text),
        has_symbols: names.has_symbols,
        python: place.address.and_then(|at| {
            let (start, end) = names.python?;
            Some((start.wrapping_sub(at), end.wrapping_sub(at)))
        }),
    }
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
