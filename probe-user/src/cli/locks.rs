//! `procprobe locks`: who waits on whom, over a window; deadlocks and stalls, however old.

use std::time::{Duration, Instant};

use super::args::{Global, LocksArgs, Output};
use super::watching::{Ended, feed, require, watch};
use super::{Interrupts, bpf_only, output, runtime};
use crate::kernel::load::Options;
use crate::model::locks::Look;
use crate::model::locks::report::Report;
use crate::model::locks::window::LockWindow;
use crate::model::snapshot::{Losses, Snapshot};
use crate::source::bpf::BpfSource;
use crate::source::locks::DETAIL;
use crate::source::symbols;
use crate::view;
use crate::view::table::terminal_width;

/// Runs the verb.
///
/// # Errors
/// If the source cannot be opened or read, or there is no such process.
pub fn run(global: &Global, args: &LocksArgs) -> anyhow::Result<()> {
    let options = Options {
        max_locks: args.max_locks,
        max_edges: args.max_edges,
        ..Options::default()
    };
    let mut source = bpf_only(global, "locks", options)?;
    let (mut report, snapshot, mut losses) =
        runtime()?.block_on(window(&mut source, args, global.bpf_log))?;
    losses.add("symbols", symbols::name(&mut report, &snapshot));
    match global.output {
        Output::Table => output::answer(&view::locks::lines(&report, &losses, look(args))),
        Output::Dot => output::lines(&view::graph::dot(&report)),
        Output::Mermaid => output::lines(&view::graph::mermaid(&report)),
        Output::Json => {
            let payload = view::json::locks(&report);
            output::json(&view::json::Answer::new(
                &snapshot,
                report.window_ns,
                &losses,
                payload,
            ))
        }
    }
}

fn look(args: &LocksArgs) -> view::locks::Look {
    view::locks::Look {
        limit: (args.limit > 0).then_some(args.limit),
        width: terminal_width(),
    }
}

/// How often a long window looks whether the tables run full.
const MAKE_ROOM_EVERY: Duration = Duration::from_secs(10);
/// Entries that a window keeps at most when they make room, some 80 MB of them. More find the tables full, and are counted.
const MOST_KEPT: usize = 1 << 18;

/// As the agent does, so that a long window has room for the locks of its end.
fn make_room(source: &mut BpfSource, window: &mut LockWindow) -> anyhow::Result<()> {
    if window.kept() < MOST_KEPT {
        let (snapshot, tables) = source.look(DETAIL)?;
        window.forget(&source.make_room(&snapshot, &tables, true)?);
    }
    Ok(())
}

async fn window(
    source: &mut BpfSource,
    args: &LocksArgs,
    bpf_log: bool,
) -> anyhow::Result<(Report, Snapshot, Losses)> {
    if bpf_log {
        source.probe.forward_logs().map_err(anyhow::Error::msg)?;
    }
    source.be_patient();
    let mut events = source.start()?;
    let (first, tables) = source.look(DETAIL)?;
    require(&first, args.pid)?;
    let mut window = LockWindow::begin(
        Look {
            snapshot: &first,
            tables: &tables,
        },
        args.pid,
    );
    // Not before the first look: who interrupts that wants no answer.
    let mut interrupts = Interrupts::catch()?;
    let end = Instant::now() + args.window;
    loop {
        let left = end.saturating_duration_since(Instant::now());
        let cgroups = &mut source.cgroups;
        let length = left.min(MAKE_ROOM_EVERY);
        let ended = watch(&mut events, &mut interrupts, length, first.began_ns, |event| {
            window.event(event, cgroups);
        })
        .await;
        if ended == Ended::Interrupted || left <= MAKE_ROOM_EVERY {
            break;
        }
        make_room(source, &mut window)?;
    }
    let (last, tables) = source.look_until(DETAIL, |look| window.needs_second_look(look))?;
    let cgroups = &mut source.cgroups;
    feed(&mut events, first.began_ns..=last.ended_ns, |event| {
        window.event(event, cgroups);
    });
    let losses = source.losses()?.since(&first.losses);
    let look = Look {
        snapshot: &last,
        tables: &tables,
    };
    let report = window.end(look, &mut source.cgroups);
    Ok((report, last, losses))
}
