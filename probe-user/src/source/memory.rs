//! What the pass over memory found, given to the waits that it belongs to; and whose memory is missing, and
//! why.

use std::collections::BTreeMap;

use foldhash::HashMap;
use probe_ebpf::lock::Expected;
use probe_ebpf::record::{MEMORY_LOCKED, MEMORY_OF_FILE, MEMORY_READ, MemoryRecord};
use probe_ebpf::waiting::{flag, op};

use crate::kernel::memory::MemoryRead;
use crate::kernel::snapshot::Futexes;
use crate::model::locks::memory::MemoryGap;
use crate::model::thread::{OpenWait, Thread};

/// Whose memory is missing.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Missing {
    /// Waits whose memory should have been read.
    pub waits: u64,
    /// Processes that are the reason.
    pub gaps: BTreeMap<u32, MemoryGap>,
}

/// Completes open waits by a pass that was asked for `wanted`.
pub fn add(threads: &mut [Thread], read: &MemoryRead, wanted: Futexes) -> Missing {
    let records = read.records.iter();
    let by_thread: HashMap<(u32, u64), &MemoryRecord> = records
        .map(|record| ((record.tid, record.start_ns), record))
        .collect();
    let mut missing = Missing::default();
    if let Some(pid) = read.hangs_in {
        missing.gaps.insert(pid, MemoryGap::Hangs);
    }
    for thread in threads {
        let Some(open) = &mut thread.futex else { continue };
        match by_thread.get(&(thread.id.tid, thread.id.start_ns)) {
            Some(record) => {
                if let Some(gap) = gap_of(record.outcome) {
                    missing.waits += 1;
                    missing.gaps.entry(thread.pid).or_insert(gap);
                }
                complete(open, record);
            }
            None if !read.is_whole && is_asked_for(open, wanted) => missing.waits += 1,
            None => {}
        }
        if is_list(open) || open.wait.op == op::NONE {
            thread.futex = None;
        }
    }
    missing
}

const fn gap_of(outcome: u32) -> Option<MemoryGap> {
    match outcome {
        MEMORY_READ => None,
        MEMORY_OF_FILE => Some(MemoryGap::OfFile),
        MEMORY_LOCKED => Some(MemoryGap::Locked),
        // MEMORY_LEFT_ALONE: a pass hung there before.
        _ => Some(MemoryGap::Hangs),
    }
}

/// A wait of `futex_waitv` that nobody saw begin shows a list, until memory tells the first futex in it.
const fn is_list(open: &OpenWait) -> bool {
    open.wait.op == op::WAITV && open.wait.flags & (flag::FOUND | flag::READ) == flag::FOUND
}

fn complete(open: &mut OpenWait, record: &MemoryRecord) {
    let found = open.wait.flags & flag::FOUND != 0;
    // Since the threads were listed it may have gone on, and wait elsewhere.
    if record.futex.address != open.wait.address && !is_list(open) {
        return;
    }
    if found && record.outcome == MEMORY_READ {
        open.wait = record.futex;
    }
    open.live = Some(Box::new(record.live));
}

/// As `describe()` in the kernel side's `memory.rs`.
fn is_asked_for(open: &OpenWait, wanted: Futexes) -> bool {
    let wait = &open.wait;
    let idle = [Expected::Zero, Expected::One, Expected::AllOnes].map(|expected| expected as u8);
    let owned = wait.owner != 0 || (!idle.contains(&wait.expected) && wait.flags & flag::TIMED == 0);
    match wanted {
        Futexes::None => false,
        Futexes::Owned => owned,
        Futexes::All => true,
    }
}

#[cfg(test)]
mod tests {
    use bytemuck::Zeroable;

    use super::*;
    use crate::model::locks::testing::World;

    const WORD: u64 = 0x1000;

    fn waiting() -> Vec<Thread> {
        let mut world = World::default();
        world.waits(101, "waits", "glibc", WORD, 102);
        world.last().futex.as_mut().unwrap().live = None;
        world.snapshot(1, 1).threads
    }

    fn record(outcome: u32, address: u64) -> MemoryRecord {
        let [thread] = &waiting()[..] else { panic!("one") };
        let mut record = MemoryRecord {
            tid: thread.id.tid,
            start_ns: thread.id.start_ns,
            pid: thread.pid,
            outcome,
            ..MemoryRecord::zeroed()
        };
        record.futex.address = address;
        record
    }

    fn read(records: Vec<MemoryRecord>, is_whole: bool) -> (bool, Missing) {
        let mut threads = waiting();
        let read = MemoryRead {
            records,
            hangs_in: (!is_whole).then_some(7),
            is_whole,
        };
        let missing = add(&mut threads, &read, Futexes::Owned);
        (threads[0].futex.as_ref().unwrap().live.is_some(), missing)
    }

    #[test]
    fn memory_goes_to_the_wait_it_belongs_to() {
        let (live, missing) = read(vec![record(MEMORY_READ, WORD)], true);
        assert_eq!((live, missing), (true, Missing::default()));
        let (live, missing) = read(vec![record(MEMORY_READ, WORD + 64)], true);
        assert_eq!(
            (live, missing),
            (false, Missing::default()),
            "it waits elsewhere by now"
        );
    }

    #[test]
    fn what_is_missing_says_why() {
        let (_, locked) = read(vec![record(MEMORY_LOCKED, WORD)], true);
        assert_eq!(locked.waits, 1);
        assert_eq!(locked.gaps, BTreeMap::from([(100, MemoryGap::Locked)]));
        let (live, hung) = read(Vec::new(), false);
        assert!(!live);
        assert_eq!(hung.waits, 1, "not reached");
        assert_eq!(hung.gaps, BTreeMap::from([(7, MemoryGap::Hangs)]));
    }

    #[test]
    fn a_list_of_futexes_is_no_futex() {
        let mut threads = waiting();
        let wait = &mut threads[0].futex.as_mut().unwrap().wait;
        wait.op = op::WAITV;
        wait.flags = flag::FOUND;
        let nothing = MemoryRead {
            is_whole: true,
            ..MemoryRead::default()
        };
        let mut unread = threads.clone();
        add(&mut unread, &nothing, Futexes::All);
        assert!(unread[0].futex.is_none());
        let mut found = record(MEMORY_READ, WORD + 64);
        found.futex.op = op::WAITV;
        found.futex.flags = flag::FOUND | flag::READ;
        let read = MemoryRead {
            records: vec![found],
            ..nothing
        };
        add(&mut threads, &read, Futexes::All);
        assert_eq!(threads[0].futex.as_ref().unwrap().wait.address, WORD + 64);
    }
}
