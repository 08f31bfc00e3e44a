//! `procprobe orphans`: one look; whom an orphan lost is a guess from its session and process group. The agent's API knows
//! better about those who lost their parent while it watched.

use super::args::{Format, Global};
use super::{open_source, output};
use crate::kernel::snapshot::Detail;
use crate::model::orphans;
use crate::view;
use crate::view::table::terminal_width;

/// Runs the verb.
///
/// # Errors
/// If the source cannot be opened or read.
pub fn run(global: &Global) -> anyhow::Result<()> {
    let mut source = open_source(global)?;
    let snapshot = source.snapshot(Detail::default())?;
    let found = orphans::report(&snapshot, None);
    match global.format() {
        Format::Table => output::answer(&view::orphans::lines(&found, terminal_width())),
        Format::Json => output::json(&view::json::Answer::new(
            &snapshot,
            0,
            &snapshot.losses,
            view::json::orphans(&found),
        )),
    }
}
