//! `iter.s/task`: the read path. One record per thread, zombies included, as a byte stream that the agent reads.
//!
//! Sleepable, so that storage can be allocated here instead of in the hot path. It waits for nothing that a
//! process can hold up: memory of others is read in a pass of its own, see `memory.rs`. The record is put
//! together in one map element, so there is one snapshot at a time. When the stream's buffer is full the
//! kernel calls the program again for the same thread; nothing here minds.

use core::ffi::c_void;
use core::ptr;

use aya_ebpf::helpers::generated::{bpf_ktime_get_ns, bpf_seq_write};
use probe_ebpf::ledger::{HAS_RARE, LEDGER_HEAD, LEDGER_SIZE, Ledger, RareLedger};
use probe_ebpf::lock::FutexWait;
use probe_ebpf::record::{
    EXECUTED, FROZEN, HISTOGRAMS, LEDGER, MAP_KNOWN, MAP_LOCKED, ON_CPU, RARE as RARE_FOLLOWS, READ_ATTEMPTS,
    Scratch, TORN, TaskRecord,
};
use probe_ebpf::state::State;
use probe_ebpf::totals::{SNAPSHOT_HISTOGRAMS, SNAPSHOT_OPEN_LEDGERS};
use probe_ebpf::waiting::Class;

use crate::futex::{class_of, settle};
use crate::iterator;
use crate::maps::{CONTROL, LEDGERS, RARE, SCRATCH};
use crate::open_wait::{find_wait, noted_wait};
use crate::registers::has_registers;
use crate::task::Task;

#[unsafe(no_mangle)]
#[unsafe(link_section = "iter.s/task")]
extern "C" fn snapshot(ctx: *mut c_void) -> i32 {
    // SAFETY: what the kernel passes to a program of this section.
    let (seq, task) = unsafe { iterator::arguments(ctx) };
    if task.is_null() {
        return 0;
    }
    let Some(control) = CONTROL.get(0) else { return 0 };
    let Some(scratch) = SCRATCH.get_ptr_mut(0) else {
        return 0;
    };
    // SAFETY: the one element; one snapshot at a time.
    let scratch = unsafe { &mut *scratch };
    let task = Task::new(task);
    let wanted = control.snapshot;
    // First, so that its cache misses and those of the task are waited for together: reading the clock waits for both.
    let mut ledger = LEDGERS.get(task);
    let says_nothing = is_silent(ledger, task);
    read_task(task, &mut scratch.task);
    if wanted & SNAPSHOT_OPEN_LEDGERS != 0 {
        ledger = open_ledger(task, &scratch.task);
    }
    let mut size = size_of::<TaskRecord>();
    if !says_nothing {
        size += read_ledger(task, ledger, wanted, scratch);
    }
    note_futex(task, ledger, &mut scratch.task);
    let Ok(bytes) = u32::try_from(size) else { return 0 };
    scratch.task.size = bytes;
    if size <= size_of::<Scratch>() {
        // SAFETY: `size` bytes of the map element are valid.
        unsafe { bpf_seq_write(seq, ptr::from_ref(scratch).cast(), bytes) };
    }
    0
}

/// Fills in the record's futex wait, as it began or as the registers show it.
#[inline(always)]
fn note_futex(task: Task, ledger: *const Ledger, record: &mut TaskRecord) {
    if let Some(noted) = noted_wait(ledger) {
        record.futex = noted;
        return;
    }
    let on_cpu = record.flags & ON_CPU != 0;
    find_wait(task, record.facts.state_bits, on_cpu, &mut record.futex);
}

#[inline(always)]
fn read_task(task: Task, record: &mut TaskRecord) {
    record.flags = if task.on_cpu() != 0 { ON_CPU } else { 0 };
    record.exec_start_ns = task.exec_start_ns();
    record.last_arrival_ns = task.last_arrival_ns();
    record.last_queued_ns = task.last_queued_ns();
    record.lifetime_running_ns = task.lifetime_running_ns();
    record.lifetime_runnable_ns = task.lifetime_runnable_ns();
    if task.is_frozen() {
        record.flags |= FROZEN;
    }
    if task.has_executed() {
        record.flags |= EXECUTED;
    }
    task.read_facts(&mut record.facts);
    record.blocked_on = task.blocked_on(record.facts.task_flags);
    record.futex = FutexWait::default();
    record.futex.class = class_now(record);
    record.space = 0;
    record.sp = 0;
    record.clear_child_tid = 0;
    if has_registers(record.facts.task_flags) {
        record.space = task.space();
        record.sp = task.registers().sp();
        record.clear_child_tid = task.clear_child_tid();
        if task.knows_map_lock() {
            record.flags |= map_lock(task, record.facts.state_bits);
        }
    }
    // SAFETY: no arguments, no failure.
    record.now_ns = unsafe { bpf_ktime_get_ns() };
}

/// The state of the memory map's lock, where it matters: beside a thread in uninterruptible sleep. For the
/// others it would be a cache line of every process of the host.
#[inline(always)]
fn map_lock(task: Task, state_bits: u32) -> u32 {
    let asleep =
        State::from_blocked_bits(state_bits).is_some_and(|state| state as u8 == State::Uninterruptible as u8);
    if !asleep {
        return 0;
    }
    if task.is_map_locked() {
        MAP_LOCKED
    } else {
        MAP_KNOWN
    }
}

