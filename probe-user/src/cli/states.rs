//! `procprobe states`: two snapshots, everything that died in between, and the difference.

use super::args::{Format, Global, SourceArg, StatesArgs};
use super::watching::{feed, require, watch};
use super::{Interrupts, bpf_only, output, runtime};
use crate::kernel::load::Options;
use crate::kernel::snapshot::{Detail, Futexes};
use crate::model::snapshot::{Losses, Snapshot};
use crate::model::window::{By, Report, Window};
use crate::source::bpf::BpfSource;
use crate::source::proc::ProcSource;
use crate::view;
use crate::view::table::terminal_width;

/// Snapshots of this verb carry histograms.
const DETAIL: Detail = Detail {
    histograms: true,
    open_ledgers: false,
    futexes: Futexes::None,
};

/// Runs the verb.
///
/// # Errors
/// If the source cannot be opened or read, or there is no such process.
pub fn run(global: &Global, args: &StatesArgs) -> anyhow::Result<()> {
    if global.source == SourceArg::Proc {
        return current(global, args);
    }
    let mut source = bpf_only(global, "states", Options::default())?;
    let (report, snapshot, losses) = runtime()?.block_on(window(&mut source, args, global.bpf_log))?;
    match global.format() {
        Format::Table => {
            let cpus = std::thread::available_parallelism().map_or(1, usize::from);
            output::answer(&view::states::lines(&report, cpus, &losses, look(args)))
        }
        Format::Json => {
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
    // Not before the first look: who interrupts that wants no answer.
    let mut interrupts = Interrupts::catch()?;
    let cgroups = &mut source.cgroups;
    watch(
        &mut events,
        &mut interrupts,
        args.window,
        first.began_ns,
        |event| {
            window.event(event, cgroups);
        },
    )
    .await;
    let last = source.snapshot(DETAIL)?;
    let cgroups = &mut source.cgroups;
    feed(&mut events, first.began_ns..=last.ended_ns, |event| {
        window.event(event, cgroups);
    });
    let losses = source.losses()?.since(&first.losses);
    Ok((window.end(&last, &mut source.cgroups), last, losses))
}

/// From /proc: who is in which state now.
fn current(global: &Global, args: &StatesArgs) -> anyhow::Result<()> {
    let mut source = ProcSource::new("/proc");
    let snapshot = source.snapshot()?;
    require(&snapshot, args.pid)?;
    let by: By = args.by.into();
    let report = Window::begin(&snapshot, by, args.pid).end(&snapshot, &mut source.cgroups);
    match global.format() {
        Format::Table => output::answer(&view::states::current_lines(&report, look(args))),
        Format::Json => {
            let payload = view::json::states(&report, false);
            output::json(&view::json::Answer::new(&snapshot, 0, &snapshot.losses, payload))
        }
    }
}
