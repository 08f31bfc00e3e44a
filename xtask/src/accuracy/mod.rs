//! `cargo xtask accuracy …`: procprobe's words held against a truth that is known beforehand.

mod corpus;

use anyhow::Result;
use clap::Subcommand;

use crate::workspace::Workspace;

#[derive(Subcommand)]
pub enum Accuracy {
    /// `procprobe locks` against programs whose locks, holders and deadlocks are known
    Corpus(corpus::Options),
}

/// The verb.
pub fn run(workspace: &Workspace, what: &Accuracy) -> Result<()> {
    match what {
        Accuracy::Corpus(options) => corpus::run(workspace, options),
    }
}

/// What the test verb runs of it: some of the cells, one look at each, half a minute.
pub fn short(workspace: &Workspace) -> Result<()> {
    corpus::short(workspace)
}
