//! The log on standard error, which may be a pipe that nobody reads, or nothing at all.
//!
//! Neither may cost more than the lines themselves: nothing here panics, and once an agent serves, nothing
//! waits either. Lines that find no room are dropped; their number is said with the next that does.

use std::io::{self, Write};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};

use anstream::AutoStream;
use tracing_appender::non_blocking::{ErrorCounter, NonBlocking, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

use crate::model::escape;

/// Lines that wait for somebody to read them, at most.
const WAITING: usize = 4_096;

/// The writer with a thread of its own, once there is one.
static DETACHED: OnceLock<Detached> = OnceLock::new();

struct Detached {
    writer: NonBlocking,
    dropped: ErrorCounter,
    said: AtomicUsize,
    /// Ends the thread, once it has written what waits or a second has passed.
    guard: Mutex<Option<WorkerGuard>>,
}

/// Logs go to stderr: warnings always, more with `-v`, everything with `-vv`.
pub fn init(verbose: u8, bpf_log: bool) {
    let level = match (verbose, bpf_log) {
        (0, false) => "warn",
        (0, true) => "warn,probe=debug",
        (1, _) => "info,probe=debug",
        (_, _) => "debug",
    };
    let filter = EnvFilter::try_from_env("PROCPROBE_LOG").unwrap_or_else(|_| EnvFilter::new(level));
    let colours = AutoStream::choice(&io::stderr()) != anstream::ColorChoice::Never;
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(Stderr)
        .with_ansi(colours)
        // It would say with `eprintln!`, which panics, that standard error cannot be written to.
        .log_internal_errors(false)
        .init();
}

/// From here on a thread of its own writes, and nobody waits for it.
///
/// # Errors
/// If the system gives no thread.
pub fn detach() -> io::Result<()> {
    // The library panics where there is no thread to be had: one is tried first.
    std::thread::Builder::new().spawn(|| {})?;
    let builder = NonBlockingBuilder::default()
        .lossy(true)
        .buffered_lines_limit(WAITING);
    let (writer, guard) = builder.thread_name("log").finish(io::stderr());
    let detached = Detached {
        dropped: writer.error_counter(),
        writer,
        said: AtomicUsize::new(0),
        guard: Mutex::new(Some(guard)),
    };
    let _ = DETACHED.set(detached);
    Ok(())
}

/// Says something on one line, whatever the log's level, and whatever the names in it are made of.
pub fn say(text: &str) {
    let _ = writeln!(Stderr.make_writer(), "procprobe: {}", escape(text.as_bytes()));
}

/// Has what was said written before this process ends, its reason above all; for at most a second.
pub fn finish() {
    if let Some(detached) = DETACHED.get() {
        drop(
            detached
                .guard
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .take(),
        );
    }
}

/// Standard error, either way.
struct Stderr;

impl<'a> MakeWriter<'a> for Stderr {
    type Writer = Line;

    fn make_writer(&'a self) -> Self::Writer {
        Line
    }
}

/// One line of the log.
struct Line;

impl Write for Line {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let Some(detached) = DETACHED.get() else {
            // Nothing can be done about a line that cannot be written.
            let _ = io::stderr().write_all(line);
            return Ok(line.len());
        };
        let mut writer = detached.writer.clone();
        let dropped = detached.dropped.dropped_lines();
        let before = detached.said.swap(dropped, Ordering::Relaxed);
        if dropped > before {
            let _ = writeln!(
                writer,
                "procprobe: {} lines of the log found no room",
                dropped - before
            );
        }
        let _ = writer.write(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
