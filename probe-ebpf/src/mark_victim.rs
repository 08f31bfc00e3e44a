//! `mark_victim(task, uid)` (6.8 and newer) or `mark_victim(int pid)`: the out-of-memory killer has chosen a process.
//!
//! Called in `mark_oom_victim()`, right after `SIGKILL` was sent to the process. Before 6.8 only the pid is passed, which
//! task storage cannot be found by: such a death shows as killed by the process whose allocation failed.

use aya_ebpf::macros::btf_tracepoint;
use aya_ebpf::programs::BtfTracePointContext;
use probe_ebpf::ledger::OOM_VICTIM;

use crate::kernel::victim_is_task;
use crate::maps::{self, KILLERS};
use crate::task::Task;

#[btf_tracepoint(function = "mark_victim")]
fn mark_victim(ctx: BtfTracePointContext) -> i32 {
    if maps::live_since_ns() == 0 || !victim_is_task() {
        return 0;
    }
    let victim = Task::new(ctx.arg(0)).leader();
    // SAFETY: null or a valid storage element.
    if let Some(killers) = unsafe { KILLERS.get_or_create(victim).as_mut() } {
        killers.flags |= OOM_VICTIM;
    }
    0
}
