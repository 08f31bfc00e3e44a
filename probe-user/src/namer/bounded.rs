//! What reads headers and sections: no piece larger, and no more in all, than is allowed, whatever the file
//! says.

use std::cell::Cell;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::ops::Range;
use std::os::unix::fs::FileExt;

use object::{ReadCache, ReadRef};

/// One section, or one table of headers, in memory.
const LARGEST_READ: u64 = 32 << 20;
/// All that is kept of one file.
pub const LARGEST_SUM: u64 = 64 << 20;
/// What looking for a name among the sections' is taken for: as much as it can be at most.
const LONGEST_NAME: u64 = 4_096;

/// A file whose length is what it was when it was opened, whatever it has become since.
#[derive(Debug)]
pub struct Window<'a> {
    pub file: &'a File,
    pub length: u64,
    pub position: u64,
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
pub struct Bounded<'data, 'file> {
    pub cache: &'data ReadCache<Window<'file>>,
    pub left: &'data Cell<u64>,
}

impl Bounded<'_, '_> {
    /// Whether a read of this size may be.
    pub fn allow(&self, offset: u64, size: u64) -> Result<(), ()> {
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
            .set(self.left.get().checked_sub(LONGEST_NAME).ok_or(())?);
        let length = ReadRef::len(self.cache)?;
        self.cache
            .read_bytes_at_until(range.start..range.end.min(length), delimiter)
    }
}
