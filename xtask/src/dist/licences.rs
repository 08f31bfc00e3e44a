//! The licences of everything that is linked into the binary: what they ask for is to be handed out with it.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fmt::Write,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, ensure};
use serde::Deserialize;

use crate::{process, workspace::Workspace};

#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
    resolve: Resolve,
}

#[derive(Deserialize)]
struct Package {
    id: String,
    name: String,
    version: String,
    license: Option<String>,
    repository: Option<String>,
    source: Option<String>,
    manifest_path: PathBuf,
}

#[derive(Deserialize)]
struct Resolve {
    nodes: Vec<Node>,
}

#[derive(Deserialize)]
struct Node {
    id: String,
    deps: Vec<Dependency>,
}

#[derive(Deserialize)]
struct Dependency {
    pkg: String,
    dep_kinds: Vec<Kind>,
}

#[derive(Deserialize)]
struct Kind {
    /// "dev", "build", or nothing for what is linked.
    kind: Option<String>,
}

/// Writes the list, and every text once, under the names of those that use it.
pub fn write(workspace: &Workspace, triple: &str, to: &Path) -> Result<()> {
    let mut cargo = workspace.cargo();
    cargo.args([
        "metadata",
        "--format-version=1",
        "--locked",
        "--filter-platform",
        triple,
    ]);
    let metadata = process::output(&mut cargo).context("listing the libraries")?;
    let metadata: Metadata = serde_json::from_str(&metadata).context("reading `cargo metadata`")?;
    let linked = linked(&metadata);
    ensure!(linked.len() > 10, "`cargo metadata` lists hardly any library");
    let mut out = String::from("The procprobe binary contains these libraries:\n\n");
    let mut texts: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for package in linked {
        let name = format!("{} {}", package.name, package.version);
        let licence = package.license.as_deref().unwrap_or("see below");
        let home = package.repository.as_deref().unwrap_or_default();
        let _ = writeln!(out, "{name}: {licence} {home}");
        for text in texts_of(package)? {
            texts.entry(text).or_default().push(name.clone());
        }
    }
    for (text, users) in &texts {
        let _ = write!(out, "\n{}\n{}\n\n{text}\n", "-".repeat(80), users.join(", "));
    }
    fs::write(to, out).with_context(|| format!("writing {}", to.display()))
}

/// What the agent links, directly or not; our own crates left out.
fn linked(metadata: &Metadata) -> Vec<&Package> {
    let nodes: HashMap<&str, &Node> = metadata
        .resolve
        .nodes
        .iter()
        .map(|node| (node.id.as_str(), node))
        .collect();
    let root = metadata
        .packages
        .iter()
        .find(|package| package.name == "probe-user");
    let mut pending: Vec<&str> = root.map(|package| package.id.as_str()).into_iter().collect();
    let mut seen: BTreeSet<&str> = BTreeSet::new();
    while let Some(id) = pending.pop() {
        if seen.insert(id)
            && let Some(node) = nodes.get(id)
        {
            let is_linked = |it: &&Dependency| it.dep_kinds.iter().any(|kind| kind.kind.is_none());
            pending.extend(node.deps.iter().filter(is_linked).map(|it| it.pkg.as_str()));
        }
    }
    let mut linked: Vec<&Package> = metadata
        .packages
        .iter()
        .filter(|package| seen.contains(package.id.as_str()) && package.source.is_some())
        .collect();
    linked.sort_by(|a, b| (&a.name, &a.version).cmp(&(&b.name, &b.version)));
    linked
}

/// The licence files beside a package's manifest.
fn texts_of(package: &Package) -> Result<Vec<String>> {
    let directory = package
        .manifest_path
        .parent()
        .with_context(|| format!("{} has no directory", package.manifest_path.display()))?;
    let mut files = Vec::new();
    for entry in fs::read_dir(directory).with_context(|| format!("reading {}", directory.display()))? {
        let path = entry
            .with_context(|| format!("reading {}", directory.display()))?
            .path();
        let name = path
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .to_uppercase();
        let starts = [
            "LICENSE",
            "LICENCE",
            "COPYING",
            "COPYRIGHT",
            "NOTICE",
            "UNLICENSE",
        ];
        if starts.iter().any(|start| name.starts_with(start)) && path.is_file() {
            files.push(path);
        }
    }
    files.sort();
    let read = |path: &PathBuf| {
        let bytes = fs::read(path).with_context(|| format!("reading {}", path.display()))?;
        Ok(String::from_utf8_lossy(&bytes).trim().to_owned())
    };
    files.iter().map(read).collect()
}
