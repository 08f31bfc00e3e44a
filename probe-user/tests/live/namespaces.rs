//! Hosts as containers see them: clocks of their own, no /proc, a /proc that hides.

use std::process::Command;
use std::time::{Duration, SystemTime};

use serde_json::Value;

use crate::common::json::{leader, list, number, process, text};
use crate::common::probe::{self, Outcome};
use crate::common::workload::{Spawner, Workload};
use crate::common::{Live, tools};

/// Runs a shell line in namespaces of its own; `$0` is the binary under test.
fn unshared(live: &Live, options: &[&str], line: &str) -> Option<Outcome> {
    let unshare = tools::find("namespaces", "unshare")?;
    let mut command = Command::new(unshare);
    command
        .args(options)
        .args(["--fork", "sh", "-c", line])
        .arg(&live.binary);
    Some(probe::finish(&mut command))
}

/// One object, without complaints.
fn json(outcome: &Outcome) -> Value {
    assert!(
        outcome.status.success() && outcome.stderr.is_empty(),
        "{outcome:?}"
    );
    serde_json::from_str(&outcome.stdout).expect("JSON")
}

/// Ahead by weeks, and back to shortly after boot: what a container that was moved between hosts may have.
const CLOCKS: [[&str; 3]; 2] = [
    ["-T", "--monotonic=2000000", "--boottime=1000000"],
    ["-T", "--monotonic=-30", "--boottime=-60"],
];

#[test]
fn ages_and_times_are_right_in_a_time_namespace() {
    let Some(live) = Live::begin("time namespace") else {
        return;
    };
    let scene = Workload::start(&["sleeper"]);
    std::thread::sleep(Duration::from_millis(300));
    for clocks in CLOCKS {
        let least = number(leader(&live.json(&["tree"]), scene.pid), "state_ns");
        let Some(tree) = unshared(&live, &clocks, "exec $0 tree -o json") else {
            return;
        };
        let tree = json(&tree);
        let most = number(leader(&live.json(&["tree"]), scene.pid), "state_ns");
        let asleep = number(leader(&tree, scene.pid), "state_ns");
        assert!(
            asleep >= least && asleep <= most && least > 300_000_000,
            "{clocks:?}: {least} {asleep} {most}"
        );
        let line = format!(
            "exec $0 states --for 500ms --by process --pid {} -o json",
            scene.pid
        );
        let states = json(&unshared(&live, &clocks, &line).expect("it was there before"));
        let window = number(&states, "window_ns");
        let slept = number(&list(&states, "groups")[0]["states"]["sleeping"], "total_ns");
        assert!(
            window >= 500_000_000 && slept.abs_diff(window) < window / 10,
            "{clocks:?}: {slept} of {window}"
        );
    }
}

#[test]
fn events_have_the_right_time_in_a_time_namespace() {
    let Some(live) = Live::begin("events in a time namespace") else {
        return;
    };
    let mut spawner = Spawner::start();
    let began = SystemTime::now();
    let events = std::thread::scope(|scope| {
        let events = scope.spawn(|| unshared(&live, &CLOCKS[0], "exec $0 events --for 2s -o json"));
        while !events.is_finished() {
            spawner.spawn(10);
        }
        events.join().expect("the thread of the agent")
    });
    let Some(events) = events else { return };
    assert!(events.status.success(), "{events:?}");
    let events: Vec<Value> = events
        .stdout
        .lines()
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect();
    assert!(events.len() > 10, "{} events", events.len());
    for event in &events {
        let at = humantime::parse_rfc3339(text(event, "at")).expect("a time");
        assert!(
            at + Duration::from_secs(1) >= began && at <= SystemTime::now(),
            "{event}"
        );
    }
}

#[test]
fn the_kernel_is_asked_where_there_is_no_proc() {
    let Some(live) = Live::begin("no /proc") else {
        return;
    };
    let scene = Workload::start(&["sleeper"]);
    let bare = ["-m", "--propagation=private"];
    for hide in ["mount -t tmpfs none /proc", "umount -l /proc"] {
        let look = |verb: &str| unshared(&live, &bare, &format!("{hide} && exec $0 {verb}"));
        let Some(tree) = look("tree -o json") else { return };
        let tree = json(&tree);
        let sleeper = process(&tree, scene.pid);
        assert_eq!(text(sleeper, "comm"), "pp-sleeper");
        assert!(
            sleeper["exe"].is_null() && sleeper["unit"].is_null(),
            "not known without /proc: {sleeper}"
        );
        let report = json(&look("zombies -o json").expect("it was there before"));
        assert!(report["pids"]["limit"].is_null(), "{}", report["pids"]);
        let states = json(&look("states --for 200ms -o json").expect("it was there before"));
        assert!(!list(&states, "groups").is_empty());
        let refused = look("tree --source proc").expect("it was there before");
        assert!(refused.complaint(1).contains("mount -t proc"), "{refused:?}");
    }
}

/// For whoever has the capabilities and is not root: /proc may show no other user's processes, the kernel does.
#[test]
fn a_proc_that_hides_hides_nothing_from_us() {
    let Some(live) = Live::begin("hidepid") else {
        return;
    };
    let Some(setpriv) = tools::find("hidepid", "setpriv") else {
        return;
    };
    let scene = Workload::start(&["sleeper"]);
    let nobody = "--reuid=65534 --regid=65534 --clear-groups --inh-caps=-all,+bpf,+perfmon --ambient-caps=-all,+bpf,+perfmon";
    let copy = tempfile::tempdir_in("/var/tmp").expect("a directory");
    let binary = copy.path().join("procprobe");
    std::fs::copy(&live.binary, &binary).expect("copying the binary");
    let open = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(copy.path(), open).expect("opening the directory");
    let line = format!(
        "mount -t proc -o hidepid=invisible proc /proc && exec {} {nobody} {} tree -o json",
        setpriv.display(),
        binary.display()
    );
    let Some(tree) = unshared(&live, &["-m", "--propagation=private"], &line) else {
        return;
    };
    let tree = json(&tree);
    let sleeper = process(&tree, scene.pid);
    assert_eq!(text(sleeper, "comm"), "pp-sleeper");
    assert!(sleeper["exe"].is_null(), "another user's: {sleeper}");
}

#[test]
fn a_view_from_another_pid_namespace_says_so_and_mistakes_nobody() {
    let Some(live) = Live::begin("pid namespace") else {
        return;
    };
    let inside = |line| unshared(&live, &["--pid", "--mount-proc"], line);
    let Some(shown) = inside("exec $0 tree") else {
        return;
    };
    let notes = |outcome: &Outcome| outcome.stdout.matches("seen from another pid namespace").count();
    assert!(shown.status.success() && notes(&shown) == 1, "{shown:?}");
    let doctor = inside("exec $0 doctor").expect("it was there before");
    assert!(doctor.stdout.contains("not the host's"), "{doctor:?}");
    let tree = json(&inside("exec $0 tree -o json").expect("it was there before"));
    let seen = list(&tree, "processes");
    assert!(!seen.is_empty(), "at least the one that looks: {tree}");
    assert!(
        seen.iter()
            .all(|process| process["exe"].is_null() && process["cmdline"].is_null()),
        "under the same number /proc has somebody else: {tree}"
    );
    assert!(
        !live.text(&["tree"]).contains("seen from another"),
        "on the host itself"
    );
}
