//! What kind of thing a futex is, and whether waiting at it is contention.
//!
//! The rules go from certain to likely; what none of them fits stays unknown and is never called contention. Facts they rest
//! on: `sysdeps/nptl` of glibc (mutexes wait with `FUTEX_WAIT` for the value 2; condition variables, semaphores, joins and
//! readers-writer locks with `FUTEX_WAIT_BITSET | FUTEX_CLOCK_REALTIME`; barriers with `FUTEX_WAIT` and wake all) and
//! `library/std/src/sys/sync` of Rust (mutexes wait with `FUTEX_WAIT_BITSET` for the value 2, readers-writer locks for a word
//! with the bits 30 or 31, a parked thread for -1).

use probe_ebpf::lock::{FutexWait, LIVE_BEFORE, LIVE_WORDS, Layout, Outcome, TID_LIMIT};
use probe_ebpf::waiting::{flag, op};

use super::Kind;
use super::evidence::Evidence;

/// What a lock turned out to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// What it is.
    pub kind: Kind,
    /// Whether there is evidence that threads wait here for each other's turns.
    pub contended: bool,
}

const fn lock(kind: Kind) -> Verdict {
    Verdict {
        kind,
        contended: true,
    }
}

/// Something that is waited at without contention.
pub(super) const fn idle(kind: Kind) -> Verdict {
    Verdict {
        kind,
        contended: false,
    }
}

/// Waits for one value that make a protocol rather than a coincidence: a counter passes through 2, too.
const PROTOCOL: u64 = 3;
/// Waits after which the share of time that somebody held a turn means something.
const ENOUGH: u64 = 10;
/// `std::thread::park` of Rust waits for this value.
const PARKED: u32 = u32::MAX;
/// Bits of Rust's readers-writer lock: readers, writers are waiting.
const QUEUED: u32 = 0xc000_0000;

/// Judges a lock by everything known about it, and by what it did over the last `window_ns`.
pub fn classify(evidence: &Evidence<'_>, lately: &Evidence<'_>, window_ns: u64) -> Verdict {
    certain(evidence)
        .or_else(|| glibc(evidence))
        .or_else(|| by_value(evidence))
        .unwrap_or_else(|| by_behaviour(evidence, lately, window_ns))
}

/// By what the kernel itself knows, or memory that names its owner.
fn certain(evidence: &Evidence<'_>) -> Option<Verdict> {
    match evidence.sample.op {
        op::LOCK_PI => return Some(lock(Kind::PiMutex)),
        op::WAIT_REQUEUE_PI => return Some(idle(Kind::Condvar)),
        _ => {}
    }
    if evidence.owner_seen && (mostly(evidence, Layout::GlibcMutex) || mostly(evidence, Layout::TidWord)) {
        return Some(lock(Kind::Mutex));
    }
    let joins = mostly(evidence, Layout::Join) || evidence.ended_by(Outcome::Exit) * 2 > evidence.ended();
    let is_join = joins && !mostly(evidence, Layout::GlibcMutex) && !mostly(evidence, Layout::TidWord);
    (is_join && evidence.waits() > 0).then_some(idle(Kind::Join))
}

/// By the calls of glibc's condition variables, semaphores, readers-writer locks and barriers.
fn glibc(evidence: &Evidence<'_>) -> Option<Verdict> {
    let sample = &evidence.sample;
    match calls_of_glibc(sample) {
        Some(Kind::Rwlock) => return Some(lock(Kind::Rwlock)),
        Some(kind) => return Some(idle(kind)),
        None => {}
    }
    if is_barrier(evidence) {
        return Some(idle(Kind::Barrier));
    }
    let wakes_all = evidence.ended_by(Outcome::WokenMany) * 2 > evidence.ended();
    let plain = sample.op == op::WAIT && sample.flags & flag::TIMED == 0;
    let protocol = mostly(evidence, Layout::Contended) || mostly(evidence, Layout::GlibcMutex);
    (plain && wakes_all && evidence.several_waiters && !protocol).then_some(idle(Kind::Barrier))
}

/// A barrier of glibc that is not complete, by its memory: the number of those who have come stands before the word (the round
/// that goes on), the number it takes behind it, and as many wait as have come.
fn is_barrier(evidence: &Evidence<'_>) -> bool {
    let plain = evidence.sample.op == op::WAIT && evidence.sample.flags & flag::TIMED == 0;
    let live = evidence.open.iter().find_map(|(_, open)| open.live.as_ref());
    let Some(live) = live.filter(|live| plain && live.valid as usize == 4 * LIVE_WORDS) else {
        return false;
    };
    let at = (LIVE_BEFORE / 4) as usize;
    let come = live.words[at - 1].wrapping_sub(live.words[at]);
    let needed = live.words[at + 1];
    come != 0 && come < needed && needed <= TID_LIMIT && u64::from(come) == evidence.open.len() as u64
}

