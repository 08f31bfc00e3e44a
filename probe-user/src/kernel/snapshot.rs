//! Reading the snapshot iterator: one pass over every thread of the host.

use std::io::{self, Read};

use bytemuck::Zeroable;
use probe_ebpf::ledger::{LEDGER_HEAD, LEDGER_SIZE, Ledger, RareLedger};
use probe_ebpf::record::{HISTOGRAMS, LEDGER, RARE, TORN, TaskRecord};
use probe_ebpf::totals::{SNAPSHOT_HISTOGRAMS, SNAPSHOT_OPEN_LEDGERS};
use thiserror::Error;

use super::load::{LoadError, Probe, SNAPSHOT};

/// What a snapshot shall carry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Detail {
    /// Histograms of every state, which make up most of the bytes.
    pub histograms: bool,
    /// Give a ledger to threads that have none (see [`SNAPSHOT_OPEN_LEDGERS`]).
    pub open_ledgers: bool,
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
        let failed = |answer| LoadError::Program {
            action: "attach",
            program: SNAPSHOT,
            answer: Box::new(answer),
        };
        let iterator = self.iterator()?;
        let link = iterator.attach().map_err(failed)?;
        let link = iterator.take_link(link).map_err(failed)?;
        let mut stream = link
            .into_file()
            .map_err(|error| failed(aya::programs::ProgramError::from(io::Error::other(error))))?;
        let mut chunk = vec![0; CHUNK];
        let mut total = 0;
        loop {
            match stream.read(&mut chunk) {
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

/// Calls `visit` for each thread of a stretch of the stream.
///
/// # Errors
/// [`SnapshotError::Malformed`] at the first record that does not fit. Never panics, whatever the bytes are.
pub fn parse(stream: &[u8], mut visit: impl FnMut(&RawTask<'_>)) -> Result<(), SnapshotError> {
    let mut at = 0;
    while at < stream.len() {
        let malformed = || SnapshotError::Malformed {
            at,
            length: stream.len(),
        };
        let record: TaskRecord = read(stream, at).ok_or_else(malformed)?;
        let size = record.size as usize;
        if size < size_of::<TaskRecord>() {
            return Err(malformed());
        }
        let body = stream.get(at..at + size).ok_or_else(malformed)?;
        visit_one(&record, body, &mut visit).ok_or_else(malformed)?;
        at += size;
    }
    Ok(())
}

fn visit_one(record: &TaskRecord, body: &[u8], visit: &mut impl FnMut(&RawTask<'_>)) -> Option<()> {
    let histograms = record.flags & HISTOGRAMS != 0;
    let ledger_size = match record.flags & (LEDGER | HISTOGRAMS) {
        0 => 0,
        LEDGER => LEDGER_HEAD,
        _ => LEDGER_SIZE,
    };
    let mut ledger = Ledger::zeroed();
    let ledger_at = size_of::<TaskRecord>();
    let source = body.get(ledger_at..ledger_at + ledger_size)?;
    bytemuck::bytes_of_mut(&mut ledger)[..ledger_size].copy_from_slice(source);
    let rare: Option<RareLedger> = if record.flags & RARE == 0 {
        None
    } else {
        Some(read(body, ledger_at + ledger_size)?)
    };
    let rare_size = if rare.is_some() {
        size_of::<RareLedger>()
    } else {
        0
    };
    if body.len() != ledger_at + ledger_size + rare_size {
        return None;
    }
    let ledger = (ledger_size > 0).then_some(&ledger);
    visit(&RawTask {
        record,
        ledger,
        histograms,
        rare: rare.as_ref(),
    });
    Some(())
}

fn read<T: bytemuck::AnyBitPattern>(bytes: &[u8], at: usize) -> Option<T> {
    bytes
        .get(at..at.checked_add(size_of::<T>())?)
        .map(bytemuck::pod_read_unaligned)
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
        parse(&stream, |task| {
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
        assert!(parse(&stream[..stream.len() - 1], |_| {}).is_err());
        assert!(parse(&record(LEDGER, LEDGER_HEAD - 8), |_| {}).is_err());
    }

    proptest! {
        #[test]
        fn never_panics_or_loops_on_noise(noise in proptest::collection::vec(any::<u8>(), 0..2048)) {
            let _ = parse(&noise, |_| {});
        }
    }
}
