//! `sched_process_exec(task p, pid_t old_pid, linux_binprm bprm)`: a process runs a new program.
//!
//! Called in `exec_binprm()` after the point of no return. `old_pid` is the tid the thread had before: when a thread
//! other than the leader calls exec, `de_thread()` gives it the leader's tid and start time. Its ledger comes along,
//! the old leader's was sent when that died.

use aya_ebpf::macros::btf_tracepoint;
use aya_ebpf::programs::BtfTracePointContext;
use probe_ebpf::record::EVENT_EXEC;

use crate::task::Task;
use crate::{emit, maps};

#[btf_tracepoint(function = "sched_process_exec")]
fn process_exec(ctx: BtfTracePointContext) -> i32 {
    if maps::live_since_ns() == 0 {
        return 0;
    }
    // SAFETY: no arguments, no failure.
    let now_ns = unsafe { aya_ebpf::helpers::generated::bpf_ktime_get_ns() };
    let task = Task::new(ctx.arg(0));
    let old_tid = ctx.arg::<i32>(1).cast_unsigned();
    let sent = emit::event(EVENT_EXEC, task, old_tid, now_ns);
    maps::count(|totals| {
        totals.execs += 1;
        totals.lost_execs += u64::from(!sent);
    });
    0
}
