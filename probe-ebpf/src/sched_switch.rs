//! `sched_switch(bool preempt, task prev, task next[, unsigned int prev_state])`: one thread leaves a CPU, another
//! gets it.
//!
//! Called in `__schedule()` with the run queue locked and interrupts off, `current` still being `prev`. The fourth
//! argument came with 5.18 (9c2136be0878); before that `prev->__state` is read, which a concurrent wake-up may have
//! reset: then the thread counts as preempted, and the wake-up right behind makes up for it.
//!
//! The last switch of a thread (`TASK_DEAD`, from `do_task_dead()`) is where its death is final: `exit_state`,
//! `exit_code` and the number of live threads do not change any more. `sched_process_exit` comes before all that.

use aya_ebpf::macros::btf_tracepoint;
use aya_ebpf::programs::BtfTracePointContext;
use probe_ebpf::ledger::{HAS_RARE, IN_FUTEX, Ledger};
use probe_ebpf::record::{EVENT_EXIT, ExitRecord};
use probe_ebpf::state::{State, TASK_DEAD};
use probe_ebpf::totals::Totals;

use crate::account::{begin_turn, bump, ensure_open, enter_cpu, leave_cpu, ledger_of};
use crate::emit;
use crate::futex;
use crate::kernel::switch_has_prev_state;
use crate::maps::{self, ENDED_BY, KILLERS, RARE};
use crate::task::Task;
use crate::words::{copy_words, zero_words};

#[btf_tracepoint(function = "sched_switch")]
fn sched_switch(ctx: BtfTracePointContext) -> i32 {
    // SAFETY: no arguments, no failure.
    let now_ns = unsafe { aya_ebpf::helpers::generated::bpf_ktime_get_ns() };
    let preempted = ctx.arg::<u8>(0) != 0;
    let prev = Task::new(ctx.arg(1));
    let next = Task::new(ctx.arg(2));
    // The idle thread: pid 0 on every CPU, and nobody's time.
    if prev.tid() != 0 {
        let state_bits = if switch_has_prev_state() {
            ctx.arg::<u32>(3)
        } else {
            prev.state_bits()
        };
        leave(&ctx, prev, preempted, state_bits, now_ns);
    }
    if next.tid() != 0
        && let Some(ledger) = ledger_of(next)
    {
        enter_cpu(ledger, next, now_ns);
        if ledger.flags & IN_FUTEX != 0 {
            futex::end(ledger, next, now_ns);
        }
    }
    0
}

#[inline(always)]
fn leave(ctx: &BtfTracePointContext, task: Task, preempted: bool, state_bits: u32, now_ns: u64) {
    let Some(ledger) = ledger_of(task) else { return };
    if !ensure_open(ledger, task) {
        return;
    }
    bump(ledger);
    if let Some(entered_ns) = leave_cpu(ledger, task, now_ns) {
        resynced(ctx, task, ledger, entered_ns);
    }
    // A preempted thread stays runnable whatever its state says: it was on its way to sleep, or on its way back.
    let blocked = if preempted {
        None
    } else {
        State::from_blocked_bits(state_bits)
    };
    match blocked {
        Some(state) => {
            begin_turn(ledger, state, now_ns);
            futex::begin(ledger, task, state);
        }
        None => begin_turn(ledger, State::Runnable, now_ns),
    }
    bump(ledger);
    if state_bits & TASK_DEAD != 0 {
        died(task, ledger, now_ns);
    }
}

/// Out of line: never, unless the switch that put the thread on its CPU was missed, as those away from a thread that the kernel
/// hides from eBPF are. If it had waited at a futex, that was over then.
#[inline(never)]
fn resynced(ctx: &BtfTracePointContext, task: Task, ledger: &mut Ledger, entered_ns: u64) {
    maps::count(|totals| totals.resynced += 1);
    if ledger.flags & IN_FUTEX != 0 {
        futex::end(ledger, task, entered_ns);
    }
    aya_log_ebpf::debug!(
        ctx,
        "tid {} leaves a CPU it was not seen to get; state {}",
        task.tid(),
        ledger.state
    );
}

/// Sends the final account. Out of line: one switch in thousands gets here.
#[inline(never)]
fn died(task: Task, ledger: &mut Ledger, now_ns: u64) {
    let ends_process = ends_process(task);
    maps::count(|totals| {
        totals.thread_exits += 1;
        totals.process_exits += u64::from(ends_process);
    });
    let Some(mut entry) = emit::reserve::<ExitRecord>() else {
        maps::count(|totals| keep_lost(totals, task, &ledger.time_ns));
        return;
    };
    // SAFETY: reserved for exactly this type; every member is written below.
    let record = unsafe { &mut *entry.as_mut_ptr() };
    emit::fill(
        &mut record.event,
        EVENT_EXIT,
        task,
        u32::from(ends_process),
        now_ns,
    );
    copy_words(&raw const *ledger, &mut record.ledger);
    let rare = if ledger.flags & HAS_RARE == 0 {
        core::ptr::null_mut()
    } else {
        RARE.get(task)
    };
    if rare.is_null() {
        zero_words(&mut record.rare);
    } else {
        copy_words(rare, &mut record.rare);
    }
    tell_killer(task, record);
    entry.submit(emit::NO_WAKEUP);
}

/// Says who sent the signal that the thread dies of.
#[inline(always)]
fn tell_killer(task: Task, record: &mut ExitRecord) {
    zero_words(&mut record.killer);
    let facts = &record.event.facts;
    let status = if facts.group_exit == 0 {
        facts.exit_code
    } else {
        facts.group_exit_code
    };
    // SAFETY: null or a valid storage element.
    let Some(killers) = (unsafe { KILLERS.get(task.leader()).as_ref() }) else {
        return;
    };
    for killer in &killers.kept {
        if killer.signal != 0 && killer.signal == status & 0x7f {
            copy_words(killer, &mut record.killer);
            record.killer.flags = killers.flags;
        }
    }
}

/// Whether this death is the death of the process.
///
/// `signal->live` drops at the beginning of `do_exit()`: threads that end together all find it 0 at their last switch. The
/// first of them to get here has it.
#[inline(always)]
fn ends_process(task: Task) -> bool {
    if task.live_threads() != 0 {
        return false;
    }
    let own = u64::from(task.tid());
    // SAFETY: null or a valid storage element that is never written again.
    match unsafe { ENDED_BY.claim(task.leader(), &own).as_ref() } {
        Some(winner) => *winner == own,
        None => false,
    }
}

/// Keeps the sums of a death that found the ring full.
#[inline(always)]
fn keep_lost(totals: &mut Totals, task: Task, time_ns: &[u64; probe_ebpf::state::STATES]) {
    totals.lost_exits += 1;
    totals.lost_voluntary += task.voluntary();
    totals.lost_involuntary += task.involuntary();
    for (sum, time) in totals.lost_time_ns.iter_mut().zip(time_ns) {
        *sum += *time;
    }
}
