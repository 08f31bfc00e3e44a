//! `procprobe tree [PID]`: one look, no hooks attached.

use std::fmt::Write;
use std::path::Path;

use super::args::{Format, Global, TreeArgs};
use super::client::{Client, withheld};
use super::{open_source, output};
use crate::kernel::snapshot::{Detail, Futexes};
use crate::model::snapshot::Snapshot;
use crate::model::{orphans, tree};
use crate::source::describe::describe;
use crate::view;
use crate::view::json::{Answer, Tree};
use crate::view::table::terminal_width;

/// Runs the verb.
///
/// # Errors
/// If the source cannot be opened or read, or there is no such process.
pub fn run(global: &Global, args: &TreeArgs) -> anyhow::Result<()> {
    if args.ancestry {
        return from_agent(global, args);
    }
    let mut source = open_source(global)?;
    let snapshot = source.snapshot(Detail {
        futexes: Futexes::Owned,
        ..Detail::default()
    })?;
    let descriptions = describe(Path::new("/proc"), &snapshot);
    let nodes = tree::layout(&snapshot, args.pid);
    if let (Some(pid), true) = (args.pid, nodes.is_empty()) {
        anyhow::bail!("{}", missing(&snapshot, pid));
    }
    let answer = view::json::tree(
        &snapshot,
        &nodes,
        &orphans::report(&snapshot, None),
        &descriptions,
        source.cgroups(),
        &snapshot.losses,
    );
    show(global, args, &answer)
}

/// Prints the answer, wherever it comes from.
fn show(global: &Global, args: &TreeArgs, answer: &Answer<Tree>) -> anyhow::Result<()> {
    match global.format() {
        Format::Table => {
            // Who asks for one process wants to see it, kernel thread or not.
            let look = view::tree::Look {
                threads: args.threads,
                kernel: args.kernel || args.pid.is_some(),
                width: terminal_width(),
            };
            let mut lines = view::tree::lines(answer, look);
            lines.extend(withheld(answer));
            output::answer(&lines)
        }
        Format::Json => output::json(answer),
    }
}

/// Why there is no tree for a pid: it may be a thread's, or nobody's.
fn missing(snapshot: &Snapshot, pid: u32) -> String {
    match snapshot.threads.iter().find(|thread| thread.id.tid == pid) {
        Some(thread) => format!(
            "{pid} is a thread of process {} (try: procprobe tree {} --threads)",
            thread.pid, thread.pid
        ),
        None => format!("no process {pid} (it may have ended; procprobe tree shows all there are)"),
    }
}

/// Who died is what only a running agent knows.
fn from_agent(global: &Global, args: &TreeArgs) -> anyhow::Result<()> {
    let mut path = "/api/v1/tree?ancestry=true".to_owned();
    if let Some(pid) = args.pid {
        let _ = write!(path, "&pid={pid}");
    }
    let answer: Answer<Tree> = Client::new(&args.connect, args.http_config.as_deref())?.get(&path)?;
    show(global, args, &answer)
}
