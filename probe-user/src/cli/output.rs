//! Writing answers: text with colours where a terminal takes them, JSON, and quiet when the reader has left.

use std::io::{self, Write};

use serde::Serialize;

use crate::kernel::preflight::foreign_view;

/// Prints lines. Colours are stripped unless the output is a terminal that takes them (`NO_COLOR` is honoured).
///
/// # Errors
/// The stream's; see [`is_broken_pipe`].
pub fn lines(lines: &[String]) -> anyhow::Result<()> {
    let mut out = io::BufWriter::new(anstream::stdout().lock());
    for line in lines {
        writeln!(out, "{line}")?;
    }
    Ok(out.flush()?)
}

/// Prints the lines of an answer about the host, and below them from where it was seen, if that was not the
/// host itself.
///
/// # Errors
/// The stream's; see [`is_broken_pipe`].
pub fn answer(lines: &[String]) -> anyhow::Result<()> {
    let mut lines = lines.to_vec();
    lines.extend(foreign_view());
    self::lines(&lines)
}

/// Prints one JSON object and a line end.
///
/// # Errors
/// The stream's; see [`is_broken_pipe`].
pub fn json<T: Serialize>(value: &T) -> anyhow::Result<()> {
    let mut out = io::BufWriter::new(io::stdout().lock());
    serde_json::to_writer(&mut out, value).map_err(io::Error::from)?;
    writeln!(out)?;
    Ok(out.flush()?)
}

/// Whether an error means that the reader has left (`procprobe tree | head`): the end, not a failure.
pub fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        cause
            .downcast_ref::<io::Error>()
            .is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
    })
}
