//! Reading ELF files that anybody may have written: every read is bounded, the sum of them too, and nothing is mapped,
//! so that a file that shrinks under our hands is an error and no signal.
//!
//! Sections are read as a whole: a symbol table that is read name by name takes a hundred times as long. Large ones, as
//! browsers and programs with debug information have, stay in the file and are gone through piece by piece; then only the
//! names that are asked for are read.

use std::cell::Cell;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use object::elf::{
    FileHeader32, FileHeader64, PT_LOAD, SHT_DYNSYM, SHT_NOBITS, SHT_STRTAB, SHT_SYMTAB, STT_FUNC,
    STT_GNU_IFUNC,
};
use object::elf::{STT_NOTYPE, STT_OBJECT};
use object::read::elf::{FileHeader, ProgramHeader, SectionHeader, SectionTable, Sym};
use object::{Endianness, ReadCache, ReadRef};

/// One section, or one table of headers, in memory.
const LARGEST_READ: u64 = 32 << 20;
/// All that is kept of one file.
const LARGEST_SUM: u64 = 64 << 20;
/// A table of symbols or names is kept up to this size …
const KEPT: u64 = 8 << 20;
/// … and gone through up to this: three million symbols.
const LARGEST_TABLE: u64 = 64 << 20;
/// The piece that is read of one at a time: a whole number of symbols of both sizes.
const PIECE: u64 = 48 << 14;
/// A name in a symbol table: longer ones are cut where they are shown.
const LONGEST_NAME: usize = 4_096;
const PAGE: u64 = 4096;

/// A file, as far as it was read.
pub struct Elf {
    file: File,
    /// File range and address of each segment.
    segments: Vec<(Range<u64>, u64)>,
    /// Whether it says that it is Go.
    pub go: bool,
    tables: Vec<Table>,
    unwind: Unwind,
    /// Bytes that were kept.
    pub size: usize,
}

/// A symbol table with its names.
struct Table {
    dynamic: bool,
    wide: bool,
    endian: Endianness,
    entries: Bytes,
    names: Bytes,
}

/// Of a file.
enum Bytes {
    Kept(Vec<u8>),
    /// Offset and size.
    Left(u64, u64),
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

/// What a symbol stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A function.
    Function,
    /// A variable.
    Variable,
    /// Not said, as labels in hand-written assembly.
    Label,
    /// Something else.
    Other,
}

/// One symbol of a file.
#[derive(Clone, Copy, Debug)]
pub struct Symbol {
    /// Where the file wants it to be.
    pub address: u64,
    /// Bytes; 0 where the file does not say.
    pub size: u64,
    /// What it is.
    pub kind: Kind,
    /// Whether it is of the table that survives stripping.
    pub dynamic: bool,
    /// The number of the table, and where in its names this one's begins.
    name: (usize, u32),
}

impl Elf {
    /// Reads a file that is `length` bytes long; `None` if it is no ELF file, or breaks a bound.
    pub fn read(file: File, length: u64) -> Option<Self> {
        let (segments, go, tables, unwind) = Self::parse(&file, length)?;
        let kept = [&unwind.frames, &unwind.index].into_iter().flatten();
        let kept = kept.map(|(_, bytes)| bytes.len());
        let of_tables = tables
            .iter()
            .map(|table| table.entries.kept() + table.names.kept());
        let size = kept.chain(of_tables).sum();
        Some(Self {
            file,
            segments,
            go,
            tables,
            unwind,
            size,
        })
    }

    fn parse(file: &File, length: u64) -> Option<Parsed> {
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
        let mut segments = self.segments.iter();
        let (range, address) = segments.find(|(range, _)| range.contains(&offset))?;
        Some(address.wrapping_add(offset - range.start))
    }

    /// Where the file is against where it wants to be, if its first mapping begins at `base`: zero unless it is
    /// position-independent.
    pub fn bias(&self, base: u64) -> Option<u64> {
        let lowest = self.segments.iter().map(|(_, address)| *address).min()?;
        Some(base.wrapping_sub(lowest & !(PAGE - 1)))
    }

    /// How to unwind its code.
    pub fn unwind(&self) -> &Unwind {
        &self.unwind
    }

    /// Shows all that are defined here.
    pub fn symbols(&self, mut visit: impl FnMut(Symbol)) {
        for (number, table) in self.tables.iter().enumerate() {
            table.entries.pieces(&self.file, |piece| {
                if table.wide {
                    table.decode::<object::elf::Sym64<Endianness>>(number, piece, &mut visit);
                } else {
                    table.decode::<object::elf::Sym32<Endianness>>(number, piece, &mut visit);
                }
            });
        }
    }

    /// The name of a symbol; `None` if it has none.
    pub fn name(&self, symbol: &Symbol) -> Option<Vec<u8>> {
        let (table, at) = symbol.name;
        match &self.tables.get(table)?.names {
            Bytes::Kept(names) => name(names, at.into()).map(<[u8]>::to_vec),
            Bytes::Left(offset, size) => {
                let length = size.checked_sub(at.into())?.min(LONGEST_NAME as u64);
                let mut bytes = vec![0; usize::try_from(length).ok()?];
                let read = self
                    .file
                    .read_at(&mut bytes, offset.checked_add(at.into())?)
                    .ok()?;
                bytes.truncate(read);
                name(&bytes, 0).map(<[u8]>::to_vec)
            }
        }
    }

    /// The name, if it is at hand: those of large tables are not, and to read all of them would take too long.
    pub fn name_at_hand(&self, symbol: &Symbol) -> Option<&[u8]> {
        let (table, at) = symbol.name;
        match &self.tables.get(table)?.names {
            Bytes::Kept(names) => name(names, at.into()),
            Bytes::Left(..) => None,
        }
    }
}

