//! Symbol tables: kept, or left in the file and gone through piece by piece.

use std::fs::File;
use std::os::unix::fs::FileExt;

use object::Endianness;
use object::elf::{STT_FUNC, STT_GNU_IFUNC, STT_NOTYPE, STT_OBJECT};
use object::read::elf::Sym;

/// The piece that is read of one at a time: a whole number of symbols of both sizes.
const PIECE: u64 = 48 << 14;
/// A name in a symbol table: longer ones are cut where they are shown.
const LONGEST_NAME: usize = 4_096;

/// A symbol table with its names.
pub struct Table {
    pub dynamic: bool,
    pub wide: bool,
    pub endian: Endianness,
    pub entries: Bytes,
    pub names: Bytes,
}

/// Of a file.
pub enum Bytes {
    Kept(Vec<u8>),
    /// Offset and size.
    Left(u64, u64),
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
    pub name: (usize, u32),
}

impl Bytes {
    pub fn kept(&self) -> usize {
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
    /// Shows those that are defined here; `number` is that of the table.
    pub fn symbols(&self, number: usize, file: &File, visit: &mut impl FnMut(Symbol)) {
        self.entries.pieces(file, |piece| {
            if self.wide {
                self.decode::<object::elf::Sym64<Endianness>>(number, piece, visit);
            } else {
                self.decode::<object::elf::Sym32<Endianness>>(number, piece, visit);
            }
        });
    }

    /// The name that begins there.
    pub fn name(&self, file: &File, at: u32) -> Option<Vec<u8>> {
        match &self.names {
            Bytes::Kept(names) => name(names, at.into()).map(<[u8]>::to_vec),
            Bytes::Left(offset, size) => {
                let length = size.checked_sub(at.into())?.min(LONGEST_NAME as u64);
                let mut bytes = vec![0; usize::try_from(length).ok()?];
                let read = file.read_at(&mut bytes, offset.checked_add(at.into())?).ok()?;
                bytes.truncate(read);
                name(&bytes, 0).map(<[u8]>::to_vec)
            }
        }
    }

    /// The same, if the names are kept.
    pub fn name_at_hand(&self, at: u32) -> Option<&[u8]> {
        match &self.names {
            Bytes::Kept(names) => name(names, at.into()),
            Bytes::Left(..) => None,
        }
    }

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
