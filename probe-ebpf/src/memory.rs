//! `iter.s/task`: the pass over memory. One record for each open futex wait that the agent asks for: what the
//! memory at the futex says now.
//!
//! Memory of another process is read with `bpf_copy_from_user_task()` (5.18), which needs no privilege beyond
//! that of loading the program, and costs about a microsecond. It sleeps, and what it sleeps for is in the
//! hands of others: it takes the lock of the memory map (behind a writer), and it faults pages in (from a
//! FUSE server, from NFS). So this is a pass of its own, which the agent reads by a thread that may hang
//! while all else goes on; and what can be seen to hang is left out beforehand.

use core::ffi::c_void;
use core::ptr;

use aya_ebpf::bindings::task_struct;
use aya_ebpf::helpers::generated::{bpf_copy_from_user_task, bpf_find_vma, bpf_seq_write};
use probe_ebpf::ledger::{IN_FUTEX, Ledger};
use probe_ebpf::lock::{Expected, FutexWait, LIVE_BEFORE, LIVE_WORDS, LiveFutex, WORDS};
use probe_ebpf::record::{MEMORY_LEFT_ALONE, MEMORY_LOCKED, MEMORY_OF_FILE, MEMORY_READ, MemoryRecord};
use probe_ebpf::state::State;
use probe_ebpf::totals::{SNAPSHOT_FUTEXES, SNAPSHOT_OPEN_LEDGERS};
use probe_ebpf::waiting::{flag, futex_flags, op};

use crate::futex::{Listed, recognise};
use crate::iterator;
use crate::kernel::{has_copy_from_user_task, load, offset};
use crate::maps::{CONTROL, LEDGERS, LEFT_ALONE, MEMORY};
use crate::open_wait::{find_wait, noted_wait};
use crate::registers::has_registers;
use crate::task::Task;

#[unsafe(no_mangle)]
#[unsafe(link_section = "iter.s/task")]
extern "C" fn memory(ctx: *mut c_void) -> i32 {
    // SAFETY: what the kernel passes to a program of this section.
    let (seq, task) = unsafe { iterator::arguments(ctx) };
    if task.is_null() || !has_copy_from_user_task() {
        return 0;
    }
    let Some(control) = CONTROL.get(0) else { return 0 };
    let Some(record) = MEMORY.get_ptr_mut(0) else {
        return 0;
    };
    // SAFETY: the one element; one pass at a time.
    let record = unsafe { &mut *record };
    let task = Task::new(task);
    if !describe(task, control.snapshot, record) {
        return 0;
    }
    record.outcome = read(task, record);
    if record.outcome == MEMORY_READ && record.futex.flags & flag::FOUND != 0 {
        if let Some(words) = record.live.words_at() {
            record.futex.flags |= flag::READ;
            recognise(&mut record.futex, &words);
        }
        if control.snapshot & SNAPSHOT_OPEN_LEDGERS != 0 {
            keep(task, &record.futex);
        }
    }
    let bytes: *const MemoryRecord = record;
    // SAFETY: the whole element is valid.
    unsafe { bpf_seq_write(seq, bytes.cast_mut().cast(), size_of::<MemoryRecord>() as u32) };
    0
}

