//! Far more names than `--max-groups`: the number of series stays within what the reference says, and the sums stay exact.

use std::time::Instant;

use probe_user::export::bound::{COLLECTIVE, max_series};
use probe_user::model::thread::Condition;

use crate::common::agent::Agent;
use crate::common::exposition::Exposition;
use crate::common::workload::Workload;
use crate::common::{Live, eventually, is_full, note};

/// One scrape, when it was done, how long it took.
struct Scrape {
    metrics: Exposition,
    bytes: usize,
    at: Instant,
    took_ms: f64,
}

fn scrape(agent: &Agent) -> Scrape {
    let began = Instant::now();
    let text = agent.get("/metrics");
    Scrape {
        took_ms: began.elapsed().as_secs_f64() * 1e3,
        at: began,
        bytes: text.len(),
        metrics: Exposition::parse(&text),
    }
}

/// What the deaths of all groups leave to those of the host, at least and at most. A scrape reads the groups first, so a
/// death in between is in the host's count of this one and in the groups' of the next.
fn uncounted(now: &Scrape, next: &Scrape) -> [f64; 2] {
    let of_host = now.metrics.sum("procprobe_process_exits_total", &[]);
    let of_groups = |it: &Scrape| it.metrics.sum("procprobe_exits_total", &[]);
    let lost = next
        .metrics
        .sum("procprobe_events_lost_total", &[("reason", "ring_exit")]);
    [of_host - of_groups(next) - lost, of_host - of_groups(now)]
}

fn assert_within_bound(it: &Scrape, groups: usize) {
    let bound = max_series(groups + COLLECTIVE, 64 + COLLECTIVE);
    let series = it.metrics.samples.len();
    assert!(series <= bound, "{series} series, at most {bound} are promised");
    note(&format!(
        "{series} series of at most {bound}, {} kB, {:.1} ms",
        it.bytes / 1024,
        it.took_ms
    ));
}

/// Threads by state are counted in the same look for the host and for the groups.
fn assert_threads_add_up(it: &Scrape) {
    for state in Condition::ALL.map(Condition::name) {
        let labels = [("state", state)];
        let of_groups = it.metrics.sum("procprobe_group_threads", &labels);
        let of_host = it.metrics.sum("procprobe_threads", &labels);
        assert!(
            (of_groups - of_host).abs() < 0.5,
            "{state}: {of_groups} of {of_host}"
        );
    }
}

/// Between two looks, the time of all groups in all states is that of all threads.
fn assert_time_adds_up(earlier: &Scrape, later: &Scrape) {
    let time = |it: &Scrape| it.metrics.sum("procprobe_state_seconds_total", &[]);
    let threads = |it: &Scrape| {
        let all = it.metrics.sum("procprobe_threads", &[]);
        all - it.metrics.sum("procprobe_threads", &[("state", "zombie")])
    };
    let elapsed = later.at.duration_since(earlier.at).as_secs_f64();
    let expected = elapsed * f64::midpoint(threads(earlier), threads(later));
    let found = time(later) - time(earlier);
    assert!(
        (0.9..1.1).contains(&(found / expected)),
        "{found} s of {expected} thread seconds"
    );
}

#[test]
fn more_names_than_groups_are_folded_exactly() {
    let Some(live) = Live::begin("more names than groups") else {
        return;
    };
    let count: usize = if is_full() { 5_000 } else { 600 };
    let agent = Agent::start(&live, &[]);
    let before = scrape(&agent);
    let crowd = Workload::start(&["crowd", &count.to_string()]);
    let first = scrape(&agent);
    std::thread::sleep(std::time::Duration::from_secs(2));
    let second = scrape(&agent);
    assert_within_bound(&second, 200);
    let folded = second.metrics.sum("procprobe_groups_folded", &[]);
    assert!(folded >= (count - 200) as f64, "{folded} folded");
    let other = second
        .metrics
        .sum("procprobe_group_threads", &[("comm", "(other)")]);
    assert!(other >= (count - 200) as f64, "{other} threads in (other)");
    assert_threads_add_up(&second);
    assert_time_adds_up(&first, &second);
    drop(crowd);
    let mut dead = scrape(&agent);
    eventually("the crowd to be dead", || {
        dead = scrape(&agent);
        let died = |it: &Scrape| it.metrics.sum("procprobe_process_exits_total", &[]);
        died(&dead) - died(&second) >= count as f64
    });
    let after = scrape(&agent);
    let (begins, ends) = (uncounted(&before, &first), uncounted(&dead, &after));
    assert!(
        begins[0].max(ends[0]) <= begins[1].min(ends[1]),
        "deaths of groups and of the host differ by {begins:?} at first, {ends:?} at the end"
    );
    assert_within_bound(&after, 200);
    agent.stop();
}
