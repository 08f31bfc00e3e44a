//! Time in each state, for a terminal.

use probe_ebpf::state::State;
use probe_ebpf::waiting::Class;

use super::number::{UNKNOWN, bar, count, duration, plural};
use super::table::{Align, Table, cut};
use crate::model::snapshot::Losses;
use crate::model::thread::{Condition, state_name};
use crate::model::waits::class_name;
use crate::model::window::{By, Group, Report};

/// What to show.
#[derive(Clone, Copy, Debug)]
pub struct Look {
    /// What the groups are.
    pub by: By,
    /// Rows at most; `None` for all.
    pub limit: Option<usize>,
    /// Columns of the terminal; `None` if the output is no terminal.
    pub width: Option<usize>,
}

/// Cells of the bars in the table.
const SMALL_BAR: usize = 4;
/// Terminals narrower than this get no bars in the table.
const WIDE: usize = 96;
/// States that every table shows; others only if somebody was in one.
const ALWAYS: [State; 4] = [
    State::Running,
    State::Runnable,
    State::Sleeping,
    State::Uninterruptible,
];

/// The lines of a finished window.
pub fn lines(report: &Report, cpus: usize, losses: &Losses, look: Look) -> Vec<String> {
    let mut lines = vec![headline(report, cpus, losses), String::new()];
    lines.extend(table(report, look));
    for state in [State::Runnable, State::Uninterruptible] {
        if let Some(group) = report
            .groups
            .iter()
            .max_by_key(|group| group.usage.time_ns[state.index()])
            && group.usage.count(state) > 0
        {
            lines.push(String::new());
            lines.extend(histogram(group, state, look.by));
        }
    }
    lines.extend(waited_in(report, look));
    lines.push(String::new());
    lines.push(cut(&transitions(report), look.width));
    lines
}

fn headline(report: &Report, cpus: usize, losses: &Losses) -> String {
    let threads: u64 = report.groups.iter().map(|group| group.threads).sum();
    let switches = report
        .groups
        .iter()
        .map(|group| group.switches.voluntary + group.switches.involuntary)
        .sum();
    format!(
        "{} on {} · {} · {} · {}",
        duration(Some(report.window_ns)),
        plural(cpus as u64, "CPU"),
        plural(threads, "thread"),
        plural(switches, "switch"),
        lost(losses)
    )
}

/// "nothing lost", or what was.
pub fn lost(losses: &Losses) -> String {
    if losses.is_empty() {
        return "nothing lost".to_owned();
    }
    let parts: Vec<String> = losses
        .iter()
        .filter(|(_, lost)| *lost > 0)
        .map(|(reason, lost)| format!("{reason} {}", count(lost)))
        .collect();
    format!("LOST: {}", parts.join(", "))
}

fn heading(by: By) -> &'static str {
    match by {
        By::Thread => "THREAD",
        By::Process => "PROCESS",
        By::Comm => "COMM",
        By::Unit => "UNIT",
    }
}

fn state_heading(state: State) -> &'static str {
    match state {
        State::Running => "RUNNING",
        State::Runnable => "RUNNABLE",
        State::Sleeping => "SLEEPING",
        State::Uninterruptible => "UNINTERR.",
        State::Idle => "IDLE",
        State::Stopped => "STOPPED",
        State::Traced => "TRACED",
        State::Parked => "PARKED",
    }
}

fn table(report: &Report, look: Look) -> Vec<String> {
    let layout = Layout::of(report, look);
    let mut columns = vec![(heading(look.by), Align::Left), ("THREADS", Align::Right)];
    for &state in &layout.states {
        columns.push((state_heading(state), Align::Right));
        if layout.wide && has_bar(state) {
            columns.push(("", Align::Left));
        }
    }
    columns.push((
        if layout.wide {
            "SWITCHES (vol/invol)"
        } else {
            "SWITCHES"
        },
        Align::Right,
    ));
    let mut table = Table::new(&columns);
    let shown = look.limit.unwrap_or(usize::MAX).min(report.groups.len());
    for group in &report.groups[..shown] {
        table.row(row(group, report, &layout));
    }
    let mut lines = table.lines(look.width);
    lines.extend(rest(report.groups.len() - shown));
    lines
}

/// The line on the rows that are not shown, if there are any.
pub fn rest(count: usize) -> Option<String> {
    (count > 0).then(|| format!("… and {count} more (--limit 0 shows all)"))
}

/// What fits.
struct Layout {
    /// Bars, every state that somebody was in, and switches by kind.
    wide: bool,
    states: Vec<State>,
    key_width: usize,
}

impl Layout {
    fn of(report: &Report, look: Look) -> Self {
        let used = |state: State| {
            report
                .groups
                .iter()
                .any(|group| group.usage.time_ns[state.index()] > 0)
        };
        let wide = look.width.is_none_or(|width| width >= WIDE);
        // On a narrow terminal idle kernel threads are the first to go; a stopped or traced thread is worth its column.
        let extra = |state: State| used(state) && (wide || !matches!(state, State::Idle | State::Parked));
        let states: Vec<State> = State::ALL
            .into_iter()
            .filter(|&s| ALWAYS.contains(&s) || extra(s))
            .collect();
        // A process name whole, less what every extra column takes.
        let key_width = if wide {
            28
        } else {
            15_usize.saturating_sub(3 * (states.len() - ALWAYS.len())).max(6)
        };
        Self {
            wide,
            states,
            key_width,
        }
    }
}

