//! The state machine of a ledger: what a switch does to the thread that leaves a CPU and to the one that gets it.
//!
//! ```text
//!            preempted                    woken
//!   running ───────────▶ runnable ◀──────────────── blocked (sleeping, uninterruptible, …)
//!      │  ◀─────────────────                            ▲
//!      │        gets a CPU                              │
//!      └────────────────────────────────────────────────┘
//!                 gives the CPU up
//! ```
//!
//! Intervals are closed here and nowhere else; the interval a thread is in is added by the reader. A wake-up is not
//! booked when it happens but when the thread gets a CPU (see [`probe_ebpf::ledger`]).

use core::ptr;

use probe_ebpf::histogram::{BUCKETS, bucket_of};
use probe_ebpf::ledger::{COMMON_STATES, HAS_RARE, Ledger, RARE_STATES};
use probe_ebpf::state::{STATES, State};

use crate::maps::{self, LEDGERS, Live, RARE};
use crate::task::Task;

/// Brackets an update so that a reader on another CPU notices it. The stores are volatile and thereby stay in program
/// order, which x86 keeps between CPUs; on weakly ordered machines a reader may miss one, which costs it a sample.
#[inline(always)]
pub fn bump(ledger: &mut Ledger) {
    let next = ledger.sequence.wrapping_add(1);
    // SAFETY: a valid reference.
    unsafe { ptr::write_volatile(&raw mut ledger.sequence, next) };
}

/// The thread's ledger, made if it has none yet. `None` if there is no memory for it, which is counted.
#[inline(always)]
pub fn ledger_of<'a>(task: Task) -> Option<&'a mut Ledger> {
    // SAFETY: null or a valid storage element with one writer (see `probe_ebpf::ledger`).
    let ledger = unsafe { LEDGERS.get_or_create(task).as_mut() };
    if ledger.is_none() {
        maps::count(|totals| totals.storage_failures += 1);
    }
    ledger
}

/// Opens an account that nobody has written yet, at `since_ns` or when the thread began, whichever is later: not every
/// thread comes with a fork event (`create_io_thread()` has none).
#[inline(always)]
pub fn open(ledger: &mut Ledger, task: Task, state: State, since_ns: u64) {
    let start_ns = task.monotonic_start_ns();
    let since_ns = if start_ns > since_ns { start_ns } else { since_ns };
    ledger.birth_tid = task.tid();
    ledger.birth_ns = since_ns;
    ledger.since_ns = since_ns;
    ledger.state = state as u8;
}

/// The index of the ledger's state, in bounds whatever the byte is.
///
/// Volatile: from an enum rustc would know the range and drop the mask, and the verifier, which does not know it,
/// would refuse the array access.
#[inline(always)]
fn state_index(ledger: &Ledger) -> usize {
    // SAFETY: a valid reference.
    usize::from(unsafe { ptr::read_volatile(&raw const ledger.state) }) & (STATES - 1)
}

/// Closes the interval in the state of that index at `end_ns` and makes `end_ns` the start of the next one.
#[inline(always)]
fn close(ledger: &mut Ledger, task: Task, index: usize, end_ns: u64) {
    let start_ns = ledger.since_ns;
    let duration = if end_ns < start_ns {
        maps::count(|totals| totals.clock_backwards += 1);
        0
    } else {
        ledger.since_ns = end_ns;
        end_ns - start_ns
    };
    if index >= STATES {
        return;
    }
    ledger.time_ns[index] += duration;
    let slot = index * BUCKETS + bucket_of(duration);
    if slot < COMMON_STATES * BUCKETS {
        let cells: *mut u32 = ledger.histogram.as_mut_ptr().cast();
        // SAFETY: `slot` is below the number of cells. Flat, because one bounds check is all the verifier needs.
        unsafe { *cells.add(slot) += 1 };
    } else {
        count_rare(ledger, task, slot - COMMON_STATES * BUCKETS);
    }
}

/// Counts an interval of a rare state, in a storage of its own.
#[inline(never)]
fn count_rare(ledger: &mut Ledger, task: Task, slot: usize) {
    // SAFETY: null or a valid storage element, written by this thread's switches only.
    let Some(rare) = (unsafe { RARE.get_or_create(task).as_mut() }) else {
        maps::count(|totals| totals.storage_failures += 1);
        return;
    };
    ledger.flags |= HAS_RARE;
    if slot < RARE_STATES * BUCKETS {
        let cells: *mut u32 = rare.histogram.as_mut_ptr().cast();
        // SAFETY: `slot` is below the number of cells.
        unsafe { *cells.add(slot) += 1 };
    }
}

/// Books the interval on the CPU that ends now.
///
/// A ledger that nobody has written belongs to a thread that has been on this CPU since before we were live. One that
/// says the thread is not on a CPU missed the switch that put it there: storage was busy, or the kernel did not trace
/// it. The kernel's own note of when the thread got the CPU makes up for it. False in that case.
#[inline(always)]
pub fn leave_cpu(ledger: &mut Ledger, task: Task, live: Live, now_ns: u64) -> bool {
    if ledger.birth_ns == 0 {
        open(ledger, task, State::Running, live.since_ns);
    }
    let expected = ledger.state == State::Running as u8;
    if !expected {
        enter_cpu(ledger, task, live, arrival_ns(ledger, task, live, now_ns));
    }
    close(ledger, task, State::Running.index(), now_ns);
    expected
}

/// When the thread on this CPU got it, by the scheduler's own note; without one, when it was last woken.
#[inline(always)]
fn arrival_ns(ledger: &Ledger, task: Task, live: Live, now_ns: u64) -> u64 {
    let noted_ns = task.last_arrival_ns();
    let arrival_ns = if noted_ns == 0 || live.scheduler_clock_offset == 0 {
        ledger.wake.at_ns
    } else {
        noted_ns.wrapping_add(live.scheduler_clock_offset)
    };
    let arrival_ns = if arrival_ns < ledger.since_ns {
        ledger.since_ns
    } else {
        arrival_ns
    };
    if arrival_ns > now_ns { now_ns } else { arrival_ns }
}

/// Books the wait that ends now: blocked until the wake-up, runnable from then on.
///
/// A thread whose wake-up was traced before its own switch-out was runnable all along: hence the later of the two.
/// False if the ledger had the thread on a CPU already, after a transition that could not be booked.
#[inline(always)]
pub fn enter_cpu(ledger: &mut Ledger, task: Task, live: Live, now_ns: u64) -> bool {
    if ledger.birth_ns == 0 {
        open(ledger, task, before_live(ledger), live.since_ns);
    }
    let index = state_index(ledger);
    if index > State::Runnable.index() {
        let woken_ns = ledger.wake.at_ns;
        let woken_ns = if woken_ns > now_ns { now_ns } else { woken_ns };
        let woken_ns = if woken_ns < ledger.since_ns {
            ledger.since_ns
        } else {
            woken_ns
        };
        close(ledger, task, index, woken_ns);
    }
    close(ledger, task, State::Runnable.index(), now_ns);
    ledger.state = State::Running as u8;
    index != State::Running.index()
}

/// What a thread was in when we went live, judged when it first gets a CPU: blocked if somebody had to wake it.
#[inline(always)]
fn before_live(ledger: &Ledger) -> State {
    if ledger.wake.at_ns == 0 {
        return State::Runnable;
    }
    match State::from_blocked_bits(ledger.wake.from_bits) {
        Some(state) => state,
        None => State::Runnable,
    }
}
