//! `zombies`: who is dead and unreaped, for how long, of what, and whose fault it is; and who is none.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::cgroups::{Cgroup, NAMING};
use crate::common::agent::Agent;
use crate::common::json::{entry, id, list, number, text};
use crate::common::probe::Running;
use crate::common::stream::Stream;
use crate::common::workload::Workload;
use crate::common::{Live, eventually, is_full, note, procfs, repeated, skipped};

/// Younger ones are not shown.
const GRACE: Duration = Duration::from_millis(100);

fn of_parent(answer: &Value, pid: u32) -> Vec<&Value> {
    let zombies = list(answer, "zombies").iter();
    zombies.filter(|zombie| id(zombie, "ppid") == pid).collect()
}

fn ns(duration: Duration) -> u64 {
    duration.as_nanos() as u64
}

#[test]
fn children_never_waited_for_are_counted_against_their_parent() {
    let Some(live) = Live::begin("unreaped children") else {
        return;
    };
    let born = Instant::now();
    let scene = Workload::start(&["hoarder", "1000"]);
    let dead = Instant::now();
    std::thread::sleep(2 * GRACE);
    let least = dead.elapsed();
    for source in ["bpf", "proc"] {
        let answer = live.json(&["zombies", "--source", source]);
        let parent = entry(&answer, "parents", scene.pid).expect("the parent is named");
        assert_eq!(
            (text(parent, "comm"), number(parent, "count")),
            ("pp-hoarder", 1000),
            "{source}"
        );
        let exe = std::fs::read_link(format!("/proc/{}/exe", scene.pid)).expect("its program");
        assert_eq!(Some(text(parent, "exe")), exe.to_str(), "{source}");
        assert!(parent["reaped"].is_null(), "one look does not know: {parent}");
        assert_unreaped(&answer, &scene, ns(least)..=ns(born.elapsed()));
        let pids = &answer["pids"];
        assert!(
            (1000..number(pids, "limit")).contains(&number(pids, "used")),
            "{pids}"
        );
    }
    its_agent_says_the_same(&live, scene, ns(least));
}

/// Every child of the scene is a zombie, its parent's fault, with the exit it had and an age in bounds.
fn assert_unreaped(answer: &Value, scene: &Workload, ages: RangeInclusive<u64>) {
    let source = text(answer, "source");
    let zombies = of_parent(answer, scene.pid);
    assert_eq!(zombies.len(), 1000, "{source}");
    for zombie in zombies {
        assert_eq!(
            (text(zombie, "kind"), id(zombie, "at_fault")),
            ("unreaped", scene.pid),
            "{source}"
        );
        let exit = if id(zombie, "pid") == scene.fact("killed") {
            serde_json::json!({"code": null, "signal": 9})
        } else {
            serde_json::json!({"code": 3, "signal": null})
        };
        assert_eq!(zombie["exit"], exit, "{source}: {zombie}");
        if source == "bpf" {
            assert!(ages.contains(&number(zombie, "age_ns")), "{ages:?}: {zombie}");
        } else {
            assert!(zombie["age_ns"].is_null(), "/proc does not know: {zombie}");
        }
    }
}

fn its_agent_says_the_same(live: &Live, scene: Workload, least_ns: u64) {
    let agent = Agent::start(live, &["--max-groups", "100000"]);
    let answer = agent.zombies();
    let parent = entry(&answer, "parents", scene.pid).expect("the parent is named");
    assert_eq!((number(parent, "count"), number(parent, "reaped")), (1000, 0));
    assert!(number(parent, "oldest_age_ns") >= least_ns, "{parent}");
    assert_eq!(text(parent, "state"), "sleeping", "{parent}");
    let labels = [("comm", "pp-hoarder")];
    let metrics = agent.metrics();
    let count = metrics.sum("procprobe_zombies", &labels);
    assert!((count - 1000.0).abs() < 0.5, "{count}");
    let age = metrics.sum("procprobe_zombie_oldest_age_seconds", &labels);
    assert!(age * 1e9 >= least_ns as f64, "{age}");
    let pid = scene.pid;
    drop(scene);
    eventually("its zombies to be gone", || {
        let answer = agent.zombies();
        entry(&answer, "parents", pid).is_none() && of_parent(&answer, pid).is_empty()
    });
    assert!(agent.metrics().sum("procprobe_zombies", &labels) < 0.5);
    agent.stop();
}

