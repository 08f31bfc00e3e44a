//! Functions and variables by their addresses in a file, as they were written.

use std::fmt::{self, Write};

use super::elf::Elf;
use super::protocol::{NAME, shortened};
use super::table::{Kind, Symbol};

/// How far behind its beginning an instruction of hand-written assembly, which has no size, can be.
const LONGEST_UNSIZED: u64 = 256;
/// Mangled names longer than this stay as they are: what they unfold to grows much faster than they do.
const LONGEST_MANGLED: usize = 2_048;

/// The function at an address as the file wants it.
pub fn function(elf: &Elf, address: u64) -> Option<String> {
    let mut best: Option<Symbol> = None;
    elf.symbols(|symbol| {
        let may = symbol.kind == Kind::Function && symbol.address <= address;
        if may && best.is_none_or(|best| rank(&symbol, address) > rank(&best, address)) {
            best = Some(symbol);
        }
    });
    let best = best.filter(|best| address - best.address < reach(best))?;
    Some(written(&elf.name(&best)?))
}

/// The innermost first, then the one that says how far it goes.
fn rank(symbol: &Symbol, address: u64) -> (bool, u64, bool) {
    let inside = address.wrapping_sub(symbol.address) < reach(symbol);
    (inside, symbol.address, symbol.size > 0)
}

fn reach(symbol: &Symbol) -> u64 {
    if symbol.size == 0 {
        LONGEST_UNSIZED
    } else {
        symbol.size
    }
}

/// The variable at an address as the file wants it, with the offset in it if the lock is only a part.
pub fn variable(elf: &Elf, address: u64) -> Option<String> {
    let mut found: Option<Symbol> = None;
    elf.symbols(|symbol| {
        let holds = symbol.kind == Kind::Variable
            && symbol.address <= address
            && address - symbol.address < symbol.size;
        // What the full table has counts; the one for linking comes before it.
        if holds && found.is_none_or(|found| found.dynamic && !symbol.dynamic) {
            found = Some(symbol);
        }
    });
    let symbol = found?;
    let name = written(&elf.name(&symbol)?);
    Some(match address - symbol.address {
        0 => name,
        offset => format!("{name}+{offset:#x}"),
    })
}

/// A symbol as it was written. Only names that say they are mangled are: C++ would take a function `w` for
/// the type `wchar_t`.
fn written(symbol: &[u8]) -> String {
    let symbol = String::from_utf8_lossy(symbol);
    if symbol.len() > LONGEST_MANGLED {
        return shortened(symbol.into_owned());
    }
    let mut name = Bounded::default();
    // What did not fit is missing at the end, and no error.
    if symbol.starts_with("_R") || symbol.starts_with("_ZN") && symbol.contains("17h") {
        let _ = write!(name, "{:#}", rustc_demangle::demangle(&symbol));
    } else if symbol.starts_with("_Z")
        && let Ok(parsed) = cpp_demangle::Symbol::new(&*symbol)
    {
        let _ = parsed.structured_demangle(&mut name, &cpp_demangle::DemangleOptions::new());
    }
    if name.0.is_empty() {
        return shortened(symbol.into_owned());
    }
    shortened(name.0)
}

/// Text that ends its writer when it is long enough: a mangled name of some hundred bytes can stand for
/// gigabytes.
#[derive(Default)]
struct Bounded(String);

impl fmt::Write for Bounded {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0.push_str(text);
        if self.0.len() > NAME {
            Err(fmt::Error)
        } else {
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_mangled_names_are_demangled() {
        assert_eq!(written(b"w"), "w");
        assert_eq!(written(b"_Z3addii"), "add(int, int)");
        assert_eq!(written(b"_ZN3app4work17h0123456789abcdefE"), "app::work");
    }

    #[test]
    fn names_have_an_end() {
        let long = "ä".repeat(4_000);
        assert!(written(long.as_bytes()).len() < 1_100);
        // Each argument is a pair of the one before, twice: 2^30 ints in the end.
        let digits = "0123456789ABCDEFGHIJKLMNOPQRSTU".chars();
        let arguments = digits.map(|digit| format!("S_IS{digit}_S{digit}_E"));
        let bomb = format!("_Z1f4pairIiiE{}", arguments.collect::<String>());
        let name = written(bomb.as_bytes());
        assert!(
            name.starts_with("f(pair<int, int>, pair<pair<int, int>"),
            "{name}"
        );
        assert!(name.len() < 1_100);
    }
}
