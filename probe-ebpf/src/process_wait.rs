//! `sched_process_wait(pid)`: `current` calls `wait(2)` or one of its kin.
//!
//! Called at the beginning of `do_wait()`. It tells a parent that looks after its children, however late, from one that
//! never does.

use aya_ebpf::macros::btf_tracepoint;
use aya_ebpf::programs::BtfTracePointContext;

use crate::account::ledger_of;
use crate::maps;
use crate::task::Task;

#[btf_tracepoint(function = "sched_process_wait")]
fn process_wait(_ctx: BtfTracePointContext) -> i32 {
    if maps::live_since_ns() == 0 {
        return 0;
    }
    if let Some(ledger) = ledger_of(Task::current()) {
        // SAFETY: no arguments, no failure.
        ledger.last_wait_ns = unsafe { aya_ebpf::helpers::generated::bpf_ktime_get_ns() };
        ledger.waits = ledger.waits.wrapping_add(1);
    }
    0
}
