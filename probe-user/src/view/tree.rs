//! The process tree for a terminal: `pstree` and `ps` had a child.

use std::collections::HashMap;

use anstyle::{AnsiColor, Style};
use probe_ebpf::state::State;

use super::number::{UNKNOWN, at_least, percent, plural};
use super::table::{Align, Table};
use super::waiting::{ended, waiting_on};
use crate::model::locks::thread_index::ThreadIndex;
use crate::model::orphans::Orphan;
use crate::model::snapshot::Snapshot;
use crate::model::thread::{Comm, Condition, Thread};
use crate::model::tree::Node;
use crate::source::describe::Description;

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
pub fn lines(
    snapshot: &Snapshot,
    nodes: &[Node<'_>],
    orphans: &[Orphan<'_>],
    descriptions: &HashMap<u32, Description>,
    look: Look,
) -> Vec<String> {
    let orphans: HashMap<u32, &Orphan<'_>> =
        orphans.iter().map(|orphan| (orphan.thread.pid, orphan)).collect();
    let mut drawing = Drawing::new(snapshot);
    let mut hidden = Vec::new();
    for (position, node) in nodes.iter().enumerate() {
        let leader = node.process.leader;
        let face = node.process.face();
        if leader.kernel && !look.kernel && !is_worth_showing(leader) {
            hidden.push(leader);
            continue;
        }
        let mut command = command(leader, face, descriptions.get(&leader.pid));
        if let (Some(status), Condition::Alive(_)) = (leader.ends_with, face.condition) {
            command = format!("{command}   dying ({})", ended(Some(status)));
        }
        if let Some(orphan) = orphans.get(&leader.pid) {
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
    lines
}

/// The table as it grows, with a colour for each row.
struct Drawing<'a> {
    snapshot: &'a Snapshot,
    index: ThreadIndex<'a>,
    branches: Branches,
    table: Table,
    styles: Vec<Style>,
}

impl<'a> Drawing<'a> {
    fn new(snapshot: &'a Snapshot) -> Self {
        Self {
            snapshot,
            index: ThreadIndex::new(snapshot),
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
        self.row(
            node.process.pid(),
            node.process.face(),
            &node.process.threads,
            format!("{prefix}{command}"),
        );
    }

    /// The threads of a process but its first; they come before its children.
    fn threads(&mut self, node: &Node<'_>, has_children: bool) {
        let threads = node.process.threads.iter().filter(|thread| !thread.is_leader());
        let threads: Vec<_> = threads.collect();
        for (number, thread) in threads.iter().enumerate() {
            let is_last = number + 1 == threads.len() && !has_children;
            let prefix = self.branches.thread_prefix(node.depth, is_last);
            self.row(
                thread.id.tid,
                thread,
                &[thread],
                format!("{prefix}{{{}}}", thread.comm),
            );
        }
    }

    /// What goes by `id` and is in the state of `thread`, with the share of a CPU that `all` have.
    fn row(&mut self, id: u32, thread: &Thread, all: &[&Thread], command: String) {
        self.table
            .row(row(self.snapshot, &self.index, id, thread, all, command));
        self.styles.push(style(thread.condition));
    }

    fn lines(&self, width: Option<usize>) -> Vec<String> {
        let lines = self.table.lines(width).into_iter().zip(&self.styles);
        lines
            .map(|(line, style)| format!("{style}{line}{style:#}"))
            .collect()
    }
}

/// A kernel thread that explains something: stuck, or using a CPU right now. The rest is noise on most days.
fn is_worth_showing(thread: &Thread) -> bool {
    thread.pid == KTHREADD
        || matches!(
            thread.condition,
            Condition::Alive(State::Uninterruptible | State::Running | State::Runnable)
        )
}

fn row(
    snapshot: &Snapshot,
    index: &ThreadIndex<'_>,
    id: u32,
    thread: &Thread,
    all: &[&Thread],
    command: String,
) -> Vec<String> {
    let began_ns = all.iter().map(|thread| thread.id.start_ns).min();
    let age_ns = snapshot.boottime_ns.saturating_sub(began_ns.unwrap_or(0));
    let cpu_ns: Option<u64> = all.iter().map(|thread| thread.lifetime_running_ns).sum();
    let cpu = match thread.condition {
        Condition::Zombie | Condition::Dead => UNKNOWN.to_owned(),
        Condition::Alive(_) => cpu_ns.map_or_else(|| UNKNOWN.to_owned(), |cpu_ns| percent(cpu_ns, age_ns)),
    };
    vec![
        id.to_string(),
        thread.letter().to_string(),
        at_least(thread.condition_ns, thread.is_lower_bound),
        cpu,
        waiting_on(thread, Some(index)),
        command,
    ]
}

/// What a process runs, as `ps` writes it: its arguments, `[name]` for a kernel thread, `(name)` for a dead one.
fn command(leader: &Thread, face: &Thread, description: Option<&Description>) -> String {
    let comm = leader.comm;
    match face.condition {
        Condition::Zombie | Condition::Dead => format!("({comm}) {}", ended(leader.exit_status)),
        _ if leader.kernel => format!("[{comm}]"),
        Condition::Alive(_) => {
            let cmdline = description
                .map(|description| description.cmdline.join(" "))
                .unwrap_or_default();
            if cmdline.trim().is_empty() {
                comm.to_string()
            } else {
                cmdline
            }
        }
    }
}

/// What an orphan lost and who has it.
fn lost(orphan: &Orphan<'_>) -> String {
    let name = |comm: Option<Comm>| comm.map_or_else(String::new, |comm| format!("{comm} "));
    let guess = if orphan.guess { "?" } else { "" };
    format!(
        "   lost its parent {}{}{guess}; adopted by {}{}",
        name(orphan.original_comm),
        orphan.original_pid,
        name(orphan.adopter_comm),
        orphan.adopter_pid
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
fn note(hidden: &[&Thread]) -> Option<String> {
    if hidden.is_empty() {
        return None;
    }
    let count = |state| {
        hidden
            .iter()
            .filter(|thread| thread.condition == Condition::Alive(state))
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
        let mut prefix = String::new();
        for last in self.last.iter().take(depth).skip(1) {
            prefix.push_str(if *last { "   " } else { "│  " });
        }
        prefix.push_str(if is_last { "└─ " } else { "├─ " });
        prefix
    }
}
