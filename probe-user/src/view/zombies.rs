//! Zombies by the parent at fault, for a terminal.

use super::number::{UNKNOWN, count, duration, plural};
use super::table::{Align, Table};
use super::waiting::{ended, waiting_on};
use crate::model::thread::{Condition, Thread};
use crate::model::tracker::Units;
use crate::model::zombies::{Culprit, Kind, Pids, Report, Zombie};
use probe_ebpf::state::State;

/// Zombies to list one by one at most.
const LISTED: usize = 10;

/// The lines.
pub fn lines(report: &Report<'_>, units: &mut dyn Units, width: Option<usize>) -> Vec<String> {
    let mut lines = vec![headline(report)];
    if !report.culprits.is_empty() {
        lines.push(String::new());
        lines.extend(culprits(report, units, width));
    }
    if !report.zombies.is_empty() {
        lines.push(String::new());
        lines.extend(oldest(report, width));
    }
    lines.push(String::new());
    lines.extend(unit_pids(report, units));
    lines.push(pids(report));
    lines
}

fn headline(report: &Report<'_>) -> String {
    let dead: u64 = report.culprits.iter().map(|culprit| culprit.count).sum();
    let mut line = match report.culprits.as_slice() {
        [] => "no zombies".to_owned(),
        [_] => format!("{}, all of one parent that does not reap", plural(dead, "zombie")),
        [worst, ..] => {
            format!(
                "{}; {} of them are not reaped by one parent",
                plural(dead, "zombie"),
                count(worst.count)
            )
        }
    };
    let of_kind = |kind| report.zombies.iter().filter(|zombie| zombie.kind == kind).count() as u64;
    let others = [
        (Kind::LeaderExited, "alive without a first thread"),
        (Kind::Dying, "told to end and held up"),
    ];
    for (kind, what) in others {
        let count = of_kind(kind);
        if count > 0 {
            line = format!("{line}; {} {what}", plural(count, "process"));
        }
    }
    line
}

fn culprits(report: &Report<'_>, units: &mut dyn Units, width: Option<usize>) -> Vec<String> {
    let mut table = Table::new(&[
        ("PARENT AT FAULT", Align::Left),
        ("ZOMBIES", Align::Right),
        ("OLDEST", Align::Right),
        ("RATE", Align::Right),
        ("THE PARENT IS", Align::Left),
    ]);
    for culprit in &report.culprits {
        let unit = culprit
            .thread
            .map(|thread| units.unit(thread.cgroup_id))
            .filter(|unit| !unit.is_empty());
        let name = culprit
            .thread
            .map_or_else(|| "(unknown)".to_owned(), |thread| thread.comm.to_string());
        let unit = unit.map_or_else(String::new, |unit| format!(" ({unit})"));
        table.row(vec![
            format!("{name} {}{unit}", culprit.pid),
            count(culprit.count),
            duration(culprit.oldest_ns),
            rate(culprit.per_second),
            doing(culprit),
        ]);
    }
    table.lines(width)
}

fn rate(per_second: Option<f64>) -> String {
    match per_second {
        None => UNKNOWN.to_owned(),
        Some(rate) if rate >= 1.0 => format!("{rate:.1}/s"),
        Some(rate) if rate >= 1.0 / 60.0 => format!("{:.1}/min", rate * 60.0),
        Some(rate) => format!("{:.1}/h", rate * 3600.0),
    }
}

/// "asleep in `epoll_wait` for 3h 12m; called wait 2.0 s ago".
fn doing(culprit: &Culprit<'_>) -> String {
    let Some(thread) = culprit.thread else {
        return "not visible".to_owned();
    };
    let care = match (culprit.last_wait_ns, culprit.reaped) {
        (Some(ago_ns), _) => format!("; called wait {} ago", duration(Some(ago_ns))),
        (None, Some(0)) => "; has reaped nothing while watched".to_owned(),
        (None, Some(reaped)) => format!("; has reaped {} while watched", count(reaped)),
        (None, None) => String::new(),
    };
    format!("{}{care}", state(thread))
}

