//! What a raw record means: the state a thread is in at the moment it was read, since when, and its times so far.
//!
//! Pure. The kernel side books a turn when the thread leaves the CPU (see [`probe_ebpf::ledger::Ledger`]); what the turn
//! under way has brought is added here. Three things only show when record and task are read together:
//! - it was woken and waits for a CPU: the wake-up is noted, not booked;
//! - it was woken before its own switch-out was traced: the note is older than the state, but the kernel's state bits
//!   say it is not blocked;
//! - it has not switched at all since accounting began: its state since then is what the kernel says now.

use std::sync::{Arc, LazyLock};

use probe_ebpf::ledger::{IN_FUTEX, Ledger, NO_SYSCALL};
use probe_ebpf::record::{EXECUTED, FROZEN, Facts, MAP_KNOWN, MAP_LOCKED, NS_LEVELS, ON_CPU, TaskRecord};
use probe_ebpf::state::{EXIT_ZOMBIE, PF_KTHREAD, State, TASK_DEAD};
use probe_ebpf::waiting::{Class, op};
use smallvec::SmallVec;

use super::accounts::account;
use crate::kernel::snapshot::RawTask;
use crate::model::locks::site::Site;
use crate::model::thread::{Comm, Condition, OpenWait, ReadFrom, Switches, Thread, ThreadId};

/// The site of a wait until it is looked up.
static UNREAD: LazyLock<Arc<Site>> = LazyLock::new(|| Arc::new(Site::UNREAD));

/// What all records of one snapshot have in common.
#[derive(Clone, Copy, Debug)]
pub struct Clocks {
    /// CLOCK_MONOTONIC when accounting began; 0 without accounting.
    pub live_since_ns: u64,
    /// CLOCK_MONOTONIC minus the scheduler clock, wrapping.
    pub scheduler_offset: Option<u64>,
}

/// A state, since when, and whether it may have begun earlier.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Since {
    condition: Condition,
    ns: Option<u64>,
    is_lower_bound: bool,
}

/// Makes a thread of a raw record.
pub fn thread(task: &RawTask<'_>, clocks: Clocks) -> Thread {
    let record = task.record;
    let facts = &record.facts;
    let ledger = task.ledger.filter(|ledger| ledger.birth_ns != 0);
    let since = since(record, ledger, task.ledger, clocks);
    let blocked = matches!(since.condition, Condition::Alive(state) if state.is_blocked());
    let blocked_on = ledger
        .filter(|_| blocked)
        .map_or(record.blocked_on, |ledger| ledger.blocked_on);
    let account =
        (clocks.live_since_ns != 0 && !task.torn()).then(|| account(task, ledger, since.condition, clocks));
    // Filled in where it lies: struct update syntax would copy it, a few hundred bytes for each thread of the host.
    let mut thread = describe(facts);
    thread.condition = since.condition;
    thread.condition_ns = since.ns.map(|ns| record.now_ns.saturating_sub(ns));
    thread.is_lower_bound = since.is_lower_bound;
    thread.blocked_on = (blocked && blocked_on.syscall != NO_SYSCALL).then_some(blocked_on);
    let class = ledger.map_or(record.futex.class, |ledger| ledger.futex.class);
    thread.page_fault = blocked && class == Class::PageFault as u8;
    thread.descriptor = descriptor(record, ledger);
    thread.futex = open_wait(task, ledger, since, clocks);
    thread.lifetime_running_ns = Some(record.lifetime_running_ns);
    let last_wait_ns = task.ledger.map(|ledger| ledger.last_wait_ns);
    thread.last_wait_ns = last_wait_ns.filter(|&ns| ns != 0);
    thread.account = account;
    thread.frozen = Some(record.flags & FROZEN != 0);
    if thread.frozen == Some(true) && blocked {
        // Whatever it waited for before: it would not go on if that came. The kernel has it asleep, or in D.
        thread.condition = Condition::Alive(State::Stopped);
    }
    thread.executed = record.flags & EXECUTED != 0;
    thread.map_locked = match record.flags {
        flags if flags & MAP_LOCKED != 0 => Some(true),
        flags if flags & MAP_KNOWN != 0 => Some(false),
        _ => None,
    };
    thread.space = record.space;
    thread.sp = record.sp;
    thread.clear_child_tid = record.clear_child_tid;
    thread
}

