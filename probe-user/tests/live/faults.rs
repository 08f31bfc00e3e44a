//! What goes wrong around the agent: stopped for long, a ring that is too small, another agent beside it. Cgroups are in
//! [`crate::cgroups`].

use std::process::Command;
use std::time::{Duration, Instant};

use crate::common::agent::Agent;
use crate::common::exposition::Exposition;
use crate::common::json::{process, text};
use crate::common::probe::Running;
use crate::common::workload::Workload;
use crate::common::{Live, eventually, is_full, note, procfs};
use crate::storm::is_like_proc;

/// The smallest ring the kernel takes: two exits fit.
const SMALLEST_RING: &str = "4096";

/// How many events of a reason were lost.
pub fn lost(scrape: &Exposition, reason: &str) -> u64 {
    whole(scrape.sum("procprobe_events_lost_total", &[("reason", reason)]))
}

/// A count, which the exposition has as a floating-point number.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a count: whole, not negative, and far from the limits"
)]
fn whole(count: f64) -> u64 {
    count.round() as u64
}

/// Seconds that the group of a name, and those whose exit was lost, ran.
fn running(scrape: &Exposition, comm: &str) -> f64 {
    let of = |comm| {
        scrape.sum(
            "procprobe_state_seconds_total",
            &[("comm", comm), ("state", "running")],
        )
    };
    of(comm) + of("(lost)")
}

/// Births, deaths and times between two scrapes are whole, although events were lost.
fn assert_whole(first: &Exposition, last: &Exposition, births: u64, seconds: f64) {
    for name in ["procprobe_forks_total", "procprobe_process_exits_total"] {
        let grown = last.count(name) - first.count(name);
        assert!(grown >= births, "{name} grew by {grown}, not {births}");
    }
    for (name, reason) in [
        ("procprobe_group_forks_total", "ring_fork"),
        ("procprobe_exits_total", "ring_exit"),
    ] {
        let of = |scrape: &Exposition| whole(scrape.sum(name, &[("comm", "pp-births")]));
        let (grown, lost) = (of(last) - of(first), lost(last, reason) - lost(first, reason));
        assert!(
            grown <= births && grown + lost >= births,
            "{name}: {grown} and {lost} lost of {births}"
        );
    }
    let counted = running(last, "pp-births") - running(first, "pp-births");
    note(&format!(
        "{births} births: {seconds:.3} s running by getrusage, {counted:.3} s counted"
    ));
    // Others may have died unheard too, so there may be more.
    assert!(counted >= seconds * 0.98, "{counted} s of {seconds} s");
}

#[test]
fn a_ring_of_the_smallest_size_costs_detail_but_no_total() {
    let Some(live) = Live::begin("smallest ring") else {
        return;
    };
    let mut scene = Workload::start(&["births"]);
    let agent = Agent::start(&live, &["--max-groups", "100000", "--ring-size", SMALLEST_RING]);
    let first = agent.metrics();
    let births = 2_000;
    let told = scene.tell(&births.to_string(), "done");
    let last = agent.metrics();
    assert!(
        lost(&last, "ring_fork") > 0 && lost(&last, "ring_exit") > 0,
        "a ring of a page holds it all?"
    );
    assert_whole(&first, &last, births, told["cpu_us"] as f64 / 1e6);
    is_like_proc(&agent);
    let tree = agent.tree();
    // Of the agent's life: the look at hand lacks nothing.
    assert!(
        tree["lost_total"]["ring_exit"].as_u64() > Some(0),
        "{}",
        tree["lost_total"]
    );
    agent.stop();
}

/// Waits until the agent is, or no longer is, stopped.
fn await_stopped(agent: &Agent, stopped: bool) {
    eventually("stopped or continued", || {
        (procfs::state(agent.pid()) == Some('T')) == stopped
    });
}

/// Two that never sleep, one for each CPU or more.
fn spinners() -> [Running; 2] {
    [(); 2].map(|()| {
        let spinner = Command::new("sh").args(["-c", "while :; do :; done"]).spawn();
        Running(spinner.expect("starting a shell"))
    })
}

