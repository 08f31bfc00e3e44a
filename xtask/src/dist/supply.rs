//! Does what is handed out say honestly what it is made of, and nothing of where? Paths, checksums, and the
//! bill of materials.

use std::{collections::HashSet, fs, path::Path, process::Command};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::{Dist, sbom};
use crate::{
    paths::Paths,
    process::{self, say},
    toolchain::Toolchain,
    workspace::Workspace,
};

/// Validates a bill of materials.
const BILL: &str = "\
import sys
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
text = open(sys.argv[1]).read()
wrong = JsonStrictValidator(SchemaVersion.V1_5).validate_str(text)
if wrong: sys.exit(str(wrong))
if not JsonStrictValidator(SchemaVersion.V1_5).validate_str(text.replace('\"type\": \"library\"', '\"type\": \"libary\"', 1)):
    sys.exit('the validator takes anything')
";

/// All three.
pub fn check(workspace: &Workspace, toolchain: &Toolchain, dist: &Dist) -> Result<()> {
    origin(workspace, toolchain, dist)?;
    checksums(dist)?;
    bill(dist)
}

/// Nothing that is handed out says where it was made: neither the archive's files nor what the package adds.
fn origin(workspace: &Workspace, toolchain: &Toolchain, dist: &Dist) -> Result<()> {
    let paths = Paths::of(workspace, toolchain);
    // Before they are looked into, compressed files are what was not compressed in the archive's directory.
    for directory in [&dist.directory, &dist.work.join("deb")] {
        paths.are_in_none_below(directory, &dist.work)?;
    }
    say("check: nothing names a path of this machine");
    Ok(())
}

/// As whoever downloads it does, and with one byte changed.
fn checksums(dist: &Dist) -> Result<()> {
    let directory = dist.checksums.parent().unwrap_or(Path::new("/"));
    let check = |sums: &Path| {
        let mut command = Command::new("sha256sum");
        command
            .current_dir(directory)
            .args(["--check", "--strict", "--quiet"])
            .arg(sums);
        command.output().context("starting sha256sum")
    };
    let output = check(&dist.checksums)?;
    ensure!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stdout)
    );
    let text = fs::read_to_string(&dist.checksums)
        .with_context(|| format!("reading {}", dist.checksums.display()))?;
    ensure!(text.lines().count() == 3, "{text}");
    let other = if text.starts_with('0') { "1" } else { "0" };
    let broken = dist.work.join("SHA256SUMS");
    fs::write(&broken, format!("{other}{}", &text[1..]))
        .with_context(|| format!("writing {}", broken.display()))?;
    ensure!(
        !check(&broken)?.status.success(),
        "sha256sum takes a wrong checksum"
    );
    say("check: the checksums are right");
    Ok(())
}

/// The bill of materials against its own schema, and beside what the binary itself says.
fn bill(dist: &Dist) -> Result<()> {
    let file = dist.directory.join(sbom::NAME);
    let python = dist.venv()?.join("bin/python");
    process::run_quietly(Command::new(&python).args(["-c", BILL]).arg(&file))
        .context("validating the bill of materials")?;
    let text = fs::read_to_string(&file).with_context(|| format!("reading {}", file.display()))?;
    let bill: Value = serde_json::from_str(&text).context("reading the bill of materials")?;
    let components = bill["components"].as_array().context("a bill of nothing")?;
    let listed: HashSet<String> = components
        .iter()
        .filter(|one| one["scope"] != "excluded")
        .filter_map(|one| Some(format!("{} {}", one["name"].as_str()?, one["version"].as_str()?)))
        .collect();
    let seen = witnesses(&dist.directory.join("procprobe"))?;
    ensure!(seen.len() > 20, "the binary names only {} crates", seen.len());
    let missing: Vec<_> = seen.iter().filter(|it| !listed.contains(*it)).collect();
    ensure!(missing.is_empty(), "not in the bill of materials: {missing:?}");
    for name in ["aya-ebpf", "rust-std", "rust-core", "glibc"] {
        let prefix = format!("{name} ");
        ensure!(
            listed.iter().any(|it| it.starts_with(&prefix)),
            "{name} is not in the bill of materials"
        );
    }
    say(&format!(
        "check: a bill of materials (CycloneDX {}) of {} components, {} of them in the binary",
        bill["specVersion"].as_str().unwrap_or("?"),
        components.len(),
        listed.len()
    ));
    Ok(())
}

/// The crates that a binary names: where they may panic, it says in which file. `name version`.
fn witnesses(binary: &Path) -> Result<HashSet<String>> {
    let mut grep = Command::new("grep");
    grep.args([
        "-a",
        "-o",
        "-E",
        "/cargo/registry/src/[^/]+/[A-Za-z0-9_-]+-[0-9]+[.][0-9A-Za-z.+-]+",
    ])
    .arg(binary)
    .env("LC_ALL", "C");
    let found = process::output(&mut grep).context("looking for crates in the binary")?;
    let split = |line: &str| {
        let directory = line.rsplit('/').next()?;
        // The version is behind the last dash that a number and a dot follow.
        let at = directory.match_indices('-').map(|(at, _)| at).find(|&at| {
            let number = directory[at + 1..].split('.').next().unwrap_or_default();
            !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit())
        })?;
        Some(format!("{} {}", &directory[..at], &directory[at + 1..]))
    };
    Ok(found.lines().filter_map(split).collect())
}
