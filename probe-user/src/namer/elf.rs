//! Reading ELF files that anybody may have written: every read is bounded, the sum of them too, and nothing
//! is mapped, so that a file that shrinks under our hands is an error and no signal.
//!
//! Sections are read as a whole: a symbol table that is read name by name takes a hundred times as long.
//! Large ones, as browsers and programs with debug information have, stay in the file and are gone through
//! piece by piece; then only the names that are asked for are read.

use std::cell::Cell;
use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::{Arc, OnceLock};

use object::elf::{FileHeader32, FileHeader64, PT_LOAD, SHT_DYNSYM, SHT_NOBITS, SHT_STRTAB, SHT_SYMTAB};
use object::read::elf::{FileHeader, ProgramHeader, SectionHeader, SectionTable};
use object::{Endianness, ReadCache, ReadRef};

use super::bounded::{Bounded, LARGEST_SUM, Window};
use super::site::FileCode;
use super::table::{Bytes, Symbol, Table};

/// A table of symbols is kept up to this size …
const KEPT: u64 = 8 << 20;
/// … its names up to this (a program in Rust with debug information has 10 MB) …
const KEPT_NAMES: u64 = 24 << 20;
/// … and gone through up to this: three million symbols.
const LARGEST_TABLE: u64 = 64 << 20;
const PAGE: u64 = 4096;
/// The beginning of musl's table of messages (`src/errno/__strerror.h`), which `printf()` brings into every
/// static program: what is left of the library when its symbols are gone.
const OF_MUSL: &[u8] = b"No error information\0Illegal byte sequence\0Domain error\0";
/// Constants that are searched of a file.
const CONSTANTS: u64 = 16 << 20;

/// A file, as far as it was read.
pub struct Elf {
    file: File,
    contents: Contents,
    /// What its symbols say of whose code it is, once that was asked for.
    pub code: OnceLock<FileCode>,
    /// Bytes that were kept.
    pub size: usize,
}

/// What was found in it.
struct Contents {
    /// File range and address of each segment.
    segments: Vec<(Range<u64>, u64)>,
    /// Whether it says that it is Go.
    go: bool,
    /// Where the constants of a static program stand.
    constants: Option<Range<u64>>,
    tables: Vec<Table>,
    unwind: Unwind,
}

/// The sections that tell how to unwind.
#[derive(Default)]
pub struct Unwind {
    /// Where the file wants the sections to be.
    pub text: Option<Range<u64>>,
    /// The same.
    pub got: Option<Range<u64>>,
    /// The same, with its content.
    pub frames: Option<(Range<u64>, Arc<[u8]>)>,
    /// The same.
    pub index: Option<(Range<u64>, Arc<[u8]>)>,
}

impl Elf {
    /// Reads a file that is `length` bytes long; `None` if it is no ELF file, or breaks a bound.
    pub fn read(file: File, length: u64) -> Option<Self> {
        let contents = Self::parse(&file, length)?;
        let Unwind { frames, index, .. } = &contents.unwind;
        let kept = [frames, index].into_iter().flatten();
        let kept = kept.map(|(_, bytes)| bytes.len());
        let of_tables = contents
            .tables
            .iter()
            .map(|table| table.entries.kept() + table.names.kept());
        let size = kept.chain(of_tables).sum();
        Some(Self {
            file,
            contents,
            code: OnceLock::new(),
            size,
        })
    }

    fn parse(file: &File, length: u64) -> Option<Contents> {
        let cache = ReadCache::new(Window {
            file,
            length,
            position: 0,
        });
        let data = Bounded {
            cache: &cache,
            left: &Cell::new(LARGEST_SUM),
        };
        match object::FileKind::parse(data).ok()? {
            object::FileKind::Elf64 => parse(FileHeader64::<Endianness>::parse(data).ok()?, data, file, true),
            object::FileKind::Elf32 => {
                parse(FileHeader32::<Endianness>::parse(data).ok()?, data, file, false)
            }
            _ => None,
        }
    }

    /// Where the file wants a byte of it to be in memory.
    pub fn address(&self, offset: u64) -> Option<u64> {
        let mut segments = self.contents.segments.iter();
        let (range, address) = segments.find(|(range, _)| range.contains(&offset))?;
        Some(address.wrapping_add(offset - range.start))
    }

    /// Where the file is against where it wants to be, if its first mapping begins at `base`: zero unless it
    /// is position-independent.
    pub fn bias(&self, base: u64) -> Option<u64> {
        let lowest = self.contents.segments.iter().map(|(_, address)| *address).min()?;
        Some(base.wrapping_sub(lowest & !(PAGE - 1)))
    }

    /// Whether it says that it is Go.
    pub fn go(&self) -> bool {
        self.contents.go
    }

    /// Whether it is a static program with musl in it, by its constants.
    pub fn has_musl(&self) -> bool {
        let Some(Range { start, end }) = self.contents.constants else {
            return false;
        };
        let size = end.saturating_sub(start).min(CONSTANTS);
        let constants = bytes(&self.file, start, size);
        constants.is_some_and(|bytes| memchr::memmem::find(&bytes, OF_MUSL).is_some())
    }

    /// How to unwind its code.
    pub fn unwind(&self) -> &Unwind {
        &self.contents.unwind
    }

