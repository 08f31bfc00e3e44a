//! Reading the pass over other processes' memory: by a thread of its own, for as long as it makes progress.
//!
//! A page fault or the lock of a memory map can hold the pass for as long as somebody likes (see the kernel
//! side, `memory.rs`). Then the answer goes out without it; no second pass begins while one hangs; and the
//! process that it hangs in is left alone for a while.

use std::collections::HashMap as StdHashMap;
use std::fs::File;
use std::io::{self, Read};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender, TryRecvError};
use std::time::{Duration, Instant};

use aya::maps::{Array, HashMap, MapData};
use aya::{Ebpf, Pod};
use probe_ebpf::record::MemoryRecord;

use super::load::take_map;
use super::load_error::{LoadError, map_error};
use super::own_thread::OwnThread;

/// The iterator program.
pub const MEMORY: &str = "memory";

/// How long to wait for memory. 10,000 waits take some 10 ms.
const PATIENCE: Duration = Duration::from_millis(250);
/// A pass that sleeps at one thread for so long, after that, hangs there: a process that is short of CPU may
/// hold the lock of its memory map for a while.
const STAYS: Duration = Duration::from_millis(200);
/// How often that is looked at meanwhile.
const LOOKS: u32 = 8;
/// How long a process is left alone that a pass hung in.
const LEFT_ALONE: Duration = Duration::from_secs(60);
const CHUNK: usize = 64 << 10;

/// What a pass found.
#[derive(Debug, Default)]
pub struct MemoryRead {
    /// One for each wait that was looked at, in the order of the kernel's list of threads.
    pub records: Vec<MemoryRecord>,
    /// The process that the pass hangs in, this one or one before.
    pub hangs_in: Option<u32>,
    /// Whether it came to its end.
    pub is_whole: bool,
}

/// See the module.
pub struct MemoryPass {
    /// Where the kernel side puts its records together.
    current: Array<MapData, PodRecord>,
    left_alone: HashMap<MapData, u32, u32>,
    since: StdHashMap<u32, Instant>,
    /// A pass that did not end in time, and the process that it hangs in.
    hanging: Option<(Receiver<Vec<MemoryRecord>>, Option<u32>)>,
}

impl MemoryPass {
    /// Takes the maps of the kernel side.
    ///
    /// # Errors
    /// [`LoadError`] if they are not there.
    pub fn new(ebpf: &mut Ebpf) -> Result<Self, LoadError> {
        let current = take_map(ebpf, "MEMORY")?;
        let left_alone = take_map(ebpf, "LEFT_ALONE")?;
        Ok(Self {
            current: Array::try_from(current).map_err(|source| map_error("MEMORY", source))?,
            left_alone: HashMap::try_from(left_alone).map_err(|source| map_error("LEFT_ALONE", source))?,
            since: StdHashMap::new(),
            hanging: None,
        })
    }

    /// Whether a pass may begin.
    ///
    /// # Errors
    /// The last one still hangs: in this process, as far as that is known.
    pub fn may_begin(&mut self) -> Result<(), Option<u32>> {
        if let Some((stream, pid)) = &self.hanging {
            loop {
                match stream.try_recv() {
                    Ok(_) => {}
                    Err(TryRecvError::Empty) => return Err(*pid),
                    Err(TryRecvError::Disconnected) => break,
                }
            }
            self.hanging = None;
        }
        let Self {
            since, left_alone, ..
        } = self;
        since.retain(|pid, began| {
            let stays = began.elapsed() < LEFT_ALONE;
            if !stays {
                // It is not there any more, at worst.
                let _ = left_alone.remove(pid);
            }
            stays
        });
        Ok(())
    }

