//! Records of the iterator and of the ring with whatever bits, of processes with whatever names.

use std::fs;
use std::time::{Duration, SystemTime};

use bytemuck::Pod;
use probe_ebpf::ledger::{Ledger, RareLedger};
use probe_ebpf::lock::{EdgeKey, EdgeStats, FutexWait, LiveFutex, LockKey, LockStats};
use probe_ebpf::record::{
    COMM_LEN, EVENT_EXEC, EVENT_EXIT, EVENT_FORK, EVENT_REAP, EventRecord, ExitRecord, Facts, HISTOGRAMS,
    LEDGER, MemoryRecord, ON_CPU, RARE, TORN, TaskRecord,
};
use proptest::prelude::*;

use super::{check_locks, check_outputs, nasty_bytes};
use crate::kernel::events::decode;
use crate::kernel::memory::MemoryRead;
use crate::kernel::snapshot::{Futexes, parse};
use crate::model::event::Event;
use crate::model::locks::Tables;
use crate::model::locks::memory::SharedMemory;
use crate::model::snapshot::{Losses, Snapshot, SourceKind};
use crate::model::thread::Thread;
use crate::source::happened;
use crate::source::memory;
use crate::source::resolve::{self, Clocks};

/// Some years in nanoseconds: time stamps are any below it, in any order, which is more than any kernel does.
const YEARS: u64 = 1 << 58;

/// A record of words that are small, or any time.
fn words<T: Pod + std::fmt::Debug>() -> impl Strategy<Value = T> {
    let word = prop_oneof![Just(0), 0_u64..16, 0..YEARS];
    proptest::collection::vec(word, size_of::<T>() / 8)
        .prop_map(|words| bytemuck::pod_read_unaligned(bytemuck::cast_slice(&words)))
}

/// Few pids, so that records are each other's parents and threads; any flags; any name.
fn facts() -> impl Strategy<Value = Facts> {
    let ids = (1_u32..6, 1_u32..6, 0_u32..6, 0_u32..6);
    let bits = (
        any::<u32>(),
        any::<u32>(),
        any::<u32>(),
        any::<u32>(),
        any::<u32>(),
    );
    let few = (0_u32..4, prop_oneof![Just(0_u32), Just(16), Just(32)], 0_u64..3);
    (words::<Facts>(), ids, bits, few, nasty_bytes(COMM_LEN)).prop_map(|(mut facts, ids, bits, few, name)| {
        (facts.tid, facts.pid, facts.ppid, facts.tracer) = ids;
        (
            facts.task_flags,
            facts.state_bits,
            facts.exit_code,
            facts.ns_level,
            facts.static_prio,
        ) = bits;
        (facts.live_threads, facts.exit_state, facts.cgroup_id) = few;
        facts.comm = [0; COMM_LEN];
        facts.comm[..name.len()].copy_from_slice(&name);
        facts
    })
}

/// A record of the iterator with what its flags say, as bytes; and what the pass over memory says of its
/// wait.
fn task() -> impl Strategy<Value = (Vec<u8>, MemoryRecord)> {
    let parts = (words::<TaskRecord>(), words::<Ledger>(), words::<RareLedger>());
    let flags = proptest::sample::select(vec![
        0,
        TORN,
        ON_CPU,
        LEDGER | HISTOGRAMS,
        LEDGER | HISTOGRAMS | ON_CPU,
        LEDGER | HISTOGRAMS | RARE,
    ]);
    let rest = (facts(), flags, any::<[u8; 3]>(), futex(), words::<LiveFutex>());
    (parts, rest).prop_map(
        |((mut record, mut ledger, rare), (facts, flags, states, futex, live))| {
            (record.facts, record.flags) = (facts, flags);
            // Few address spaces and locks, so that threads wait for each other.
            (record.futex, record.space) = (futex, u64::from(facts.pid & 1));
            ledger.futex = futex;
            [ledger.state, ledger.off_state, ledger.found_state] = states;
            let mut bytes = bytemuck::bytes_of(&record).to_vec();
            let mut follows = |flag, part: &[u8]| {
                if flags & flag != 0 {
                    bytes.extend(part);
                }
            };
            follows(LEDGER, bytemuck::bytes_of(&ledger));
            follows(RARE, bytemuck::bytes_of(&rare));
            let size = u32::try_from(bytes.len()).expect("it is small");
            bytes[..4].copy_from_slice(&size.to_ne_bytes());
            let memory = MemoryRecord {
                start_ns: facts.start_ns,
                tid: facts.tid,
                pid: facts.pid,
                outcome: record.size & 3,
                padding: 0,
                futex,
                live,
            };
            (bytes, memory)
        },
    )
}

