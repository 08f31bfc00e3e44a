//! What goes wrong around the agent: stopped for long, a ring that is too small, no memory for ledgers, a cgroup that goes
//! away, another agent beside it.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::common::agent::Agent;
use crate::common::exposition::Exposition;
use crate::common::json::{list, process, text};
use crate::common::probe::Running;
use crate::common::workload::Workload;
use crate::common::{Live, eventually, is_full, note, procfs, skipped};
use crate::storm::is_like_proc;

/// The smallest ring the kernel takes: two exits fit.
const SMALLEST_RING: &str = "4096";

fn lost(scrape: &Exposition, reason: &str) -> u64 {
    scrape
        .sum("procprobe_events_lost_total", &[("reason", reason)])
        .round() as u64
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
        let of = |scrape: &Exposition| scrape.sum(name, &[("comm", "pp-births")]).round() as u64;
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
    assert!(
        tree["complete"] == false && tree["lost"]["ring_exit"].as_u64() > Some(0),
        "{}",
        tree["lost"]
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

/// A cgroup of a controller that only exists for the test.
struct Cgroup(PathBuf);

impl Cgroup {
    /// Below the first of the mounts that is there, which the test's own process may well be in.
    fn new(mounts: &[&str], name: &str) -> Option<Self> {
        let mount = mounts
            .iter()
            .map(PathBuf::from)
            .find(|mount| mount.join("cgroup.procs").exists())?;
        let path = mount.join(format!("{name}-{}", std::process::id()));
        fs::create_dir(&path).ok()?;
        Some(Self(path))
    }

    fn write(&self, file: &str, value: &str) -> bool {
        fs::write(self.0.join(file), value).is_ok()
    }

    fn read(&self, file: &str) -> u64 {
        let text = fs::read_to_string(self.0.join(file)).expect("reading a cgroup");
        text.trim().parse().expect("a number")
    }

    fn remove(&self) -> bool {
        fs::remove_dir(&self.0).is_ok()
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        // Processes that were just killed keep it for a moment; gone already is just as well.
        let deadline = Instant::now() + Duration::from_secs(5);
        while self.0.exists() && !self.remove() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

const UNIFIED: [&str; 2] = ["/sys/fs/cgroup/unified", "/sys/fs/cgroup"];

#[test]
fn a_cgroup_that_is_removed_under_a_process_keeps_its_name() {
    let Some(live) = Live::begin("removed cgroup") else {
        return;
    };
    let Some(cgroup) = Cgroup::new(&UNIFIED, "pp-removed") else {
        return skipped("removed cgroup", "no cgroup v2 hierarchy that can be written to");
    };
    let unit = cgroup.0.file_name().expect("a name").to_str().expect("ASCII");
    let scene = Workload::start(&["sleeper"]);
    let agent = Agent::start(&live, &["--max-groups", "100000"]);
    assert!(
        cgroup.write("cgroup.procs", &scene.pid.to_string()),
        "moving a process"
    );
    let in_it = |tree: &Value| process(tree, scene.pid)["unit"] == unit;
    eventually("the new unit", || in_it(&agent.tree()));
    let pid = i32::try_from(scene.pid).expect("a pid fits");
    // SAFETY: takes plain numbers; the process is our child, and not reaped before it is dropped.
    unsafe { libc::kill(pid, libc::SIGKILL) };
    eventually("a zombie", || procfs::state(scene.pid) == Some('Z'));
    assert!(cgroup.remove(), "a cgroup in which only the dead are");
    let tree = agent.tree();
    assert_eq!(text(process(&tree, scene.pid), "state"), "zombie");
    assert!(in_it(&tree), "{}", process(&tree, scene.pid));
    let metrics = agent.metrics();
    let exits = metrics.sum("procprobe_exits_total", &[("unit", unit), ("reason", "signal")]);
    assert!(
        (exits - 1.0).abs() < 0.5,
        "{exits} exits in the cgroup that is gone"
    );
    drop(scene);
    let threads = agent.metrics().sum("procprobe_group_threads", &[("unit", unit)]);
    assert!(threads < 0.5, "{threads} threads in it");
    agent.stop();
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

/// Ledgers that have to be made where nothing can be waited for are charged to the agent. With its memory used up they are
/// not made; that is counted, and the agent goes on.
#[test]
fn no_memory_for_ledgers_is_counted() {
    let Some(live) = Live::begin("no memory") else {
        return;
    };
    // Version 2 has no way to keep the agent from being killed for what its ledgers take.
    let Some(cgroup) = Cgroup::new(&["/sys/fs/cgroup/memory"], "pp-memory") else {
        return skipped("no memory", "no memory cgroup (v1) that can be written to");
    };
    let mut command = Command::new("sh");
    command
        .args(["-c", "echo $$ > $0/cgroup.procs && exec \"$@\""])
        .arg(&cgroup.0)
        .arg(&live.binary);
    command.args(["agent", "--listen", "127.0.0.1:0", "--max-groups", "100000"]);
    let agent = Agent::begin(command);
    let before = agent.metrics();
    assert_eq!(lost(&before, "storage"), 0);
    // Who cannot get memory waits until there is some, instead of being killed.
    assert!(cgroup.write("memory.oom_control", "1"), "memory.oom_control");
    let used: u64 = cgroup.read("memory.usage_in_bytes");
    assert!(
        cgroup.write("memory.limit_in_bytes", &(used + (256 << 10)).to_string()),
        "memory.limit_in_bytes"
    );
    let scene = Workload::start(&["threads", "3000"]);
    let spent = cgroup.read("memory.failcnt");
    assert!(
        cgroup.write("memory.limit_in_bytes", "-1"),
        "memory.limit_in_bytes"
    );
    let last = agent.metrics();
    let lost = lost(&last, "storage");
    note(&format!(
        "{used} bytes used, {spent} times refused, {lost} transitions not booked"
    ));
    assert!(lost > 0, "3,000 ledgers fit into 256 KiB?");
    let threads = last.sum("procprobe_group_threads", &[("comm", "pp-threads")]);
    assert!((threads - 3000.0).abs() < 0.5, "{threads} threads are seen");
    let tree = agent.tree();
    assert_eq!(tree["complete"], false);
    assert_eq!(list(process(&tree, scene.pid), "threads").len(), 3000);
    agent.stop();
}
