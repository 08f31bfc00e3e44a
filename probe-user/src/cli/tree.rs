//! `procprobe tree [PID]`: one look, no hooks attached.

use std::path::Path;
use std::time::Duration;

use super::args::{Format, Global, TreeArgs};
use super::{open_source, output};
use crate::kernel::snapshot::{Detail, Futexes};
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
    match global.format() {
        Format::Table => {
            // Who asks for one process wants to see it, kernel thread or not.
            let look = view::tree::Look {
                threads: args.threads,
                kernel: args.kernel || args.pid.is_some(),
                width: terminal_width(),
            };
            output::answer(&view::tree::lines(
                &snapshot,
                &nodes,
                &orphans::report(&snapshot, None),
                &descriptions,
                look,
            ))
        }
        Format::Json => output::json(&view::json::tree(
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

/// Longer than any tree takes; an agent that is stopped should not stop us.
const PATIENCE: Duration = Duration::from_secs(10);

/// Who died is what only a running agent knows; it renders the tree, so that it looks the same.
fn from_agent(global: &Global, args: &TreeArgs) -> anyhow::Result<()> {
    let format = match global.format() {
        Format::Table => "text",
        Format::Json => "json",
    };
    let flags = [
        ("threads", args.threads),
        ("kernel", args.kernel || args.pid.is_some()),
    ];
    let numbers = [
        ("pid", args.pid.map(u64::from)),
        ("width", terminal_width().map(|width| width as u64)),
    ];
    let mut request = client().get(format!("http://{}/api/v1/tree", args.agent));
    request = request.query("ancestry", "true").query("format", format);
    for (name, value) in flags {
        request = request.query(name, value.to_string());
    }
    for (name, value) in numbers {
        if let Some(value) = value {
            request = request.query(name, value.to_string());
        }
    }
    let mut answer = request.call().map_err(|error| {
        anyhow::anyhow!(
            "no agent answers at {}: {error} (only a running agent remembers the dead: procprobe agent)",
            args.agent
        )
    })?;
    let status = answer.status();
    let body = answer.body_mut().read_to_string()?;
    if !status.is_success() {
        anyhow::bail!("the agent at {} says: {}", args.agent, body.trim());
    }
    output::lines(&body.lines().map(str::to_owned).collect::<Vec<_>>())
}

fn client() -> ureq::Agent {
    let config = ureq::Agent::config_builder()
        .timeout_global(Some(PATIENCE))
        .http_status_as_error(false);
    ureq::Agent::new_with_config(config.build())
}