/// The first argument of the system call it last waited in, if that reads or writes.
fn descriptor(record: &TaskRecord, ledger: Option<&Ledger>) -> Option<u64> {
    let (class, blocked_on) = match ledger {
        Some(ledger) => (ledger.futex.class, ledger.blocked_on),
        None => (record.futex.class, record.blocked_on),
    };
    let reads = class == Class::Read as u8 || class == Class::Write as u8;
    reads.then_some(blocked_on.args[0])
}

/// The futex wait the thread is in, until it runs again.
fn open_wait(task: &RawTask<'_>, ledger: Option<&Ledger>, since: Since, clocks: Clocks) -> Option<OpenWait> {
    let record = task.record;
    let waits = matches!(
        since.condition,
        Condition::Alive(State::Sleeping | State::Runnable)
    );
    // The ledger's copy is whole; the record's may be half the next wait's.
    let wait = match ledger {
        Some(ledger) if ledger.flags & IN_FUTEX != 0 => ledger.futex,
        Some(_) => return None,
        None => record.futex,
    };
    if !waits || wait.op == op::NONE {
        return None;
    }
    let began_ns = ledger.map(|ledger| ledger.turn_ns).or(since.ns)?;
    // A wait that was under way when accounting began has lasted longer than the ledger knows.
    let known_ns = since.ns.map_or(began_ns, |ns| ns.min(began_ns));
    let counted_from_ns = began_ns.max(clocks.live_since_ns);
    let until = |ns: u64| record.now_ns.saturating_sub(ns);
    Some(OpenWait {
        wait,
        age_ns: until(known_ns),
        counted_ns: until(counted_from_ns),
        live: None,
        site: Arc::clone(&UNREAD),
    })
}

/// What does not depend on the moment.
fn describe(facts: &Facts) -> Thread {
    Thread {
        id: ThreadId {
            tid: facts.tid,
            start_ns: facts.start_ns,
        },
        pid: facts.pid,
        ppid: facts.ppid,
        parent_start_ns: facts.parent_start_ns,
        tracer: (facts.ptrace != 0).then_some(facts.tracer),
        comm: Comm::from_kernel(facts.comm),
        kernel: facts.task_flags & PF_KTHREAD != 0,
        uid: Some(facts.euid),
        nice: facts.static_prio.cast_signed().wrapping_sub(120),
        policy: facts.policy,
        ns_tids: SmallVec::from_slice(ns_tids(facts)),
        cgroup_id: facts.cgroup_id,
        condition: Condition::Dead,
        frozen: None,
        map_locked: None,
        executed: false,
        ends_with: (facts.group_exit != 0).then_some(facts.group_exit_code),
        condition_ns: None,
        is_lower_bound: false,
        blocked_on: None,
        page_fault: false,
        descriptor: None,
        futex: None,
        space: 0,
        sp: 0,
        clear_child_tid: 0,
        pid_namespace: facts.pid_namespace,
        exit_status: is_over(facts).then(|| wait_status(facts)),
        live_threads: facts.live_threads,
        threads: facts.threads,
        sid: facts.sid,
        pgid: facts.pgid,
        subreaper: Some(facts.subreaper != 0),
        last_wait_ns: None,
        lifetime_running_ns: None,
        switches: switches(facts),
        account: None,
        read_from: ReadFrom::Iterator,
    }
}

/// Whether how it ended is settled: what a first thread that ended before the others says is not what
/// `wait(2)` will.
fn is_over(facts: &Facts) -> bool {
    facts.exit_state != 0 && (facts.tid != facts.pid || facts.live_threads == 0)
}

/// The tid in namespaces below the host's, the innermost last.
pub(super) fn ns_tids(facts: &Facts) -> &[u32] {
    &facts.ns_tids[..NS_LEVELS.min(facts.ns_level as usize)]
}

/// What `wait(2)` tells the parent: the code of the group, if the group was told to end, else the thread's own
/// (`wait_task_zombie()` in kernel/exit.c).
pub(super) fn wait_status(facts: &Facts) -> u32 {
    if facts.group_exit == 0 {
        facts.exit_code
    } else {
        facts.group_exit_code
    }
}

pub(super) fn switches(facts: &Facts) -> Switches {
    Switches {
        voluntary: facts.voluntary,
        involuntary: facts.involuntary,
    }
}

/// The state the kernel has the thread in, without a ledger's help.
fn kernel_state(record: &TaskRecord) -> State {
    match State::from_blocked_bits(record.facts.state_bits) {
        // On its way to sleep but still on the CPU.
        _ if record.flags & ON_CPU != 0 => State::Running,
        Some(state) => state,
        None => State::Runnable,
    }
}

