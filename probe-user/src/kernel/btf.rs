//! A small walker over BTF, the type information the running kernel carries in `/sys/kernel/btf/vmlinux`.
//!
//! aya parses BTF too but keeps the members of structures to itself (aya-obj 0.6). Only what offsets need is here:
//! finding a structure, a member by path (through anonymous members), a type's size, a tracepoint's arguments.
//! The format is documented in the kernel tree, Documentation/bpf/btf.rst.

use std::collections::HashMap;

use thiserror::Error;

/// Why a BTF blob, or something in it, could not be used.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum BtfError {
    /// The blob does not follow the format.
    #[error("malformed BTF at byte {at}: {what}")]
    Malformed {
        /// Byte offset in the blob.
        at: usize,
        /// What was expected.
        what: &'static str,
    },
    /// A type the programs need does not exist.
    #[error("this kernel has no {kind} {name}")]
    NoType {
        /// "struct", "tracepoint" or "eBPF helper".
        kind: &'static str,
        /// Its name.
        name: String,
    },
    /// A member the programs need does not exist.
    #[error("this kernel's struct {structure} has no member {member}")]
    NoMember {
        /// The structure.
        structure: String,
        /// The member path.
        member: String,
    },
}

const MAGIC: u16 = 0xeb9f;
const KIND_INT: u32 = 1;
const KIND_PTR: u32 = 2;
const KIND_ARRAY: u32 = 3;
const KIND_STRUCT: u32 = 4;
const KIND_UNION: u32 = 5;
const KIND_ENUM: u32 = 6;
const KIND_TYPEDEF: u32 = 8;
const KIND_VOLATILE: u32 = 9;
const KIND_CONST: u32 = 10;
const KIND_RESTRICT: u32 = 11;
const KIND_FUNC_PROTO: u32 = 13;
const KIND_VAR: u32 = 14;
const KIND_DATASEC: u32 = 15;
const KIND_DECL_TAG: u32 = 17;
const KIND_TYPE_TAG: u32 = 18;
const KIND_ENUM64: u32 = 19;

/// Modifiers and typedefs in a row before the chain is taken for a loop.
const MAX_CHAIN: usize = 32;
/// Anonymous structures inside one another.
const MAX_NESTING: usize = 16;
/// Members looked at for one path, some ten times those of `task_struct`: structures that contain each other would
/// otherwise be walked through in every combination.
const MAX_MEMBERS: usize = 10_000;

#[derive(Clone, Copy, Debug)]
struct Type {
    name: u32,
    kind: u32,
    vlen: usize,
    kind_flag: bool,
    /// Of a sized type; of others the type they refer to.
    size: u32,
    /// Where what follows the fixed part begins.
    extra: usize,
}

/// A parsed blob: an index of its types, and the blob itself.
pub struct Btf<'a> {
    blob: &'a [u8],
    strings: &'a [u8],
    types: Vec<Type>,
    structs: HashMap<&'a [u8], usize>,
}

impl<'a> Btf<'a> {
    /// Indexes a blob in the byte order of this machine.
    ///
    /// # Errors
    /// [`BtfError::Malformed`] if it does not follow the format. Never panics, whatever the bytes are.
    pub fn parse(blob: &'a [u8]) -> Result<Self, BtfError> {
        if u16_at(blob, 0)? != MAGIC {
            return Err(BtfError::Malformed {
                at: 0,
                what: "the magic number 0xeb9f in this machine's byte order",
            });
        }
        let header = u32_at(blob, 4)? as usize;
        let types_at = add(header, u32_at(blob, 8)? as usize)?;
        let types_end = add(types_at, u32_at(blob, 12)? as usize)?;
        let strings_at = add(header, u32_at(blob, 16)? as usize)?;
        let strings_end = add(strings_at, u32_at(blob, 20)? as usize)?;
        let strings = blob.get(strings_at..strings_end).ok_or(BtfError::Malformed {
            at: 16,
            what: "a string section inside the blob",
        })?;
        let mut btf = Self {
            blob,
            strings,
            types: vec![VOID],
            structs: HashMap::new(),
        };
        btf.index(types_at, types_end)?;
        Ok(btf)
    }

