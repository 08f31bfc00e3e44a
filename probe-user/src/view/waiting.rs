//! What a thread waits for, in a few words.

use probe_ebpf::state::State;

use super::number::UNKNOWN;
use crate::model::blocked;
use crate::model::event::{exit_code, exit_signal};
use crate::model::locks::Kind;
use crate::model::locks::classification::classify_single_wait;
use crate::model::locks::thread_index::{Owner, ThreadIndex};
use crate::model::thread::{Condition, OpenWait, Thread};

/// The words for the column WAITING ON. `index` tells who holds a lock.
pub fn waiting_on(thread: &Thread, index: Option<&ThreadIndex<'_>>) -> String {
    let at_futex = thread.futex.as_ref().zip(index);
    match thread.condition {
        _ if thread.is_frozen() => "its freezer (frozen)".to_owned(),
        Condition::Alive(State::Running) | Condition::Dead => UNKNOWN.to_owned(),
        Condition::Alive(State::Runnable) => "a CPU (runnable)".to_owned(),
        Condition::Alive(State::Stopped) => "SIGCONT".to_owned(),
        Condition::Alive(State::Traced) => thread.tracer.map_or_else(
            || "its tracer".to_owned(),
            |tracer| format!("its tracer {tracer}"),
        ),
        Condition::Zombie if thread.is_leader() && thread.live_threads > 0 => "its threads".to_owned(),
        Condition::Zombie => thread.tracer.map_or_else(
            || format!("its parent {}", thread.ppid),
            |tracer| format!("its tracer {tracer}"),
        ),
        Condition::Alive(State::Sleeping) if at_futex.is_some() => {
            at_futex.map_or_else(String::new, |(open, index)| at_a_futex(thread, open, index))
        }
        Condition::Alive(_) if thread.page_fault => "a page (fault)".to_owned(),
        Condition::Alive(_) => thread
            .blocked_on
            .as_ref()
            .and_then(blocked::syscall_name)
            .unwrap_or_else(|| UNKNOWN.to_owned()),
    }
}

/// What one wait alone says of the futex.
fn at_a_futex(thread: &Thread, open: &OpenWait, index: &ThreadIndex<'_>) -> String {
    if let Some(target) = index.target(thread, open) {
        match target.owner {
            Owner::Live(owner) if target.joins => return format!("the end of {}", owner.id.tid),
            Owner::Live(owner) if owner.id == thread.id => return "a lock it holds itself".to_owned(),
            Owner::Live(owner) => return format!("lock held by {}", owner.id.tid),
            Owner::Parent(owner) => return format!("lock held by {} when it forked", owner.id.tid),
            Owner::Exited(Some(tid)) => return format!("lock of {tid}, which ended"),
            Owner::Exited(None) => return "lock of a thread that ended".to_owned(),
            Owner::Ambiguous => {}
        }
    }
    let shape = match classify_single_wait(index, thread, open) {
        Kind::Mutex | Kind::PiMutex | Kind::Rwlock => "a lock",
        Kind::Condvar => "a condition",
        Kind::Semaphore => "a semaphore",
        Kind::Join => "the end of a thread",
        Kind::Barrier | Kind::Parker | Kind::Unknown => "futex",
    };
    shape.to_owned()
}

/// How a dead thread ended: "exited 1", "killed by SIGKILL".
pub fn ended(status: Option<u32>) -> String {
    match (status.and_then(exit_code), status.and_then(exit_signal)) {
        (Some(code), _) => format!("exited {code}"),
        (_, Some(signal)) => format!("killed by {}", signal_name(signal)),
        _ => "ended".to_owned(),
    }
}

/// The name of a signal, its number if it has none (a real-time signal).
pub fn signal_name(signal: u32) -> String {
    i32::try_from(signal)
        .ok()
        .and_then(signal_hook::low_level::signal_name)
        .map_or_else(|| format!("signal {signal}"), str::to_owned)
}