    /// Reads a pass from its beginning, for as long as it may take.
    pub fn read(&mut self, stream: File) -> MemoryRead {
        // What is there is of the last pass.
        let nobody = PodRecord(bytemuck::Zeroable::zeroed());
        let _ = self.current.set(0, nobody, 0);
        let (sender, receiver) = mpsc::channel();
        let (told, who) = mpsc::channel();
        let reader = std::thread::Builder::new().name("memory".to_owned());
        let read = move || {
            let _ = told.send(OwnThread::current());
            read_all(stream, &sender);
        };
        if reader.spawn(read).is_err() {
            return MemoryRead::default();
        }
        let mut read = MemoryRead::default();
        let deadline = Instant::now() + PATIENCE;
        loop {
            match receiver.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(records) => read.records.extend(records),
                Err(RecvTimeoutError::Disconnected) => {
                    read.is_whole = true;
                    return read;
                }
                Err(RecvTimeoutError::Timeout) => break,
            }
        }
        let thread = who.try_recv().ok().flatten();
        read.hangs_in = thread.and_then(|thread| self.hangs_in(&thread));
        if let Some(pid) = read.hangs_in {
            tracing::warn!(
                pid,
                "the memory of this process does not come; it is left alone for a minute"
            );
            if self.left_alone.insert(pid, 1, 0).is_ok() {
                self.since.insert(pid, Instant::now());
            }
        }
        self.hanging = Some((receiver, read.hangs_in));
        read
    }

    /// The process that the pass does not get on with, as opposed to having much to do, or waiting for a CPU.
    fn hangs_in(&self, pass: &OwnThread) -> Option<u32> {
        let look = || {
            let record = self.current.get(&0, 0).ok()?.0;
            Some(((record.pid, record.tid, record.start_ns), pass.sleeps()))
        };
        accused(look, || std::thread::sleep(STAYS / LOOKS))
    }
}

/// A thread: pid, tid, and when it began.
type Member = (u32, u32, u64);

/// The process that a pass hangs in: whenever it was looked at, it slept at the same thread. Without that
/// proof (it may not even have begun) nobody is accused.
fn accused(look: impl Fn() -> Option<(Member, bool)>, rest: impl Fn()) -> Option<u32> {
    let (at_first, _) = look().filter(|((pid, ..), _)| *pid != 0)?;
    for _ in 0..LOOKS {
        rest();
        if look()? != (at_first, true) {
            return None;
        }
    }
    Some(at_first.0)
}

fn read_all(mut stream: File, sender: &Sender<Vec<MemoryRecord>>) {
    let mut words = vec![0_u64; CHUNK / 8];
    let chunk: &mut [u8] = bytemuck::cast_slice_mut(&mut words);
    loop {
        match stream.read(chunk) {
            Ok(0) => return,
            Ok(length) => {
                if sender.send(parse(&chunk[..length])).is_err() {
                    return;
                }
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => {
                tracing::warn!(%error, "cannot read the pass over memory");
                return;
            }
        }
    }
}

/// The records of a stretch of the stream, which the kernel never splits. Never panics, whatever the bytes
/// are.
pub fn parse(stream: &[u8]) -> Vec<MemoryRecord> {
    let records = stream.chunks_exact(size_of::<MemoryRecord>());
    records.map(bytemuck::pod_read_unaligned).collect()
}

/// aya asks for its own marker of plain data; the contract crate does not know aya.
#[derive(Clone, Copy)]
#[repr(transparent)]
struct PodRecord(MemoryRecord);
// SAFETY: `bytemuck::Pod` holds for the inner type: no padding, any bits are valid.
unsafe impl Pod for PodRecord {}

#[cfg(test)]
mod tests {
    use bytemuck::Zeroable;
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn records_lie_side_by_side() {
        let of = |pid| MemoryRecord {
            pid,
            ..MemoryRecord::zeroed()
        };
        let stream: Vec<u8> = [of(1), of(2)]
            .iter()
            .flat_map(bytemuck::bytes_of)
            .copied()
            .collect();
        let pids: Vec<u32> = parse(&stream).iter().map(|record| record.pid).collect();
        assert_eq!(pids, [1, 2]);
    }

    #[test]
    fn only_who_the_pass_sleeps_in_all_the_time_is_accused() {
        // What is seen after so many rests; the last goes on.
        let of = |seen: &[(u32, bool)]| {
            let rests = std::cell::Cell::new(0);
            let look = || {
                let (tid, sleeps) = seen[rests.get().min(seen.len() - 1)];
                Some(((if tid == 0 { 0 } else { 7 }, tid, 1), sleeps))
            };
            accused(look, || rests.set(rests.get() + 1))
        };
        assert_eq!(of(&[(8, false), (8, true)]), Some(7));
        assert_eq!(of(&[(8, false)]), None, "it waits for a CPU, or has much to do");
        assert_eq!(of(&[(8, true), (8, true), (8, false), (8, true)]), None);
        assert_eq!(of(&[(8, true), (8, true), (9, true)]), None, "it gets on");
        assert_eq!(of(&[(0, true)]), None, "it has not begun");
    }

    proptest! {
        #[test]
        fn never_panics_on_noise(noise in proptest::collection::vec(any::<u8>(), 0..2048)) {
            let _ = parse(&noise);
        }
    }
}
