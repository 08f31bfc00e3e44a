//! Futex waits: how they begin, who ends them, and what they are added up to.
//!
//! No hook of its own: the thread that blocks is `current` when it is switched out, the waker is `current` at
//! `sched_waking`, and both have their system call's registers saved on their kernel stacks.

use core::ptr;

use aya_ebpf::helpers::generated::{bpf_probe_read_user, bpf_snprintf};
use probe_ebpf::ledger::{BlockedOn, IN_FUTEX, Ledger, Wake};
use probe_ebpf::lock::{BY_OWNER, EdgeKey, Expected, FutexWait, LockKey, Outcome, WORDS, mutex_owner};
use probe_ebpf::state::State;
use probe_ebpf::waiting::{
    COMPAT, Class, EXIT, RESTART, SYS_FUTEX_REQUEUE, SYS_FUTEX_WAIT, SYS_FUTEX_WAITV, SYS_FUTEX_WAKE,
    SyscallTable, TABLE_SPAN, flag, futex_flags, futex_op, op,
};

use crate::account::hold_if_frozen;
use crate::kernel::has_read_user;
use crate::lock_tables::{add_to_edge, add_to_lock};
use crate::maps;
use crate::registers::{Registers, has_registers};
use crate::task::Task;

/// Filled in by the agent before loading; frozen afterwards.
#[unsafe(no_mangle)]
static SYSCALLS: SyscallTable = [0; 2 * TABLE_SPAN];

/// What the agent says of a system call: a [`Class`], [`EXIT`] or [`RESTART`].
#[inline(always)]
pub fn class_of(syscall: i64) -> u8 {
    if syscall < 0 {
        return Class::PageFault as u8;
    }
    let table = if syscall & COMPAT == 0 { 0 } else { TABLE_SPAN };
    let number = syscall as usize & (TABLE_SPAN - 1);
    // SAFETY: both parts are bounded; volatile because the agent has filled the table in.
    unsafe { ptr::read_volatile(SYSCALLS.as_ptr().add(table + number)) }
}

/// Notes what the thread that leaves the CPU waits in; it is `current`.
#[inline(always)]
pub fn begin(ledger: &mut Ledger, task: Task, state: State) {
    let flags = task.flags();
    let blocked_on = task.blocked_on(flags);
    let mut class = class_of(blocked_on.syscall);
    if class == RESTART && blocked_on.args == ledger.blocked_on.args {
        // A stop or a signal without a handler came in between: the call before goes on, its arguments still in place.
        class = class_of(ledger.blocked_on.syscall);
    } else {
        ledger.blocked_on = blocked_on;
    }
    ledger.futex.class = settle(class, state, flags);
    if blocked_on.syscall < 0 {
        hold_if_frozen(ledger, task);
    }
    if class == Class::Futex as u8 && state as u8 == State::Sleeping as u8 {
        begin_wait(ledger, task);
    }
}

/// The class that a stay in `state` counts as.
#[inline(always)]
pub fn settle(class: u8, state: State, flags: u32) -> u8 {
    if !has_registers(flags) {
        return Class::Kernel as u8;
    }
    if state as u8 == State::Uninterruptible as u8
        && (class == Class::Read as u8 || class == Class::Write as u8)
    {
        return Class::File as u8;
    }
    if class >= EXIT { Class::Other as u8 } else { class }
}

/// A futex call that waits, as far as its registers say.
#[inline(always)]
pub fn decode_wait(blocked_on: &BlockedOn, regs: Registers) -> FutexWait {
    let mut wait = FutexWait {
        address: blocked_on.args[0],
        ip: regs.ip(),
        ..FutexWait::default()
    };
    let operation = blocked_on.args[1];
    let number = blocked_on.syscall as u64 & (TABLE_SPAN as u64 - 1);
    match number {
        SYS_FUTEX_WAITV => {
            wait.op = op::WAITV;
            wait.flags = timed(regs.arg3());
        }
        SYS_FUTEX_WAIT => {
            wait.op = op::WAIT2;
            wait.value = operation as u32;
            wait.flags = futex_flags(regs.arg3()) | timed(regs.arg4());
        }
        SYS_FUTEX_WAKE | SYS_FUTEX_REQUEUE => {}
        _ => {
            wait.op = futex_op(operation, 0);
            wait.value = regs.arg2() as u32;
            wait.flags = futex_flags(operation) | timed(regs.arg3());
        }
    }
    if wait.op >= op::FIRST_WAKE {
        wait.op = op::NONE;
    }
    if blocked_on.syscall & COMPAT != 0 {
        wait.flags |= flag::COMPAT;
    }
    wait
}

