//! The futex wait that a thread is in: as the ledger noted it when it began, or as its registers show it, if
//! nobody saw it begin.

use probe_ebpf::ledger::{IN_FUTEX, Ledger};
use probe_ebpf::lock::{Expected, FutexWait};
use probe_ebpf::offsets::ABSENT;
use probe_ebpf::state::State;
use probe_ebpf::waiting::{Class, RESTART, flag, op};

use crate::futex::{class_of, decode_wait, settle};
use crate::kernel::{load, offset};
use crate::registers::has_registers;
use crate::task::Task;

/// What the ledger noted.
#[inline(always)]
pub fn noted_wait(ledger: *const Ledger) -> Option<FutexWait> {
    // SAFETY: null or a valid storage element for the duration of the program. `sched_switch` may be writing:
    // the agent goes by the ledger's own copy.
    let ledger = unsafe { ledger.as_ref() }?;
    (ledger.flags & IN_FUTEX != 0).then_some(ledger.futex)
}

/// Tells by its registers what a blocked thread waits in; false if it is no futex. Of `futex_waitv` it is the
/// list of futexes.
#[inline(always)]
pub fn find_wait(task: Task, state_bits: u32, on_cpu: bool, futex: &mut FutexWait) -> bool {
    let Some(state) = State::from_blocked_bits(state_bits) else {
        return false;
    };
    let flags = task.flags();
    if on_cpu || state as u8 != State::Sleeping as u8 || !has_registers(flags) {
        return false;
    }
    let blocked_on = task.blocked_on(flags);
    let called = class_of(blocked_on.syscall);
    let restarted = called == RESTART && is_futex_restart(task);
    if settle(called, state, flags) != Class::Futex as u8 && !restarted {
        return false;
    }
    *futex = decode_wait(&blocked_on, task.registers());
    if restarted {
        futex.flags |= flag::TIMED;
    }
    futex.class = Class::Futex as u8;
    futex.flags |= flag::FOUND;
    futex.expected = Expected::of(futex.value) as u8;
    futex.op != op::NONE
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
