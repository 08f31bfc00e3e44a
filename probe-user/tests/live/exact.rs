//! Times and switches against the scheduler's own counters, for every thread of the machine.
//!
//! Two answers of the agent, each between two readings of /proc: whatever a counter did between the answers lies between
//! its growth from the inner readings and its growth from the outer ones.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::common::agent::Agent;
use crate::common::json::{id, number, text, threads};
use crate::common::procfs::{self, Counts};
use crate::common::workload::Workload;
use crate::common::{Live, note};

/// An answer between two readings.
struct Reading {
    taken_ns: u64,
    before: BTreeMap<u32, Counts>,
    asked: Instant,
    tree: Value,
    answered: Instant,
    after: BTreeMap<u32, Counts>,
    /// Threads that /proc called runnable or running right before the answer or right after it.
    awake: BTreeSet<u32>,
}

impl Reading {
    fn take(agent: &Agent) -> Self {
        let before = procfs::counts();
        let mut awake = awake();
        let asked = Instant::now();
        let tree = agent.tree();
        let answered = Instant::now();
        awake.append(&mut self::awake());
        let after = procfs::counts();
        Self {
            taken_ns: procfs::taken_ns(),
            before,
            asked,
            tree,
            answered,
            after,
            awake,
        }
    }

    fn counts(&self, tid: u32) -> Option<(Counts, Counts)> {
        Some((*self.before.get(&tid)?, *self.after.get(&tid)?))
    }
}

fn awake() -> BTreeSet<u32> {
    let tasks = procfs::tasks().into_iter();
    tasks
        .filter(|(_, task)| task.state == 'R')
        .map(|(tid, _)| tid)
        .collect()
}

/// What a thread gained between two answers.
struct Growth {
    who: String,
    times: BTreeMap<String, u64>,
    voluntary: u64,
    involuntary: u64,
    /// From the inner and from the outer readings.
    least: Counts,
    most: Counts,
}

impl Growth {
    fn total_ns(&self) -> u64 {
        self.times.values().sum()
    }

    /// How far a value lies outside its bounds.
    fn miss(value: u64, least: u64, most: u64) -> u64 {
        least.saturating_sub(value).max(value.saturating_sub(most))
    }

    fn switches_miss(&self) -> u64 {
        let voluntary = Self::miss(self.voluntary, self.least.voluntary, self.most.voluntary);
        voluntary.max(Self::miss(
            self.involuntary,
            self.least.involuntary,
            self.most.involuntary,
        ))
    }
}

fn difference(later: Counts, earlier: Counts) -> Counts {
    Counts {
        running_ns: later.running_ns.saturating_sub(earlier.running_ns),
        runnable_ns: later.runnable_ns.saturating_sub(earlier.runnable_ns),
        voluntary: later.voluntary.saturating_sub(earlier.voluntary),
        involuntary: later.involuntary.saturating_sub(earlier.involuntary),
    }
}

/// How long a thread that waits for a CPU has been waiting: the scheduler counts that only once the wait is over.
fn waiting_ns(reading: &Reading, thread: &Value) -> u64 {
    let waits = text(thread, "state") == "runnable" && reading.awake.contains(&id(thread, "tid"));
    if waits { number(thread, "state_ns") } else { 0 }
}

/// Every thread that lived throughout and has times.
fn growths(first: &Reading, last: &Reading) -> Vec<Growth> {
    let (earlier, later) = (threads(&first.tree), threads(&last.tree));
    let mut all = Vec::new();
    for (tid, (process, thread)) in &later {
        let (Some((first_process, before)), Some((a, b)), Some((c, d))) =
            (earlier.get(tid), first.counts(*tid), last.counts(*tid))
        else {
            continue;
        };
        let same = process["start_ns"] == first_process["start_ns"];
        if !same
            || before["times_ns"].is_null()
            || thread["times_ns"].is_null()
            || text(thread, "state") == "zombie"
        {
            continue;
        }
        let grown = |key: &str| {
            let (now, then) = (number(&thread["times_ns"], key), number(&before["times_ns"], key));
            // An open stay may be divided otherwise once its end is known; the sum cannot fall.
            now.wrapping_sub(then)
        };
        let (mut least, mut most) = (difference(c, b), difference(d, a));
        least.runnable_ns = least.runnable_ns.saturating_sub(waiting_ns(first, before));
        most.runnable_ns += waiting_ns(last, thread);
        let keys = thread["times_ns"].as_object().expect("times by state").keys();
        all.push(Growth {
            who: format!("{} {tid}", text(thread, "comm")),
            times: keys.map(|key| (key.clone(), grown(key))).collect(),
            voluntary: number(&thread["switches"], "voluntary") - number(&before["switches"], "voluntary"),
            involuntary: number(&thread["switches"], "involuntary")
                - number(&before["switches"], "involuntary"),
            least,
            most,
        });
    }
    all
}

