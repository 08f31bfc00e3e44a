//! `procprobe zombies`: one look, no hooks attached.

use std::path::Path;

use super::args::{Format, Global};
use super::{open_source, output};
use crate::kernel::snapshot::Detail;
use crate::model::zombies;
use crate::source::describe::describe_some;
use crate::source::limits::pid_limit;
use crate::view;
use crate::view::table::terminal_width;

/// Runs the verb.
///
/// # Errors
/// If the source cannot be opened or read.
pub fn run(global: &Global) -> anyhow::Result<()> {
    let mut source = open_source(global)?;
    let snapshot = source.snapshot(Detail::default())?;
    let mut report = zombies::report(&snapshot, None, pid_limit(Path::new("/proc")));
    report.limit_units(|cgroup_id| source.cgroups().pids(cgroup_id));
    match global.format() {
        Format::Table => output::answer(&view::zombies::lines(&report, source.cgroups(), terminal_width())),
        Format::Json => {
            let is_culprit = |pid| report.culprits.iter().any(|culprit| culprit.pid == pid);
            let descriptions = describe_some(Path::new("/proc"), &snapshot, is_culprit);
            let payload = view::json::zombies(&snapshot, &report, &descriptions, source.cgroups());
            let losses = snapshot.losses.and(&descriptions.losses);
            output::json(&view::json::Answer::new(&snapshot, 0, &losses, payload))
        }
    }
}
