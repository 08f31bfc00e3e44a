//! A lock's line says why it is not given up: its holder sleeps, gets no CPU, or waits for the disk.

use serde_json::Value;

use crate::common::json::{id, list, number, text};
use crate::common::locks::{self, hex};
use crate::common::workload::Workload;
use crate::common::{Live, note};

/// A scene with one holder and three who wait.
struct Queue {
    scene: Workload,
    pid: String,
}

impl Queue {
    fn start(arguments: &[&str]) -> Self {
        let scene = Workload::start(arguments);
        let pid = scene.fact("pid").to_string();
        Self { scene, pid }
    }

    /// The holder, with all that is beyond doubt about the lock checked.
    fn holder(&self, live: &Live) -> Value {
        let answer = live.json(&["locks", "--for", "300ms", "--pid", &self.pid]);
        let found = locks::of(&answer, "locks", self.scene.fact("pid"));
        assert_eq!(found.len(), 1, "{answer}");
        let lock = found[0];
        assert_eq!(
            (text(lock, "address"), number(lock, "waiters_now")),
            (hex(self.scene.large("address")).as_str(), 3),
            "{lock}"
        );
        // Nobody's wait has ended, and all three waited all the time.
        let window_ns = number(&answer, "window_ns");
        let total_ns = number(lock, "wait_ns_total");
        assert!(
            total_ns * 100 >= window_ns * 3 * 98,
            "{total_ns} of three times {window_ns}: {lock}"
        );
        let holder = &lock["holder"];
        assert_eq!(
            (id(holder, "tid"), text(holder, "comm"), text(holder, "evidence")),
            (self.scene.fact("holder"), "pp-keeper", "owner"),
            "{lock}"
        );
        let edges = list(&answer, "edges").iter();
        let edges = edges.filter(|edge| edge["lock"] == lock["id"]);
        let to_holder = |edge: &Value| id(&edge["holder"], "tid") == self.scene.fact("holder");
        assert_eq!(
            edges.map(to_holder).collect::<Vec<_>>(),
            [true; 3],
            "an edge for each: {answer}"
        );
        holder.clone()
    }

    fn table(&self, live: &Live) -> String {
        live.text(&["locks", "--for", "300ms", "--pid", &self.pid])
    }
}

/// The system call a holder is in; empty if it is in none.
fn call(holder: &Value) -> &str {
    let blocked_on = &holder["blocked_on"];
    blocked_on
        .as_str()
        .or_else(|| blocked_on["syscall"].as_str())
        .unwrap_or("")
}

#[test]
fn a_holder_that_sleeps_is_said_to() {
    let Some(live) = Live::begin("sleeping holder") else {
        return;
    };
    let queue = Queue::start(&["holder-asleep"]);
    let holder = queue.holder(&live);
    assert_eq!(
        (text(&holder, "state"), call(&holder)),
        ("sleeping", "clock_nanosleep"),
        "{holder}"
    );
    let table = queue.table(&live);
    assert!(table.contains("asleep in clock_nanosleep"), "{table}");
}

#[test]
fn a_holder_that_gets_no_cpu_is_said_to() {
    let Some(live) = Live::begin("starved holder") else {
        return;
    };
    let queue = Queue::start(&["holder-starved"]);
    // It does get one for a moment, every many seconds.
    let holder = (0..3)
        .map(|_| queue.holder(&live))
        .find(|holder| text(holder, "state") == "runnable");
    let holder = holder.expect("a runnable holder");
    assert!(number(&holder, "state_ns") >= 200_000_000, "{holder}");
    let tables: Vec<String> = (0..3).map(|_| queue.table(&live)).collect();
    assert!(
        tables.iter().any(|table| table.contains("runnable")),
        "{tables:?}"
    );
}

#[test]
fn a_holder_that_waits_for_the_disk_is_said_to() {
    let Some(live) = Live::begin("holder on the disk") else {
        return;
    };
    // Beside the program under test: that is a disk, where /tmp may be memory.
    let beside = live.binary.parent().expect("it is in a directory");
    let directory = tempfile::tempdir_in(beside).expect("a temporary directory");
    let path = directory.path().to_str().expect("a path in UTF-8");
    let queue = Queue::start(&["holder-on-disk", path]);
    let (mut answers, mut tables) = (0, 0);
    for _ in 0..15 {
        if answers < 2 {
            let holder = queue.holder(&live);
            answers += u32::from(text(&holder, "state") == "uninterruptible" && call(&holder) == "fsync");
        }
        if tables < 2 {
            tables += u32::from(queue.table(&live).contains("in fsync"));
        }
    }
    note(&format!("on the disk in {answers} answers and {tables} tables"));
    assert!(answers >= 2 && tables >= 2, "{answers} answers, {tables} tables");
}
