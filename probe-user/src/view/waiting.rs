//! What a thread waits for, in a few words.

use probe_ebpf::state::State;

use super::number::UNKNOWN;
use crate::model::blocked;
use crate::model::event::{exit_code, exit_signal};
use crate::model::thread::{Condition, Thread};

/// The words for the column WAITING ON.
pub fn waiting_on(thread: &Thread) -> String {
    match thread.condition {
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
        Condition::Alive(_) => thread
            .blocked_on
            .as_ref()
            .and_then(blocked::syscall_name)
            .unwrap_or_else(|| UNKNOWN.to_owned()),
    }
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
