//! Whose code an address in a file is: by the symbols that say so for the C libraries and the runtimes that
//! make system calls. The symbols of a C library survive stripping: it exports them.

use super::elf::Elf;
use super::protocol::{SiteAnswer, WireLibrary, shortened};
use super::table::{Kind, Symbol};

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
    let mut library = Names::default();
    let mut nearest: Vec<Nearest> = offsets
        .iter()
        .map(|offset| Nearest::new(elf.address(*offset)))
        .collect();
    // Of the names in large tables nothing is known: a browser's tell nothing of the C library.
    elf.symbols(|symbol| {
        let Some(name) = elf.name_at_hand(&symbol) else {
            return;
        };
        library.learn(name, symbol.dynamic);
        if is_wanted(&symbol, name) {
            for nearest in &mut nearest {
                nearest.learn(&symbol);
            }
        }
    });
    let library = if elf.go {
        FileLibrary::Go
    } else {
        library.library()
    };
    nearest
        .iter()
        .map(|nearest| {
            let function = nearest.function().and_then(|symbol| elf.name_at_hand(symbol));
            answer(library, function)
        })
        .collect()
}

/// Labels in hand-written assembly have no type.
fn is_wanted(symbol: &Symbol, name: &[u8]) -> bool {
    matches!(symbol.kind, Kind::Function | Kind::Label)
        && OF_LIBRARIES.iter().any(|start| name.starts_with(start))
}

/// The last wanted function that begins at or below an address.
struct Nearest {
    address: Option<u64>,
    symbol: Option<Symbol>,
}

impl Nearest {
    fn new(address: Option<u64>) -> Self {
        Self {
            address,
            symbol: None,
        }
    }

    /// Of several at the same place the last one counts: the full table comes behind the one for linking.
    fn learn(&mut self, symbol: &Symbol) {
        let below = self.address.is_some_and(|address| symbol.address <= address);
        if below && self.symbol.is_none_or(|known| symbol.address >= known.address) {
            self.symbol = Some(*symbol);
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

fn answer(library: FileLibrary, function: Option<&[u8]>) -> SiteAnswer {
    let in_library = |library| {
        if function.is_some() {
            library
        } else {
            WireLibrary::Other
        }
    };
    let library = match library {
        FileLibrary::Go => WireLibrary::Go,
        FileLibrary::None => WireLibrary::Other,
        _ if function == Some(b"syscall") => WireLibrary::Syscall,
        FileLibrary::Glibc => WireLibrary::Glibc,
        FileLibrary::Musl => WireLibrary::Musl,
        FileLibrary::StaticGlibc => in_library(WireLibrary::Glibc),
        FileLibrary::StaticMusl => in_library(WireLibrary::Musl),
    };
    SiteAnswer {
        library,
        function: function.map(|name| shortened(String::from_utf8_lossy(name).into_owned())),
    }
}

/// What the names in a file's symbol tables say of it.
#[derive(Default)]
struct Names {
    dynamic_glibc: bool,
    dynamic_musl: [bool; 2],
    static_glibc: bool,
    static_musl: bool,
}

impl Names {
    fn learn(&mut self, name: &[u8], dynamic: bool) {
        match name {
            // libc.so.6; libpthread.so.0 before 2.34; the loader.
            b"gnu_get_libc_version" | b"__pthread_mutex_lock" | b"_rtld_global" if dynamic => {
                self.dynamic_glibc = true;
            }
            b"__libc_start_main" if dynamic => self.dynamic_musl[0] = true,
            b"pthread_create" if dynamic => self.dynamic_musl[1] = true,
            b"__lll_lock_wait_private" | b"__lll_lock_wait" if !dynamic => self.static_glibc = true,
            b"__syscall_cp_c" | b"__init_libc" if !dynamic => self.static_musl = true,
            _ => {}
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
