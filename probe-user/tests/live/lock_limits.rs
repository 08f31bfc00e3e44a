//! What has bounds: more contended locks than there is room for, and hundreds of threads at one futex.

use serde_json::Value;

use crate::common::agent::Agent;
use crate::common::json::{entry, list, number};
use crate::common::locks::{self, Window, hex, sum};
use crate::common::workload::Workload;
use crate::common::{Live, is_slow, note, procfs};

/// Room for a tenth of the locks.
const ROOM: &str = "1000";

#[test]
fn locks_beyond_the_table_are_counted_and_totals_stay_right() {
    let Some(live) = Live::begin("full lock table") else {
        return;
    };
    let mut scene = Workload::start(&["many-locks"]);
    let pid = scene.fact("pid");
    let window = Window::open(&live, &["--max-locks", ROOM]);
    let truth = scene.tell("10000", "done");
    let answer = window.close();
    assert_eq!(truth["waits"], 10_000);
    let shown = sum(&locks::of(&answer, "locks", pid), "waits");
    assert!(shown >= 500, "most of the room is used: {shown}");
    assert_eq!(answer["complete"], false, "{:?}", answer["lost"]);
    let lost = number(&answer["lost"], "lock_table");
    assert!(
        (10_000..=10_500).contains(&(shown + lost)),
        "each wait is shown or counted: {shown}, {lost}"
    );
    // Where QEMU translates, they take longer than a lock has to be idle to make room in a full table.
    assert!(is_slow() || shown <= 1_000, "no more than there is room: {shown}");
    let process = entry(&answer, "processes", pid).unwrap_or_else(|| panic!("no process {pid}"));
    // Which of its waits were for locks cannot be known of all; how long they lasted is.
    let total =
        |what: &str| process[what].as_f64().expect("an average") * number(&answer, "window_ns") as f64;
    let (blocked, wait_ns) = (total("futex_blocked"), truth["wait_ns"] as f64);
    note(&format!("{blocked} of {wait_ns} ns"));
    // The program's clock runs on until it has a CPU again, which takes long where QEMU translates.
    let queued = if is_slow() { total("runnable") } else { 0.0 };
    assert!(
        blocked < wait_ns * 1.05 && blocked + queued > wait_ns * 0.95,
        "{blocked}, by the program {wait_ns}: {process}"
    );
}

#[test]
fn an_agent_with_a_full_table_lives_on_in_bounds() {
    let Some(live) = Live::begin("agent with a full lock table") else {
        return;
    };
    let mut scene = Workload::start(&["many-locks"]);
    let agent = Agent::start(&live, &["--max-locks", ROOM]);
    agent.locks();
    scene.tell("10000", "done");
    // It tells of its latest window; what was lost before is in the metrics.
    let answer = agent.locks();
    assert!(
        list(&answer, "locks").len() <= 1_000,
        "no more than there is room"
    );
    let lost = agent
        .metrics()
        .sum("procprobe_events_lost_total", &[("reason", "lock_table")]);
    // Where QEMU translates, they take longer than a lock has to be idle to make room in a full table.
    let least = if is_slow() { 4_000.0 } else { 8_000.0 };
    assert!(lost >= least, "{lost}");
    let first_kb = procfs::status_kb(agent.pid(), "VmRSS").expect("it lives");
    scene.tell("10000", "done");
    agent.locks();
    let second_kb = procfs::status_kb(agent.pid(), "VmRSS").expect("it lives");
    note(&format!("{first_kb} kB, then {second_kb} kB"));
    assert!(
        second_kb < first_kb + 8 * 1024,
        "as many again cost nothing more: {first_kb} kB, {second_kb} kB"
    );
    agent.stop();
}

/// The crowd's entries, whatever they are taken for: at the address where it waits and the one it is moved to.
fn crowd<'a>(answer: &'a Value, scene: &Workload) -> Vec<&'a Value> {
    let pid = scene.fact("pid");
    let addresses = [hex(scene.large("first")), hex(scene.large("second"))];
    let mut all = locks::of(answer, "locks", pid);
    all.extend(locks::of(answer, "not_contention", pid));
    all.retain(|entry| addresses.iter().any(|address| entry["address"] == **address));
    all
}

/// One who comes now sees all of them wait.
fn check_waiting(live: &Live, scene: &Workload, when: &str) {
    let pid = scene.fact("pid").to_string();
    let answer = live.json(&["locks", "--for", "100ms", "--pid", &pid]);
    let waiting = sum(&crowd(&answer, scene), "waiters_now");
    assert_eq!(waiting, u64::from(scene.fact("threads")), "{when}: {answer}");
}

#[test]
fn no_waiter_of_a_crowd_is_lost_when_it_is_moved() {
    let Some(live) = Live::begin("requeue") else {
        return;
    };
    let mut scene = Workload::start(&["requeue"]);
    let threads = u64::from(scene.fact("threads"));
    let pid = scene.fact("pid").to_string();
    let window = Window::open(&live, &["--pid", &pid]);
    let mut waits = 0;
    for round in 0..5 {
        assert_eq!(scene.tell("block", "done")["awake"], 0, "all went to sleep");
        if round == 0 {
            check_waiting(&live, &scene, "before they are moved");
        }
        let moved = scene.tell("requeue", "done")["moved"];
        assert_eq!(u64::try_from(moved), Ok(threads));
        if round == 0 {
            check_waiting(&live, &scene, "after they were moved");
        }
        waits = scene.tell("release", "done")["waits"];
    }
    assert_eq!(waits, 1_000, "as many as there were");
    let answer = window.close();
    let entries = crowd(&answer, &scene);
    assert_eq!(sum(&entries, "waits"), 1_000, "{entries:?}");
    assert_eq!(
        sum(&entries, "waiters_now"),
        0,
        "nobody is left behind: {entries:?}"
    );
}
