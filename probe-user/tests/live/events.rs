//! `events`: birth, exec and death of known children, in order, with how they ended.

use serde_json::Value;

use crate::common::agent::Agent;
use crate::common::json::{id, list, number, process, text};
use crate::common::stream::Stream;
use crate::common::workload::Workload;
use crate::common::{Live, eventually};

fn names(events: &[Value]) -> Vec<&str> {
    events.iter().map(|event| text(event, "event")).collect()
}

#[test]
fn children_are_born_and_die_in_order_with_code_and_signal() {
    let Some(live) = Live::begin("events") else { return };
    let mut family = Workload::start(&["family"]);
    let stream = Stream::start(&live);
    // The stream says nothing when it begins: repeat until it has heard a whole life.
    let mut lives = None;
    for _ in 0..20 {
        let done = family.tell("go", "done");
        let pid = |key: &str| u32::try_from(done[key]).expect("a pid");
        if stream.hears(pid("killed"), "reap") && stream.of(pid("exited")).len() == 3 {
            lives = Some((pid("exited"), pid("killed")));
            break;
        }
    }
    let (exited, killed) = lives.expect("the stream hears a whole life");
    let events = stream.of(exited);
    assert_eq!(names(&events), ["fork", "exit", "reap"], "{events:?}");
    assert!(
        events
            .iter()
            .all(|event| id(event, "tid") == exited && id(event, "ppid") == family.pid),
        "{events:?}"
    );
    assert_eq!(
        (number(&events[1], "code"), &events[1]["signal"]),
        (7, &Value::Null)
    );
    let times = events[1]["times_ns"].as_object().expect("a life has its times");
    assert!(
        times.values().map(|time| time.as_u64().unwrap()).sum::<u64>() > 0,
        "{times:?}"
    );
    let events = stream.of(killed);
    assert_eq!(names(&events), ["fork", "exec", "exit", "reap"], "{events:?}");
    assert_eq!(
        (&events[2]["code"], number(&events[2], "signal")),
        (&Value::Null, 9)
    );
    let killer = &events[2]["killed_by"];
    assert_eq!(
        (id(killer, "pid"), text(killer, "comm")),
        (family.pid, "pp-family")
    );
    assert_eq!(
        (text(&events[0], "comm"), text(&events[2], "comm")),
        ("pp-family", "pp-victim")
    );
    for pair in events.windows(2) {
        assert!(text(&pair[0], "at") <= text(&pair[1], "at"), "{events:?}");
    }
    assert!(stream.stop(), "it ends well when interrupted");
}

#[test]
fn who_is_older_than_the_watch_has_its_whole_age() {
    let Some(live) = Live::begin("ages at death") else {
        return;
    };
    let old = Workload::start(&["sleeper"]);
    let pid = old.pid;
    std::thread::sleep(std::time::Duration::from_secs(2));
    let stream = Stream::listening(&live);
    drop(old);
    let end = stream.expect("the death of the old", |event| {
        text(event, "event") == "exit" && id(event, "pid") == pid
    });
    let age_ns = number(&end, "age_ns");
    let times = end["times_ns"].as_object().expect("the times on record");
    let watched_ns: u64 = times.values().filter_map(Value::as_u64).sum();
    assert!(age_ns >= 2_000_000_000 + watched_ns, "{end}");
    assert_eq!(end["times_ns_are_lower_bounds"], true, "{end}");
    let young = Workload::start(&["sleeper"]);
    let pid = young.pid;
    drop(young);
    let end = stream.expect("the death of the young", |event| {
        text(event, "event") == "exit" && id(event, "pid") == pid
    });
    assert_eq!(end["times_ns_are_lower_bounds"], false, "{end}");
    assert!(stream.stop(), "it ends well when interrupted");
}

#[test]
fn an_exec_by_another_thread_leaves_one_process_with_one_thread() {
    let Some(live) = Live::begin("exec by a thread") else {
        return;
    };
    let stream = Stream::start(&live);
    let mut canary = Workload::start(&["family"]);
    eventually("the stream to begin", || {
        let done = canary.tell("go", "done");
        stream.hears(u32::try_from(done["exited"]).unwrap(), "exit")
    });
    let agent = Agent::start(&live, &["--max-groups", "100000"]);
    let mut scene = Workload::start(&["exec-from-thread"]);
    let (pid, tid) = (scene.pid, scene.fact("tid"));
    assert_ne!(pid, tid);
    assert_eq!(list(process(&agent.tree(), pid), "threads").len(), 2);
    scene.tell("go", "ready");
    eventually("the exec in the stream", || {
        stream.of(pid).iter().any(|event| {
            text(event, "event") == "exec" && text(event, "comm") != "pp-before" && id(event, "tid") == pid
        })
    });
    eventually("the new program to sleep", || {
        text(process(&agent.tree(), pid), "state") == "sleeping"
    });
    for tree in [
        agent.tree(),
        live.json(&["tree"]),
        live.json(&["tree", "--source", "proc"]),
    ] {
        let process = process(&tree, pid);
        let threads = list(process, "threads");
        assert_eq!((threads.len(), id(&threads[0], "tid")), (1, pid), "{process}");
        assert_eq!(
            (text(process, "comm"), text(process, "state")),
            ("pp-after", "sleeping"),
            "{process}"
        );
        let all = list(&tree, "processes")
            .iter()
            .flat_map(|process| list(process, "threads"));
        assert!(
            all.clone().all(|thread| id(thread, "tid") != tid),
            "the old tid is gone"
        );
    }
    let dead = |event: &Value| id(event, "pid") == pid && event["last_thread"] == true;
    assert!(
        stream.select(dead).is_empty(),
        "nobody killed it: {:?}",
        stream.of(pid)
    );
    let metrics = agent.metrics();
    let threads = |comm| metrics.sum("procprobe_group_threads", &[("comm", comm)]);
    assert!(threads("pp-before") < 0.5 && (0.5..1.5).contains(&threads("pp-after")));
    assert!(
        metrics.sum("procprobe_state_seconds_total", &[("comm", "(lost)")]) < 1e-9,
        "nothing is unaccounted for"
    );
    drop(scene);
    stream.await_exit(pid);
    eventually("its last thread's exit", || stream.select(dead).len() == 1);
    assert!(stream.stop());
    agent.stop();
}
