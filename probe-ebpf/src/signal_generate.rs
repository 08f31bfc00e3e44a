//! `signal_generate(int sig, kernel_siginfo info, task task, int group, int result)`: a signal is sent.
//!
//! Called in `__send_signal_locked()`. The sender is `current`, except for what timers and faults raise. Only
//! signals that end a process by default are noted, the latest one of each number, on the first thread of the
//! process: when that dies of the same signal, this is who did it. A signal that is ignored, or dropped
//! because one of its number is pending already, ends nobody. Signals that are delivered all day (`SIGCHLD`,
//! `SIGURG`, …) leave at the first branch.
//!
//! `info` may be a small integer in place of a pointer. Verifiers that know so (7.3's, for one) let nobody follow it. For
//! them there is [`signal_generate_opaque`], which tells the kernel's signals by other signs; the agent loads it where
//! the first is refused.

use core::ffi::c_void;

use aya_ebpf::macros::btf_tracepoint;
use aya_ebpf::programs::BtfTracePointContext;
use probe_ebpf::ledger::{KILLED, KILLERS_KEPT, Killer, Killers};

use crate::kernel::{load, offset};
use crate::maps::{self, KILLERS};
use crate::task::Task;

const SIGKILL: u32 = 9;
/// Signals whose default is to end the process (`man 7 signal`), by bit: all of 1 to 31 but CHLD, CONT, STOP, TSTP, TTIN,
/// TTOU, URG and WINCH.
const FATAL: u32 = !(1 | 1 << 17 | 1 << 18 | 1 << 19 | 1 << 20 | 1 << 21 | 1 << 22 | 1 << 23 | 1 << 28);
/// Signals that timers raise in the context of whoever is running: ALRM, XCPU, VTALRM, PROF.
const BY_TIMER: u32 = 1 << 14 | 1 << 24 | 1 << 26 | 1 << 27;
/// `result`: `TRACE_SIGNAL_IGNORED`, `TRACE_SIGNAL_ALREADY_PENDING` and `TRACE_SIGNAL_OVERFLOW_FAIL`: the
/// signal goes nowhere.
const DROPPED: core::ops::RangeInclusive<i32> = 1..=3;
/// `SEND_SIG_NOINFO` and `SEND_SIG_PRIV` are 0 and 1 in place of a pointer; PRIV is from the kernel.
const SEND_SIG_PRIV: u64 = 1;

#[btf_tracepoint(function = "signal_generate")]
fn signal_generate(ctx: BtfTracePointContext) -> i32 {
    generated(&ctx, |info, _, _| siginfo_code(info) > 0)
}

/// What faults raise in the thread that committed them: SIGILL, TRAP, BUS, FPE, SEGV, SYS.
const BY_FAULT: u32 = 1 << 4 | 1 << 5 | 1 << 7 | 1 << 8 | 1 << 11 | 1 << 31;
/// What the kernel raises when a descriptor is ready, in whoever made it so: SIGIO.
const BY_DESCRIPTOR: u32 = 1 << 29;

/// Stands in for [`signal_generate`]. Takes a fault's signal that a process sends itself for a fault.
#[btf_tracepoint(function = "signal_generate")]
fn signal_generate_opaque(ctx: BtfTracePointContext) -> i32 {
    generated(&ctx, |_, signal, target| {
        let bit = 1 << (signal & 31);
        bit & BY_DESCRIPTOR != 0 || bit & BY_FAULT != 0 && target.pid() == Task::current().pid()
    })
}

/// `by_kernel` says of a signal that comes with a siginfo whether the kernel raised it.
#[inline(always)]
fn generated(ctx: &BtfTracePointContext, by_kernel: impl FnOnce(*const c_void, u32, Task) -> bool) -> i32 {
    let signal = ctx.arg::<i32>(0).cast_unsigned();
    if signal > 31 || FATAL & (1 << (signal & 31)) == 0 || maps::live_since_ns() == 0 {
        return 0;
    }
    if DROPPED.contains(&ctx.arg::<i32>(4)) {
        return 0;
    }
    let info: *const c_void = ctx.arg(1);
    let target = Task::new(ctx.arg(2)).leader();
    let from_kernel = match info as u64 {
        0 => false,
        SEND_SIG_PRIV => BY_TIMER & (1 << (signal & 31)) != 0,
        _ => by_kernel(info, signal, target),
    };
    // SAFETY: null or a valid storage element; signals to one process are sent under its `siglock`.
    let Some(killers) = (unsafe { KILLERS.get_or_create(target).as_mut() }) else {
        maps::count(|totals| totals.storage_failures += 1);
        return 0;
    };
    // A killed process may be sent more before it is gone; that is not what ended it.
    if killers.flags & KILLED == 0 {
        if signal == SIGKILL {
            killers.flags |= KILLED;
        }
        note(place(killers, signal), signal, from_kernel);
    }
    0
}

/// Where the sender of that signal is kept: in the place of the one before, in an empty one, in another's.
#[inline(always)]
fn place(killers: &mut Killers, signal: u32) -> &mut Killer {
    let mut at = killers.next as usize;
    let mut is_found = false;
    for index in 0..KILLERS_KEPT {
        let kept = killers.kept[index].signal;
        if !is_found && (kept == signal || kept == 0) {
            (at, is_found) = (index, true);
        }
    }
    if !is_found {
        killers.next = killers.next.wrapping_add(1);
    }
    // SAFETY: a valid reference, and below the number of places. Volatile, so that the mask is kept for the
    // verifier.
    unsafe {
        let at = core::ptr::read_volatile(&raw const at) & (KILLERS_KEPT - 1);
        &mut *killers.kept.as_mut_ptr().add(at)
    }
}

#[inline(always)]
fn note(killer: &mut Killer, signal: u32, from_kernel: bool) {
    let sender = Task::current();
    killer.signal = signal;
    killer.start_ns = sender.leader().start_ns();
    killer.pid = if from_kernel { 0 } else { sender.pid() };
    killer.tid = if from_kernel { 0 } else { sender.tid() };
    killer.comm = sender.comm();
}

/// The `si_code` of a signal's origin: `SI_USER`, `SI_TKILL` and the like are not positive, what the kernel raises is.
#[inline(always)]
fn siginfo_code(info: *const c_void) -> i32 {
    load(info, offset!(siginfo_code))
}