/// What the thread waits in, or did until it was woken just now.
#[inline(always)]
fn class_now(record: &TaskRecord) -> u8 {
    if record.flags & FROZEN != 0 && record.blocked_on.syscall < 0 {
        return Class::Other as u8;
    }
    let state = match State::from_blocked_bits(record.facts.state_bits) {
        Some(state) => state,
        None => State::Sleeping,
    };
    settle(
        class_of(record.blocked_on.syscall),
        state,
        record.facts.task_flags,
    )
}

/// Whether a ledger has nothing to say: there is none, or nobody has counted anything yet for a thread that has not switched,
/// as most threads of most hosts, and it was not woken either, and has not waited.
///
/// Of a thread that is blocked nobody need ask whether it was woken: the wake-up lies in a cache line of its own, which would have
/// to come from memory for every sleeping thread of the host.
#[inline(always)]
fn is_silent(ledger: *const Ledger, task: Task) -> bool {
    // SAFETY: null or a valid storage element for the duration of the program. Volatile, so that they are read here.
    ledger.is_null()
        || unsafe {
            ptr::read_volatile(&raw const (*ledger).birth_ns) == 0
                && ptr::read_volatile(&raw const (*ledger).last_wait_ns) == 0
                && (State::from_blocked_bits(task.state_bits()).is_some()
                    || ptr::read_volatile(&raw const (*ledger).wake.at_ns) == 0)
        }
}

/// Makes a ledger for a thread that has none and notes what the thread is in: when it first switches, that is where its
/// account begins.
#[inline(always)]
fn open_ledger(task: Task, record: &TaskRecord) -> *mut Ledger {
    let ledger = LEDGERS.get_or_create(task);
    // SAFETY: null or a valid storage element. `sched_switch` may be opening the account at the same moment, but does not
    // write these fields, and does not read them later on.
    if let Some(ledger) = unsafe { ledger.as_mut() }
        && ledger.birth_ns == 0
    {
        ledger.found_running_ns = record.lifetime_running_ns;
        ledger.found_runnable_ns = record.lifetime_runnable_ns;
        let state = if record.flags & ON_CPU != 0 {
            State::Running
        } else if record.flags & FROZEN != 0 {
            State::Stopped
        } else {
            match State::from_blocked_bits(record.facts.state_bits) {
                Some(state) => state,
                None => State::Runnable,
            }
        };
        ledger.found_state = state as u8 + 1;
        ledger.futex.class = record.futex.class;
    }
    ledger
}

/// Copies the thread's ledger behind the fixed part; returns how many bytes of it.
#[inline(always)]
fn read_ledger(task: Task, source: *const Ledger, wanted: u64, scratch: &mut Scratch) -> usize {
    if source.is_null() {
        return 0;
    }
    // SAFETY: a valid storage element for the duration of the program.
    let is_written = unsafe { (*source).birth_ns != 0 };
    let full = is_written && wanted & SNAPSHOT_HISTOGRAMS != 0;
    let consistent = copy_ledger(task, source, full, scratch);
    if !consistent {
        scratch.task.flags |= TORN;
        return 0;
    }
    scratch.task.flags |= LEDGER;
    if !full {
        return LEDGER_HEAD;
    }
    scratch.task.flags |= HISTOGRAMS;
    if scratch.ledger.flags & HAS_RARE == 0 {
        return LEDGER_SIZE;
    }
    let rare = RARE.get(task);
    if rare.is_null() {
        return LEDGER_SIZE;
    }
    copy(
        rare.cast(),
        (&raw mut scratch.rare).cast(),
        size_of::<RareLedger>(),
    );
    scratch.task.flags |= RARE_FOLLOWS;
    LEDGER_SIZE + size_of::<RareLedger>()
}

/// Copies a ledger that `sched_switch` may be writing: again if it was, up to [`READ_ATTEMPTS`] times.
///
/// The time is taken inside the bracket: an open interval must not end before it began.
#[inline(always)]
fn copy_ledger(task: Task, source: *const Ledger, full: bool, scratch: &mut Scratch) -> bool {
    let target: *mut u64 = (&raw mut scratch.ledger).cast();
    for _ in 0..READ_ATTEMPTS {
        // SAFETY: a valid storage element for the duration of the program.
        let before = unsafe { ptr::read_volatile(&raw const (*source).sequence) };
        copy(source.cast(), target, LEDGER_HEAD);
        if full {
            // SAFETY: both pointers stay inside their ledgers.
            let (from, to) = unsafe {
                (
                    source.cast::<u64>().add(LEDGER_HEAD / 8),
                    target.add(LEDGER_HEAD / 8),
                )
            };
            copy(from, to, LEDGER_SIZE - LEDGER_HEAD);
        }
        // SAFETY: no arguments, no failure.
        scratch.task.now_ns = unsafe { bpf_ktime_get_ns() };
        scratch.task.facts.state_bits = task.state_bits();
        scratch.task.facts.voluntary = task.voluntary();
        scratch.task.facts.involuntary = task.involuntary();
        // SAFETY: as above.
        let after = unsafe { ptr::read_volatile(&raw const (*source).sequence) };
        if before == after && before & 1 == 0 {
            return true;
        }
    }
    false
}

#[inline(always)]
fn copy(from: *const u64, to: *mut u64, bytes: usize) {
    for word in 0..bytes / 8 {
        // SAFETY: the caller's pointers are valid for `bytes` bytes, aligned to 8.
        unsafe { ptr::write_volatile(to.add(word), ptr::read_volatile(from.add(word))) };
    }
}
