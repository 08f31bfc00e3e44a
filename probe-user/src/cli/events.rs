//! `procprobe events`: births, execs and deaths as they happen, and what follows from them: reapings and lost parents.

use std::io::Write;
use std::time::{Duration, SystemTime};

use super::args::{EventsArgs, Format, Global};
use super::{Interrupts, bpf_only, runtime};
use crate::kernel::clock;
use crate::kernel::load::Options;
use crate::kernel::snapshot::Detail;
use crate::model::event::{Event, EventKind};
use crate::model::lives::Retention;
use crate::source::bpf::BpfSource;
use crate::source::happened;
use crate::source::watch::Watch;
use crate::view;

/// Runs the verb.
///
/// # Errors
/// If the programs cannot be loaded or the output cannot be written.
pub fn run(global: &Global, args: &EventsArgs) -> anyhow::Result<()> {
    let mut source = bpf_only(global, "events", Options::default())?;
    runtime()?.block_on(stream(&mut source, args.window, global.format()))
}

async fn stream(source: &mut BpfSource, window: Option<Duration>, output: Format) -> anyhow::Result<()> {
    let mut events = source.start()?;
    let first = source.snapshot(Detail::default())?;
    let mut printer = Printer {
        out: std::io::BufWriter::new(std::io::stdout().lock()),
        output,
        watch: Watch::begin(&first, Retention::default()),
        outcome: Ok(()),
    };
    printer.heading()?;
    let mut interrupts = Interrupts::catch()?;
    let end = async {
        match window {
            Some(window) => tokio::time::sleep(window).await,
            None => std::future::pending().await,
        }
    };
    tokio::pin!(end);
    loop {
        let done = tokio::select! {
            biased;
            () = interrupts.arrived() => true,
            () = &mut end => true,
            () = tokio::time::sleep(POLL) => false,
        };
        let clock = WallClock::now();
        events.drain(|raw| printer.event(&happened::event(&raw), &clock));
        printer.flush()?;
        if done {
            break;
        }
    }
    let losses = source.losses()?.of_events();
    if !losses.is_empty() {
        anyhow::bail!(
            "events were lost: {} (the host makes more than the ring holds)",
            view::states::lost(&losses)
        );
    }
    Ok(())
}

/// Prints events and what follows from them, each in its order.
struct Printer<W: Write> {
    out: W,
    output: Format,
    watch: Watch,
    /// The first thing that went wrong; nothing is printed after it.
    outcome: std::io::Result<()>,
}

impl<W: Write> Printer<W> {
    fn heading(&mut self) -> std::io::Result<()> {
        if self.output == Format::Table {
            writeln!(self.out, "{}", view::events::HEADING)?;
        }
        self.out.flush()
    }

    fn event(&mut self, event: &Event, clock: &WallClock) {
        let happened = self.watch.event(event);
        // A reaping counts when somebody had to be waited for, and then comes with its delay, below.
        if !matches!(event.kind, EventKind::Reap) {
            let at = clock.at(event.at_ns);
            let line = match self.output {
                Format::Table => Ok(view::events::line(event, at, clock.ahead_ns)),
                Format::Json => view::events::json(event, at, clock.ahead_ns),
            };
            self.print(line);
        }
        for happening in &happened {
            let at = clock.at(view::events::happened_at(happening));
            let line = match self.output {
                Format::Table => Ok(view::events::happening_line(happening, at)),
                Format::Json => view::events::happening_json(happening, at),
            };
            self.print(line);
        }
    }

    fn print(&mut self, line: serde_json::Result<String>) {
        if self.outcome.is_ok() {
            self.outcome = line
                .map_err(std::io::Error::from)
                .and_then(|line| writeln!(self.out, "{line}"));
        }
    }

    fn flush(&mut self) -> std::io::Result<()> {
        std::mem::replace(&mut self.outcome, Ok(()))?;
        self.out.flush()
    }
}

/// How often the ring is looked at: what is printed should feel live.
const POLL: Duration = Duration::from_millis(20);

/// Turns CLOCK_MONOTONIC into wall-clock time.
struct WallClock {
    now: SystemTime,
    now_ns: u64,
    /// How far CLOCK_BOOTTIME is ahead of CLOCK_MONOTONIC: all the time that the machine was asleep.
    ahead_ns: u64,
}

impl WallClock {
    fn now() -> Self {
        let now_ns = clock::monotonic_ns();
        Self {
            now: SystemTime::now(),
            now_ns,
            ahead_ns: clock::boottime_ns().saturating_sub(now_ns),
        }
    }

    fn at(&self, ns: u64) -> SystemTime {
        self.now - Duration::from_nanos(self.now_ns.saturating_sub(ns))
    }
}
