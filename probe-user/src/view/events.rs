//! The event stream: one line an event, for people and for programs.

use std::collections::BTreeMap;
use std::time::SystemTime;

use probe_ebpf::state::State;
use serde::Serialize;
use unicode_width::UnicodeWidthStr;

use super::json::Named;
use super::number::{at_least, duration};
use super::waiting::ended;
use crate::model::event::{Event, EventKind, exit_code, exit_signal};
use crate::model::life::Happening;
use crate::model::thread::{Comm, state_name};

/// One event as JSON.
#[derive(Debug, Serialize)]
pub struct EventJson {
    event: &'static str,
    at: String,
    pid: u32,
    tid: u32,
    ppid: u32,
    comm: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    exit: Option<ExitJson>,
}

/// What an exit adds. Flattened by hand: code and signal are `null` when they do not apply.
#[derive(Debug, Serialize)]
struct ExitJson {
    code: Option<u32>,
    signal: Option<u32>,
    reason: &'static str,
    killed_by: Option<Named>,
    last_thread: bool,
    /// From birth to death.
    age_ns: Option<u64>,
    times_ns: Option<BTreeMap<&'static str, u64>>,
    /// Whether the times begin later than its life: it is older than the watch.
    times_ns_are_lower_bounds: bool,
}

fn name(event: &Event) -> &'static str {
    match event.kind {
        EventKind::Fork { .. } => "fork",
        EventKind::Exec { .. } => "exec",
        EventKind::Exit(_) => "exit",
        EventKind::Reap => "reap",
    }
}

/// One line of JSON, without the line end. `ahead_ns` as in [`Event::age_ns`].
///
/// # Errors
/// serde's, which cannot happen with these types.
pub fn json(event: &Event, at: SystemTime, ahead_ns: u64) -> serde_json::Result<String> {
    let mut value = serde_json::to_value(EventJson {
        event: name(event),
        at: humantime::format_rfc3339_nanos(at).to_string(),
        pid: event.pid,
        tid: event.id.tid,
        ppid: event.ppid,
        comm: event.comm.to_string(),
        exit: exit(event, ahead_ns),
    })?;
    if let Some(object) = value.as_object_mut()
        && let Some(serde_json::Value::Object(exit)) = object.remove("exit")
    {
        object.extend(exit);
    }
    serde_json::to_string(&value)
}

fn exit(event: &Event, ahead_ns: u64) -> Option<ExitJson> {
    let EventKind::Exit(exit) = &event.kind else {
        return None;
    };
    let times = exit.account.as_ref().map(|account| {
        State::ALL
            .into_iter()
            .map(|state| (state_name(state), account.time_ns[state.index()]))
            .collect()
    });
    Some(ExitJson {
        code: exit_code(exit.status),
        signal: exit_signal(exit.status),
        reason: exit.reason().name(),
        killed_by: exit
            .killer
            .map(|killer| Named::new(killer.pid, Some(killer.comm))),
        last_thread: exit.last,
        age_ns: event.age_ns(ahead_ns),
        times_ns: times,
        times_ns_are_lower_bounds: event.is_older_than_account(ahead_ns),
    })
}

/// What followed from events: a lost parent or a reaping, as one line of JSON.
///
/// # Errors
/// serde's, which cannot happen with these types.
pub fn happening_json(happening: &Happening, at: SystemTime) -> serde_json::Result<String> {
    let at = humantime::format_rfc3339_nanos(at).to_string();
    let value = match happening {
        Happening::Orphaned { id, comm, loss } => serde_json::json!({
            "event": "orphan",
            "at": at,
            "pid": id.pid,
            "tid": id.pid,
            "ppid": loss.adopter.pid,
            "comm": comm.to_string(),
            "original_parent": Named::new(loss.original.pid, named(loss.original_comm)),
            "adopter": { "pid": loss.adopter.pid, "kind": loss.kind.name() },
        }),
        Happening::Reaped {
            id,
            comm,
            parent,
            delay_ns,
            ..
        } => serde_json::json!({
            "event": "reap",
            "at": at,
            "pid": id.pid,
            "tid": id.pid,
            "ppid": parent.pid,
            "comm": comm.to_string(),
            "delay_ns": delay_ns,
        }),
    };
    serde_json::to_string(&value)
}

fn named(comm: Comm) -> Option<Comm> {
    (!comm.bytes().is_empty()).then_some(comm)
}

/// When it happened, CLOCK_MONOTONIC.
pub fn happened_at(happening: &Happening) -> u64 {
    match happening {
        Happening::Orphaned { loss, .. } => loss.at_ns,
        Happening::Reaped { at_ns, .. } => *at_ns,
    }
}

/// The same as one line of text.
pub fn happening_line(happening: &Happening, at: SystemTime) -> String {
    match happening {
        Happening::Orphaned { id, comm, loss } => {
            let original = named(loss.original_comm).map_or_else(String::new, |comm| format!("{comm} "));
            let what = format!(
                "lost its parent {original}{}; adopted by {} ({})",
                loss.original.pid,
                loss.adopter.pid,
                loss.kind.name()
            );
            columns(at, "orphan", [id.pid, id.pid, loss.adopter.pid], *comm, &what)
        }
        Happening::Reaped {
            id,
            comm,
            parent,
            delay_ns,
            ..
        } => {
            let what = format!("{} after its death", duration(Some(*delay_ns)));
            columns(at, "reap", [id.pid, id.pid, parent.pid], *comm, &what)
        }
    }
}

/// Columns of a name: most have 15 characters at most.
const COMM: usize = 15;

/// The heading of the lines.
pub const HEADING: &str =
    "TIME                         EVENT      PID     TID    PPID  COMM             WHAT";

/// One line of text. `ahead_ns` as in [`Event::age_ns`].
pub fn line(event: &Event, at: SystemTime, ahead_ns: u64) -> String {
    let what = match &event.kind {
        EventKind::Fork { .. } if event.id.tid != event.pid => "a thread".to_owned(),
        EventKind::Fork { .. } => "a process".to_owned(),
        EventKind::Exec { old_tid } if *old_tid != event.id.tid => format!("was thread {old_tid}"),
        EventKind::Exec { .. } | EventKind::Reap => String::new(),
        EventKind::Exit(exit) => {
            let lived = exit.account.as_ref().map(|account| {
                let running_ns = account.time_ns[State::Running.index()];
                format!(
                    " after {}, {} of it running",
                    duration(event.age_ns(ahead_ns)),
                    at_least(Some(running_ns), event.is_older_than_account(ahead_ns))
                )
            });
            let whose = if exit.last { "" } else { "a thread " };
            let by = match (exit.oom, exit.killer) {
                (true, _) => " (out of memory)".to_owned(),
                (false, Some(killer)) => format!(" from {} {}", killer.comm, killer.pid),
                (false, None) => String::new(),
            };
            format!(
                "{whose}{}{by}{}",
                ended(Some(exit.status)),
                lived.unwrap_or_default()
            )
        }
    };
    columns(
        at,
        name(event),
        [event.pid, event.id.tid, event.ppid],
        event.comm,
        &what,
    )
}

fn columns(at: SystemTime, name: &str, [pid, tid, ppid]: [u32; 3], comm: Comm, what: &str) -> String {
    let at = humantime::format_rfc3339_micros(at);
    let comm = comm.to_string();
    // By what a terminal shows, which `{:<15}` does not know.
    let padding = " ".repeat(COMM.saturating_sub(comm.width()));
    let line = format!("{at}  {name:<6} {pid:>7} {tid:>7} {ppid:>7}  {comm}{padding}  {what}");
    line.trim_end().to_owned()
}
