//! The process tree for a terminal: `pstree` and `ps` had a child.

use std::collections::{HashMap, HashSet};

use anstyle::{AnsiColor, Style};
use probe_ebpf::state::State;

use super::json::{Answer, MemoryGapJson, OrphanMark, ProcessJson, ThreadJson, Tree};
use super::number::{UNKNOWN, at_least, percent, plural};
use super::table::{Align, Table};
use super::waiting::ended;
use crate::model::locks::memory::MemoryGap;
use crate::model::thread::Condition;

/// What to show.
#[derive(Clone, Copy, Debug)]
pub struct Look {
    /// Threads under their processes.
    pub threads: bool,
    /// Kernel threads, one by one.
    pub kernel: bool,
    /// Columns of the terminal; `None` if the output is no terminal.
    pub width: Option<usize>,
}

/// The kernel's thread that starts all others.
const KTHREADD: u32 = 2;

/// The lines, heading first, and a note on what was left out. Colours are left to the caller's stream to strip.
pub fn lines(answer: &Answer<Tree>, look: Look) -> Vec<String> {
    let tree = &answer.payload;
    let mut drawing = Drawing::new(tree.boottime_ns);
    let mut hidden = Vec::new();
    let nodes = nodes(&tree.processes);
    for (position, node) in nodes.iter().enumerate() {
        let process = node.process;
        if process.kernel && !look.kernel && !is_worth_showing(process) {
            hidden.push(process);
            continue;
        }
        let mut command = command(process);
        if let (Some(status), Some(Condition::Alive(_))) = (process.ends_with, condition(&process.state)) {
            command = format!("{command}   dying ({})", ended(Some(status)));
        }
        if let Some(orphan) = &process.orphan {
            command.push_str(&lost(orphan));
        }
        drawing.process(node, &command);
        if look.threads {
            let next = nodes.get(position + 1);
            drawing.threads(node, next.is_some_and(|next| next.depth > node.depth));
        }
    }
    let mut lines = drawing.lines(look.width);
    lines.extend(note(&hidden));
    lines.extend(gaps(&tree.memory_gaps));
    lines
}

/// Processes that did not answer: what a `?` in their line means.
fn gaps(gaps: &[MemoryGapJson]) -> Vec<String> {
    const SHOWN: usize = 10;
    let line = |gap: &MemoryGapJson| {
        let comm = gap.comm.as_deref().unwrap_or(UNKNOWN);
        let known = MemoryGap::ALL
            .into_iter()
            .find(|known| known.name() == gap.reason);
        let why = match known {
            Some(known) => known.text(),
            None => &gap.reason,
        };
        format!("{comm} {} was not read: {why}", gap.pid)
    };
    let mut lines: Vec<String> = gaps.iter().take(SHOWN).map(line).collect();
    if gaps.len() > SHOWN {
        lines.push(format!("and {} more", gaps.len() - SHOWN));
    }
    lines
}

/// A process in its place.
struct Node<'a> {
    process: &'a ProcessJson,
    /// How many ancestors are above it.
    depth: usize,
    /// Whether no sibling follows it.
    is_last: bool,
}

/// The places of processes that come parents first. Whose parent has not come before is a root.
fn nodes(processes: &[ProcessJson]) -> Vec<Node<'_>> {
    let mut depths: HashMap<u32, usize> = HashMap::new();
    let mut nodes = Vec::with_capacity(processes.len());
    for process in processes {
        let depth = depths.get(&process.ppid).map_or(0, |depth| depth + 1);
        depths.insert(process.pid, depth);
        nodes.push(Node {
            process,
            depth,
            is_last: false,
        });
    }
    let mut followed: HashSet<u32> = HashSet::new();
    for node in nodes.iter_mut().rev() {
        let parent = if node.depth == 0 { 0 } else { node.process.ppid };
        node.is_last = followed.insert(parent);
    }
    nodes
}