/// Fills in which wait it is; false if there is none, or none that the agent asks for.
#[inline(always)]
fn describe(task: Task, wanted: u64, record: &mut MemoryRecord) -> bool {
    let state_bits = task.state_bits();
    let sleeps =
        State::from_blocked_bits(state_bits).is_some_and(|state| state as u8 == State::Sleeping as u8);
    if !sleeps || !has_registers(task.flags()) {
        return false;
    }
    let noted = noted_wait(LEDGERS.get(task));
    match noted {
        Some(futex) => record.futex = futex,
        None => {
            if !find_wait(task, state_bits, task.on_cpu() != 0, &mut record.futex) {
                return false;
            }
        }
    }
    let futex = &record.futex;
    let asked = wanted & SNAPSHOT_FUTEXES != 0
        || noted.is_none()
        || may_name_owner(futex)
        || is_on_own_stack(task, futex);
    if !asked || futex.op == op::NONE {
        return false;
    }
    record.tid = task.tid();
    record.pid = task.pid();
    record.start_ns = task.start_ns();
    record.padding = 0;
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

/// Reads memory and registers; returns the outcome.
#[inline(always)]
fn read(task: Task, record: &mut MemoryRecord) -> u32 {
    let live = &mut record.live;
    live.valid = 0;
    live.padding = 0;
    let [ip, sp, bp] = task.registers().code();
    live.ip = ip;
    live.sp = sp;
    live.bp = bp;
    live.saved = task.registers().saved();
    if LEFT_ALONE.get_ptr(record.pid).is_some() {
        return MEMORY_LEFT_ALONE;
    }
    if task.is_map_locked() {
        return MEMORY_LOCKED;
    }
    let mut area = Area::default();
    if record.futex.op == op::WAITV && record.futex.flags & (flag::FOUND | flag::READ) == flag::FOUND {
        let outcome = find_area(task, record.futex.address, &mut area);
        if outcome != MEMORY_READ {
            return outcome;
        }
        if !find_first(task, &mut record.futex) {
            record.futex.op = op::NONE;
            return MEMORY_READ;
        }
    }
    let outcome = find_area(task, record.futex.address, &mut area);
    if outcome == MEMORY_READ {
        read_around(task, record.futex.address, &area, live);
    }
    outcome
}

/// A mapping: its addresses, and whether reading it may take for ever.
#[derive(Default)]
#[repr(C)]
struct Area {
    start: u64,
    end: u64,
    is_slow: u64,
}

/// Looks at the mapping of an address without waiting for the map's lock.
#[inline(always)]
fn find_area(task: Task, address: u64, area: &mut Area) -> u32 {
    const EBUSY: i64 = -16;
    area.start = 0;
    area.end = 0;
    // SAFETY: the callback has the signature that the helper asks for, and its context is an `Area`.
    let found = unsafe {
        bpf_find_vma(
            task.as_ptr(),
            address,
            note_area as *mut c_void,
            ptr::from_mut(area).cast(),
            0,
        )
    };
    if found == EBUSY {
        return MEMORY_LOCKED;
    }
    if area.is_slow != 0 {
        MEMORY_OF_FILE
    } else {
        MEMORY_READ
    }
}

/// What [`find_area`] learns of the mapping. The kernel calls static functions only: its name stays inside
/// the crate.
#[inline(never)]
extern "C" fn note_area(_task: *mut task_struct, vma: *const c_void, area: *mut Area) -> i64 {
    let file: *const c_void = load(vma, offset!(vma_file));
    // SAFETY: the helper passes on the pointer to the caller's `Area`.
    let area = unsafe { &mut *area };
    area.start = load(vma, offset!(vma_start));
    area.end = load(vma, offset!(vma_end));
    area.is_slow = u64::from(!file.is_null() && is_slow(file));
    0
}

/// Whether a file's pages may not come: all file systems but those of memory, and of disks of this host. A
/// disk may hang too, but then with much else on the host; the agent's deadline is for that.
#[inline(always)]
fn is_slow(file: *const c_void) -> bool {
    // include/uapi/linux/magic.h. These have no `s_bdev`, or one that says nothing.
    const TMPFS: u64 = 0x0102_1994;
    const RAMFS: u64 = 0x8584_58f6;
    const HUGETLBFS: u64 = 0x9584_58f6;
    const BTRFS: u64 = 0x9123_683e;
    const ZFS: u64 = 0x2fc1_2fc1;
    const FUSE: u64 = 0x6573_5546;
    let inode: *const c_void = load(file, offset!(file_inode));
    let sb: *const c_void = load(inode, offset!(inode_sb));
    let magic: u64 = load(sb, offset!(sb_magic));
    if magic == TMPFS || magic == RAMFS || magic == HUGETLBFS || magic == BTRFS || magic == ZFS {
        return false;
    }
    let disk: u64 = load(sb, offset!(sb_bdev));
    disk == 0 || magic == FUSE
}

/// Reads the first of the futexes that `futex_waitv` lists; false if that cannot be.
#[inline(always)]
fn find_first(task: Task, futex: &mut FutexWait) -> bool {
    const WORDS_LISTED: usize = size_of::<Listed>() / 4;
    let mut words = [0_u32; WORDS_LISTED];
    if !copy(task, words.as_mut_ptr(), (WORDS_LISTED * 4) as u32, futex.address) {
        return false;
    }
    // The members of `struct futex_waitv`, in halves.
    futex.value = words[0];
    futex.address = u64::from(words[2]) | u64::from(words[3]) << 32;
    futex.flags |= futex_flags(u64::from(words[4])) | flag::READ;
    true
}

/// Gives the wait to a ledger that has not seen a switch, so that its end is booked like any other's.
#[inline(always)]
fn keep(task: Task, futex: &FutexWait) {
    let ledger: *mut Ledger = LEDGERS.get(task);
    // SAFETY: null or a valid storage element. `sched_switch` may be opening the account at the same moment:
    // then the wait is over, and one that never was may be booked, once.
    if let Some(ledger) = unsafe { ledger.as_mut() }
        && ledger.birth_ns == 0
        && futex.op != op::NONE
    {
        ledger.futex = *futex;
        ledger.blocked_on = task.blocked_on(task.flags());
        ledger.flags |= IN_FUTEX;
    }
}

/// Reads the memory around a futex word, within its mapping; or the word alone where that is all there is.
#[inline(always)]
fn read_around(task: Task, address: u64, area: &Area, live: &mut LiveFutex) {
    const ALL: u32 = (LIVE_WORDS * 4) as u32;
    const REST: u32 = ALL - LIVE_BEFORE as u32;
    const FORWARD: u32 = (WORDS * 4) as u32;
    const AT: usize = (LIVE_BEFORE / 4) as usize;
    let first = address.wrapping_sub(LIVE_BEFORE);
    let room = area.end.wrapping_sub(address);
    let whole = first >= area.start && area.end.wrapping_sub(first) >= u64::from(ALL) && room <= area.end;
    if whole && copy(task, live.words.as_mut_ptr(), ALL, first) {
        live.valid = ALL;
    } else if room >= u64::from(REST) && copy(task, &raw mut live.words[AT], REST, address) {
        live.valid = REST;
        // The first thing in its mapping, as locks in shared memory often are: the word need not be the first
        // of the lock. The number of words is one that the verifier knows in each round.
        let mut before = AT - 1;
        while before > 0 {
            let bytes = 4 * before as u32;
            let first = address.wrapping_sub(u64::from(bytes));
            if first >= area.start && copy(task, &raw mut live.words[AT - before], bytes, first) {
                live.valid = REST + bytes;
                break;
            }
            before -= 1;
        }
    } else if room >= u64::from(FORWARD) && copy(task, &raw mut live.words[AT], FORWARD, address) {
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
            ptr::with_exposed_provenance_mut::<c_void>(address as usize),
            task.as_ptr(),
            0,
        ) == 0
    }
}