    fn index(&mut self, mut at: usize, end: usize) -> Result<(), BtfError> {
        while at < end {
            let info = u32_at(self.blob, at + 4)?;
            let vlen = (info & 0xffff) as usize;
            let kind = (info >> 24) & 0x1f;
            let entry = Type {
                name: u32_at(self.blob, at)?,
                kind,
                vlen,
                kind_flag: info >> 31 == 1,
                size: u32_at(self.blob, at + 8)?,
                extra: at + 12,
            };
            if kind == KIND_STRUCT && entry.name != 0 {
                let name = self.name(entry.name)?;
                // The first definition wins: later ones of the same name are some driver's.
                self.structs.entry(name).or_insert(self.types.len());
            }
            self.types.push(entry);
            at += 12
                + extra_bytes(kind, vlen).ok_or(BtfError::Malformed {
                    at,
                    what: "a known kind of type",
                })?;
        }
        Ok(())
    }

    fn name(&self, offset: u32) -> Result<&'a [u8], BtfError> {
        let rest = self.strings.get(offset as usize..).ok_or(BtfError::Malformed {
            at: offset as usize,
            what: "a name inside the string section",
        })?;
        Ok(rest.split(|&byte| byte == 0).next().unwrap_or_default())
    }

    fn structure(&self, name: &str) -> Result<usize, BtfError> {
        self.structs
            .get(name.as_bytes())
            .copied()
            .ok_or_else(|| BtfError::NoType {
                kind: "struct",
                name: name.to_owned(),
            })
    }

    /// The size of a structure in bytes.
    ///
    /// # Errors
    /// [`BtfError::NoType`] if the kernel has none of that name.
    pub fn size_of(&self, structure: &str) -> Result<u32, BtfError> {
        Ok(self.types[self.structure(structure)?].size)
    }

    /// The byte offset of a member; `path` may go through embedded structures (`se.exec_start`).
    ///
    /// # Errors
    /// [`BtfError::NoType`] or [`BtfError::NoMember`], naming what is missing.
    pub fn offset_of(&self, structure: &str, path: &str) -> Result<u32, BtfError> {
        let bits = self.bit_of(structure, path)?;
        // A bit field has no byte offset.
        if bits % 8 == 0 {
            Ok(bits / 8)
        } else {
            Err(missing(structure, path))
        }
    }

    /// The offset of a member in bits, for bit fields; otherwise as [`Self::offset_of`].
    ///
    /// # Errors
    /// [`BtfError::NoType`] or [`BtfError::NoMember`], naming what is missing.
    pub fn bit_of(&self, structure: &str, path: &str) -> Result<u32, BtfError> {
        let mut bits: u32 = 0;
        let mut id = self.structure(structure)?;
        let mut left = MAX_MEMBERS;
        for part in path.split('.') {
            let found = self.member(id, part.as_bytes(), 0, &mut left)?;
            let (member_bits, member_type) = found.ok_or_else(|| missing(structure, path))?;
            bits = add_bits(bits, member_bits)?;
            id = self.resolve(member_type)?;
        }
        Ok(bits)
    }

    /// Offset in bits and type of a member, looked for in anonymous members too.
    fn member(
        &self,
        id: usize,
        name: &[u8],
        depth: usize,
        left: &mut usize,
    ) -> Result<Option<(u32, u32)>, BtfError> {
        let Some(&container) = self.types.get(id) else {
            return Ok(None);
        };
        if !matches!(container.kind, KIND_STRUCT | KIND_UNION) || depth > MAX_NESTING {
            return Ok(None);
        }
        for index in 0..container.vlen {
            let at = container.extra + index * 12;
            *left = left.checked_sub(1).ok_or(BtfError::Malformed {
                at,
                what: "structures that do not contain each other",
            })?;
            let (member_name, member_type, raw) = (
                u32_at(self.blob, at)?,
                u32_at(self.blob, at + 4)?,
                u32_at(self.blob, at + 8)?,
            );
            let bits = if container.kind_flag {
                raw & 0x00ff_ffff
            } else {
                raw
            };
            if member_name == 0 {
                let inner = self.resolve(member_type)?;
                if let Some((inner_bits, found)) = self.member(inner, name, depth + 1, left)? {
                    return Ok(Some((add_bits(bits, inner_bits)?, found)));
                }
            } else if self.name(member_name)? == name {
                return Ok(Some((bits, member_type)));
            }
        }
        Ok(None)
    }

    /// Follows typedefs and modifiers to the type they name.
    fn resolve(&self, id: u32) -> Result<usize, BtfError> {
        let mut id = id as usize;
        for _ in 0..MAX_CHAIN {
            match self.types.get(id) {
                Some(entry)
                    if matches!(
                        entry.kind,
                        KIND_TYPEDEF | KIND_VOLATILE | KIND_CONST | KIND_RESTRICT | KIND_TYPE_TAG
                    ) =>
                {
                    id = entry.size as usize;
                }
                Some(_) => return Ok(id),
                None => break,
            }
        }
        Err(BtfError::Malformed {
            at: id,
            what: "a type that a chain of typedefs ends in",
        })
    }

    /// Whether some enumeration has a member of that name.
    ///
    /// # Errors
    /// [`BtfError::Malformed`] if the blob does not follow the format.
    pub fn has_enumerator(&self, name: &str) -> Result<bool, BtfError> {
        Ok(self.enumerator(name)?.is_some())
    }

    /// The value of an enumerator of any enumeration; `None` if there is none of that name.
    ///
    /// # Errors
    /// If the blob is cut off.
    pub fn enumerator(&self, name: &str) -> Result<Option<u32>, BtfError> {
        for entry in self.types.iter().filter(|entry| entry.kind == KIND_ENUM) {
            for index in 0..entry.vlen {
                let at = entry.extra + index * 8;
                let member = u32_at(self.blob, at)?;
                if self.name(member)? == name.as_bytes() {
                    return u32_at(self.blob, at + 4).map(Some);
                }
            }
        }
        Ok(None)
    }

    /// How many arguments a raw tracepoint passes (without the leading `void *`), and whether the last is a
    /// four-byte integer.
    ///
    /// # Errors
    /// [`BtfError::NoType`] if the kernel has no such tracepoint.
    pub fn tracepoint_arguments(&self, tracepoint: &str) -> Result<(usize, bool), BtfError> {
        let wanted = format!("btf_trace_{tracepoint}");
        let missing = || BtfError::NoType {
            kind: "tracepoint",
            name: tracepoint.to_owned(),
        };
        for entry in self.types.iter().filter(|entry| entry.kind == KIND_TYPEDEF) {
            if self.name(entry.name)? != wanted.as_bytes() {
                continue;
            }
            let pointer = self.types.get(entry.size as usize).ok_or_else(missing)?;
            let proto = self.types.get(pointer.size as usize).ok_or_else(missing)?;
            if pointer.kind != KIND_PTR || proto.kind != KIND_FUNC_PROTO || proto.vlen == 0 {
                return Err(missing());
            }
            let last = u32_at(self.blob, proto.extra + (proto.vlen - 1) * 8 + 4)?;
            let last = self.types[self.resolve(last)?];
            return Ok((proto.vlen - 1, last.kind == KIND_INT && last.size == 4));
        }
        Err(missing())
    }
}