/// The state of a name; `None` for one that only another version knows.
fn condition(name: &str) -> Option<Condition> {
    Condition::ALL
        .into_iter()
        .find(|condition| condition.name() == name)
}

/// The table as it grows, with a colour for each row.
struct Drawing {
    boottime_ns: u64,
    branches: Branches,
    table: Table,
    styles: Vec<Style>,
}

impl Drawing {
    fn new(boottime_ns: u64) -> Self {
        Self {
            boottime_ns,
            branches: Branches::default(),
            table: Table::new(&[
                ("PID", Align::Right),
                ("S", Align::Left),
                ("FOR", Align::Right),
                ("CPU", Align::Right),
                ("WAITING ON", Align::Left),
                ("COMMAND", Align::Left),
            ]),
            styles: vec![Style::new().bold()],
        }
    }

    fn process(&mut self, node: &Node<'_>, command: &str) {
        let prefix = self.branches.prefix(node);
        let process = node.process;
        let speaks = process
            .threads
            .iter()
            .find(|thread| thread.tid == process.state_of);
        let began_ns = process.threads.iter().map(|thread| thread.start_ns).min();
        let began_ns = began_ns.unwrap_or(process.start_ns);
        if let Some(thread) = speaks {
            let usage = (process.cpu_ns, self.boottime_ns.saturating_sub(began_ns));
            self.row(process.pid, thread, usage, format!("{prefix}{command}"));
        }
    }

    /// The threads of a process but its first; they come before its children.
    fn threads(&mut self, node: &Node<'_>, has_children: bool) {
        let process = node.process;
        let threads = process.threads.iter().filter(|thread| thread.tid != process.pid);
        let threads: Vec<_> = threads.collect();
        for (number, thread) in threads.iter().enumerate() {
            let is_last = number + 1 == threads.len() && !has_children;
            let prefix = self.branches.thread_prefix(node.depth, is_last);
            let usage = (thread.cpu_ns, self.boottime_ns.saturating_sub(thread.start_ns));
            self.row(thread.tid, thread, usage, format!("{prefix}{{{}}}", thread.comm));
        }
    }

    /// What goes by `id` and is in the state of `thread`. The usage is time on a CPU, and age.
    fn row(&mut self, id: u32, thread: &ThreadJson, usage: (Option<u64>, u64), command: String) {
        let condition = condition(&thread.state);
        let is_frozen = thread.frozen == Some(true) && matches!(condition, Some(Condition::Alive(_)));
        let cpu = match (condition, usage) {
            (Some(Condition::Alive(_)), (Some(cpu_ns), age_ns)) => percent(cpu_ns, age_ns),
            _ => UNKNOWN.to_owned(),
        };
        // `ps` has no letter for frozen threads.
        let letter = if is_frozen {
            Some('F')
        } else {
            condition.map(Condition::letter)
        };
        self.table.row(vec![
            id.to_string(),
            letter.unwrap_or('?').to_string(),
            at_least(thread.state_ns, thread.state_ns_is_lower_bound),
            cpu,
            thread.waiting_on.clone().unwrap_or_else(|| UNKNOWN.to_owned()),
            command,
        ]);
        self.styles.push(condition.map_or_else(Style::new, style));
    }

    fn lines(&self, width: Option<usize>) -> Vec<String> {
        let lines = self.table.lines(width).into_iter().zip(&self.styles);
        lines
            .map(|(line, style)| format!("{style}{line}{style:#}"))
            .collect()
    }
}

/// A kernel thread that explains something: stuck, or using a CPU right now. The rest is noise on most days.
fn is_worth_showing(process: &ProcessJson) -> bool {
    process.pid == KTHREADD
        || matches!(
            condition(&process.state),
            Some(Condition::Alive(
                State::Uninterruptible | State::Running | State::Runnable
            ))
        )
}

