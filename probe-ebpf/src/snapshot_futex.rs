//! The part of a snapshot that is about futex waits: what a thread waits for that nobody saw begin, and what the memory at
//! a futex says now.
//!
//! Memory of another process is read with `bpf_copy_from_user_task()` (5.18), which may sleep and needs no privilege beyond
//! that of loading the program. It costs about a microsecond, so it is done for those waits alone that the agent asks for.

use core::ptr;

use aya_ebpf::helpers::generated::bpf_copy_from_user_task;
use probe_ebpf::ledger::{IN_FUTEX, Ledger};
use probe_ebpf::lock::{Expected, FutexWait, LIVE_BEFORE, LIVE_WORDS, LiveFutex, WORDS};
use probe_ebpf::offsets::ABSENT;
use probe_ebpf::record::{ON_CPU, Scratch, TaskRecord};
use probe_ebpf::state::State;
use probe_ebpf::totals::{SNAPSHOT_FUTEXES, SNAPSHOT_OPEN_LEDGERS, SNAPSHOT_OWNERS};
use probe_ebpf::waiting::{Class, RESTART, flag, futex_flags, op};

use crate::futex::{Listed, class_of, decode_wait, recognise};
use crate::kernel::{has_copy_from_user_task, load, offset};
use crate::task::Task;

/// Fills in the record's futex wait; true if what memory says now is in [`Scratch::live`].
#[inline(always)]
pub fn read(task: Task, ledger: *mut Ledger, wanted: u64, scratch: &mut Scratch) -> bool {
    // SAFETY: null or a valid storage element for the duration of the program.
    let noted = unsafe { ledger.as_ref() }.is_some_and(|ledger| ledger.flags & IN_FUTEX != 0);
    if noted {
        // SAFETY: not null, see above. `sched_switch` may be writing: `parse` tells by the ledger's own copy.
        scratch.task.futex = unsafe { (*ledger).futex };
    } else if !find(task, &mut scratch.task) {
        return false;
    }
    let futex = scratch.task.futex;
    let asked = wanted & SNAPSHOT_FUTEXES != 0
        || (wanted & SNAPSHOT_OWNERS != 0
            && (!noted || may_name_owner(&futex) || is_on_own_stack(task, &futex)));
    if !has_copy_from_user_task() || !asked || futex.op == op::NONE {
        return false;
    }
    let live = &mut scratch.live;
    read_around(task, futex.address, live);
    let [ip, sp, bp] = task.registers().code();
    live.ip = ip;
    live.sp = sp;
    live.bp = bp;
    live.saved = task.registers().saved();
    if !noted {
        if let Some(words) = live.words_at() {
            scratch.task.futex.flags |= flag::READ;
            recognise(&mut scratch.task.futex, &words);
        }
        if wanted & SNAPSHOT_OPEN_LEDGERS != 0 {
            keep(ledger, &scratch.task);
        }
    }
    true
}

/// Whether memory may name an owner: those who wait for a lock that has one, and not the many that idle at a
/// condition variable, a semaphore or a parker (0, 1, all ones), expect something else.
#[inline(always)]
fn may_name_owner(futex: &FutexWait) -> bool {
    let idle = futex.expected == Expected::Zero as u8
        || futex.expected == Expected::One as u8
        || futex.expected == Expected::AllOnes as u8;
    futex.owner != 0 || futex.op == op::LOCK_PI || (!idle && futex.flags & flag::TIMED == 0)
}

/// Whether the word lies on the waiter's own stack: where `pthread_mutex_lock()` sleeps for ever after the
/// kernel has refused a priority-inheriting mutex.
#[inline(always)]
fn is_on_own_stack(task: Task, futex: &FutexWait) -> bool {
    const NEAR: u64 = 4096;
    futex.address.wrapping_sub(task.registers().sp()) < NEAR
}

