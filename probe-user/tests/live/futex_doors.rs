//! Futex waits by every door there is: the tree shows the right address for all of them.

use serde_json::Value;

use crate::common::agent::Agent;
use crate::common::json::threads;
use crate::common::locks::hex;
use crate::common::workload::Workload;
use crate::common::{Live, eventually, procfs, skipped};

/// What is wrong with what the tree says a thread waits in.
fn complaint(tree: &Value, scene: &Workload, door: &str, when: &str) -> Option<String> {
    let tid = scene.fact(door);
    let (_, thread) = threads(tree)[&tid];
    let futex = &thread["blocked_on"]["futex"];
    let address = hex(scene.large(&format!("{door}_address")));
    let right = futex["address"] == *address && futex["shared"] == false;
    (!right).then(|| format!("{door} {when}, private at {address}: {thread}"))
}

/// Those that this kernel has.
fn doors(scene: &Workload) -> Vec<&'static str> {
    ["waitv", "wait", "i386", "timeout"]
        .into_iter()
        .filter(|door| {
            let is_there = scene.fact(door) > 0;
            if !is_there {
                skipped(door, "the kernel has no such system call");
            }
            is_there
        })
        .collect()
}

#[test]
fn futexes_are_seen_behind_every_system_call() {
    let Some(live) = Live::begin("doors to futexes") else {
        return;
    };
    let scene = Workload::start(&["futex-doors"]);
    let doors = doors(&scene);
    // Asleep before anybody looked, and then under the eyes of one who did not see them go to sleep either.
    let tree = live.json(&["tree"]);
    let agent = Agent::start(&live, &[]);
    let later = agent.tree();
    // And a scene that goes to sleep while the agent watches.
    let watched = Workload::start(&["futex-doors"]);
    let seen = agent.tree();
    let wrong = doors.into_iter().flat_map(|door| {
        [
            complaint(&tree, &scene, door, "from before"),
            complaint(&later, &scene, door, "from before the agent"),
            complaint(&seen, &watched, door, "under the agent"),
        ]
    });
    assert_eq!(wrong.flatten().collect::<Vec<_>>(), Vec::<String>::new());
    agent.stop();
}

#[test]
fn a_wait_that_was_stopped_goes_on_where_it_was() {
    let Some(live) = Live::begin("restarted futex wait") else {
        return;
    };
    let agent = Agent::start(&live, &[]);
    let scene = Workload::start(&["futex-doors"]);
    let (pid, tid) = (scene.fact("pid"), scene.fact("timeout"));
    let signal = |signal: i32| {
        let pid = i32::try_from(pid).expect("a pid");
        // SAFETY: takes plain numbers; the scene lives until it is dropped.
        assert_eq!(unsafe { libc::kill(pid, signal) }, 0);
    };
    let state = || procfs::task(pid, tid).map(|task| task.state);
    let call = || {
        let text = std::fs::read_to_string(format!("/proc/{pid}/task/{tid}/syscall")).unwrap_or_default();
        text.split(' ')
            .next()
            .and_then(|number| number.parse::<i64>().ok())
    };
    let check = |when: &str| assert_eq!(complaint(&agent.tree(), &scene, "timeout", when), None);
    check("before it was stopped");
    for _ in 0..2 {
        signal(libc::SIGSTOP);
        eventually("it to stop", || state() == Some('T'));
        signal(libc::SIGCONT);
        // As the kernel itself names what the thread is in now: the same wait by another number.
        eventually("it to go on", || call() == Some(libc::SYS_restart_syscall));
        check("after it was stopped");
    }
    agent.stop();
}
