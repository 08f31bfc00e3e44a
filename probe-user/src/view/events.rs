//! The event stream: one line an event, for people and for programs.

use std::collections::BTreeMap;
use std::time::SystemTime;

use probe_ebpf::state::State;
use serde::Serialize;

use super::number::duration;
use super::waiting::ended;
use crate::model::event::{Event, EventKind, exit_code, exit_signal};
use crate::model::thread::state_name;

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
    last_thread: bool,
    times_ns: Option<BTreeMap<&'static str, u64>>,
}

fn name(event: &Event) -> &'static str {
    match event.kind {
        EventKind::Fork { .. } => "fork",
        EventKind::Exec { .. } => "exec",
        EventKind::Exit(_) => "exit",
    }
}

/// One line of JSON, without the line end.
///
/// # Errors
/// serde's, which cannot happen with these types.
pub fn json(event: &Event, at: SystemTime) -> serde_json::Result<String> {
    let mut value = serde_json::to_value(EventJson {
        event: name(event),
        at: humantime::format_rfc3339_nanos(at).to_string(),
        pid: event.pid,
        tid: event.id.tid,
        ppid: event.ppid,
        comm: event.comm.to_string(),
        exit: exit(event),
    })?;
    if let Some(object) = value.as_object_mut()
        && let Some(serde_json::Value::Object(exit)) = object.remove("exit")
    {
        object.extend(exit);
    }
    serde_json::to_string(&value)
}

fn exit(event: &Event) -> Option<ExitJson> {
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
        last_thread: exit.last,
        times_ns: times,
    })
}

/// The heading of the lines.
pub const HEADING: &str =
    "TIME                          EVENT      PID     TID    PPID  COMM             WHAT";

/// One line of text.
pub fn line(event: &Event, at: SystemTime) -> String {
    let what = match &event.kind {
        EventKind::Fork { .. } if event.id.tid != event.pid => "a thread".to_owned(),
        EventKind::Fork { .. } => "a process".to_owned(),
        EventKind::Exec { old_tid } if *old_tid != event.id.tid => format!("was thread {old_tid}"),
        EventKind::Exec { .. } => String::new(),
        EventKind::Exit(exit) => {
            let lived = exit.account.as_ref().map(|account| {
                let total: u64 = account.time_ns.iter().sum();
                let running = account.time_ns[State::Running.index()];
                format!(
                    " after {}, {} of it running",
                    duration(Some(total)),
                    duration(Some(running))
                )
            });
            let whose = if exit.last { "" } else { "a thread " };
            format!("{whose}{}{}", ended(exit.status), lived.unwrap_or_default())
        }
    };
    let line = format!(
        "{}  {:<5}  {:>7} {:>7} {:>7}  {:<15}  {what}",
        humantime::format_rfc3339_micros(at),
        name(event),
        event.pid,
        event.id.tid,
        event.ppid,
        event.comm.to_string(),
    );
    line.trim_end().to_owned()
}
