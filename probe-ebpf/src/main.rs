//! The eBPF object: one program per file, named after the event it handles.
//!
//! | module | kernel event | does |
//! |---|---|---|
//! | [`sched_switch`] | `tp_btf/sched_switch` | books the time of the thread that leaves a CPU and the one that gets it; death |
//! | [`sched_waking`] | `tp_btf/sched_waking` | remembers when and by whom a thread was woken |
//! | [`process_fork`] | `tp_btf/sched_process_fork` | opens the ledger of a new thread |
//! | [`process_exec`] | `tp_btf/sched_process_exec` | tells the agent of a new program |
//! | [`process_free`] | `tp_btf/sched_process_free` | tells the agent that a dead process was reaped |
//! | [`process_wait`] | `tp_btf/sched_process_wait` | notes that a parent looks after its children |
//! | [`signal_generate`] | `tp_btf/signal_generate` | notes who sends a signal that may kill |
//! | [`mark_victim`] | `tp_btf/mark_victim` | notes whom the out-of-memory killer chose |
//! | [`snapshot`] | `iter.s/task` | the read path: every thread with its ledger |
//!
//! [`account`] holds the state machine they share, [`futex`] the waits for locks, [`lock_tables`] what they add up to,
//! [`maps`] every map. [`kernel`] knows where things lie in this kernel; [`task`] and [`registers`] read them.
#![no_std]
#![no_main]
#![feature(asm_experimental_arch)]
#![expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "the target has 64 bits; registers are what the kernel makes of them; there is nobody to tell of an error"
)]

mod account;
mod emit;
mod futex;
mod iterator;
mod kernel;
mod lock_tables;
mod maps;
mod mark_victim;
mod memory;
mod open_wait;
mod process_exec;
mod process_fork;
mod process_free;
mod process_wait;
mod registers;
mod sched_switch;
mod sched_waking;
mod signal_generate;
mod snapshot;
mod storage;
mod task;
mod words;

#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    // Unreachable: the verifier refuses a program that could get here.
    loop {}
}

/// Some helpers are for GPL-compatible programs only. The rest of the project is MIT OR Apache-2.0.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
