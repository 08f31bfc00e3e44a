//! Reading the snapshot iterator: one pass over every thread of the host.

use std::io::{self, Read};

use bytemuck::Zeroable;
use probe_ebpf::ledger::{LEDGER_HEAD, LEDGER_SIZE, Ledger, RareLedger};
use probe_ebpf::record::{HISTOGRAMS, LEDGER, RARE, TORN, TaskRecord};
use probe_ebpf::totals::{SNAPSHOT_FUTEXES, SNAPSHOT_HISTOGRAMS, SNAPSHOT_OPEN_LEDGERS, SNAPSHOT_OWNERS};
use thiserror::Error;

use super::load::{Probe, SNAPSHOT};
use super::load_error::LoadError;
use super::memory::MemoryRead;

/// What a snapshot shall carry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Detail {
    /// Histograms of every state, which make up most of the bytes.
    pub histograms: bool,
    /// Give a ledger to threads that have none (see [`SNAPSHOT_OPEN_LEDGERS`]).
    pub open_ledgers: bool,
    /// Of which futex waits memory is read.
    pub futexes: Futexes,
}

/// Of which open futex waits memory is read anew.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Futexes {
    /// Of none.
    #[default]
    None,
    /// Of those whose holder memory may name.
    Owned,
    /// Of all.
    All,
}

/// One thread as the iterator saw it.
pub struct RawTask<'a> {
    /// The fixed part.
    pub record: &'a TaskRecord,
    /// The account; histograms are zero unless asked for. `None`: it has none, or it was [`TORN`].
    pub ledger: Option<&'a Ledger>,
    /// Whether [`Self::ledger`] has its histograms.
    pub histograms: bool,
    /// Histograms of stopped, traced and parked.
    pub rare: Option<&'a RareLedger>,
}

impl RawTask<'_> {
    /// Whether the ledger changed under every attempt to read it.
    pub fn torn(&self) -> bool {
        self.record.flags & TORN != 0
    }
}

