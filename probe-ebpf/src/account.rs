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
//! Time is booked by the turn, when the thread leaves the CPU (see [`Ledger`]). How long the turn was is ours to say; how
//! it divides is the kernel's: it counts the time of every thread on a CPU and in a run queue, and those counts are what
//! `/proc/PID/schedstat` shows. They are right even where a switch or a wake-up was not traced, and they differ from the
//! time stamps of the tracepoints: a thread that wakes an idle CPU counts as running from the wake-up on, since the
//! scheduler does not look at the clock again before it picks it (`wakeup_preempt()` calls `rq_clock_skip_update()`).
//!
//! The histograms go by the time stamps, as those of other tools do: what a wait felt like is not divided.

use core::ptr;

use probe_ebpf::histogram::{BUCKETS, bucket_of};
use probe_ebpf::ledger::{COMMON_STATES, HAS_RARE, Ledger, RARE_STATES};
use probe_ebpf::state::{STATES, State};
use probe_ebpf::waiting::{CLASSES, Class};

use crate::maps::{self, LEDGERS, RARE};
use crate::task::Task;

/// Brackets an update so that a reader on another CPU notices it. The stores are volatile and thereby stay in program
/// order, which x86 keeps between CPUs; on weakly ordered machines a reader may miss one, which costs it a sample.
#[inline(always)]
pub fn bump(ledger: &mut Ledger) {
    let next = ledger.sequence.wrapping_add(1);
    // SAFETY: a valid reference.
    unsafe { ptr::write_volatile(&raw mut ledger.sequence, next) };
}

/// The thread's ledger, made if it has none yet. `None` if there is no memory for it, which is counted, or if we are not
/// live.
#[inline(always)]
pub fn ledger_of<'a>(task: Task) -> Option<&'a mut Ledger> {
    let mut ledger = LEDGERS.get(task);
    if ledger.is_null() {
        ledger = make_ledger(task);
    }
    // SAFETY: null or a valid storage element with one writer (see `probe_ebpf::ledger`).
    unsafe { ledger.as_mut() }
}