/// What a process runs, as `ps` writes it: its arguments, `[name]` for a kernel thread, `(name)` for a dead one.
fn command(process: &ProcessJson) -> String {
    let comm = &process.comm;
    match condition(&process.state) {
        Some(Condition::Zombie | Condition::Dead) => {
            let first = process.threads.first();
            format!("({comm}) {}", ended(first.and_then(|thread| thread.exit_status)))
        }
        _ if process.kernel => format!("[{comm}]"),
        _ => {
            let cmdline = process.cmdline.as_deref().unwrap_or_default().join(" ");
            if cmdline.trim().is_empty() {
                comm.clone()
            } else {
                cmdline
            }
        }
    }
}

/// What an orphan lost and who has it.
fn lost(orphan: &OrphanMark) -> String {
    let name = |comm: &Option<String>| comm.as_ref().map_or_else(String::new, |comm| format!("{comm} "));
    let guess = if orphan.guess { "?" } else { "" };
    format!(
        "   lost its parent {}{}{guess}; adopted by {}{}",
        name(&orphan.original_parent.comm),
        orphan.original_parent.pid,
        name(&orphan.adopter.comm),
        orphan.adopter.pid
    )
}

fn style(condition: Condition) -> Style {
    let color = match condition {
        Condition::Alive(State::Running | State::Runnable) => AnsiColor::Green,
        Condition::Alive(State::Uninterruptible) => AnsiColor::Red,
        Condition::Alive(State::Stopped | State::Traced) => AnsiColor::Yellow,
        Condition::Zombie | Condition::Dead => AnsiColor::Magenta,
        Condition::Alive(_) => return Style::new(),
    };
    color.on_default()
}

/// One line on the kernel threads that were left out.
fn note(hidden: &[&ProcessJson]) -> Option<String> {
    if hidden.is_empty() {
        return None;
    }
    let count = |state| {
        hidden
            .iter()
            .filter(|process| condition(&process.state) == Some(Condition::Alive(state)))
            .count() as u64
    };
    let (idle, sleeping) = (count(State::Idle), count(State::Sleeping));
    let parts: Vec<String> = [
        (idle, "idle"),
        (sleeping, "sleeping"),
        (hidden.len() as u64 - idle - sleeping, "other"),
    ]
    .into_iter()
    .filter(|(count, _)| *count > 0)
    .map(|(count, name)| format!("{count} {name}"))
    .collect();
    Some(format!(
        "not shown: {} ({}); --kernel shows them",
        plural(hidden.len() as u64, "kernel thread"),
        parts.join(", ")
    ))
}

/// Levels that are drawn.
const DEEPEST: usize = 50;

/// Box-drawing: which of the levels above still have siblings to come.
#[derive(Default)]
struct Branches {
    last: Vec<bool>,
}

impl Branches {
    /// What is drawn before a process. Nodes come parents first, so the levels above are known.
    fn prefix(&mut self, node: &Node<'_>) -> String {
        self.last.truncate(node.depth);
        self.last.push(node.is_last);
        self.draw(node.depth, node.is_last)
    }

    /// What is drawn before a thread of the process at `depth`.
    fn thread_prefix(&self, depth: usize, is_last: bool) -> String {
        self.draw(depth + 1, is_last)
    }

    fn draw(&self, depth: usize, is_last: bool) -> String {
        if depth == 0 {
            return String::new();
        }
        // Who stands deeper stands no further to the right: a chain of 9,000 processes would take 100 MB.
        let hidden = depth.saturating_sub(DEEPEST);
        let mut prefix = String::from(if hidden > 0 { "… " } else { "" });
        for last in self.last.iter().take(depth).skip(1 + hidden) {
            prefix.push_str(if *last { "   " } else { "│  " });
        }
        prefix.push_str(if is_last { "└─ " } else { "├─ " });
        prefix
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_stands_very_deep_stands_no_further_to_the_right() {
        let branches = Branches {
            last: vec![false; 9_000],
        };
        assert_eq!(branches.draw(2, true), "│  └─ ");
        let deepest = branches.draw(DEEPEST, false);
        let deeper = branches.draw(9_000, false);
        assert_eq!(deeper, format!("… {deepest}"));
    }
}