/// Tells by its registers what a blocked thread waits in; false if it is no futex.
#[inline(always)]
fn find(task: Task, record: &mut TaskRecord) -> bool {
    let Some(state) = State::from_blocked_bits(record.facts.state_bits) else {
        return false;
    };
    if record.flags & ON_CPU != 0 {
        return false;
    }
    let restarted = class_of(record.blocked_on.syscall) == RESTART && is_futex_restart(task);
    if (record.futex.class != Class::Futex as u8 && !restarted) || state as u8 != State::Sleeping as u8 {
        return false;
    }
    record.futex = decode_wait(&record.blocked_on, task.registers());
    if restarted {
        record.futex.flags |= flag::TIMED;
    }
    record.futex.class = Class::Futex as u8;
    record.futex.flags |= flag::FOUND;
    record.futex.expected = Expected::of(record.futex.value) as u8;
    if record.futex.op == op::WAITV && !find_first(task, &mut record.futex) {
        record.futex.op = op::NONE;
    }
    record.futex.op != op::NONE
}

/// Whether `restart_syscall(2)`, into which a stop turned a call with a timeout, goes on with a futex wait.
///
/// The first arguments of the call are still in their registers. `restart_block` is a union with those of
/// `poll` and `nanosleep` (include/linux/restart_block.h): address, value and the bitset, which
/// `futex_wait()` sets to all ones, tell them apart.
#[inline(always)]
fn is_futex_restart(task: Task) -> bool {
    if offset!(restart_futex_address) == ABSENT {
        return false;
    }
    let block = task.as_ptr().cast();
    let regs = task.registers();
    load::<u64>(block, offset!(restart_futex_address)) == regs.arg0()
        && load::<u32>(block, offset!(restart_futex_value)) == regs.arg2() as u32
        && load::<u32>(block, offset!(restart_futex_bitset)) == u32::MAX
}

/// Reads the first of the futexes that `futex_waitv` lists; false if that cannot be.
#[inline(always)]
fn find_first(task: Task, futex: &mut FutexWait) -> bool {
    const WORDS_LISTED: usize = size_of::<Listed>() / 4;
    let mut words = [0_u32; WORDS_LISTED];
    if !has_copy_from_user_task() || !copy(task, words.as_mut_ptr(), (WORDS_LISTED * 4) as u32, futex.address)
    {
        return false;
    }
    // The members of `struct futex_waitv`, in halves.
    futex.value = words[0];
    futex.address = u64::from(words[2]) | u64::from(words[3]) << 32;
    futex.flags |= futex_flags(u64::from(words[4]));
    true
}

/// Gives the wait to a ledger that has not seen a switch, so that its end is booked like any other's.
#[inline(always)]
fn keep(ledger: *mut Ledger, record: &TaskRecord) {
    // SAFETY: null or a valid storage element. `sched_switch` may be opening the account at the same moment: then the wait
    // is over, and one that never was may be booked, once.
    if let Some(ledger) = unsafe { ledger.as_mut() }
        && ledger.birth_ns == 0
    {
        ledger.futex = record.futex;
        ledger.blocked_on = record.blocked_on;
        ledger.flags |= IN_FUTEX;
    }
}

/// Reads the memory around a futex word, or the word alone where that is all there is.
#[inline(always)]
fn read_around(task: Task, address: u64, live: &mut LiveFutex) {
    const ALL: u32 = (LIVE_WORDS * 4) as u32;
    const FORWARD: u32 = (WORDS * 4) as u32;
    const AT: usize = (LIVE_BEFORE / 4) as usize;
    live.valid = 0;
    live.padding = 0;
    if copy(
        task,
        live.words.as_mut_ptr(),
        ALL,
        address.wrapping_sub(LIVE_BEFORE),
    ) {
        live.valid = ALL;
    } else if copy(task, &raw mut live.words[AT], FORWARD, address) {
        // The first thing in its mapping, as locks in shared memory often are.
        live.valid = FORWARD;
    } else if copy(task, &raw mut live.words[AT], 4, address) {
        live.valid = 4;
    }
}

#[inline(always)]
fn copy(task: Task, into: *mut u32, bytes: u32, address: u64) -> bool {
    // SAFETY: the caller's pointer is valid for `bytes` bytes; the helper checks the address.
    unsafe {
        bpf_copy_from_user_task(
            into.cast(),
            bytes,
            ptr::with_exposed_provenance_mut::<core::ffi::c_void>(address as usize),
            task.as_ptr(),
            0,
        ) == 0
    }
}