/// Out of the way: once in the life of a thread.
#[cold]
#[inline(always)]
fn make_ledger(task: Task) -> *mut Ledger {
    if maps::live_since_ns() == 0 {
        return ptr::null_mut();
    }
    let ledger = LEDGERS.get_or_create(task);
    if ledger.is_null() {
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
    ledger.kernel_running_ns = task.lifetime_running_ns();
    ledger.kernel_runnable_ns = task.lifetime_runnable_ns();
    begin_turn(ledger, state, since_ns);
}

/// Opens the account of a thread that is older than the programs, at its first switch. False if we are not live yet.
///
/// Usually the first snapshot has found it before: then its state and the kernel's counts at that moment are known.
/// Otherwise `guess` has to do.
#[cold]
#[inline(always)]
fn open_old(ledger: &mut Ledger, task: Task, guess: impl FnOnce(&Ledger, u64) -> State) -> bool {
    let live_since_ns = maps::live_since_ns();
    if live_since_ns == 0 {
        return false;
    }
    let guess = guess(ledger, live_since_ns);
    bump(ledger);
    open(ledger, task, guess, live_since_ns);
    if ledger.found_state != 0 {
        ledger.off_state = ledger.found_state - 1;
        ledger.kernel_running_ns = ledger.found_running_ns;
        ledger.kernel_runnable_ns = ledger.found_runnable_ns;
    }
    bump(ledger);
    true
}

/// Begins a turn in `state`.
#[inline(always)]
pub fn begin_turn(ledger: &mut Ledger, state: State, now_ns: u64) {
    ledger.state = state as u8;
    ledger.off_state = state as u8;
    ledger.turn_ns = now_ns;
    ledger.since_ns = now_ns;
    ledger.woken_ns = 0;
}

/// A thread that leaves the CPU outside of any system call waits for a page, or the freezer of its cgroup
/// holds it: then it is stopped, whatever state the kernel has it in. Out of line, and not asked of threads
/// in system calls, which most are.
#[inline(never)]
pub fn hold_if_frozen(ledger: &mut Ledger, task: Task) {
    if task.is_frozen() {
        ledger.state = State::Stopped as u8;
        ledger.off_state = State::Stopped as u8;
        ledger.futex.class = Class::Other as u8;
    }
}

/// The thread gets a CPU.
///
/// The wake-up is noted here and not when it happens, since it may be traced before the thread's own switch-out; the note
/// of one that is older than the turn means nothing. A later one may overwrite it while the thread runs.
#[inline(always)]
pub fn enter_cpu(ledger: &mut Ledger, task: Task, now_ns: u64) {
    if ledger.birth_ns == 0 && !open_old(ledger, task, before_live) {
        return;
    }
    bump(ledger);
    let woken_ns = ledger.wake.at_ns;
    ledger.woken_ns = if woken_ns < ledger.turn_ns { 0 } else { woken_ns };
    ledger.since_ns = now_ns;
    ledger.state = State::Running as u8;
    bump(ledger);
}

/// What a thread was in when we went live, judged when it first gets a CPU: blocked if somebody had to wake it.
#[inline(always)]
fn before_live(ledger: &Ledger, live_since_ns: u64) -> State {
    if ledger.wake.at_ns < live_since_ns {
        return State::Runnable;
    }
    match State::from_blocked_bits(ledger.wake.from_bits) {
        Some(state) => state,
        None => State::Runnable,
    }
}

/// How a turn divides, in nanoseconds; the rest was spent in [`Ledger::off_state`].
struct Turn {
    running: u64,
    runnable: u64,
}

/// Sees to it that the thread that leaves the CPU has an account that goes back to its last switch-out.
///
/// A ledger that nobody has written belongs to a thread that has been on this CPU since before we were live: its turn is
/// all "off state", which is running. False if we are not live yet.
#[inline(always)]
pub fn ensure_open(ledger: &mut Ledger, task: Task) -> bool {
    ledger.birth_ns != 0 || open_old(ledger, task, |_, _| State::Running)
}

/// The thread leaves the CPU: books the turn that ends now. The caller begins the next one.
///
/// If the switch that put it on the CPU was missed: when that was, by the kernel's counts.
#[inline(always)]
pub fn leave_cpu(ledger: &mut Ledger, task: Task, now_ns: u64) -> Option<u64> {
    let missed = ledger.state != State::Running as u8;
    if now_ns < ledger.turn_ns {
        maps::count(|totals| totals.clock_backwards += 1);
        return missed.then_some(now_ns);
    }
    let off = off_index(ledger);
    let span_ns = now_ns - ledger.turn_ns;
    let turn = divide(ledger, task, off, span_ns);
    let rest_ns = span_ns - turn.running - turn.runnable;
    ledger.time_ns[State::Running.index()] += turn.running;
    ledger.time_ns[State::Runnable.index()] += turn.runnable;
    ledger.time_ns[off] += rest_ns;
    if off == State::Sleeping.index() || off == State::Uninterruptible.index() {
        book_class(ledger, rest_ns);
    }
    count_stays(ledger, task, off, &turn, now_ns);
    missed.then_some(now_ns - turn.running)
}

/// Books time blocked to what the thread waited in.
#[inline(always)]
fn book_class(ledger: &mut Ledger, blocked_ns: u64) {
    // SAFETY: a valid reference. Volatile, so that the bounds check below is kept for the verifier.
    let class = usize::from(unsafe { ptr::read_volatile(&raw const ledger.futex.class) });
    if class < CLASSES {
        ledger.blocked_ns[class] += blocked_ns;
    }
}

/// Divides a turn by the kernel's counts, which cannot make it longer than it was, and notes how far they are booked.
///
/// What the kernel has counted and this turn had no room for is left for the next: its clock is read a little earlier than
/// ours, so that with 100,000 turns a second the difference would add up to several percent.
#[inline(always)]
fn divide(ledger: &mut Ledger, task: Task, off: usize, span_ns: u64) -> Turn {
    let counted_ns = task.lifetime_running_ns();
    let running = at_most(counted_ns.wrapping_sub(ledger.kernel_running_ns), span_ns);
    ledger.kernel_running_ns += running;
    let rest_ns = span_ns - running;
    let counted_ns = task.lifetime_runnable_ns();
    if off <= State::Runnable.index() {
        // Off the CPU without being blocked is runnable: the rest is booked so. Never ahead of the kernel: a CPU hog's
        // small surplus would be held against its next wait.
        let rest_ns = if off == State::Runnable.index() {
            rest_ns
        } else {
            0
        };
        ledger.kernel_runnable_ns = at_most(ledger.kernel_runnable_ns.wrapping_add(rest_ns), counted_ns);
        return Turn { running, runnable: 0 };
    }
    let runnable = if counted_ns != u64::MAX {
        counted_ns.wrapping_sub(ledger.kernel_runnable_ns)
    } else if ledger.woken_ns == 0 {
        // Woken before its own switch-out was traced.
        span_ns
    } else {
        ledger.since_ns - ledger.woken_ns
    };
    let runnable = at_most(runnable, rest_ns);
    ledger.kernel_runnable_ns = ledger.kernel_runnable_ns.wrapping_add(runnable);
    Turn { running, runnable }
}

/// Counts the stays of a turn by their time stamps; what was not traced is taken from the division.
#[inline(always)]
fn count_stays(ledger: &mut Ledger, task: Task, off: usize, turn: &Turn, now_ns: u64) {
    let begin_ns = ledger.turn_ns;
    let entered_ns = if off == State::Running.index() {
        begin_ns
    } else if ledger.state == State::Running as u8 {
        between(begin_ns, ledger.since_ns, now_ns)
    } else {
        now_ns - turn.running
    };
    count_stay(ledger, task, State::Running.index(), now_ns - entered_ns);
    if off == State::Running.index() {
        return;
    }
    let mut off_ns = entered_ns - begin_ns;
    if off != State::Runnable.index() {
        let woken_ns = if ledger.woken_ns != 0 {
            ledger.woken_ns
        } else {
            entered_ns.wrapping_sub(turn.runnable)
        };
        let woken_ns = between(begin_ns, woken_ns, entered_ns);
        count_stay(ledger, task, State::Runnable.index(), entered_ns - woken_ns);
        off_ns = woken_ns - begin_ns;
    }
    count_stay(ledger, task, off, off_ns);
}

#[inline(always)]
fn at_most(value: u64, most: u64) -> u64 {
    if value > most { most } else { value }
}

#[inline(always)]
fn between(least: u64, value: u64, most: u64) -> u64 {
    if value < least {
        least
    } else {
        at_most(value, most)
    }
}

/// The index of the off state, in bounds whatever the byte is.
///
/// Volatile: from an enum rustc would know the range and drop the mask, and the verifier, which does not know it,
/// would refuse the array access.
#[inline(always)]
fn off_index(ledger: &Ledger) -> usize {
    // SAFETY: a valid reference.
    usize::from(unsafe { ptr::read_volatile(&raw const ledger.off_state) }) & (STATES - 1)
}

/// Counts one stay in the state of that index.
#[inline(always)]
fn count_stay(ledger: &mut Ledger, task: Task, index: usize, duration_ns: u64) {
    let slot = index * BUCKETS + bucket_of(duration_ns);
    if slot < COMMON_STATES * BUCKETS {
        let cells: *mut u32 = ledger.histogram.as_mut_ptr().cast();
        // SAFETY: `slot` is below the number of cells. Flat, because one bounds check is all the verifier needs.
        unsafe { *cells.add(slot) += 1 };
    } else {
        count_rare(ledger, task, slot - COMMON_STATES * BUCKETS);
    }
}

/// The bits that the index of a cell of a rare histogram can have.
const RARE_MASK: usize = (RARE_STATES * BUCKETS).next_power_of_two() - 1;

/// Counts a stay in a rare state, in a storage of its own.
#[inline(never)]
fn count_rare(ledger: &mut Ledger, task: Task, slot: usize) {
    // SAFETY: null or a valid storage element, written by this thread's switches only.
    let Some(rare) = (unsafe { RARE.get_or_create(task).as_mut() }) else {
        maps::count(|totals| totals.storage_failures += 1);
        return;
    };
    ledger.flags |= HAS_RARE;
    // 6.1's verifier follows the caller's branch here also with a slot that cannot be (its lower bound above its
    // upper bound), and then takes the difference for anything. The mask gives it bounds again; volatile keeps it.
    // SAFETY: a valid reference.
    let slot = unsafe { ptr::read_volatile(&raw const slot) } & RARE_MASK;
    if slot < RARE_STATES * BUCKETS {
        let cells: *mut u32 = rare.histogram.as_mut_ptr().cast();
        // SAFETY: `slot` is below the number of cells.
        unsafe { *cells.add(slot) += 1 };
    }
}
