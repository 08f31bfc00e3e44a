//! Processes that are born and die: none uncounted, none of their time lost, none a stumbling block.

use serde_json::Value;

use crate::common::agent::Agent;
use crate::common::exposition::Exposition;
use crate::common::json::{id, text};
use crate::common::stream::Stream;
use crate::common::workload::{Spawner, Workload};
use crate::common::{Live, eventually, is_full, note, procfs, repeated};

/// Processes and threads born, by the agent's count.
fn births(scrape: &Exposition) -> u64 {
    scrape.count("procprobe_forks_total") + scrape.count("procprobe_threads_created_total")
}

fn running_seconds(scrape: &Exposition) -> f64 {
    scrape.sum(
        "procprobe_state_seconds_total",
        &[("comm", Spawner::CHILD), ("state", "running")],
    )
}

#[test]
fn short_lives_are_counted_and_their_time_is_kept() {
    let Some(live) = Live::begin("short lives") else {
        return;
    };
    let mut spawner = Spawner::start();
    let agent = Agent::start(&live, &["--max-groups", "100000"]);
    let count: u64 = if is_full() { 20_000 } else { repeated(5_000) };
    let outer = procfs::births();
    let first = agent.metrics();
    let inner = procfs::births();
    let cpu_us = spawner.spawn(count);
    let inner = procfs::births() - inner;
    let last = agent.metrics();
    let outer = procfs::births() - outer;
    let lost = last.sum("procprobe_events_lost_total", &[]);
    for name in [
        "procprobe_forks_total",
        "procprobe_execs_total",
        "procprobe_process_exits_total",
    ] {
        let grown = last.count(name) - first.count(name);
        note(&format!(
            "{name}: {grown} for {count} (and those of others); lost {lost}"
        ));
        assert!(grown >= count, "{name} grew by {grown}, not {count}");
    }
    // The kernel's count is of the whole machine, others' births included, so it bounds ours from both sides.
    let grown = births(&last) - births(&first);
    assert!(
        (inner..=outer).contains(&grown),
        "{grown} births, by the kernel {inner} to {outer}"
    );
    let seconds = running_seconds(&last);
    let truth = cpu_us as f64 / 1e6;
    note(&format!("running: {seconds:.3} s, by getrusage {truth:.3} s"));
    // What the last one did before it had its name may have been booked under another.
    assert!(
        (seconds - truth).abs() <= truth * 0.02,
        "{seconds} s running, by getrusage {truth} s"
    );
    drop(spawner);
    let later = agent.metrics();
    assert!(running_seconds(&later) >= seconds, "what the dead did stays");
    assert!(
        later.sum("procprobe_group_threads", &[("comm", Spawner::CHILD)]) < 0.5,
        "and they are gone"
    );
    agent.stop();
}

fn is(event: &Value, name: &str) -> bool {
    text(event, "event") == name
}

#[test]
fn every_short_life_is_in_the_stream_once() {
    let Some(live) = Live::begin("stream of short lives") else {
        return;
    };
    let mut spawner = Spawner::start();
    let parent = spawner.scene.pid;
    let stream = Stream::start(&live);
    let children =
        |stream: &Stream, name: &str| stream.select(|event| is(event, name) && id(event, "ppid") == parent);
    eventually("the first exit in the stream", || {
        spawner.spawn(1);
        std::thread::sleep(std::time::Duration::from_millis(200));
        !children(&stream, "exit").is_empty()
    });
    let seen = |stream: &Stream| ["fork", "exec", "exit"].map(|name| children(stream, name).len() as u64);
    let before = seen(&stream);
    let count = repeated(1_000);
    spawner.spawn(count);
    eventually("all exits in the stream", || {
        seen(&stream)[2] >= before[2] + count
    });
    let after = seen(&stream);
    assert!(stream.stop(), "events were lost");
    assert_eq!(after, before.map(|seen| seen + count));
}

#[test]
fn a_process_that_dies_while_it_is_looked_at_breaks_nothing() {
    let Some(live) = Live::begin("storm") else { return };
    let _storms = [Workload::start(&["storm"]), Workload::start(&["storm"])];
    for round in 0..repeated(50) {
        let source = if round % 5 == 4 { "proc" } else { "bpf" };
        let tree = live.json(&["tree", "--source", source]);
        assert!(
            tree["processes"]
                .as_array()
                .is_some_and(|processes| processes.len() > 5)
        );
        if round % 10 == 0 {
            live.text(&["tree", "--threads", "--source", source]);
            live.json(&["states", "--for", "100ms"]);
        }
    }
}
