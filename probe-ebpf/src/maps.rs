//! Every map: who writes it, who reads it, and what happens when it is full.

use core::ptr;

use aya_ebpf::btf_maps::{Array, HashMap, PerCpuArray, RingBuf};
use aya_ebpf::macros::btf_map;
use probe_ebpf::ledger::{Killers, Ledger, RareLedger};
use probe_ebpf::lock::{EdgeKey, EdgeStats, LockKey, LockStats};
use probe_ebpf::record::{MemoryRecord, Scratch};
use probe_ebpf::totals::{Control, Totals};

use crate::storage::TaskStorage;

/// The account of every thread. Written by `sched_switch` and `sched_waking`, read by `snapshot` and at death.
/// No size limit; a failed allocation is counted in [`Totals::storage_failures`].
#[btf_map]
pub static LEDGERS: TaskStorage<Ledger> = TaskStorage::new();

/// Histograms of stopped, traced and parked, for the few threads that ever were.
#[btf_map]
pub static RARE: TaskStorage<RareLedger> = TaskStorage::new();

/// Senders of signals that may kill, on the first thread of the process they were sent to.
#[btf_map]
pub static KILLERS: TaskStorage<Killers> = TaskStorage::new();

/// The tid of the thread that ended a process, on its first thread: a claim that one thread wins.
#[btf_map]
pub static ENDED_BY: TaskStorage<u64> = TaskStorage::new();

/// Births and deaths, to the agent's ring reader. When it is full the event is lost and counted, by kind. The agent
/// may resize it before loading.
#[btf_map]
pub static EVENTS: RingBuf<u8, { 8 << 20 }> = RingBuf::new();

/// Per-CPU totals, to the agent.
#[btf_map]
pub static TOTALS: PerCpuArray<Totals, 1> = PerCpuArray::new();

/// Locks that were waited for. Full, its waits are counted in [`Totals::lost_locks`]. Allocated as a whole when it is made:
/// nothing may be allocated while a run queue is locked. The agent sets the size and deletes what is over.
#[btf_map]
pub static LOCKS: HashMap<LockKey, LockStats, 8192> = HashMap::new();

/// Who waited for whom. Full, its waits are counted in [`Totals::lost_edges`]. Otherwise as [`LOCKS`].
#[btf_map]
pub static EDGES: HashMap<EdgeKey, EdgeStats, 16384> = HashMap::new();

/// Zeros: what an entry of [`LOCKS`] begins with, too large for a program's stack.
#[btf_map]
pub static NO_WAITS: Array<LockStats, 1> = Array::new();

/// Written by the agent, read by every program.
#[btf_map]
pub static CONTROL: Array<Control, 1> = Array::new();

/// Where `snapshot` puts a record together. One snapshot at a time: the agent sees to it.
#[btf_map]
pub static SCRATCH: Array<Scratch, 1> = Array::new();

/// Where `memory` puts a record together; while a pass hangs it says whose memory it waits for. One pass at a
/// time.
#[btf_map]
pub static MEMORY: Array<MemoryRecord, 1> = Array::new();

/// Pids whose memory hung a pass lately: written by the agent, which takes them out again. Full, further ones
/// wait for a place.
#[btf_map]
pub static LEFT_ALONE: HashMap<u32, u32, 256> = HashMap::new();

/// When accounting began; 0 until the agent has attached every program.
#[inline(always)]
pub fn live_since_ns() -> u64 {
    match CONTROL.get(0) {
        // SAFETY: a valid map value; volatile because the agent writes it.
        Some(control) => unsafe { ptr::read_volatile(&raw const control.live_since_ns) },
        None => 0,
    }
}

/// Adds to a counter of this CPU's [`Totals`].
#[inline(always)]
pub fn count(add: impl FnOnce(&mut Totals)) {
    if let Some(totals) = TOTALS.get_ptr_mut(0) {
        // SAFETY: this CPU's own element. The programs that count do not migrate (tp_btf runs with migration
        // disabled); one that interrupts another on the same CPU may cost an increment of a diagnostic counter.
        add(unsafe { &mut *totals });
    }
}
