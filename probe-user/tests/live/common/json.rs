//! Finding one's way in the answers.

use std::collections::BTreeMap;

use serde_json::Value;

/// The elements of an array.
///
/// # Panics
/// If there is no such array.
pub fn list<'a>(value: &'a Value, key: &str) -> &'a [Value] {
    value[key]
        .as_array()
        .unwrap_or_else(|| panic!("no list {key} in {value}"))
}

/// An unsigned number.
///
/// # Panics
/// If there is no such number.
pub fn number(value: &Value, key: &str) -> u64 {
    value[key]
        .as_u64()
        .unwrap_or_else(|| panic!("no number {key} in {value}"))
}

/// A text.
///
/// # Panics
/// If there is no such text.
pub fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key]
        .as_str()
        .unwrap_or_else(|| panic!("no text {key} in {value}"))
}

/// A pid or tid.
pub fn id(value: &Value, key: &str) -> u32 {
    u32::try_from(number(value, key)).expect("a pid or tid")
}

/// The process with a pid.
///
/// # Panics
/// If there is none, or more than one.
pub fn process(tree: &Value, pid: u32) -> &Value {
    let mut found = list(tree, "processes")
        .iter()
        .filter(|process| id(process, "pid") == pid);
    let process = found.next().unwrap_or_else(|| panic!("no process {pid}"));
    assert!(found.next().is_none(), "process {pid} comes twice");
    process
}

/// The one entry of a list that has a pid; `None` if there is none.
///
/// # Panics
/// If there is more than one.
pub fn entry<'a>(answer: &'a Value, key: &str, pid: u32) -> Option<&'a Value> {
    let mut found = list(answer, key).iter().filter(|entry| id(entry, "pid") == pid);
    let entry = found.next();
    assert!(found.next().is_none(), "{pid} comes twice in {key}");
    entry
}

/// The first thread of the process with a pid.
pub fn leader(tree: &Value, pid: u32) -> &Value {
    let threads = list(process(tree, pid), "threads");
    threads
        .iter()
        .find(|thread| id(thread, "tid") == pid)
        .expect("a process has its first thread")
}

/// All threads by tid, with their process.
pub fn threads(tree: &Value) -> BTreeMap<u32, (&Value, &Value)> {
    let mut all = BTreeMap::new();
    for process in list(tree, "processes") {
        for thread in list(process, "threads") {
            assert!(
                all.insert(id(thread, "tid"), (process, thread)).is_none(),
                "comes twice: {thread}"
            );
        }
    }
    all
}
