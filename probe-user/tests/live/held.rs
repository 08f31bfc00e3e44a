//! Processes that neither run freely nor are dead: without their first thread, dying and held up, waiting for
//! a page.

use crate::common::agent::Agent;
use crate::common::json::{entry, list, number, process, text};
use crate::common::workload::Workload;
use crate::common::{Live, eventually, skipped};

#[test]
fn a_process_works_on_without_its_first_thread() {
    let Some(live) = Live::begin("busy without a first thread") else {
        return;
    };
    let scene = Workload::start(&["headless-busy"]);
    let pid = scene.fact("pid");
    let row = |shown: &str| {
        let mut lines = shown.lines().map(str::trim_start);
        let row = lines.find(|line| line.starts_with(&format!("{pid} ")));
        row.unwrap_or_else(|| panic!("no {pid} in {shown}")).to_owned()
    };
    eventually("some CPU time", || {
        let cpu = row(&live.text(&["tree", &pid.to_string()]));
        cpu.split_whitespace()
            .any(|word| word.ends_with('%') && word != "0.0%")
    });
    let shown = row(&live.text(&["tree", &pid.to_string()]));
    assert!(!shown.contains(" Z ") && !shown.contains("exited"), "{shown}");
    for source in ["bpf", "proc"] {
        let tree = live.json(&["tree", "--source", source, &pid.to_string()]);
        let process = process(&tree, pid);
        let state = text(process, "state");
        assert!(["running", "runnable", "sleeping"].contains(&state), "{process}");
        let exe = std::fs::read_link(format!("/proc/{}/exe", scene.pid)).expect("its program");
        assert_eq!(Some(text(process, "exe")), exe.to_str(), "{process}");
        assert!(!list(process, "cmdline").is_empty(), "{process}");
        assert!(
            list(process, "threads")
                .iter()
                .all(|thread| thread["exit_status"].is_null()),
            "nothing has ended for good: {process}"
        );
    }
}

#[test]
fn a_process_without_its_first_thread_is_no_zombie_in_metrics() {
    let Some(live) = Live::begin("no zombie without a first thread") else {
        return;
    };
    let agent = Agent::start(&live, &[]);
    let zombies = |agent: &Agent| agent.metrics().sum("procprobe_processes", &[("state", "zombie")]);
    let before = zombies(&agent);
    let scenes: Vec<_> = (0..5).map(|_| Workload::start(&["headless-busy"])).collect();
    eventually("all of them", || {
        let answer = agent.zombies();
        let is_listed = |scene: &Workload| {
            let zombie = entry(&answer, "zombies", scene.fact("pid"));
            zombie.is_some_and(|zombie| {
                assert!(zombie["exit"]["code"].is_null(), "{zombie}");
                text(zombie, "kind") == "leader_exited" && number(zombie, "age_ns") > 0
            })
        };
        scenes.iter().all(is_listed)
    });
    let after = zombies(&agent);
    assert!(after < before + 2.5, "{before} zombies, then {after}");
    drop(scenes);
    agent.stop();
}

#[test]
fn who_is_killed_and_cannot_end_is_dying() {
    let Some(live) = Live::begin("dying") else { return };
    let scene = Workload::start(&["dying-init"]);
    let (init, left) = (scene.fact("init"), scene.fact("left"));
    eventually("the dying", || {
        let answer = live.json(&["zombies"]);
        let Some(zombie) = entry(&answer, "zombies", init) else {
            return false;
        };
        assert_eq!(
            (text(zombie, "kind"), &zombie["at_fault"]),
            ("dying", &serde_json::Value::Null)
        );
        assert_eq!(number(&zombie["exit"], "signal"), 9, "{zombie}");
        assert_eq!(
            zombie["held_up_by"],
            serde_json::json!({"pid": left, "tid": left, "state": "zombie"})
        );
        let holder = entry(&answer, "zombies", left).expect("what is left in there");
        assert_eq!(text(holder, "kind"), "unreaped", "{holder}");
        true
    });
    let shown = live.text(&["zombies"]);
    assert!(
        shown.contains(&format!("killed by SIGKILL, held up by pp-left {left}")),
        "{shown}"
    );
}

#[test]
fn who_is_killed_in_uninterruptible_sleep_is_dying() {
    let Some(live) = Live::begin("killed in uninterruptible sleep") else {
        return;
    };
    let scene = Workload::start(&["dying-in-sleep"]);
    let pid = scene.fact("pid");
    if pid == 0 {
        return skipped(
            "killed in uninterruptible sleep",
            "the kernel has no such system call",
        );
    }
    let tid = scene.fact("tid");
    eventually("the dying", || {
        let answer = live.json(&["zombies"]);
        let Some(zombie) = entry(&answer, "zombies", pid).filter(|zombie| text(zombie, "kind") == "dying")
        else {
            return false;
        };
        assert!(zombie["at_fault"].is_null(), "no parent can reap it: {zombie}");
        assert_eq!(number(&zombie["exit"], "signal"), 9, "{zombie}");
        assert_eq!(
            zombie["held_up_by"],
            serde_json::json!({"pid": pid, "tid": tid, "state": "uninterruptible"})
        );
        true
    });
    let shown = live.text(&["zombies"]);
    assert!(
        shown.contains(&format!(
            "killed by SIGKILL, held up by pp-stuck {tid}: in uninterruptible sleep"
        )),
        "{shown}"
    );
}

#[test]
fn a_wait_for_a_page_is_said_to_be_one() {
    let Some(live) = Live::begin("page fault") else {
        return;
    };
    let scene = Workload::start(&["faulting"]);
    let tid = scene.fact("tid");
    if tid == 0 {
        return skipped("page fault", "the kernel has no such system call");
    }
    let shown = live.text(&["tree", "--threads", &scene.pid.to_string()]);
    let row = shown
        .lines()
        .find(|line| line.trim_start().starts_with(&format!("{tid} ")));
    assert!(row.is_some_and(|row| row.contains("a page (fault)")), "{shown}");
}