#[inline(always)]
fn timed(timeout: u64) -> u8 {
    if timeout == 0 { 0 } else { flag::TIMED }
}

/// An entry of `futex_waitv(2)`'s list (`struct futex_waitv`).
#[repr(C)]
pub struct Listed {
    value: u64,
    address: u64,
    flags: u32,
    reserved: u32,
}

/// Out of line: most threads that block are in no futex.
#[inline(never)]
fn begin_wait(ledger: &mut Ledger, task: Task) {
    let mut wait = decode_wait(&ledger.blocked_on, task.registers());
    wait.class = Class::Futex as u8;
    if wait.op == op::WAITV {
        let mut listed = Listed {
            value: 0,
            address: 0,
            flags: 0,
            reserved: 0,
        };
        if read_user(&mut listed, wait.address) {
            wait.address = listed.address;
            wait.value = listed.value as u32;
            wait.flags |= futex_flags(u64::from(listed.flags));
        }
    }
    let mut words = [0_u32; WORDS];
    if read_user(&mut words, wait.address) {
        wait.flags |= flag::READ;
    } else if read_user(&mut words[0], wait.address) {
        // The word lies at the end of what is mapped.
        wait.flags |= flag::READ;
    }
    recognise(&mut wait, &words);
    ledger.futex = wait;
    if wait.op != op::NONE {
        ledger.flags |= IN_FUTEX;
    }
}

/// Notes what the memory at a futex says.
#[inline(always)]
pub fn recognise(wait: &mut FutexWait, words: &[u32; WORDS]) {
    wait.word = words[0];
    wait.next = words[1];
    wait.expected = Expected::of(wait.value) as u8;
    if wait.flags & flag::READ != 0 {
        wait.owner = mutex_owner(wait.op, wait.flags, wait.value, words);
    }
}

/// Reads memory of the current process; a page that is not there is not waited for.
#[inline(always)]
fn read_user<T>(into: &mut T, address: u64) -> bool {
    let into: *mut u8 = ptr::from_mut(into).cast();
    if has_read_user() {
        // SAFETY: writes `size_of::<T>()` bytes of plain data; reads user memory without faulting.
        return unsafe { bpf_probe_read_user(into.cast(), size_of::<T>() as u32, address as *const _) == 0 };
    }
    for at in 0..size_of::<T>() {
        let byte = byte_at(address.wrapping_add(at as u64));
        // SAFETY: inside the target, which is plain data.
        unsafe { ptr::write_volatile(into.add(at), byte) };
    }
    true
}

/// A byte of the current process's memory, 0 also where there is none.
///
/// For kernels that are locked down for confidentiality, where aya has turned `bpf_probe_read_user` into something that the
/// kernel refuses (see [`probe_ebpf::offsets::Offsets::has_read_user`]): the kernel prints a string of user space, of which one
/// character is asked for. It takes ten times as long, and does it there alone.
#[inline(never)]
fn byte_at(address: u64) -> u8 {
    static FORMAT: [u8; 5] = *b"%pus\0";
    let mut text = [0_u8; 2];
    let mut arguments = [address];
    // SAFETY: the format is a constant string in read-only memory, and asks for the one argument there is.
    unsafe {
        bpf_snprintf(
            text.as_mut_ptr().cast(),
            text.len() as u32,
            FORMAT.as_ptr().cast(),
            arguments.as_mut_ptr(),
            size_of_val(&arguments) as u32,
        );
        ptr::read_volatile(&raw const text[0])
    }
}

