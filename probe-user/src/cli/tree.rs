//! `procprobe tree [PID]`: one look, no hooks attached.

use std::path::Path;

use super::args::{Global, Output, TreeArgs};
use super::{open_source, output};
use crate::kernel::snapshot::Detail;
use crate::model::snapshot::Snapshot;
use crate::model::{orphans, tree};
use crate::source::describe::describe;
use crate::view;
use crate::view::table::terminal_width;

/// Runs the verb.
///
/// # Errors
/// If the source cannot be opened or read, or there is no such process.
pub fn run(global: &Global, args: &TreeArgs) -> anyhow::Result<()> {
    let mut source = open_source(global)?;
    let snapshot = source.snapshot(Detail::default())?;
    let descriptions = describe(Path::new("/proc"), &snapshot);
    let nodes = tree::layout(&snapshot, args.pid);
    if let (Some(pid), true) = (args.pid, nodes.is_empty()) {
        anyhow::bail!("{}", missing(&snapshot, pid));
    }
    match global.output {
        Output::Table => {
            // Who asks for one process wants to see it, kernel thread or not.
            let look = view::tree::Look {
                threads: args.threads,
                kernel: args.kernel || args.pid.is_some(),
                width: terminal_width(),
            };
            output::lines(&view::tree::lines(&snapshot, &nodes, &descriptions, look))
        }
        Output::Json => output::json(&view::json::tree(
            &snapshot,
            &nodes,
            &orphans::report(&snapshot, None),
            &descriptions,
            source.cgroups(),
        )),
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
