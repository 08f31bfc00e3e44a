//! Putting an event into the ring, or counting that it did not fit.

use aya_ebpf::btf_maps::RingBuf;
use aya_ebpf::helpers::generated::bpf_ringbuf_query;
use probe_ebpf::record::EventRecord;

use crate::maps::EVENTS;
use crate::task::Task;

/// `BPF_RB_NO_WAKEUP`: the agent polls ten times a second, …
const NO_WAKEUP: u64 = 1;
/// `BPF_RB_FORCE_WAKEUP`: … and is woken when this much has piled up. A wake-up per event would cost more than the
/// event, on both sides.
const FORCE_WAKEUP: u64 = 2;
const WAKEUP_BYTES: u64 = 512 << 10;
const BPF_RB_AVAIL_DATA: u64 = 0;

/// Flags for submitting the next record.
#[inline(always)]
pub fn submit_flags() -> u64 {
    let map = core::ptr::from_ref(&EVENTS).cast_mut().cast();
    // SAFETY: a valid ring.
    let available = unsafe { bpf_ringbuf_query(map, BPF_RB_AVAIL_DATA) };
    if available >= WAKEUP_BYTES {
        FORCE_WAKEUP
    } else {
        NO_WAKEUP
    }
}

/// Fills in a head and submits it. False if the ring was full.
#[inline(always)]
pub fn event(kind: u32, task: Task, other_tid: u32, now_ns: u64) -> bool {
    let Some(mut entry) = reserve::<EventRecord>() else {
        return false;
    };
    // SAFETY: reserved for exactly this type; every member is written.
    let record = unsafe { &mut *entry.as_mut_ptr() };
    fill(record, kind, task, other_tid, now_ns);
    entry.submit(submit_flags());
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
