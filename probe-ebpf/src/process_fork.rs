//! `sched_process_fork(task parent, task child)`: a process or thread is born.
//!
//! Called in `kernel_clone()` once the child is complete and before `wake_up_new_task()`. `parent` is the calling
//! thread, which is not the parent of a thread nor of a `CLONE_PARENT` child: [`Task::read_facts`] reads that from
//! `real_parent`.

use aya_ebpf::macros::btf_tracepoint;
use aya_ebpf::programs::BtfTracePointContext;
use probe_ebpf::record::EVENT_FORK;
use probe_ebpf::state::State;

use crate::account::{bump, ledger_of, open};
use crate::task::Task;
use crate::{emit, maps};

#[btf_tracepoint(function = "sched_process_fork")]
fn process_fork(ctx: BtfTracePointContext) -> i32 {
    if maps::live_since_ns() == 0 {
        return 0;
    }
    // SAFETY: no arguments, no failure.
    let now_ns = unsafe { aya_ebpf::helpers::generated::bpf_ktime_get_ns() };
    let caller = Task::new(ctx.arg(0));
    let child = Task::new(ctx.arg(1));
    if let Some(ledger) = ledger_of(child) {
        bump(ledger);
        open(ledger, child, State::Runnable, now_ns);
        bump(ledger);
    }
    let process = child.tid() == child.pid();
    let sent = emit::event(EVENT_FORK, child, caller.tid(), now_ns);
    maps::count(|totals| {
        totals.forks += u64::from(process);
        totals.threads += u64::from(!process);
        totals.lost_forks += u64::from(!sent);
    });
    0
}
