//! Orphans, the parent they lost and the one they have, for a terminal.

use super::number::{UNKNOWN, duration, plural};
use super::table::{Align, Table};
use crate::model::orphans::Orphan;

/// The lines.
pub fn lines(orphans: &[Orphan<'_>], width: Option<usize>) -> Vec<String> {
    if orphans.is_empty() {
        return vec!["no orphans".to_owned()];
    }
    let guesses = orphans.iter().filter(|orphan| orphan.guess).count() as u64;
    let mut lines = vec![plural(orphans.len() as u64, "orphan"), String::new()];
    let mut table = Table::new(&[
        ("PID", Align::Right),
        ("COMMAND", Align::Left),
        ("FOR", Align::Right),
        ("LOST ITS PARENT", Align::Left),
        ("ADOPTED BY", Align::Left),
        ("THE ADOPTER", Align::Left),
    ]);
    for orphan in orphans {
        let mark = if orphan.guess { "? " } else { "" };
        let original = orphan
            .original_comm
            .map_or_else(|| "process".to_owned(), |comm| comm.to_string());
        let adopter = orphan
            .adopter_comm
            .map_or_else(|| "process".to_owned(), |comm| comm.to_string());
        table.row(vec![
            orphan.thread.pid.to_string(),
            orphan.thread.comm.to_string(),
            duration(orphan.orphaned_ns),
            format!("{mark}{original} {}{}", orphan.original_pid, ancestry(orphan)),
            format!("{adopter} {} ({})", orphan.adopter_pid, orphan.kind.name()),
            reaps(orphan),
        ]);
    }
    lines.extend(table.lines(width));
    if guesses > 0 {
        lines.push(String::new());
        lines.push(format!(
            "? {guesses} guessed from session and process group: orphaned before anybody looked"
        ));
    }
    lines
}

fn ancestry(orphan: &Orphan<'_>) -> String {
    let names: Vec<String> = orphan
        .ancestry
        .iter()
        .take(3)
        .map(|(pid, comm)| format!("{comm} {pid}"))
        .collect();
    if names.is_empty() {
        String::new()
    } else {
        format!(" ← {}", names.join(" ← "))
    }
}

fn reaps(orphan: &Orphan<'_>) -> String {
    match (orphan.adopter_reaps, orphan.adopter_zombies) {
        (Some(true), 0) => "reaps".to_owned(),
        (Some(true), zombies) => format!("reaps, but has {}", plural(zombies, "zombie")),
        (Some(false), 0) => "has reaped nothing yet".to_owned(),
        (_, 0) => UNKNOWN.to_owned(),
        (Some(false), zombies) => format!("does not reap: {}", plural(zombies, "zombie")),
        (None, zombies) => format!("has {}", plural(zombies, "zombie")),
    }
}
