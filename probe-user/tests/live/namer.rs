//! Names come from the file that is mapped and from no other, by a process that may die.

use std::fs::{self, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::common::agent::Agent;
use crate::common::json::{list, number, text};
use crate::common::locks;
use crate::common::workload::Workload;
use crate::common::{Live, eventually, procfs, tools};

/// The one lock of a scene, and whether all of the answer is there.
fn lock_of(live: &Live, scene: &Workload) -> (Value, Value) {
    let pid = scene.pid.to_string();
    let answer = live.json(&["locks", "--for", "300ms", "--pid", &pid]);
    let found = locks::of(&answer, "locks", scene.pid);
    assert_eq!(found.len(), 1, "{answer}");
    (found[0].clone(), answer["lost"]["symbols"].clone())
}

#[test]
fn what_stands_where_a_mapped_file_was_is_not_read() {
    let Some(live) = Live::begin("files that were swapped") else {
        return;
    };
    for what in ["plain", "fifo", "link", "swapped", "memfd", "device"] {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("mapped");
        let scene = Workload::start(&["lock-in-file", what, path.to_str().expect("UTF-8")]);
        let mut fifo = (what == "fifo").then(|| {
            let name = directory.path().join("mapped (deleted)");
            let mut options = OpenOptions::new();
            let options = options.read(true).write(true).custom_flags(libc::O_NONBLOCK);
            let mut fifo = options.open(name).expect("the FIFO");
            fifo.write_all(b"kept").expect("room in it");
            fifo
        });
        let (lock, lost) = lock_of(&live, &scene);
        assert_eq!(lock["symbol"], Value::Null, "{what}: {lock}");
        assert_eq!(lost, 0, "{what}");
        if let Some(fifo) = &mut fifo {
            let mut kept = [0; 8];
            assert_eq!(
                fifo.read(&mut kept).expect("reading it"),
                4,
                "somebody drained it"
            );
        }
    }
}

/// The functions that the waiter of a scene came through.
fn frames(lock: &Value) -> Vec<&str> {
    let code = &lock["code"];
    if code.is_null() {
        return Vec::new();
    }
    let frames = list(code, "frames").iter();
    frames.map(|frame| frame.as_str().expect("text")).collect()
}

#[test]
fn functions_have_names_in_a_mount_namespace_with_layers() {
    let Some(live) = Live::begin("layers of file systems") else {
        return;
    };
    let Some(unshare) = tools::find("layers of file systems", "unshare") else {
        return;
    };
    let program = Path::new(env!("CARGO_BIN_EXE_probe-workload"));
    let directory = tempfile::tempdir().expect("a directory");
    let line = "mount -t tmpfs tmpfs \"$1\" && cd \"$1\" && mkdir upper work merged && \
                mount -t overlay overlay -o \"lowerdir=$0,upperdir=upper,workdir=work\" merged && \
                exec merged/probe-workload holder-asleep";
    let mut command = Command::new(unshare);
    command.args(["-m", "sh", "-c", line]);
    command
        .arg(program.parent().expect("its directory"))
        .arg(directory.path());
    let scene = Workload::begin(&mut command);
    let exe = fs::read_link(format!("/proc/{}/exe", scene.pid)).expect("its executable");
    assert!(exe.ends_with("merged/probe-workload"), "{exe:?}");
    assert!(!exe.exists(), "it is seen from here: {exe:?}");
    let (lock, lost) = lock_of(&live, &scene);
    assert_eq!(lost, 0);
    let frames = frames(&lock);
    assert!(
        frames.iter().any(|name| name.contains("probe_workload::")),
        "{frames:?}: {lock}"
    );
}

/// The agent's namer.
fn namer_of(agent: &Agent) -> Option<u32> {
    procfs::child_named(agent.pid(), "procprobe-namer")
}

#[test]
fn an_agent_whose_namer_hangs_says_what_it_lost_and_goes_on() {
    let Some(live) = Live::begin("a namer that hangs") else {
        return;
    };
    let scene = Workload::start(&["holder-asleep"]);
    let agent = Agent::start(&live, &[]);
    let known = |answer: &Value| {
        let found = locks::of(answer, "locks", scene.pid);
        found.first().is_some_and(|lock| !frames(lock).is_empty())
    };
    eventually("the waiters' code", || known(&agent.locks()));
    let pid = namer_of(&agent).expect("it has one");
    // SAFETY: takes plain numbers.
    assert_eq!(unsafe { libc::kill(pid.cast_signed(), libc::SIGSTOP) }, 0);
    let answer = agent.locks();
    // The look that opens the window may have met it: then this answer lacks nothing.
    let lacks = number(&answer["lost"], "symbols") > 0;
    assert!(lacks || known(&answer), "no names, and nothing said: {answer}");
    assert!(!lacks || answer["complete"] == false, "{answer}");
    assert!(
        number(&answer["lost_total"], "symbols") > 0,
        "{}",
        answer["lost_total"]
    );
    eventually("the next one", || known(&agent.locks()));
    assert_ne!(namer_of(&agent), Some(pid));
    let lost = agent
        .metrics()
        .sum("procprobe_events_lost_total", &[("reason", "symbols")]);
    assert!(lost > 0.0);
    let kind = text(locks::of(&agent.locks(), "locks", scene.pid)[0], "kind").to_owned();
    assert_eq!(kind, "mutex");
    agent.stop();
}