#[test]
fn the_limit_of_a_cgroup_is_reached_before_that_of_the_host() {
    let Some(live) = Live::begin("pids.max") else {
        return;
    };
    // Version 2 gives a cgroup a controller when the one above says so.
    for mount in NAMING {
        let _ = std::fs::write(Path::new(mount).join("cgroup.subtree_control"), "+pids");
    }
    let Some(cgroup) = Cgroup::new(&NAMING, "pp-pids").filter(|cgroup| cgroup.write("pids.max", "60")) else {
        return skipped("pids.max", "no pids cgroup that can be written to");
    };
    let mut scene = Workload::start(&["litter"]);
    assert!(
        cgroup.write("cgroup.procs", &scene.pid.to_string()),
        "moving a process"
    );
    for _ in 0..4 {
        scene.tell("10", "done");
        std::thread::sleep(3 * GRACE);
    }
    let answer = live.json(&["zombies"]);
    let parent = entry(&answer, "parents", scene.pid).expect("the parent is named");
    assert_eq!(
        parent["unit_pids"],
        serde_json::json!({"used": 41, "limit": 60}),
        "{parent}"
    );
    let full_in_ns = number(parent, "full_in_ns");
    assert!(full_in_ns < number(&answer["pids"], "full_in_ns"), "{answer}");
    assert!(full_in_ns < ns(Duration::from_secs(60)), "{parent}");
    let shown = live.text(&["zombies"]);
    assert!(shown.contains("41 of 60 in use; full in "), "{shown}");
    drop(scene);
}

#[test]
fn who_is_reaped_soon_is_no_zombie() {
    let Some(live) = Live::begin("prompt parents") else {
        return;
    };
    let mut scene = Workload::start(&["prompt"]);
    let mut listed = BTreeSet::new();
    for _ in 0..30 {
        let answer = live.json(&["zombies"]);
        listed.extend(
            of_parent(&answer, scene.pid)
                .iter()
                .map(|zombie| id(zombie, "pid")),
        );
    }
    // A busy machine may keep even a prompt parent waiting; then the scene knows for whom.
    let slow = scene.tell("end", "done");
    note(&format!("listed {listed:?}, slow {slow:?}"));
    listed.retain(|pid| !slow.contains_key(&pid.to_string()));
    assert!(listed.is_empty(), "{listed:?} were reaped within 90 ms");
}

#[test]
fn a_dead_first_thread_and_a_traced_child_are_told_apart() {
    let Some(live) = Live::begin("kinds of zombies") else {
        return;
    };
    let headless = Workload::start(&["headless"]);
    let traced = Workload::start(&["traced-zombie"]);
    std::thread::sleep(2 * GRACE);
    let tracer = traced.fact("tracer");
    for source in ["bpf", "proc"] {
        let answer = live.json(&["zombies", "--source", source]);
        let zombie = entry(&answer, "zombies", headless.fact("pid")).expect("the first thread is dead");
        assert_eq!(
            (text(zombie, "kind"), &zombie["at_fault"]),
            ("leader_exited", &Value::Null),
            "{source}"
        );
        assert!(
            entry(&answer, "parents", headless.pid).is_none(),
            "{source}: {answer}"
        );
        let zombie = entry(&answer, "zombies", traced.fact("pid")).expect("nobody waits for the traced");
        assert_eq!(text(zombie, "kind"), "traced", "{source}: {zombie}");
        assert_eq!(
            (
                id(zombie, "at_fault"),
                id(zombie, "ppid"),
                number(&zombie["exit"], "signal")
            ),
            (tracer, traced.pid, 9),
            "{source}"
        );
        let culprit = entry(&answer, "parents", tracer).expect("the tracer is at fault");
        assert_eq!(
            (text(culprit, "comm"), number(culprit, "count")),
            ("pp-tracer", 1),
            "{source}"
        );
        assert!(
            entry(&answer, "parents", traced.pid).is_none(),
            "{source}: {answer}"
        );
    }
}