fn state(thread: &Thread) -> String {
    let (what, place) = match thread.condition {
        _ if thread.is_frozen() => ("frozen with its cgroup", None),
        Condition::Alive(State::Running) => ("running", None),
        Condition::Alive(State::Runnable) => ("runnable, waiting for a CPU,", None),
        Condition::Alive(State::Sleeping) => ("asleep", Some(waiting_on(thread, None))),
        Condition::Alive(State::Uninterruptible) => {
            ("in uninterruptible sleep", Some(waiting_on(thread, None)))
        }
        Condition::Alive(State::Stopped) => ("stopped (SIGSTOP)", None),
        Condition::Alive(State::Traced) => ("stopped by its tracer", None),
        Condition::Alive(State::Idle) => ("idle", None),
        Condition::Alive(State::Parked) => ("parked", None),
        Condition::Zombie if thread.live_threads > 0 => ("alive without its first thread", None),
        Condition::Zombie | Condition::Dead => ("a zombie itself", None),
    };
    let place = place
        .filter(|place| place != UNKNOWN)
        .map_or_else(String::new, |place| format!(" in {place}"));
    let since = thread.condition_ns.map_or_else(String::new, |ns| {
        let bound = if thread.is_lower_bound { "at least " } else { "" };
        format!(" for {bound}{}", duration(Some(ns)))
    });
    format!("{what}{place}{since}")
}

fn oldest(report: &Report<'_>, width: Option<usize>) -> Vec<String> {
    let mut table = Table::new(&[
        ("PID", Align::Right),
        ("DEAD FOR", Align::Right),
        ("PARENT", Align::Right),
        ("KIND", Align::Left),
        ("COMMAND", Align::Left),
    ]);
    // Those that cannot end first: they are few, and the others are told by their parent already.
    let mut shown: Vec<&Zombie<'_>> = report.zombies.iter().collect();
    shown.sort_by_key(|zombie| zombie.kind != Kind::Dying);
    for zombie in shown.into_iter().take(LISTED) {
        let thread = zombie.thread;
        table.row(vec![
            thread.pid.to_string(),
            duration(thread.condition_ns),
            thread.ppid.to_string(),
            zombie.kind.name().to_owned(),
            format!("({}) {}", thread.comm, end(zombie)),
        ]);
    }
    let mut lines = table.lines(width);
    if let rest @ 1.. = report.zombies.len().saturating_sub(LISTED) {
        lines.push(format!("… and {rest} more (-o json lists all)"));
    }
    lines
}

/// What has ended, and how.
fn end(zombie: &Zombie<'_>) -> String {
    match zombie.kind {
        Kind::LeaderExited => "lives on without its first thread".to_owned(),
        Kind::Dying => {
            let by = zombie.held_up_by.map(held_up_by).unwrap_or_default();
            format!("{}{by}", ended(zombie.status()))
        }
        _ => ended(zombie.thread.exit_status),
    }
}

fn held_up_by(thread: &Thread) -> String {
    let name = format!(", held up by {} {}", thread.comm, thread.id.tid);
    match thread.condition {
        Condition::Zombie => format!("{name}, which its parent {} does not reap", thread.ppid),
        _ => format!("{name}: {}", state(thread)),
    }
}

/// Units of parents at fault that may have so many pids only.
fn unit_pids(report: &Report<'_>, units: &mut dyn Units) -> Vec<String> {
    let mut lines = Vec::new();
    for culprit in &report.culprits {
        let (Some(thread), Some(used)) = (culprit.thread, culprit.unit_pids) else {
            continue;
        };
        let unit = units.unit(thread.cgroup_id);
        let of = if unit.is_empty() {
            format!("the cgroup of {}", thread.comm)
        } else {
            unit.to_string()
        };
        let line = format!("pids of {of}: {}", usage(used, culprit.full_in_ns));
        if !lines.contains(&line) {
            lines.push(line);
        }
    }
    lines
}

fn pids(report: &Report<'_>) -> String {
    format!("pids: {}", usage(report.pids, report.full_in_ns))
}

/// "45 of 60 in use; full in 3.0 s at this rate".
fn usage(pids: Pids, full_in_ns: Option<u64>) -> String {
    let limit = pids
        .limit
        .map_or_else(String::new, |limit| format!(" of {}", count(limit)));
    let full = full_in_ns.map_or_else(String::new, |ns| {
        format!("; full in {} at this rate", duration(Some(ns)))
    });
    format!("{}{limit} in use{full}", count(pids.used))
}
