//! `sched_waking(task p)`: `current` has decided to wake `p`.
//!
//! Called in `try_to_wake_up()` under `p->pi_lock`, before `p` is put on a run queue and possibly before `p`'s own
//! switch-out is traced (it may still be on its way off the CPU). So this only notes the time and the waker; the
//! ledger's state is `sched_switch`'s, which resolves the note when `p` next gets a CPU.

use core::ptr;

use aya_ebpf::helpers::generated::bpf_ktime_get_ns;
use aya_ebpf::macros::btf_tracepoint;
use aya_ebpf::programs::BtfTracePointContext;
use probe_ebpf::ledger::IN_FUTEX;

use crate::account::ledger_of;
use crate::futex;
use crate::task::Task;

#[btf_tracepoint(function = "sched_waking")]
fn sched_waking(ctx: BtfTracePointContext) -> i32 {
    let wakee = Task::new(ctx.arg(0));
    let Some(ledger) = ledger_of(wakee) else { return 0 };
    ledger.wake.op = 0;
    // Who waits in a futex, or is still on its way off the CPU and may: note what the waker does with it.
    if ledger.flags & IN_FUTEX != 0 || wakee.on_cpu() != 0 {
        futex::note_waker(ledger, Task::current());
    }
    let wake = &mut ledger.wake;
    wake.from_bits = wakee.state_bits();
    // SAFETY: a valid reference. Last, so that a reader that sees the time sees the rest (on x86).
    unsafe { ptr::write_volatile(&raw mut wake.at_ns, bpf_ktime_get_ns()) };
    0
}