/// Notes what the waker is doing with a futex, at which the wakee may wait.
#[inline(never)]
pub fn note_waker(ledger: &mut Ledger, waker: Task) {
    if !has_registers(waker.flags()) {
        return;
    }
    let waiting_at = ledger.futex.address;
    let wake = &mut ledger.wake;
    let regs = waker.registers();
    let syscall = regs.syscall();
    let class = class_of(syscall);
    if class == EXIT {
        wake.op = u32::from(op::EXIT);
        wake.waker_tid = waker.tid();
        return;
    }
    if syscall < 0 || class != Class::Futex as u8 {
        return;
    }
    let first = regs.arg0();
    let (operation, second) = match syscall as u64 & (TABLE_SPAN as u64 - 1) {
        SYS_FUTEX_WAKE => (count_op(regs.arg2()), first),
        SYS_FUTEX_REQUEUE => (op::REQUEUE, first),
        SYS_FUTEX_WAIT | SYS_FUTEX_WAITV => return,
        _ => (futex_op(regs.arg1(), regs.arg2()), regs.arg4()),
    };
    if operation < op::FIRST_WAKE {
        return;
    }
    wake.op = u32::from(operation);
    wake.waker_tid = waker.tid();
    let has_second = operation == op::REQUEUE || operation == op::WAKE_OP;
    wake.futex = if has_second && second == waiting_at {
        second
    } else {
        first
    };
}

#[inline(always)]
fn count_op(count: u64) -> u8 {
    if count as u32 == 1 {
        op::WAKE_ONE
    } else {
        op::WAKE_MANY
    }
}

/// The thread runs again, since `now_ns`: its wait is over. Out of line, as [`begin_wait`].
#[inline(never)]
pub fn end(ledger: &mut Ledger, task: Task, now_ns: u64) {
    ledger.flags &= !IN_FUTEX;
    let wait = &ledger.futex;
    let wake = &ledger.wake;
    let mut duration_ns = 0;
    if now_ns > ledger.turn_ns {
        duration_ns = now_ns - ledger.turn_ns;
    }
    let mut lock = LockKey {
        space: task.space(),
        address: wait.address,
    };
    let (outcome, moved) = judge(wait, wake);
    if moved {
        lock.address = wake.futex;
    }
    if !add_to_lock(&lock, wait, outcome, moved, duration_ns, task, now_ns) {
        maps::count(|totals| totals.lost_locks += 1);
        return;
    }
    let holder = if wait.owner != 0 && !moved {
        wait.owner | BY_OWNER
    } else if outcome as u8 != Outcome::Unmatched as u8 && wake.waker_tid != task.tid() {
        wake.waker_tid
    } else {
        0
    };
    // Without a holder too: how long each thread waited at a lock tells whether they take turns.
    let edge = EdgeKey {
        lock,
        waiter: task.tid(),
        holder,
    };
    add_to_edge(&edge, duration_ns, now_ns);
}

/// How the wait ended, and whether the waiter had been moved to another futex meanwhile.
///
/// A waker in a futex call that wakes, at another address of the same address space: the waiter was requeued there. At a
/// shared futex addresses may differ between processes, but not within a page.
#[inline(always)]
fn judge(wait: &FutexWait, wake: &Wake) -> (Outcome, bool) {
    const IN_PAGE: u64 = 0xfff;
    let operation = wake.op as u8;
    if operation == op::EXIT {
        return (Outcome::Exit, false);
    }
    if operation < op::FIRST_WAKE {
        return (Outcome::Unmatched, false);
    }
    let outcome = if operation == op::WAKE_ONE || operation == op::UNLOCK_PI {
        Outcome::WokenOne
    } else {
        Outcome::WokenMany
    };
    let same = if wait.flags & flag::PRIVATE == 0 {
        wait.address & IN_PAGE == wake.futex & IN_PAGE
    } else {
        wait.address == wake.futex
    };
    (outcome, !same)
}
