//! `procprobe events`: births, execs and deaths as they happen.

use std::io::Write;
use std::time::{Duration, SystemTime};

use super::args::{EventsArgs, Global, Output};
use super::{bpf_only, interrupted, runtime};
use crate::kernel::clock;
use crate::source::bpf::BpfSource;
use crate::source::resolve;
use crate::view;

/// Runs the verb.
///
/// # Errors
/// If the programs cannot be loaded or the output cannot be written.
pub fn run(global: &Global, args: &EventsArgs) -> anyhow::Result<()> {
    let mut source = bpf_only(global, "events")?;
    runtime()?.block_on(stream(&mut source, args.window, global.output))
}

async fn stream(source: &mut BpfSource, window: Option<Duration>, output: Output) -> anyhow::Result<()> {
    let mut events = source.start()?;
    let mut out = std::io::BufWriter::new(std::io::stdout().lock());
    if output == Output::Table {
        writeln!(out, "{}", view::events::HEADING)?;
        out.flush()?;
    }
    let interrupt = interrupted();
    tokio::pin!(interrupt);
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
            outcome = &mut interrupt => { outcome?; true }
            () = &mut end => true,
            () = tokio::time::sleep(Duration::from_millis(20)) => false,
        };
        let mut failed = Ok(());
        let clock = WallClock::now();
        events.drain(|raw| {
            let event = resolve::event(&raw);
            let at = clock.at(event.at_ns);
            if failed.is_ok() {
                failed = match output {
                    Output::Table => writeln!(out, "{}", view::events::line(&event, at)),
                    Output::Json => match view::events::json(&event, at) {
                        Ok(line) => writeln!(out, "{line}"),
                        Err(error) => Err(error.into()),
                    },
                };
            }
        });
        failed?;
        out.flush()?;
        if done {
            break;
        }
    }
    let losses = source.losses()?;
    if !losses.is_empty() {
        anyhow::bail!(
            "events were lost: {} (the host makes more than the ring holds)",
            view::states::lost(&losses)
        );
    }
    Ok(())
}

/// Turns CLOCK_MONOTONIC into wall-clock time.
struct WallClock {
    now: SystemTime,
    now_ns: u64,
}

impl WallClock {
    fn now() -> Self {
        Self {
            now: SystemTime::now(),
            now_ns: clock::monotonic_ns(),
        }
    }

    fn at(&self, ns: u64) -> SystemTime {
        self.now - Duration::from_nanos(self.now_ns.saturating_sub(ns))
    }
}
