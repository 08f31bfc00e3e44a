//! `procprobe states`: two snapshots, everything that died in between, and the difference.

use std::time::Duration;

use super::args::{Global, Output, SourceArg, StatesArgs};
use super::{bpf_only, interrupted, output, runtime};
use crate::kernel::events::{Events, RawEvent};
use crate::kernel::snapshot::Detail;
use crate::model::snapshot::{Losses, Snapshot};
use crate::model::window::{By, Report, Window};
use crate::source::bpf::BpfSource;
use crate::source::cgroup::Cgroups;
use crate::source::happened;
use crate::source::proc::ProcSource;
use crate::view;
use crate::view::table::terminal_width;

/// Snapshots of this verb carry histograms.
const DETAIL: Detail = Detail {
    histograms: true,
    open_ledgers: false,
};

/// Runs the verb.
///
/// # Errors
/// If the source cannot be opened or read, or there is no such process.
pub fn run(global: &Global, args: &StatesArgs) -> anyhow::Result<()> {
    if global.source == SourceArg::Proc {
        return current(global, args);
    }
    let mut source = bpf_only(global, "states")?;
    let (report, snapshot, losses) = runtime()?.block_on(window(&mut source, args, global.bpf_log))?;
    match global.output {
        Output::Table => {
            let cpus = std::thread::available_parallelism().map_or(1, usize::from);
            output::lines(&view::states::lines(&report, cpus, &losses, look(args)))
        }
        Output::Json => {
            let payload = view::json::states(&report, true);
            output::json(&view::json::Answer::new(
                &snapshot,
                report.window_ns,
                &losses,
                payload,
            ))
        }
    }
}

fn look(args: &StatesArgs) -> view::states::Look {
    let limit = (args.limit > 0).then_some(args.limit);
    view::states::Look {
        by: args.by.into(),
        limit,
        width: terminal_width(),
    }
}

async fn window(
    source: &mut BpfSource,
    args: &StatesArgs,
    bpf_log: bool,
) -> anyhow::Result<(Report, Snapshot, Losses)> {
    if bpf_log {
        source.probe.forward_logs().map_err(anyhow::Error::msg)?;
    }
    let mut events = source.start()?;
    let first = source.snapshot(DETAIL)?;
    require(&first, args.pid)?;
    let mut window = Window::begin(&first, args.by.into(), args.pid);
    let end = tokio::time::sleep(args.window);
    tokio::pin!(end);
    let interrupt = interrupted();
    tokio::pin!(interrupt);
    loop {
        let wait = feed(
            &mut window,
            &mut events,
            first.began_ns,
            u64::MAX,
            &mut source.cgroups,
        );
        tokio::select! {
            () = &mut end => break,
            outcome = &mut interrupt => { outcome?; break }
            () = tokio::time::sleep(wait) => {}
        }
    }
    let last = source.snapshot(DETAIL)?;
    feed(
        &mut window,
        &mut events,
        first.began_ns,
        last.ended_ns,
        &mut source.cgroups,
    );
    let losses = source.losses()?.since(&first.losses);
    Ok((window.end(&last, &mut source.cgroups), last, losses))
}

/// Feeds the events of a span of time to the window; returns how long to wait for more.
fn feed(
    window: &mut Window,
    events: &mut Events,
    from_ns: u64,
    to_ns: u64,
    cgroups: &mut Cgroups,
) -> Duration {
    events.drain(|raw: RawEvent| {
        let event = happened::event(&raw);
        if (from_ns..=to_ns).contains(&event.at_ns) {
            window.event(&event, cgroups);
        }
    })
}

fn require(snapshot: &Snapshot, pid: Option<u32>) -> anyhow::Result<()> {
    match pid {
        Some(pid) if !snapshot.threads.iter().any(|thread| thread.pid == pid) => {
            anyhow::bail!("no process {pid} (it may have ended; procprobe tree shows all there are)")
        }
        _ => Ok(()),
    }
}

/// From /proc: who is in which state now.
fn current(global: &Global, args: &StatesArgs) -> anyhow::Result<()> {
    let mut source = ProcSource::new("/proc");
    let snapshot = source.snapshot()?;
    require(&snapshot, args.pid)?;
    let by: By = args.by.into();
    let report = Window::begin(&snapshot, by, args.pid).end(&snapshot, &mut source.cgroups);
    match global.output {
        Output::Table => output::lines(&view::states::current_lines(&report, look(args))),
        Output::Json => {
            let payload = view::json::states(&report, false);
            output::json(&view::json::Answer::new(&snapshot, 0, &snapshot.losses, payload))
        }
    }
}
