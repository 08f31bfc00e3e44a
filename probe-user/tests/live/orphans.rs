//! `orphans`: whom a process lost, who has it now, and whether that one reaps.

use std::time::Duration;

use serde_json::Value;

use crate::common::agent::Agent;
use crate::common::json::{entry, id, list, number, process, text};
use crate::common::stream::Stream;
use crate::common::workload::Workload;
use crate::common::{Live, eventually, procfs};

/// Reaps a child of this process that has left the group of its scene, once the scene lets go of it.
fn bury(scene: Workload, pid: u32) {
    drop(scene);
    let pid = i32::try_from(pid).expect("a pid fits");
    // SAFETY: a null pointer asks for no status.
    unsafe { libc::waitpid(pid, std::ptr::null_mut(), 0) };
}

fn pid(done: &std::collections::HashMap<String, i64>, key: &str) -> u32 {
    u32::try_from(done[key]).expect("a pid")
}

/// Holds what any output says of an orphan against the truth.
fn assert_orphan(orphan: &Value, (original, comm): (u32, &str), (adopter, kind): (u32, &str)) {
    let parent = &orphan["original_parent"];
    assert_eq!(
        (id(parent, "pid"), text(parent, "comm")),
        (original, comm),
        "{orphan}"
    );
    let adopted = &orphan["adopter"];
    assert_eq!(
        (id(adopted, "pid"), text(adopted, "kind")),
        (adopter, kind),
        "{orphan}"
    );
}

#[test]
fn a_daemon_has_lost_the_parent_that_forked_it() {
    let Some(live) = Live::begin("double fork") else {
        return;
    };
    let mut scene = Workload::start(&["daemon"]);
    let stream = Stream::listening(&live);
    let agent = Agent::start(&live, &["--max-groups", "100000"]);
    let done = scene.tell("go", "done");
    let (middle, daemon) = (pid(&done, "middle"), pid(&done, "daemon"));
    // This process adopts what its workloads leave behind.
    let adopter = (procfs::task(daemon, daemon).expect("it lives").ppid, "subreaper");
    assert_eq!(adopter.0, std::process::id());
    let lost = (middle, "pp-middle");
    let event = stream.expect("the loss in the stream", |event| {
        text(event, "event") == "orphan" && id(event, "pid") == daemon
    });
    assert_orphan(&event, lost, adopter);
    assert_eq!(
        (id(&event, "ppid"), text(&event, "comm")),
        (adopter.0, "pp-daemon")
    );
    let orphans = agent.orphans();
    let orphan = entry(&orphans, "orphans", daemon).expect("it is listed");
    assert_orphan(orphan, lost, adopter);
    assert_eq!(
        (text(orphan, "comm"), &orphan["guess"]),
        ("pp-daemon", &Value::Bool(false))
    );
    assert!(number(orphan, "orphaned_ns") < 60_000_000_000, "{orphan}");
    let ancestor = &list(orphan, "ancestry")[0];
    assert_eq!(
        (id(ancestor, "pid"), text(ancestor, "comm")),
        (scene.pid, "pp-launcher")
    );
    assert_orphan(&process(&agent.tree(), daemon)["orphan"], lost, adopter);
    let metrics = agent.metrics();
    for name in ["procprobe_orphans", "procprobe_orphaned_total"] {
        assert!(metrics.sum(name, &[("adopter", "subreaper")]) >= 1.0, "{name}");
    }
    bury(scene, daemon);
    eventually("it to be gone", || {
        entry(&agent.orphans(), "orphans", daemon).is_none()
    });
    assert!(stream.stop());
    agent.stop();
}

#[test]
fn whom_an_orphan_from_before_lost_is_a_guess() {
    let Some(live) = Live::begin("guessed orphans") else {
        return;
    };
    let mut scene = Workload::start(&["daemon"]);
    let done = scene.tell("go", "done");
    let (middle, daemon) = (pid(&done, "middle"), pid(&done, "daemon"));
    let agent = Agent::start(&live, &[]);
    let answers = [
        ("agent", agent.orphans()),
        ("bpf", live.json(&["orphans"])),
        ("proc", live.json(&["orphans", "--source", "proc"])),
    ];
    for (who, answer) in answers {
        let orphan = entry(&answer, "orphans", daemon).unwrap_or_else(|| panic!("{who} has it: {answer}"));
        assert_eq!(orphan["guess"], true, "{who}: {orphan}");
        assert!(orphan["orphaned_ns"].is_null(), "{who}: {orphan}");
        assert_eq!(
            (
                id(&orphan["original_parent"], "pid"),
                &orphan["original_parent"]["comm"]
            ),
            (middle, &Value::Null),
            "{who}"
        );
        assert_eq!(id(&orphan["adopter"], "pid"), std::process::id(), "{who}");
    }
    bury(scene, daemon);
    agent.stop();
}

