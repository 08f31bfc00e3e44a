//! Watches locks over a window that begins and ends when the test says, and finds its way in the answer.

use serde_json::Value;

use super::json::{id, list, number};
use super::probe::{self, Outcome, Running};
use super::{Live, eventually, procfs};

/// A `procprobe locks` that watches, until closed.
pub struct Window {
    running: Running,
    finish: Box<dyn FnOnce(Running) -> Outcome>,
}

impl Window {
    /// Starts it and waits until it watches.
    ///
    /// # Panics
    /// If it does not.
    pub fn open(live: &Live, arguments: &[&str]) -> Self {
        let mut command = live.command(&["locks", "--for", "100s", "-o", "json"]);
        let (mut running, finish) = probe::start(command.args(arguments));
        let pid = running.0.id();
        eventually("`procprobe locks` to watch", || {
            let ended = running.0.try_wait().expect("waiting for a child").is_some();
            ended || procfs::handles_interrupts(pid)
        });
        Self {
            running,
            finish: Box::new(finish),
        }
    }

    /// Ends the window as Ctrl-C does, and returns the answer.
    ///
    /// # Panics
    /// If it is not one.
    pub fn close(self) -> Value {
        self.running.signal(libc::SIGINT);
        let outcome = (self.finish)(self.running);
        assert!(
            outcome.status.success() && outcome.stderr.is_empty(),
            "{outcome:?}"
        );
        serde_json::from_str(&outcome.stdout).unwrap_or_else(|error| panic!("{error}: {outcome:?}"))
    }
}

/// The entries of a list that belong to a process.
pub fn of<'a>(answer: &'a Value, key: &str, pid: u32) -> Vec<&'a Value> {
    let entries = list(answer, key).iter();
    entries.filter(|entry| id(entry, "pid") == pid).collect()
}

/// An address as the answers write it.
pub fn hex(address: u64) -> String {
    format!("{address:#x}")
}

/// The lock with an id.
///
/// # Panics
/// If there is none.
pub fn lock<'a>(answer: &'a Value, id: &Value) -> &'a Value {
    let mut locks = list(answer, "locks").iter();
    locks
        .find(|lock| lock["id"] == *id)
        .unwrap_or_else(|| panic!("no lock {id} in {answer}"))
}

/// The deadlocks that a process has part in.
pub fn deadlocks(answer: &Value, pid: u32) -> Vec<&Value> {
    let has_part = |deadlock: &&Value| {
        list(deadlock, "threads")
            .iter()
            .any(|thread| id(thread, "pid") == pid)
    };
    list(answer, "deadlocks").iter().filter(has_part).collect()
}

/// The stalls that a process has part in.
pub fn stalls(answer: &Value, pid: u32) -> Vec<&Value> {
    let has_part = |stall: &&Value| mentions(stall, pid);
    list(answer, "stalls").iter().filter(has_part).collect()
}

/// Whether some object in there says it is about a process.
fn mentions(value: &Value, pid: u32) -> bool {
    match value {
        Value::Object(map) => map.get("pid") == Some(&pid.into()) || map.values().any(|it| mentions(it, pid)),
        Value::Array(list) => list.iter().any(|it| mentions(it, pid)),
        _ => false,
    }
}

/// Nothing of a process is called contention, let alone a deadlock.
///
/// # Panics
/// If something is.
pub fn check_uncontended(answer: &Value, pid: u32) {
    assert_eq!(
        of(answer, "locks", pid),
        Vec::<&Value>::new(),
        "{pid} has no contended lock"
    );
    let waits = list(answer, "edges")
        .iter()
        // Null if the waiter had ended before anybody learned its name: no thread of a process that lives.
        .filter(|edge| edge["waiter"]["pid"].as_u64() == Some(pid.into()));
    assert_eq!(waits.count(), 0, "nobody in {pid} waits for anybody: {answer}");
    assert_eq!(
        deadlocks(answer, pid),
        Vec::<&Value>::new(),
        "{pid} has no deadlock"
    );
}

/// A sum over entries.
pub fn sum(entries: &[&Value], key: &str) -> u64 {
    entries.iter().map(|entry| number(entry, key)).sum()
}
