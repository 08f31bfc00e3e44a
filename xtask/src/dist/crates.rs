//! Which crates are in the binary, and which only took part in its making.
//!
//! As cargo resolves it for a build: `cargo metadata` counts in what tests alone switch on.

use std::collections::BTreeSet;

use anyhow::{Context, Result, ensure};

use crate::{build::STATIC_TRIPLE, process, workspace::Workspace};

/// With the eBPF programs, which are in the binary, too.
pub const FEATURES: &str = "probe-ebpf/programs";

/// Name and version.
pub type Crate = (String, String);

/// The crates of agent and eBPF object, our own included.
pub struct Crates {
    /// What is linked.
    pub linked: BTreeSet<Crate>,
    /// That, and macros, build scripts and what those use.
    pub taking_part: BTreeSet<Crate>,
}

impl Crates {
    /// Asks cargo.
    pub fn list(workspace: &Workspace) -> Result<Self> {
        let crates = Self {
            linked: tree(workspace, "normal,no-proc-macro")?,
            taking_part: tree(workspace, "normal,build")?,
        };
        ensure!(
            crates.linked.len() > 50 && crates.linked.is_subset(&crates.taking_part),
            "`cargo tree` lists {} crates in the binary",
            crates.linked.len()
        );
        Ok(crates)
    }
}

fn tree(workspace: &Workspace, edges: &str) -> Result<BTreeSet<Crate>> {
    let mut cargo = workspace.cargo();
    cargo
        .args(["tree", "--locked", "-p", "probe-user", "-p", "probe-ebpf"])
        .args(["--features", FEATURES, "--target", STATIC_TRIPLE])
        .args(["--edges", edges, "--prefix", "none", "--format", "{p}"]);
    let listed = process::output(&mut cargo).context("listing the crates")?;
    Ok(listed.lines().filter_map(parse).collect())
}

/// `name vVERSION`, and more that does not matter here.
fn parse(line: &str) -> Option<Crate> {
    let mut words = line.split_whitespace();
    let name = words.next()?;
    let version = words.next()?.strip_prefix('v')?;
    Some((name.to_owned(), version.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_cargo_tree_are_read() {
        let wanted = |name: &str, version: &str| Some((name.to_owned(), version.to_owned()));
        assert_eq!(
            parse("toml v1.2.1+spec-1.1.0 (*)"),
            wanted("toml", "1.2.1+spec-1.1.0")
        );
        assert_eq!(parse("syn v3.0.9"), wanted("syn", "3.0.9"));
        assert_eq!(parse("probe-ebpf v0.1.0 (/a b/c)"), wanted("probe-ebpf", "0.1.0"));
        assert_eq!(parse(""), None);
    }
}