/// What a group is called, as far as it fits.
fn key_cell(group: &Group, width: usize) -> String {
    if group.key.is_empty() {
        "(none)".to_owned()
    } else {
        cut(&group.key, Some(width))
    }
}

/// Time asleep says little; a bar would only draw the eye to it.
fn has_bar(state: State) -> bool {
    matches!(state, State::Running | State::Runnable | State::Uninterruptible)
}

fn row(group: &Group, report: &Report, layout: &Layout) -> Vec<String> {
    let mut cells = vec![key_cell(group, layout.key_width), count(group.threads)];
    for &state in &layout.states {
        let time = group.usage.time_ns[state.index()];
        cells.push(if time == 0 {
            UNKNOWN.to_owned()
        } else {
            duration(Some(time))
        });
        if layout.wide && has_bar(state) {
            let greatest = report
                .groups
                .iter()
                .map(|group| group.usage.time_ns[state.index()])
                .max();
            cells.push(format!(
                "{:SMALL_BAR$}",
                bar(time, greatest.unwrap_or(0), SMALL_BAR)
            ));
        }
    }
    let switches = group.switches;
    cells.push(if layout.wide {
        format!("{} / {}", count(switches.voluntary), count(switches.involuntary))
    } else {
        count(switches.voluntary + switches.involuntary)
    });
    cells
}

/// How long a group's waits of one kind took.
fn histogram(group: &Group, state: State, by: By) -> Vec<String> {
    let cells = group.usage.histogram(state);
    let what = match state {
        State::Runnable => "waits for a CPU",
        State::Uninterruptible => "is in uninterruptible sleep",
        other => state_name(other),
    };
    let key = if group.key.is_empty() {
        format!("(no {})", heading(by).to_lowercase())
    } else {
        group.key.clone()
    };
    let times = plural(group.usage.count(state), "time");
    let total = duration(Some(group.usage.time_ns[state.index()]));
    let mut lines = vec![format!("{key} {what}: {times}, {total}")];
    lines.extend(super::histogram::lines(cells));
    lines
}

/// Groups whose waits are told apart.
const TOLD: usize = 5;

/// What the busiest groups waited in.
fn waited_in(report: &Report, look: Look) -> Vec<String> {
    let mut lines = Vec::new();
    for group in &report.groups {
        let classes = Class::ALL.into_iter().zip(group.usage.blocked_ns);
        let mut waits: Vec<(Class, u64)> = classes
            .filter(|(class, ns)| *ns > 0 && *class != Class::Kernel)
            .collect();
        waits.sort_by_key(|(_, ns)| std::cmp::Reverse(*ns));
        if waits.is_empty() || lines.len() >= TOLD {
            continue;
        }
        let parts = waits
            .into_iter()
            .map(|(class, ns)| format!("{} {}", class_name(class), duration(Some(ns))));
        let parts: Vec<String> = parts.collect();
        let key = key_cell(group, 28);
        lines.push(cut(&format!("{key} waited in: {}", parts.join(", ")), look.width));
    }
    if !lines.is_empty() {
        lines.insert(0, String::new());
    }
    lines
}

fn transitions(report: &Report) -> String {
    let parts: Vec<String> = report
        .transitions
        .iter()
        .map(|t| format!("{}→{} {}", t.from, t.to, count(t.count)))
        .collect();
    format!(
        "state changes: {}",
        if parts.is_empty() {
            "none".to_owned()
        } else {
            parts.join(" · ")
        }
    )
}

/// The lines for /proc: how many threads of each group are in which state now.
pub fn current_lines(report: &Report, look: Look) -> Vec<String> {
    let used = |position: usize| report.groups.iter().any(|group| group.now[position] > 0);
    let shown: Vec<usize> = (0..Condition::ALL.len())
        .filter(|&position| used(position))
        .collect();
    let mut columns = vec![(heading(look.by), Align::Left), ("THREADS", Align::Right)];
    columns.extend(
        shown
            .iter()
            .map(|&position| (current_heading(Condition::ALL[position]), Align::Right)),
    );
    let mut table = Table::new(&columns);
    let limit = look.limit.unwrap_or(usize::MAX).min(report.groups.len());
    for group in &report.groups[..limit] {
        let mut cells = vec![key_cell(group, 28), count(group.threads)];
        cells.extend(shown.iter().map(|&position| match group.now[position] {
            0 => UNKNOWN.to_owned(),
            now => count(now),
        }));
        table.row(cells);
    }
    let mut lines = vec!["threads by state now, from /proc: no times; running includes runnable".to_owned()];
    lines.extend(table.lines(look.width));
    lines.extend(rest(report.groups.len() - limit));
    lines
}

fn current_heading(condition: Condition) -> &'static str {
    match condition {
        Condition::Alive(state) => state_heading(state),
        Condition::Zombie => "ZOMBIE",
        Condition::Dead => "DEAD",
    }
}