fn since(record: &TaskRecord, ledger: Option<&Ledger>, opened: Option<&Ledger>, clocks: Clocks) -> Since {
    if record.facts.exit_state != 0 || record.facts.state_bits & TASK_DEAD != 0 {
        let zombie = record.facts.exit_state & EXIT_ZOMBIE != 0;
        let condition = if zombie {
            Condition::Zombie
        } else {
            Condition::Dead
        };
        let ns = ledger
            .map(|ledger| ledger.since_ns)
            .or_else(|| last_ran_ns(record, clocks));
        return Since {
            condition,
            ns,
            is_lower_bound: false,
        };
    }
    match ledger {
        Some(ledger) => since_ledger(record, ledger, clocks),
        None => since_kernel(record, opened, clocks),
    }
}

/// By the ledger, with a wake-up that is noted or shows in the kernel's state.
fn since_ledger(record: &TaskRecord, ledger: &Ledger, clocks: Clocks) -> Since {
    let known = |state, ns| Since {
        condition: Condition::Alive(state),
        ns: Some(ns),
        is_lower_bound: false,
    };
    let state = State::from_byte(ledger.state).unwrap_or(State::Runnable);
    match woken_ns(record, ledger, state, clocks) {
        Some(woken_ns) => known(State::Runnable, woken_ns),
        None => Since {
            is_lower_bound: ledger.since_ns == ledger.birth_ns && began_before(record, ledger),
            ..known(state, ledger.since_ns)
        },
    }
}

/// Whether the thread is older than its account, so that its first interval may have begun before it.
fn began_before(record: &TaskRecord, ledger: &Ledger) -> bool {
    // The start is CLOCK_BOOTTIME, which is never behind CLOCK_MONOTONIC; a fork books within microseconds of it.
    record.facts.start_ns.saturating_add(1_000_000) < ledger.birth_ns
}

/// When a thread whose ledger says blocked was woken; `None` if it is still blocked (or was not blocked).
///
/// The note of `sched_waking` counts if it is not older than the wait. Without one, a thread that the kernel says is not
/// blocked was woken before its own switch-out, or by somebody the kernel does not let us trace; it has been queued since
/// the scheduler says so.
pub(super) fn woken_ns(record: &TaskRecord, ledger: &Ledger, state: State, clocks: Clocks) -> Option<u64> {
    if !state.is_blocked() {
        return None;
    }
    let latest = record.now_ns.max(ledger.since_ns);
    let awake = State::from_blocked_bits(record.facts.state_bits).is_none();
    let woken_ns = if ledger.wake.at_ns >= ledger.since_ns {
        ledger.wake.at_ns
    } else if awake {
        scheduler_time(record.last_queued_ns, clocks).unwrap_or(ledger.since_ns)
    } else {
        return None;
    };
    Some(woken_ns.clamp(ledger.since_ns, latest))
}

/// Without a ledger: the kernel's state, since the thread last ran or queued as far as the scheduler noted it.
fn since_kernel(record: &TaskRecord, opened: Option<&Ledger>, clocks: Clocks) -> Since {
    let state = kernel_state(record);
    let noted = match state {
        State::Running => scheduler_time(record.last_arrival_ns, clocks),
        State::Runnable => scheduler_time(record.last_queued_ns, clocks)
            .or_else(|| opened.map(|ledger| ledger.wake.at_ns).filter(|&ns| ns != 0)),
        _ => last_ran_ns(record, clocks),
    };
    let fallback = if clocks.live_since_ns == 0 {
        record.now_ns
    } else {
        clocks.live_since_ns
    };
    Since {
        condition: Condition::Alive(state),
        ns: Some(noted.unwrap_or(fallback).min(record.now_ns)),
        is_lower_bound: noted.is_none(),
    }
}

/// When a thread that is not on a CPU last was: the later of two notes the scheduler keeps. `last_arrival` is when it
/// got the CPU, `exec_start` when its time was last booked, by a clock that lacks stolen time. Both lie before the
/// switch-out, so the later one is the better bound; it is off by at most one turn on the CPU.
fn last_ran_ns(record: &TaskRecord, clocks: Clocks) -> Option<u64> {
    scheduler_time(record.last_arrival_ns.max(record.exec_start_ns), clocks)
}

fn scheduler_time(ns: u64, clocks: Clocks) -> Option<u64> {
    if ns == 0 {
        None
    } else {
        clocks.scheduler_offset.map(|offset| ns.wrapping_add(offset))
    }
}

#[cfg(test)]
#[path = "resolve_tests.rs"]
mod tests;
