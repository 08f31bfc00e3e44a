//! Which variable an address is in, by the symbol table of its file. What lies on the heap or a stack has no name.

use std::fs;
use std::path::Path;

use object::read::elf::ElfFile64;
use object::{Object, ObjectSegment, ObjectSymbol, SymbolKind};

use super::image::Image;

/// Files larger than this are not read for a name.
const LARGEST: u64 = 256 << 20;
const PAGE: u64 = 4096;

/// The variable, with the offset in it if the lock is only a part.
pub fn variable(image: &Image, address: u64) -> Option<String> {
    let (path, base) = image.module(address)?;
    find(&image.reachable(path), base, address)
}

fn find(file: &Path, base: u64, address: u64) -> Option<String> {
    if fs::metadata(file).ok()?.len() > LARGEST {
        return None;
    }
    let data = fs::read(file).ok()?;
    let elf: ElfFile64<'_> = ElfFile64::parse(&*data).ok()?;
    let lowest = elf.segments().map(|segment| segment.address()).min()?;
    // Where the file wants to be against where it is: zero unless it is position-independent.
    let bias = base.wrapping_sub(lowest & !(PAGE - 1));
    let wanted = address.wrapping_sub(bias);
    let symbols = elf.symbols().chain(elf.dynamic_symbols());
    let mut holding = symbols.filter(|symbol| {
        symbol.kind() == SymbolKind::Data
            && symbol.address() <= wanted
            && wanted - symbol.address() < symbol.size()
    });
    let symbol = holding.next()?;
    let name = symbol.name_bytes().ok()?;
    let name = super::readable(&String::from_utf8_lossy(name));
    Some(match wanted - symbol.address() {
        0 => name,
        offset => format!("{name}+{offset:#x}"),
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::sync::atomic::AtomicU64;

    use super::*;

    static GUARDED_BY_NOBODY: Mutex<[u64; 4]> = Mutex::new([0; 4]);
    static A_NUMBER: AtomicU64 = AtomicU64::new(0);

    #[test]
    fn statics_of_this_program_have_their_names() {
        let image = Image::read(Path::new("/proc"), std::process::id()).unwrap();
        let address = (&raw const GUARDED_BY_NOBODY).expose_provenance() as u64;
        let name = variable(&image, address).unwrap();
        assert!(name.ends_with("GUARDED_BY_NOBODY"), "{name}");
        let inside = variable(&image, address + 8).unwrap();
        assert!(inside.ends_with("GUARDED_BY_NOBODY+0x8"), "{inside}");
        let number = (&raw const A_NUMBER).expose_provenance() as u64;
        assert!(variable(&image, number).unwrap().ends_with("A_NUMBER"));
        let on_stack = 0;
        let address = (&raw const on_stack).expose_provenance() as u64;
        assert_eq!(variable(&image, address), None);
    }
}
