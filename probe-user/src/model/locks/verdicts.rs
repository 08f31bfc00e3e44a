//! All locks of a look, judged together: what one is can show in what stands beside it.

use std::collections::BTreeMap;

use probe_ebpf::waiting::{flag, op};

use super::classify::{Verdict, classify, idle};
use super::evidence::Evidence;
use super::{Kind, LockId};

/// Where the words that waiters sleep at (`__g_signals`) stand behind those that a signal waits at (`__g_refs`, until the last
/// waiter of a group has left), both a pair: `struct __pthread_cond_s` of glibc 2.25 to 2.40.
const SIGNALS_BEHIND_REFS: [u64; 2] = [24, 20];

/// Judges every lock of `part` by what is known of it in all (`whole`) and over the last `window_ns`.
pub fn verdicts(
    whole: &BTreeMap<LockId, Evidence<'_>>,
    part: &BTreeMap<LockId, Evidence<'_>>,
    window_ns: u64,
) -> BTreeMap<LockId, Verdict> {
    let judge = |(&id, part_of_it): (&LockId, &Evidence<'_>)| {
        let verdict = if is_inside_condvar(id, whole, part) {
            idle(Kind::Condvar)
        } else {
            // Of an entry that was deleted meanwhile, the tables do not have all that the window has.
            let more = whole.get(&id).filter(|all| all.waits() >= part_of_it.waits());
            classify(more.unwrap_or(part_of_it), part_of_it, window_ns)
        };
        (id, verdict)
    };
    part.iter().map(judge).collect()
}

/// Whether a word, which by itself looks like a barrier's, is where a signal waits in a condition variable.
fn is_inside_condvar(
    id: LockId,
    whole: &BTreeMap<LockId, Evidence<'_>>,
    part: &BTreeMap<LockId, Evidence<'_>>,
) -> bool {
    let LockId::Private(space, address) = id else {
        return false;
    };
    let sample = |id: &LockId| whole.get(id).or_else(|| part.get(id)).map(|found| found.sample);
    // Twice the number of waiters, and the bit by which the signal asks to be woken.
    let signal_waits =
        sample(&id).is_some_and(|wait| wait.op == op::WAIT && wait.value & 1 != 0 && wait.value > 1);
    let signals = SIGNALS_BEHIND_REFS.map(|behind| LockId::Private(space, address.wrapping_add(behind)));
    let of_condvar = |id: &LockId| {
        sample(id).is_some_and(|wait| {
            wait.op == op::WAIT_BITSET && wait.flags & (flag::REALTIME | flag::TIMED) != 0
        })
    };
    signal_waits && signals.iter().any(of_condvar)
}
