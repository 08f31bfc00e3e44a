//! The licences of everything that is linked into the binary: what they ask for is to be handed out with it.

use std::{
    collections::BTreeMap,
    fmt::Write,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use serde::Deserialize;

use super::crates::{Crates, FEATURES};
use crate::{process, workspace::Workspace};

#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
}

#[derive(Deserialize)]
struct Package {
    name: String,
    version: String,
    license: Option<String>,
    repository: Option<String>,
    /// None for our own.
    source: Option<String>,
    manifest_path: PathBuf,
}

/// Writes the list, and every text once, under the names of those that use it.
pub fn write(workspace: &Workspace, crates: &Crates, to: &Path) -> Result<()> {
    let mut out = String::from("The procprobe binary contains these libraries:\n\n");
    let mut texts: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for package in linked(workspace, crates)? {
        let name = format!("{} {}", package.name, package.version);
        let licence = package.license.as_deref().unwrap_or("see below");
        let home = package.repository.as_deref().unwrap_or_default();
        let _ = writeln!(out, "{name}: {licence} {home}");
        for text in texts_of(&package)? {
            texts.entry(text).or_default().push(name.clone());
        }
    }
    for (text, users) in &texts {
        let _ = write!(out, "\n{}\n{}\n\n{text}\n", "-".repeat(80), users.join(", "));
    }
    fs::write(to, out).with_context(|| format!("writing {}", to.display()))
}

/// What is linked, our own crates left out, by name.
fn linked(workspace: &Workspace, crates: &Crates) -> Result<Vec<Package>> {
    let mut cargo = workspace.cargo();
    cargo.args([
        "metadata",
        "--format-version=1",
        "--locked",
        "--features",
        FEATURES,
    ]);
    let metadata = process::output(&mut cargo).context("listing the libraries")?;
    let metadata: Metadata = serde_json::from_str(&metadata).context("reading `cargo metadata`")?;
    let mut linked = metadata.packages;
    linked.retain(|package| {
        let name = (package.name.clone(), package.version.clone());
        package.source.is_some() && crates.linked.contains(&name)
    });
    linked.sort_by(|a, b| (&a.name, &a.version).cmp(&(&b.name, &b.version)));
    Ok(linked)
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