fn missing(structure: &str, member: &str) -> BtfError {
    BtfError::NoMember {
        structure: structure.to_owned(),
        member: member.to_owned(),
    }
}

const VOID: Type = Type {
    name: 0,
    kind: 0,
    vlen: 0,
    kind_flag: false,
    size: 0,
    extra: 0,
};

/// Bytes that follow the fixed part of a type.
fn extra_bytes(kind: u32, vlen: usize) -> Option<usize> {
    Some(match kind {
        KIND_INT | KIND_VAR | KIND_DECL_TAG => 4,
        KIND_ARRAY => 12,
        KIND_STRUCT | KIND_UNION | KIND_DATASEC | KIND_ENUM64 => vlen * 12,
        KIND_ENUM | KIND_FUNC_PROTO => vlen * 8,
        KIND_PTR | KIND_TYPE_TAG | 7..=12 | 16 => 0,
        _ => return None,
    })
}

fn add(left: usize, right: usize) -> Result<usize, BtfError> {
    left.checked_add(right).ok_or(BtfError::Malformed {
        at: 0,
        what: "offsets that fit in memory",
    })
}

fn add_bits(left: u32, right: u32) -> Result<u32, BtfError> {
    left.checked_add(right).ok_or(BtfError::Malformed {
        at: 0,
        what: "a member inside its structure",
    })
}

fn u32_at(blob: &[u8], at: usize) -> Result<u32, BtfError> {
    at.checked_add(4)
        .and_then(|end| blob.get(at..end))
        .and_then(|bytes| bytes.try_into().ok())
        .map(u32::from_ne_bytes)
        .ok_or(BtfError::Malformed {
            at,
            what: "four more bytes",
        })
}

fn u16_at(blob: &[u8], at: usize) -> Result<u16, BtfError> {
    blob.get(at..at + 2)
        .and_then(|bytes| bytes.try_into().ok())
        .map(u16::from_ne_bytes)
        .ok_or(BtfError::Malformed {
            at,
            what: "two more bytes",
        })
}

#[cfg(test)]
#[path = "btf_tests.rs"]
mod tests;
