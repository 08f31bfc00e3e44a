//! `tree` against /proc: the same processes and threads under the same parents, and nothing else.

use std::time::Duration;

use serde_json::Value;

use crate::common::json::{id, list, number, text, threads};
use crate::common::workload::Workload;
use crate::common::{Live, procfs};

const STATES: [&str; 10] = [
    "running",
    "runnable",
    "sleeping",
    "uninterruptible",
    "stopped",
    "traced",
    "idle",
    "parked",
    "zombie",
    "dead",
];

/// CLOCK_BOOTTIME, nanoseconds.
fn boottime_ns() -> u64 {
    let mut now = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: `now` is ours to write.
    unsafe { libc::clock_gettime(libc::CLOCK_BOOTTIME, &raw mut now) };
    let seconds = u64::try_from(now.tv_sec).expect("after boot");
    seconds * 1_000_000_000 + u64::try_from(now.tv_nsec).expect("below a second")
}

/// Compares one answer with /proc before and after it; returns the threads it has that no list has, which can only have
/// come and gone in between.
fn unlisted(live: &Live, source: &str) -> usize {
    // /proc rounds the time of birth down to clock ticks.
    let began_ns = boottime_ns() - Duration::from_millis(20).as_nanos() as u64;
    let before = procfs::tasks();
    let tree = live.json(&["tree", "--threads", "--source", source]);
    let after = procfs::tasks();
    let found = threads(&tree);
    for (tid, task) in &before {
        let Some(later) = after
            .get(tid)
            .filter(|later| (later.pid, later.start) == (task.pid, task.start))
        else {
            continue;
        };
        let (process, _) = found
            .get(tid)
            .unwrap_or_else(|| panic!("thread {tid} of {} is missing", task.pid));
        assert_eq!(id(process, "pid"), task.pid, "process of {tid}");
        // An orphan may have been adopted meanwhile.
        if later.ppid == task.ppid {
            assert_eq!(id(process, "ppid"), task.ppid, "parent of {}", task.pid);
        }
    }
    let mut unlisted = 0;
    for (tid, (process, thread)) in found {
        if before.contains_key(&tid) || after.contains_key(&tid) || number(process, "start_ns") >= began_ns {
            continue;
        }
        let pid = id(process, "pid");
        assert!(tid != pid, "process {pid} is in no list: {process}");
        // A thread that came and went, as ours do that read from the answer, or one on its way out, which /proc lists
        // no more.
        unlisted += usize::from(pid != std::process::id() && text(thread, "state") != "dead");
    }
    unlisted
}

#[test]
fn every_process_and_thread_of_proc_is_in_the_tree_and_nothing_else() {
    let Some(live) = Live::begin("tree") else { return };
    let _threads = Workload::start(&["threads", "20"]);
    let _zombie = Workload::start(&["zombie"]);
    for source in ["bpf", "proc"] {
        // Others may start threads between the two lists, but not every time.
        let calm = (0..5).any(|_| unlisted(&live, source) == 0);
        assert!(calm, "{source}: threads that are in no list, five times in a row");
    }
}

fn assert_null_or(value: &Value, what: &str, is: fn(&Value) -> bool) {
    assert!(value.is_null() || is(value), "{what}: {value}");
    assert!(value != "", "{what}: unknown is null");
}

#[test]
fn the_answer_has_the_shape_that_scripts_rely_on() {
    let Some(live) = Live::begin("shape") else { return };
    for source in ["bpf", "proc"] {
        let tree = live.json(&["tree", "--threads", "--source", source]);
        assert_eq!(
            (text(&tree, "schema"), text(&tree, "source")),
            ("procprobe/v1", source)
        );
        assert!(tree["complete"].is_boolean() && tree["lost"].is_object() && tree["window_ns"].is_u64());
        assert!(text(&tree, "taken_at").ends_with('Z'), "{}", tree["taken_at"]);
        for process in list(&tree, "processes") {
            for key in ["pid", "ppid", "start_ns"] {
                number(process, key);
            }
            for key in ["exe", "cgroup", "unit"] {
                assert_null_or(&process[key], key, Value::is_string);
            }
            assert_null_or(&process["cmdline"], "cmdline", Value::is_array);
            assert_null_or(&process["uid"], "uid", Value::is_u64);
            assert_null_or(&process["orphan"], "orphan", Value::is_object);
            assert!(
                process["nice"].is_i64() && process["policy"].is_string(),
                "{process}"
            );
            assert!(
                !list(process, "nspid").is_empty() && !list(process, "threads").is_empty(),
                "{process}"
            );
            assert!(STATES.contains(&text(process, "state")), "{process}");
            for thread in list(process, "threads") {
                shape_of_thread(thread, source);
            }
        }
    }
}

fn shape_of_thread(thread: &Value, source: &str) {
    number(thread, "tid");
    text(thread, "comm");
    assert!(STATES.contains(&text(thread, "state")), "{thread}");
    assert!(thread["state_ns_is_lower_bound"].is_boolean(), "{thread}");
    assert_null_or(&thread["state_ns"], "state_ns", Value::is_u64);
    assert_null_or(&thread["times_ns"], "times_ns", Value::is_object);
    if source == "proc" {
        assert!(
            thread["state_ns"].is_null() && thread["times_ns"].is_null(),
            "/proc knows no times: {thread}"
        );
    }
    if thread["blocked_on"].is_object() {
        let blocked_on = &thread["blocked_on"];
        assert!(!text(blocked_on, "syscall").is_empty(), "{thread}");
        if blocked_on["futex"].is_object() {
            let futex = &blocked_on["futex"];
            assert!(
                text(futex, "address").starts_with("0x") && futex["shared"].is_boolean(),
                "{thread}"
            );
            text(futex, "op");
        }
    }
    number(&thread["switches"], "voluntary");
    number(&thread["switches"], "involuntary");
}

#[test]
fn a_process_alone_comes_with_what_descends_from_it() {
    let Some(live) = Live::begin("subtree") else {
        return;
    };
    let hogs = Workload::start(&["stopped"]);
    let pid = hogs.pid.to_string();
    for source in ["bpf", "proc"] {
        let tree = live.json(&["tree", &pid, "--source", source]);
        let pids: Vec<u32> = list(&tree, "processes")
            .iter()
            .map(|process| id(process, "pid"))
            .collect();
        assert_eq!(
            pids,
            [hogs.pid, hogs.fact("pid")],
            "{source}: parents before children"
        );
    }
}