/// Why there is no snapshot.
#[derive(Debug, Error)]
pub enum SnapshotError {
    /// The iterator could not be opened.
    #[error(transparent)]
    Open(#[from] LoadError),
    /// A table could not be read.
    #[error(transparent)]
    Table(#[from] super::tables::TableError),
    /// Reading failed.
    #[error("cannot read the task iterator: {0} (try again; if it persists, `procprobe doctor`)")]
    Read(#[from] io::Error),
    /// The stream does not follow the contract.
    #[error(
        "the task iterator's stream is malformed at byte {at} of {length} (this is a defect of procprobe: please report it)"
    )]
    Malformed {
        /// Byte offset.
        at: usize,
        /// Length of the stream.
        length: usize,
    },
}

/// How much is read at a time. The kernel hands out at most 32 KiB a read; a record is never split between two.
const CHUNK: usize = 64 << 10;

impl Probe {
    /// Calls `visit` for every thread of the host; returns how many bytes there were.
    ///
    /// # Errors
    /// [`SnapshotError`] if the iterator cannot be opened or read.
    pub fn read_snapshot(
        &mut self,
        detail: Detail,
        mut visit: impl FnMut(&RawTask<'_>),
    ) -> Result<u64, SnapshotError> {
        let mut flags = 0;
        if detail.histograms {
            flags |= SNAPSHOT_HISTOGRAMS;
        }
        if detail.open_ledgers {
            flags |= SNAPSHOT_OPEN_LEDGERS;
        }
        self.set_snapshot_flags(flags)?;
        let mut stream = self.open_iterator(SNAPSHOT)?;
        let mut words = vec![0_u64; CHUNK / 8];
        let chunk: &mut [u8] = bytemuck::cast_slice_mut(&mut words);
        let mut total = 0;
        loop {
            match stream.read(chunk) {
                Ok(0) => return Ok(total),
                Ok(length) => {
                    parse(&chunk[..length], &mut visit)?;
                    total += length as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}

impl Probe {
    /// Reads the memory of the open futex waits that `detail` asks for.
    ///
    /// # Errors
    /// [`SnapshotError`] if the pass cannot be begun.
    pub fn read_futexes(&mut self, detail: Detail) -> Result<MemoryRead, SnapshotError> {
        let flags = match detail.futexes {
            Futexes::None => {
                return Ok(MemoryRead {
                    is_whole: true,
                    ..MemoryRead::default()
                });
            }
            Futexes::Owned => SNAPSHOT_OWNERS,
            Futexes::All => SNAPSHOT_FUTEXES,
        };
        let open = if detail.open_ledgers {
            SNAPSHOT_OPEN_LEDGERS
        } else {
            0
        };
        Ok(self.read_memory(flags | open)?)
    }
}

/// Calls `visit` for each thread of a stretch of the stream.
///
/// # Errors
/// [`SnapshotError::Malformed`] at the first record that does not fit. Never panics, whatever the bytes are.
pub fn parse(stream: &[u8], mut visit: impl FnMut(&RawTask<'_>)) -> Result<(), SnapshotError> {
    let mut at = 0;
    while at < stream.len() {
        let size = one(&stream[at..], &mut visit).ok_or(SnapshotError::Malformed {
            at,
            length: stream.len(),
        })?;
        at += size;
    }
    Ok(())
}

/// Visits the record that begins here, where it lies; returns its size. `None` if it does not follow the contract, which
/// includes the alignment of a buffer that the kernel filled.
fn one(rest: &[u8], visit: &mut impl FnMut(&RawTask<'_>)) -> Option<usize> {
    let record: &TaskRecord = view(rest, 0)?;
    let mut size = size_of::<TaskRecord>();
    let histograms = record.flags & HISTOGRAMS != 0;
    let mut head_only = None;
    let ledger = match record.flags & (LEDGER | HISTOGRAMS) {
        0 => None,
        LEDGER => {
            let head = rest.get(size..size + LEDGER_HEAD)?;
            size += LEDGER_HEAD;
            let ledger = head_only.insert(Ledger::zeroed());
            bytemuck::bytes_of_mut(ledger)[..LEDGER_HEAD].copy_from_slice(head);
            Some(&*ledger)
        }
        _ => {
            size += LEDGER_SIZE;
            Some(view(rest, size - LEDGER_SIZE)?)
        }
    };
    let mut rare = None;
    if record.flags & RARE != 0 {
        rare = Some(view(rest, size)?);
        size += size_of::<RareLedger>();
    }
    if record.size as usize != size {
        return None;
    }
    visit(&RawTask {
        record,
        ledger,
        histograms,
        rare,
    });
    Some(size)
}

fn view<T: bytemuck::AnyBitPattern>(bytes: &[u8], at: usize) -> Option<&T> {
    bytemuck::try_from_bytes(bytes.get(at..at.checked_add(size_of::<T>())?)?).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn record(flags: u32, extra: usize) -> Vec<u8> {
        let mut record = TaskRecord::zeroed();
        record.flags = flags;
        record.size = u32::try_from(size_of::<TaskRecord>() + extra).unwrap();
        record.facts.tid = 7;
        let mut bytes = bytemuck::bytes_of(&record).to_vec();
        bytes.resize(record.size as usize, 1);
        bytes
    }

    /// The same bytes as the kernel hands them out: aligned to 8.
    fn aligned(bytes: &[u8]) -> &'static [u8] {
        let words = bytes
            .chunks_exact(8)
            .map(|word| u64::from_ne_bytes(word.try_into().unwrap()));
        bytemuck::cast_slice(words.collect::<Vec<u64>>().leak())
    }

    #[test]
    fn reads_every_shape_of_record() {
        let mut stream = record(0, 0);
        stream.extend(record(LEDGER, LEDGER_HEAD));
        stream.extend(record(LEDGER | HISTOGRAMS, LEDGER_SIZE));
        stream.extend(record(
            LEDGER | HISTOGRAMS | RARE,
            LEDGER_SIZE + size_of::<RareLedger>(),
        ));
        stream.extend(record(TORN, 0));
        let mut seen = Vec::new();
        parse(aligned(&stream), |task| {
            let first_bucket = task.ledger.map(|ledger| ledger.histogram[0][0]);
            seen.push((
                task.record.facts.tid,
                first_bucket,
                task.rare.is_some(),
                task.torn(),
            ));
        })
        .unwrap();
        let ones = 0x0101_0101;
        assert_eq!(
            seen,
            [
                (7, None, false, false),
                (7, Some(0), false, false),
                (7, Some(ones), false, false),
                (7, Some(ones), true, false),
                (7, None, false, true),
            ]
        );
    }

    #[test]
    fn a_cut_stream_is_an_error() {
        let stream = record(LEDGER, LEDGER_HEAD);
        assert!(parse(&aligned(&stream)[..stream.len() - 1], |_| {}).is_err());
        assert!(parse(aligned(&record(LEDGER, LEDGER_HEAD - 8)), |_| {}).is_err());
    }

    proptest! {
        #[test]
        fn never_panics_or_loops_on_noise(noise in proptest::collection::vec(any::<u8>(), 0..2048)) {
            let _ = parse(&noise, |_| {});
        }
    }
}