    /// Shows all that are defined here.
    pub fn symbols(&self, mut visit: impl FnMut(Symbol)) {
        for (number, table) in self.contents.tables.iter().enumerate() {
            table.symbols(number, &self.file, &mut visit);
        }
    }

    /// The name of a symbol; `None` if it has none.
    pub fn name(&self, symbol: &Symbol) -> Option<Vec<u8>> {
        let (table, at) = symbol.name;
        self.contents.tables.get(table)?.name(&self.file, at)
    }

    /// The name, if it is at hand: those of large tables are not, and to read all of them would take too
    /// long.
    pub fn name_at_hand(&self, symbol: &Symbol) -> Option<&[u8]> {
        let (table, at) = symbol.name;
        self.contents.tables.get(table)?.name_at_hand(at)
    }
}

fn parse<'data, H: FileHeader<Endian = Endianness>>(
    header: &'data H,
    data: Bounded<'data, '_>,
    file: &File,
    wide: bool,
) -> Option<Contents> {
    let endian = header.endian().ok()?;
    let segments = header.program_headers(endian, data).ok()?.iter();
    let segments = segments.filter(|segment| segment.p_type(endian) == PT_LOAD);
    let segments = segments.map(|segment| {
        let start: u64 = segment.p_offset(endian).into();
        let size: u64 = segment.p_filesz(endian).into();
        (start..start.saturating_add(size), segment.p_vaddr(endian).into())
    });
    let segments = segments.collect();
    let sections = header.sections(endian, data).ok()?;
    let named = |name: &[u8]| Some(sections.section_by_name(endian, name)?.1);
    let range = |name: &[u8]| {
        let section = named(name)?;
        let address: u64 = section.sh_addr(endian).into();
        Some(address..address.saturating_add(section.sh_size(endian).into()))
    };
    let content = |name: &[u8]| Some((range(name)?, Arc::from(whole(file, data, endian, named(name)?)?)));
    let unwind = Unwind {
        text: range(b".text"),
        got: range(b".got"),
        frames: content(b".eh_frame"),
        index: content(b".eh_frame_hdr"),
    };
    let tables: Vec<Table> = sections
        .iter()
        .filter_map(|section| table(&sections, section, endian, data, file, wide))
        .collect();
    let constants = |section: &H::SectionHeader| {
        let offset: u64 = section.sh_offset(endian).into();
        Some(offset..offset.checked_add(section.sh_size(endian).into())?)
    };
    let is_static = named(b".interp").is_none();
    let constants = named(b".rodata")
        .filter(|section| is_static && section.sh_type(endian) != SHT_NOBITS)
        .and_then(constants);
    let go = named(b".go.buildinfo").is_some() || named(b".gopclntab").is_some();
    Some(Contents {
        segments,
        go,
        constants,
        tables,
        unwind,
    })
}

fn table<'data, H: FileHeader<Endian = Endianness>>(
    sections: &SectionTable<'data, H, Bounded<'data, '_>>,
    section: &H::SectionHeader,
    endian: Endianness,
    data: Bounded<'data, '_>,
    file: &File,
    wide: bool,
) -> Option<Table> {
    let kind = section.sh_type(endian);
    if kind != SHT_SYMTAB && kind != SHT_DYNSYM {
        return None;
    }
    let names = sections.section(section.link(endian)).ok()?;
    Some(Table {
        dynamic: kind == SHT_DYNSYM,
        wide,
        endian,
        entries: kept_or_left(file, data, endian, section)?,
        names: kept_or_left(file, data, endian, names)?,
    })
}

/// A section's bytes: read from the file, into memory that is nobody else's.
fn whole<S: SectionHeader<Endian = Endianness>>(
    file: &File,
    data: Bounded<'_, '_>,
    endian: Endianness,
    section: &S,
) -> Option<Vec<u8>> {
    if section.sh_type(endian) == SHT_NOBITS {
        return None;
    }
    let (offset, size): (u64, u64) = (section.sh_offset(endian).into(), section.sh_size(endian).into());
    data.allow(offset, size).ok()?;
    bytes(file, offset, size)
}

fn bytes(file: &File, offset: u64, size: u64) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    let size = usize::try_from(size).ok()?;
    bytes.try_reserve_exact(size).ok()?;
    bytes.resize(size, 0);
    file.read_exact_at(&mut bytes, offset).ok()?;
    Some(bytes)
}

/// A section that may be large: left in the file as well where the sum of what is kept of it would be too
/// large.
fn kept_or_left<S: SectionHeader<Endian = Endianness>>(
    file: &File,
    data: Bounded<'_, '_>,
    endian: Endianness,
    section: &S,
) -> Option<Bytes> {
    let (offset, size): (u64, u64) = (section.sh_offset(endian).into(), section.sh_size(endian).into());
    let names = section.sh_type(endian) == SHT_STRTAB;
    let most = if names { KEPT_NAMES } else { KEPT };
    if size <= most
        && let Some(bytes) = whole(file, data, endian, section)
    {
        return Some(Bytes::Kept(bytes));
    }
    let end = offset.checked_add(size)?;
    let fits = end <= ReadRef::len(data).ok()? && (names || size <= LARGEST_TABLE);
    fits.then_some(Bytes::Left(offset, size))
}