/// A futex wait of any kind at one of a few locks that one of a few threads may hold.
fn futex() -> impl Strategy<Value = FutexWait> {
    let bytes = (0_u8..12, any::<u8>(), 0_u8..16, 0_u8..6);
    (words::<FutexWait>(), 0_u64..4, 0_u32..6, bytes).prop_map(|(mut futex, lock, owner, bytes)| {
        (futex.address, futex.owner) = (0x1000 + lock * 8, owner);
        (futex.op, futex.flags, futex.class, futex.expected) = bytes;
        futex
    })
}

/// The kernel's tables of a few locks.
pub fn tables() -> impl Strategy<Value = Tables> {
    let key = || {
        (0_u64..2, 0_u64..4).prop_map(|(space, lock)| LockKey {
            space,
            address: 0x1000 + lock * 8,
        })
    };
    let edge =
        (key(), 0_u32..6, 0_u32..6).prop_map(|(lock, waiter, holder)| EdgeKey { lock, waiter, holder });
    let locks = proptest::collection::vec((key(), words::<LockStats>()), 0..6);
    let edges = proptest::collection::vec((edge, words::<EdgeStats>()), 0..6);
    (locks, edges).prop_map(|(locks, edges)| Tables {
        locks,
        edges,
        ..Tables::default()
    })
}

/// A record of the ring, as bytes.
fn event() -> impl Strategy<Value = Vec<u8>> {
    let kind = proptest::sample::select(vec![EVENT_FORK, EVENT_EXEC, EVENT_EXIT, EVENT_REAP]);
    (
        words::<ExitRecord>(),
        facts(),
        nasty_bytes(COMM_LEN),
        kind,
        0_u32..6,
    )
        .prop_map(|(mut record, facts, killer, kind, other)| {
            record.event.facts = facts;
            record.killer.comm = [0; COMM_LEN];
            record.killer.comm[..killer.len()].copy_from_slice(&killer);
            record.killer.signal = facts.exit_code & 0x7f;
            (record.event.kind, record.event.other_tid) = (kind, other);
            let length = if kind == EVENT_EXIT {
                size_of::<ExitRecord>()
            } else {
                size_of::<EventRecord>()
            };
            bytemuck::bytes_of(&record)[..length].to_vec()
        })
}

/// A look made of records.
fn snapshot(records: &[(Vec<u8>, MemoryRecord)], live_since_ns: u64) -> Snapshot {
    let bytes: Vec<u8> = records.iter().flat_map(|(bytes, _)| bytes).copied().collect();
    let words: Vec<u64> = bytes
        .chunks_exact(8)
        .map(|word| u64::from_ne_bytes(word.try_into().expect("eight bytes")))
        .collect();
    let clocks = Clocks {
        live_since_ns,
        scheduler_offset: Some(500),
    };
    let mut threads: Vec<Thread> = Vec::new();
    parse(bytemuck::cast_slice(&words), |task| {
        threads.push(resolve::thread(task, clocks));
    })
    .expect("whole records");
    assert_eq!(threads.len(), records.len());
    let read = MemoryRead {
        records: records.iter().map(|(_, memory)| *memory).collect(),
        ..MemoryRead::default()
    };
    let missing = memory::add(&mut threads, &read, Futexes::All);
    threads.sort_unstable_by_key(|thread| thread.id.tid);
    Snapshot {
        taken_at: SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000),
        began_ns: live_since_ns + 1,
        ended_ns: live_since_ns + 2,
        boottime_ns: YEARS,
        source: SourceKind::Bpf,
        threads,
        losses: Losses::none(),
        took: Duration::ZERO,
        hidden: 0,
        memory: SharedMemory {
            gaps: missing.gaps,
            ..SharedMemory::default()
        },
    }
}

fn decoded(bytes: &[u8]) -> Event {
    happened::event(&decode(bytes).expect("a whole event"))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    #[test]
    fn every_output_survives_every_record(
        first in proptest::collection::vec(task(), 0..8),
        events in proptest::collection::vec(event(), 0..8),
        last in proptest::collection::vec(task(), 1..8),
        live_since_ns in prop_oneof![Just(0), 0..YEARS],
        lines in proptest::collection::vec(nasty_bytes(8192), 6),
        tables in [tables(), tables()],
    ) {
        let root = tempfile::tempdir().expect("a directory");
        for (pid, line) in lines.iter().enumerate() {
            let directory = root.path().join(pid.to_string());
            fs::create_dir_all(&directory).expect("a directory");
            fs::write(directory.join("cmdline"), line).expect("a file");
        }
        let events: Vec<Event> = events.iter().map(|bytes| decoded(bytes)).collect();
        let (first, last) = (snapshot(&first, live_since_ns), snapshot(&last, live_since_ns));
        check_outputs(root.path(), &first, &events, &last);
        check_locks([&first, &last], &events, &tables);
    }
}