/// Segments, whether it is Go, tables, and how to unwind.
type Parsed = (Vec<(Range<u64>, u64)>, bool, Vec<Table>, Unwind);

fn parse<'data, H: FileHeader<Endian = Endianness>>(
    header: &'data H,
    data: Bounded<'data, '_>,
    file: &File,
    wide: bool,
) -> Option<Parsed> {
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
    let go = named(b".go.buildinfo").is_some() || named(b".gopclntab").is_some();
    Some((segments, go, tables, unwind))
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
    let mut bytes = Vec::new();
    let size = usize::try_from(size).ok()?;
    bytes.try_reserve_exact(size).ok()?;
    bytes.resize(size, 0);
    file.read_exact_at(&mut bytes, offset).ok()?;
    Some(bytes)
}

/// A section that may be large.
fn kept_or_left<S: SectionHeader<Endian = Endianness>>(
    file: &File,
    data: Bounded<'_, '_>,
    endian: Endianness,
    section: &S,
) -> Option<Bytes> {
    let (offset, size): (u64, u64) = (section.sh_offset(endian).into(), section.sh_size(endian).into());
    if size <= KEPT {
        return whole(file, data, endian, section).map(Bytes::Kept);
    }
    let names = section.sh_type(endian) == SHT_STRTAB;
    let end = offset.checked_add(size)?;
    let fits = end <= ReadRef::len(data).ok()? && (names || size <= LARGEST_TABLE);
    fits.then_some(Bytes::Left(offset, size))
}

impl Bytes {
    fn kept(&self) -> usize {
        match self {
            Self::Kept(bytes) => bytes.len(),
            Self::Left(..) => 0,
        }
    }

    /// Shows all of it, in order, as far as it can be read.
    fn pieces(&self, file: &File, mut visit: impl FnMut(&[u8])) {
        let (offset, size) = match self {
            Self::Kept(bytes) => return visit(bytes),
            Self::Left(offset, size) => (*offset, *size),
        };
        let mut piece = Vec::new();
        let mut at = 0;
        while at < size {
            piece.resize(usize::try_from(PIECE.min(size - at)).unwrap_or(0), 0);
            if file.read_exact_at(&mut piece, offset + at).is_err() {
                return;
            }
            visit(&piece);
            at += PIECE;
        }
    }
}

impl Table {
    fn decode<S: Sym<Endian = Endianness>>(
        &self,
        number: usize,
        bytes: &[u8],
        visit: &mut impl FnMut(Symbol),
    ) {
        let count = bytes.len() / size_of::<S>();
        let entries = object::pod::slice_from_bytes::<S>(bytes, count);
        let endian = self.endian;
        for symbol in entries.map_or(&[][..], |(entries, _)| entries) {
            if symbol.is_undefined(endian) {
                continue;
            }
            visit(Symbol {
                address: symbol.st_value(endian).into(),
                size: symbol.st_size(endian).into(),
                kind: kind(symbol.st_type()),
                dynamic: self.dynamic,
                name: (number, symbol.st_name(endian)),
            });
        }
    }
}

/// The name that begins there.
fn name(names: &[u8], at: u64) -> Option<&[u8]> {
    let rest = names.get(usize::try_from(at).ok()?..)?;
    let rest = rest.get(..LONGEST_NAME).unwrap_or(rest);
    let name = rest.split(|byte| *byte == 0).next()?;
    (!name.is_empty()).then_some(name)
}

fn kind(kind: u8) -> Kind {
    match kind {
        STT_FUNC | STT_GNU_IFUNC => Kind::Function,
        STT_OBJECT => Kind::Variable,
        STT_NOTYPE => Kind::Label,
        _ => Kind::Other,
    }
}

/// A file whose length is what it was when it was opened, whatever it has become since.
#[derive(Debug)]
struct Window<'a> {
    file: &'a File,
    length: u64,
    position: u64,
}

impl Read for Window<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let read = self.file.read_at(into, self.position)?;
        self.position += read as u64;
        Ok(read)
    }
}

impl Seek for Window<'_> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.position = match to {
            SeekFrom::Start(position) => position,
            SeekFrom::End(0) => self.length,
            _ => return Err(io::ErrorKind::Unsupported.into()),
        };
        Ok(self.position)
    }
}

/// What reads headers: no more than is allowed.
#[derive(Clone, Copy)]
struct Bounded<'data, 'file> {
    cache: &'data ReadCache<Window<'file>>,
    left: &'data Cell<u64>,
}

impl Bounded<'_, '_> {
    /// Whether a read of this size may be.
    fn allow(&self, offset: u64, size: u64) -> Result<(), ()> {
        let end = offset.checked_add(size).ok_or(())?;
        if size > LARGEST_READ || end > ReadRef::len(self.cache)? {
            return Err(());
        }
        self.left.set(self.left.get().checked_sub(size).ok_or(())?);
        Ok(())
    }
}

impl<'data> ReadRef<'data> for Bounded<'data, '_> {
    fn len(self) -> Result<u64, ()> {
        ReadRef::len(self.cache)
    }

    fn read_bytes_at(self, offset: u64, size: u64) -> Result<&'data [u8], ()> {
        self.allow(offset, size)?;
        self.cache.read_bytes_at(offset, size)
    }

    fn read_bytes_at_until(self, range: Range<u64>, delimiter: u8) -> Result<&'data [u8], ()> {
        self.left
            .set(self.left.get().checked_sub(LONGEST_NAME as u64).ok_or(())?);
        let length = ReadRef::len(self.cache)?;
        self.cache
            .read_bytes_at_until(range.start..range.end.min(length), delimiter)
    }
}
