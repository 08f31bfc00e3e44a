//! `sched_process_free(task p)`: a dead process is gone.
//!
//! Called by `delayed_put_task_struct()`, an RCU callback that `release_task()` starts when a parent has waited for the
//! process, or at once when nobody needs to: 10 to 20 ms after the fact, in whatever context, so `current` means nothing.
//! Only first threads: theirs is the pid that a zombie holds. (After an exec by another thread the old leader is released
//! under that thread's tid, which tells it apart.)

use aya_ebpf::macros::btf_tracepoint;
use aya_ebpf::programs::BtfTracePointContext;
use probe_ebpf::record::EVENT_REAP;

use crate::task::Task;
use crate::{emit, maps};

#[btf_tracepoint(function = "sched_process_free")]
fn process_free(ctx: BtfTracePointContext) -> i32 {
    if maps::live_since_ns() == 0 {
        return 0;
    }
    let task = Task::new(ctx.arg(0));
    if task.tid() != task.pid() {
        return 0;
    }
    // SAFETY: no arguments, no failure.
    let now_ns = unsafe { aya_ebpf::helpers::generated::bpf_ktime_get_ns() };
    let sent = emit::event(EVENT_REAP, task, 0, now_ns);
    maps::count(|totals| {
        totals.reaps += 1;
        totals.lost_reaps += u64::from(!sent);
    });
    0
}