#[test]
fn children_of_a_parent_that_ignores_them_are_no_zombies_and_need_no_reaping() {
    let Some(live) = Live::begin("SIGCHLD ignored") else {
        return;
    };
    let mut scene = Workload::start(&["careless"]);
    let stream = Stream::listening(&live);
    let agent = Agent::start(&live, &["--max-groups", "100000"]);
    let count = 200;
    let exits = |agent: &Agent| {
        let labels = [("comm", "pp-untended"), ("reason", "success")];
        agent.metrics().sum("procprobe_exits_total", &labels)
    };
    let before = exits(&agent);
    scene.tell(&count.to_string(), "done");
    std::thread::sleep(2 * GRACE);
    assert!(of_parent(&agent.zombies(), scene.pid).is_empty());
    let counted = exits(&agent) - before;
    assert!((counted - f64::from(count)).abs() < 0.5, "{counted} of {count}");
    let children =
        |name: &str| stream.select(|event| text(event, "event") == name && id(event, "ppid") == scene.pid);
    eventually("their exits", || children("exit").len() as u32 == count);
    // What a reaping would come as has come by now: the kernel frees them some 20 ms late.
    std::thread::sleep(2 * GRACE);
    assert_eq!(children("reap"), Vec::<Value>::new());
    assert!(stream.stop());
    agent.stop();
}

#[test]
fn scripts_leave_no_zombies() {
    let Some(live) = Live::begin("scripts") else {
        return;
    };
    let length = Duration::from_secs(if is_full() { 600 } else { 8 });
    let agent = Agent::start(&live, &["--max-groups", "100000"]);
    let exits = agent.metrics().count("procprobe_process_exits_total");
    // It ends by itself, should the test be killed before it can end it.
    let deadline = length.as_secs() + 10;
    let script = "end=$(($(date +%s) + $1)); while [ $(date +%s) -lt $end ]; do for i in 1 2 3 4 5; do /bin/true; echo $i | cat | tr 1 2 >/dev/null; done; (sleep 0.01) & \
                  x=$(ls / | sort | head -3); wait; done";
    let mut shell = Command::new("sh");
    shell
        .args(["-c", script, "sh", &deadline.to_string()])
        .stdin(Stdio::null())
        .stdout(Stdio::null());
    std::os::unix::process::CommandExt::process_group(&mut shell, 0);
    let shell = Running(shell.spawn().expect("starting a shell"));
    let began = Instant::now();
    let (mut found, mut starved) = (Vec::new(), 0);
    let mut looks = 0;
    while began.elapsed() < length {
        std::thread::sleep(Duration::from_millis(100));
        looks += 1;
        let answer = agent.zombies();
        // Whose zombies they are has to be asked at once. Those of others on this host are theirs.
        let ours = list(&answer, "zombies")
            .iter()
            .filter(|zombie| descends(id(zombie, "ppid"), shell.0.id()));
        let (late, wrong): (Vec<_>, Vec<_>) = ours.cloned().partition(is_starved);
        starved += late.len();
        found.extend(wrong);
    }
    let exits = agent.metrics().count("procprobe_process_exits_total") - exits;
    note(&format!(
        "{exits} exits, {looks} looks, {} zombies, {starved} of starved parents",
        found.len()
    ));
    assert!(exits > repeated(500), "the scripts ran: {exits} exits");
    assert_eq!(found, Vec::<Value>::new());
    // Every second look or so would meet one that is just being reaped.
    assert!(starved <= 2 + looks / 10, "{starved} in {looks} looks");
    drop(shell);
    agent.stop();
}

/// Whether a zombie's parent got no CPU to reap it with for as long as nobody is reported: then it is one indeed.
fn is_starved(zombie: &Value) -> bool {
    let counts = procfs::counts_of_process(id(zombie, "ppid"));
    let waited_ns: u64 = counts.iter().map(|count| count.runnable_ns).sum();
    note(&format!(
        "its parent has waited {waited_ns} ns for a CPU: {zombie}"
    ));
    u128::from(waited_ns) >= GRACE.as_nanos()
}

/// Whether a process is another or has it among its ancestors.
fn descends(mut pid: u32, ancestor: u32) -> bool {
    while pid != ancestor {
        match procfs::task(pid, pid) {
            Some(task) if task.ppid > 1 => pid = task.ppid,
            _ => return false,
        }
    }
    true
}