/// What is wrong with a thread's times: running within 0.5 % or 2 ms, runnable within 2 % or 5 ms of the scheduler's.
///
/// The scheduler counts neither as running nor as runnable what interrupts and the hypervisor take from a thread that has a
/// CPU; ours is runnable, so that the times add up. Nearly nothing, except where the hypervisor has too much to do.
fn complaint(growth: &Growth, taken_ns: u64) -> Option<String> {
    let (least, most) = (&growth.least, &growth.most);
    let cases = [
        ("running", least.running_ns, most.running_ns, 2_000_000, 200),
        (
            "runnable",
            least.runnable_ns,
            most.runnable_ns + taken_ns,
            5_000_000,
            50,
        ),
    ];
    cases.into_iter().find_map(|(state, least, most, margin, part)| {
        let value = growth.times[state];
        let miss = Growth::miss(value, least, most);
        (miss > (most / part).max(margin)).then(|| {
            format!(
                "{}: {state} {value}, by the scheduler {least} to {most}",
                growth.who
            )
        })
    })
}

/// All states together last as long as the time between the answers.
fn check_sums(growths: &[Growth], first: &Reading, last: &Reading) {
    let least = (last.asked - first.answered).as_nanos() as u64;
    let most = (last.answered - first.asked).as_nanos() as u64;
    let mut totals: Vec<u64> = growths.iter().map(Growth::total_ns).collect();
    for growth in growths {
        let total = growth.total_ns();
        assert!(
            (least..=most).contains(&total),
            "{}: {total} not in {least} to {most}: {:?}",
            growth.who,
            growth.times
        );
    }
    totals.sort_unstable();
    let middle = totals[totals.len() / 2];
    // Threads are read one after the other, and the reader may lose its CPU in between.
    let near = totals
        .iter()
        .filter(|total| total.abs_diff(middle) <= middle / 1_000 + 5_000_000)
        .count();
    note(&format!(
        "sums: {} of {} within 0.1 % (and 5 ms) of {middle}",
        near,
        totals.len()
    ));
    assert!(
        near * 100 >= totals.len() * 99,
        "{near} of {} near {middle}: {totals:?}",
        totals.len()
    );
}

#[test]
fn times_and_switches_are_those_of_the_scheduler() {
    let Some(live) = Live::begin("exactness") else {
        return;
    };
    let _scenes = [
        Workload::start(&["pingpong"]),
        Workload::start(&["nappers", "20"]),
        Workload::start(&["sleeper"]),
        Workload::start(&["hogs"]),
    ];
    let agent = Agent::start(&live, &[]);
    // The first answer describes every process; the second one finds that done.
    agent.tree();
    // A CPU that the hypervisor stops makes a window wrong for whoever was on it or waited for it, some kernel thread
    // mostly; a wrong account is wrong in each.
    let mut wrong: Option<BTreeSet<String>> = None;
    for _ in 0..WINDOWS {
        let now = window(&agent);
        let still = wrong.map_or_else(|| now.clone(), |before| &before & &now);
        let done = still.is_empty();
        wrong = Some(still);
        if done {
            break;
        }
    }
    assert_eq!(wrong, Some(BTreeSet::new()), "wrong in each of {WINDOWS} windows");
    agent.stop();
}

/// Windows that a thread's times have to be wrong in.
const WINDOWS: usize = 3;

/// Two readings ten seconds apart: who has wrong times. Switches and sums hold for everybody.
fn window(agent: &Agent) -> BTreeSet<String> {
    let first = Reading::take(agent);
    std::thread::sleep(Duration::from_secs(10));
    let last = Reading::take(agent);
    let growths = growths(&first, &last);
    check_switches(&growths);
    check_sums(&growths, &first, &last);
    let taken_ns = last.taken_ns - first.taken_ns;
    note(&format!(
        "{} ms taken by interrupts and the hypervisor",
        taken_ns / 1_000_000
    ));
    let complaints = growths
        .iter()
        .filter_map(|growth| Some((growth, complaint(growth, taken_ns)?)));
    complaints
        .map(|(growth, complaint)| {
            note(&complaint);
            growth.who.clone()
        })
        .collect()
}

/// To the last one, but for a switch between an answer and the reading beside it.
fn check_switches(growths: &[Growth]) {
    let exact = growths
        .iter()
        .filter(|growth| growth.switches_miss() == 0)
        .count();
    note(&format!("{} threads, switches of {exact} exact", growths.len()));
    assert!(
        growths.len() > 30 && exact * 100 >= growths.len() * 99,
        "{exact} of {} exact",
        growths.len()
    );
    for growth in growths {
        assert!(
            growth.switches_miss() <= 1,
            "{}: off by {}",
            growth.who,
            growth.switches_miss()
        );
    }
}
