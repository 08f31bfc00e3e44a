//! `cargo xtask dashboards`: writes `dashboards/grafana/*.json` from the definitions here, one file per dashboard.
//!
//! Written by hand, JSON of this size drifts: ids collide, panels overlap, every copy of a panel looks a little different.
//! Here a panel is its question, its query, its unit and what to do about the answer; where it stands and what it looks
//! like follows. A test holds the committed files against the definitions.

mod board;
mod fleet;
mod host;
mod locks;
mod own;
mod panel;
mod render;
mod states;
mod zombies;

use std::fs;

use anyhow::{Context, Result};

use crate::{dashboards::board::Board, process::say, workspace::Workspace};

/// The verb.
pub fn run(workspace: &Workspace) -> Result<()> {
    let directory = workspace.root.join("dashboards/grafana");
    for board in boards() {
        let path = directory.join(format!("{}.json", board.file));
        fs::write(&path, text(&board)?).with_context(|| format!("writing {}", path.display()))?;
        say(&format!("wrote {}", path.display()));
    }
    Ok(())
}

fn boards() -> [Board; 6] {
    [
        fleet::board(),
        host::board(),
        states::board(),
        zombies::board(),
        locks::board(),
        own::board(),
    ]
}

fn text(board: &Board) -> Result<String> {
    let mut text = serde_json::to_string_pretty(&board.json()).context("composing a dashboard")?;
    text.push('\n');
    Ok(text)
}

/// What the committed file of a board should hold and does not.
#[cfg(test)]
fn is_stale(board: &Board, directory: &std::path::Path) -> bool {
    let written = fs::read_to_string(directory.join(format!("{}.json", board.file)));
    written.ok() != text(board).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_committed_dashboards_are_current() {
        let directory = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../dashboards/grafana");
        for board in boards() {
            assert!(
                !is_stale(&board, &directory),
                "dashboards/grafana/{}.json is stale: cargo xtask dashboards",
                board.file
            );
        }
    }
}
