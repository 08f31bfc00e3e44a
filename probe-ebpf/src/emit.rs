//! Putting an event into the ring, or counting that it did not fit.

use aya_ebpf::btf_maps::RingBuf;
use probe_ebpf::record::EventRecord;

use crate::maps::EVENTS;
use crate::task::Task;

/// `BPF_RB_NO_WAKEUP`: the agent looks at the ring on its own time. A wake-up per event would cost more than the event,
/// on both sides.
pub const NO_WAKEUP: u64 = 1;

/// Fills in a head and submits it. False if the ring was full.
#[inline(always)]
pub fn event(kind: u32, task: Task, other_tid: u32, now_ns: u64) -> bool {
    let Some(mut entry) = reserve::<EventRecord>() else {
        return false;
    };
    // SAFETY: reserved for exactly this type; every member is written.
    let record = unsafe { &mut *entry.as_mut_ptr() };
    fill(record, kind, task, other_tid, now_ns);
    entry.submit(NO_WAKEUP);
    true
}

/// Writes every member of a head.
#[inline(always)]
pub fn fill(record: &mut EventRecord, kind: u32, task: Task, other_tid: u32, now_ns: u64) {
    record.kind = kind;
    record.other_tid = other_tid;
    record.at_ns = now_ns;
    task.read_facts(&mut record.facts);
}

/// Room for a record of type `T`.
#[inline(always)]
pub fn reserve<T: 'static>() -> Option<aya_ebpf::maps::ring_buf::RingBufEntry<T>> {
    let ring: &RingBuf<u8, { 8 << 20 }> = &EVENTS;
    ring.reserve_untyped::<T>(0)
}
