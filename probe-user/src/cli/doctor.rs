//! `procprobe doctor`: what this host and these privileges allow, item by item.

mod confinement;

use super::args::{Format, Global};
use super::output;
use crate::kernel::load::{Options, Probe};
use crate::kernel::preflight::{self, Item, Verdict};
use crate::view;

/// Runs the verb: first what can be looked at, then a trial load and attach.
///
/// # Errors
/// If an item failed: eBPF cannot be used here.
pub fn run(global: &Global) -> anyhow::Result<()> {
    let mut items = preflight::items();
    items.push(namer());
    items.push(trial());
    // The last: nothing of this process can do afterwards what is looked at before.
    items.extend(confinement::items());
    match global.format() {
        Format::Table => output::lines(&view::doctor::lines(&items))?,
        Format::Json => output::json(&view::doctor::json(&items))?,
    }
    let failed = items
        .iter()
        .filter(|item| item.verdict == Verdict::Failed)
        .count();
    if failed > 0 {
        anyhow::bail!(
            "{failed} of {} checks failed (each says what to do; --source proc works without eBPF)",
            items.len()
        );
    }
    Ok(())
}

/// Starts the process that reads symbols, and has it read this program.
fn namer() -> Item {
    let name = "names of functions";
    match crate::namer::trial() {
        Ok(took) => Item {
            name,
            verdict: Verdict::Ok,
            found: format!(
                "the process that reads symbols is confined and answers ({took:.0?} with its start)"
            ),
            remedy: String::new(),
        },
        Err(why) => Item {
            name,
            verdict: Verdict::Limited,
            found: format!("functions and locks have no names: the process that reads symbols {why}"),
            remedy:
                "allow the service prctl, prlimit64, close_range, socketpair and openat2 (SystemCallFilter=; \
                     RestrictSUIDSGID= refuses openat2), and processes (TasksMax=)"
                    .to_owned(),
        },
    }
}

/// Loads and attaches the programs for real, and unloads them again.
fn trial() -> Item {
    let name = "programs";
    let outcome = Probe::load(Options::default()).and_then(|mut probe| {
        probe.attach()?;
        Ok(probe.cost().len())
    });
    match outcome {
        Ok(count) => Item {
            name,
            verdict: Verdict::Ok,
            found: format!("{count} loaded, verified and attached in a trial"),
            remedy: String::new(),
        },
        Err(error) => Item {
            name,
            verdict: Verdict::Failed,
            found: error.to_string(),
            remedy: "see the items above; if they are all ok, please report it".to_owned(),
        },
    }
}