/// Also what a machine that was suspended looks like from the agent: time went by, and it was not there.
#[test]
fn an_agent_that_was_stopped_catches_up() {
    let Some(live) = Live::begin("stopped agent") else {
        return;
    };
    let gap = Duration::from_secs(if is_full() { 30 } else { 3 });
    let mut scene = Workload::start(&["births"]);
    let spinners = spinners();
    let watched = Instant::now();
    let agent = Agent::start(&live, &["--max-groups", "100000", "--ring-size", "65536"]);
    std::thread::sleep(Duration::from_secs(2));
    let outer = procfs::births();
    let first = agent.metrics();
    let inner = births_of(&first);
    agent.running.signal(libc::SIGSTOP);
    await_stopped(&agent, true);
    let began = Instant::now();
    let (mut births, mut cpu_us) = (0, 0);
    while births == 0 || began.elapsed() < gap {
        cpu_us += scene.tell("1000", "done")["cpu_us"];
        births += 1000;
    }
    // While nobody looks, some that the agent knows die, and one that it does not know is born.
    drop(spinners);
    let sleeper = Workload::start(&["sleeper"]);
    agent.running.signal(libc::SIGCONT);
    await_stopped(&agent, false);
    let last = agent.metrics();
    assert!(lost(&last, "ring_exit") > 0, "{births} births fit into the ring?");
    assert_whole(&first, &last, births, cpu_us as f64 / 1e6);
    let all = births_of(&last) - inner;
    let most = procfs::births() - outer;
    assert!(
        all >= births && all <= most,
        "{all} births, {births} ours, {most} by the kernel"
    );
    assert_no_more_than_there_was(&[&first, &last, &agent.metrics()], watched);
    is_like_proc(&agent);
    assert_eq!(text(process(&agent.tree(), sleeper.pid), "comm"), "pp-sleeper");
    note(&format!(
        "stopped for {:.1} s: {births} births, {} exits lost",
        began.elapsed().as_secs_f64(),
        lost(&last, "ring_exit")
    ));
    agent.stop();
}

fn births_of(scrape: &Exposition) -> u64 {
    scrape.count("procprobe_forks_total") + scrape.count("procprobe_threads_created_total")
}

/// All groups together never ran longer than all CPUs could: nothing is counted twice, once while it lived and once more
/// when its exit was lost. And no counter falls.
fn assert_no_more_than_there_was(scrapes: &[&Exposition], since: Instant) {
    let all = |scrape: &&Exposition| scrape.sum("procprobe_state_seconds_total", &[("state", "running")]);
    let all: Vec<f64> = scrapes.iter().map(all).collect();
    // SAFETY: takes a plain number.
    let cpus = unsafe { libc::sysconf(libc::_SC_NPROCESSORS_ONLN) };
    let most = since.elapsed().as_secs_f64() * cpus as f64;
    note(&format!("{all:?} s running of {most:.1} s on {cpus} CPUs"));
    assert!(
        all.is_sorted() && all.iter().all(|seconds| *seconds <= most * 1.02),
        "{all:?} of {most}"
    );
    let lost: Vec<f64> = scrapes
        .iter()
        .map(|scrape| running(scrape, "no such name"))
        .collect();
    assert!(lost.is_sorted(), "{lost:?}");
}

#[test]
fn two_agents_at_once_are_both_right() {
    let Some(live) = Live::begin("two agents") else {
        return;
    };
    let mut scene = Workload::start(&["births"]);
    let agents = [
        Agent::start(&live, &["--max-groups", "100000"]),
        Agent::start(&live, &["--max-groups", "100000"]),
    ];
    let first = agents.each_ref().map(Agent::metrics);
    let births = 2_000;
    let pid = scene.pid;
    let parent_ns = || procfs::counts().get(&pid).expect("it runs").running_ns;
    let before_ns = parent_ns();
    let told = scene.tell(&births.to_string(), "done");
    let last = agents.each_ref().map(Agent::metrics);
    let truth = told["cpu_us"] as f64 / 1e6 + (parent_ns() - before_ns) as f64 / 1e9;
    for (first, last) in first.iter().zip(&last) {
        assert_eq!(lost(last, "ring_exit"), 0);
        assert_whole(first, last, births, truth);
        let counted = running(last, "pp-births") - running(first, "pp-births");
        assert!(counted <= truth * 1.02, "{counted} s of {truth} s");
    }
    let [one, two] = agents;
    one.stop();
    is_like_proc(&two);
    scene.tell("500", "done");
    let after = two.metrics();
    let grown = after.count("procprobe_forks_total") - last[1].count("procprobe_forks_total");
    assert!(grown >= 500, "the one that stays goes on: {grown}");
    two.stop();
}