#[test]
fn the_first_parent_is_kept_when_the_adopter_dies_too() {
    let Some(live) = Live::begin("chain of orphans") else {
        return;
    };
    let mut scene = Workload::start(&["chain"]);
    let [adopter, middle, child] = ["adopter", "middle", "child"].map(|key| scene.fact(key));
    let stream = Stream::listening(&live);
    let agent = Agent::start(&live, &["--max-groups", "100000"]);
    let lost = (middle, "pp-middle");
    for (line, now) in [("middle", adopter), ("adopter", scene.pid)] {
        scene.tell(line, "done");
        let event = stream.expect("the loss in the stream", |event| {
            text(event, "event") == "orphan" && id(event, "pid") == child && id(event, "ppid") == now
        });
        assert_orphan(&event, lost, (now, "subreaper"));
        let orphans = agent.orphans();
        let orphan = entry(&orphans, "orphans", child).expect("it is listed");
        assert_orphan(orphan, lost, (now, "subreaper"));
        let tree = agent.tree();
        assert_orphan(&process(&tree, child)["orphan"], lost, (now, "subreaper"));
        assert_eq!(id(process(&tree, child), "ppid"), now);
    }
    the_dead_are_in_the_ancestry(&live, &agent, [scene.pid, adopter, middle, child]);
    assert!(stream.stop());
    agent.stop();
}

/// From the living top over two dead ones to the living child.
fn the_dead_are_in_the_ancestry(live: &Live, agent: &Agent, chain: [u32; 4]) {
    let tree = live.json(&["tree", "--ancestry", "--agent", &agent.address]);
    let states = ["sleeping", "dead", "dead", "sleeping"];
    for (link, state) in chain.windows(2).zip(&states[1..]) {
        let process = process(&tree, link[1]);
        assert_eq!(
            (id(process, "ppid"), text(process, "state")),
            (link[0], *state),
            "{process}"
        );
    }
    let top = chain[0].to_string();
    let table = live.text(&["tree", &top, "--ancestry", "--agent", &agent.address]);
    // The last line says that TCP does not tell the arguments.
    assert_eq!(table.lines().count(), 2 + chain.len(), "{table}");
    for (line, pid) in table.lines().skip(1).zip(chain) {
        assert!(line.trim_start().starts_with(&pid.to_string()), "{table}");
    }
    // Who does not ask for ancestry sees the living only.
    let dead = |process: &Value| text(process, "state") == "dead" && id(process, "pid") == chain[2];
    assert!(!list(&agent.tree(), "processes").iter().any(dead));
}

#[test]
fn ancestry_takes_an_agent() {
    let Some(live) = Live::begin("ancestry without an agent") else {
        return;
    };
    // A port that was free a moment ago.
    let port = std::net::TcpListener::bind("127.0.0.1:0").and_then(|socket| socket.local_addr());
    let address = port.expect("a port").to_string();
    let outcome = live.run(&["tree", "--ancestry", "--agent", &address]);
    let line = outcome.complaint(1);
    assert!(
        line.contains(&address) && line.contains("procprobe agent"),
        "{line}"
    );
}

#[test]
fn an_init_that_does_not_reap_is_at_fault() {
    let Some(live) = Live::begin("pid namespace") else {
        return;
    };
    let mut scene = Workload::start(&["namespace"]);
    let stream = Stream::listening(&live);
    let agent = Agent::start(&live, &["--max-groups", "100000"]);
    let init = pid(&scene.tell("go", "done"), "init");
    let (middle, orphan) = zombie_and_orphan(init);
    let lost = (middle, "pp-nsmiddle");
    let event = stream.expect("the loss in the stream", |event| {
        text(event, "event") == "orphan" && id(event, "pid") == orphan
    });
    assert_orphan(&event, lost, (init, "pidns_init"));
    std::thread::sleep(Duration::from_millis(200));
    let orphans = agent.orphans();
    let listed = entry(&orphans, "orphans", orphan).expect("it is listed");
    assert_orphan(listed, lost, (init, "pidns_init"));
    let adopter = &listed["adopter"];
    assert_eq!(
        (
            number(adopter, "zombies"),
            &adopter["reaps"],
            text(adopter, "comm")
        ),
        (1, &Value::Bool(false), "pp-nsinit")
    );
    the_init_is_at_fault(&live, &agent, middle, init);
    assert!(stream.stop());
    agent.stop();
}

/// The two children of the init, once the one in the middle has died; before, that is the only one.
fn zombie_and_orphan(init: u32) -> (u32, u32) {
    let mut found = Vec::new();
    eventually("a zombie and a living child of the init", || {
        let tasks = procfs::tasks();
        let child = |state: char| {
            tasks
                .iter()
                .find(|(_, task)| (task.ppid, task.state) == (init, state))
        };
        found = ['Z', 'S']
            .into_iter()
            .filter_map(child)
            .map(|(pid, _)| *pid)
            .collect();
        found.len() == 2
    });
    (found[0], found[1])
}

fn the_init_is_at_fault(live: &Live, agent: &Agent, middle: u32, init: u32) {
    for (who, zombies) in [
        ("agent", agent.zombies()),
        ("bpf", live.json(&["zombies"])),
        ("proc", live.json(&["zombies", "--source", "proc"])),
    ] {
        let zombie = entry(&zombies, "zombies", middle).expect("the middle is a zombie");
        assert_eq!(
            (text(zombie, "kind"), id(zombie, "at_fault")),
            ("unreaped", init),
            "{who}"
        );
        let culprit = entry(&zombies, "parents", init).expect("its init is at fault");
        assert_eq!(
            (text(culprit, "comm"), number(culprit, "count")),
            ("pp-nsinit", 1),
            "{who}"
        );
    }
}