/// By the values that are waited for.
fn by_value(evidence: &Evidence<'_>) -> Option<Verdict> {
    let sample = &evidence.sample;
    if mostly(evidence, Layout::Contended) || mostly(evidence, Layout::GlibcMutex) {
        let turns = evidence.take_turns() > 0 && evidence.ended_by(Outcome::WokenMany) == 0;
        let protocol =
            evidence.layouts[Layout::Contended as usize] + evidence.layouts[Layout::GlibcMutex as usize];
        if turns || (protocol >= PROTOCOL && protocol == evidence.waits() && evidence.ended() > 0) {
            return Some(lock(Kind::Mutex));
        }
        return None;
    }
    let queued = sample.value & QUEUED != 0 && sample.value == sample.word && sample.value != PARKED;
    let rust = sample.op == op::WAIT_BITSET && sample.flags & flag::REALTIME == 0;
    (queued && rust).then_some(lock(Kind::Rwlock))
}

/// By who waits and who wakes.
fn by_behaviour(evidence: &Evidence<'_>, lately: &Evidence<'_>, window_ns: u64) -> Verdict {
    let kind = shape(evidence);
    if lately.take_turns() >= 2 && lately.ended() >= ENOUGH && is_exclusive(lately, window_ns) {
        return lock(if kind == Kind::Unknown { Kind::Mutex } else { kind });
    }
    idle(kind)
}

/// What a single wait looks like, with nothing known of others.
pub fn look_of(wait: &FutexWait) -> Kind {
    let layout = Layout::from_byte(wait.layout);
    let family = wait.op == op::WAIT_BITSET && wait.flags & flag::REALTIME != 0;
    match (wait.op, layout) {
        (op::LOCK_PI, _) => Kind::PiMutex,
        (op::WAIT_REQUEUE_PI, _) => Kind::Condvar,
        (_, Layout::TidWord | Layout::GlibcMutex) => Kind::Mutex,
        (_, Layout::Join) => Kind::Join,
        _ if family => calls_of_glibc(wait).unwrap_or(Kind::Condvar),
        _ => Kind::Unknown,
    }
}

/// Told by the values that glibc's readers-writer locks and semaphores wait for.
fn calls_of_glibc(wait: &FutexWait) -> Option<Kind> {
    let family = wait.op == op::WAIT_BITSET && wait.flags & flag::REALTIME != 0;
    if !family || wait.flags & flag::TIMED != 0 {
        return None;
    }
    // __wrphase_futex and __writers_futex: PTHREAD_RWLOCK_FUTEX_USED is 2.
    if matches!(wait.value, 2 | 3) && wait.word == wait.value {
        return Some(Kind::Rwlock);
    }
    // A semaphore: the value in the lower half, the number of waiters in the upper.
    let waiters = 1..=0xffff;
    (wait.value == 0 && wait.word == 0 && waiters.contains(&wait.next)).then_some(Kind::Semaphore)
}

/// What an idle thing looks like.
fn shape(evidence: &Evidence<'_>) -> Kind {
    let sample = &evidence.sample;
    let family = sample.op == op::WAIT_BITSET && sample.flags & (flag::REALTIME | flag::TIMED) != 0;
    let untimed_rust = sample.op == op::WAIT_BITSET && sample.flags & flag::REALTIME == 0;
    if family && sample.flags & flag::REALTIME != 0 {
        return Kind::Condvar;
    }
    if !evidence.several_waiters {
        return Kind::Parker;
    }
    if family || untimed_rust || evidence.ended_by(Outcome::WokenMany) > 0 {
        return Kind::Condvar;
    }
    Kind::Unknown
}

/// Whether of those who take turns here about one is not waiting, all the time: what an exclusive lock under load looks
/// like, and neither a busy pool of workers (several are not) nor an idle one (none is).
fn is_exclusive(evidence: &Evidence<'_>, window_ns: u64) -> bool {
    if window_ns == 0 {
        return false;
    }
    let mut turns = 0_u64;
    let mut waited_ns = 0;
    for tid in evidence.waiters.intersection(&evidence.wakers) {
        turns += 1;
        let open = evidence.open.iter().find(|(thread, _)| thread.id.tid == *tid);
        let ended_ns = evidence.by_waiter.get(tid).copied().unwrap_or(0);
        waited_ns += (ended_ns + open.map_or(0, |(_, open)| open.counted_ns)).min(window_ns);
    }
    let others_ns = turns.saturating_mul(window_ns).saturating_sub(waited_ns);
    let holders = others_ns as f64 / window_ns as f64;
    (0.6..=1.6).contains(&holders)
}

/// Whether more than half of the waits looked like that.
fn mostly(evidence: &Evidence<'_>, layout: Layout) -> bool {
    evidence.layouts[layout as usize] * 2 > evidence.layouts.iter().sum::<u64>()
}
