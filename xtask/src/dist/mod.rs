//! `cargo xtask dist`: what is handed out. A static binary with its man pages, completions, unit, configuration and
//! licences, as an archive and as a Debian package; beside it, what containers and Kubernetes need.
//!
//! | module | does |
//! |---|---|
//! | [`crates`] | knows which crates are in the binary |
//! | [`licences`] | collects those of the libraries |
//! | [`sbom`] | lists what the binary is made of, for programs |
//! | [`deb`] | makes the Debian package |
//! | [`check`] | tries it all: on a clean Debian, against schemas and linters |
//! | [`supply`] | the part of it about where all this is from |
//! | [`boot`] | runs the service there |
//!
//! The files that are written by hand are in `xtask/dist`.

mod boot;
mod check;
mod crates;
mod deb;
mod licences;
mod sbom;
mod supply;

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result};
use clap::Args;

use crates::Crates;

use crate::{
    build, lint,
    packages::{self, Need},
    process::{self, say},
    setup,
    toolchain::Toolchain,
    workspace::Workspace,
};

#[derive(Args, Clone, Copy)]
pub struct Options {
    /// Also try it: install it on a clean Debian (debootstrap), lint and validate all that goes with it
    #[arg(long)]
    check: bool,
}

const NEEDS: [Need; 4] = [
    Need::program("dpkg", "dpkg-deb"),
    Need::program("gzip", "gzip"),
    Need::program("tar", "tar"),
    Need::program("coreutils", "sha256sum"),
];
/// Files written by hand, and what they are called in the archive.
const BY_HAND: [(&str, &str); 11] = [
    ("xtask/dist/procprobe.service", "procprobe.service"),
    ("xtask/dist/procprobe.socket", "procprobe.socket"),
    ("xtask/dist/procprobe.toml", "procprobe.toml"),
    ("xtask/dist/web.yml", "web.yml"),
    ("xtask/dist/Dockerfile", "Dockerfile"),
    ("xtask/dist/kubernetes/daemonset.yaml", "daemonset.yaml"),
    ("README.md", "README.md"),
    ("SECURITY.md", "SECURITY.md"),
    ("CHANGELOG.md", "CHANGELOG.md"),
    ("LICENSE-MIT", "LICENSE-MIT"),
    ("LICENSE-APACHE", "LICENSE-APACHE"),
];

/// What is handed out, once it is built.
pub struct Dist {
    /// The archive's content.
    pub directory: PathBuf,
    /// The Debian package.
    pub package: PathBuf,
    /// Their checksums, and that of the bill of materials, which lies beside them, too.
    pub checksums: PathBuf,
    /// For what else is made on the way.
    pub work: PathBuf,
}

pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The verb.
pub fn run(workspace: &Workspace, options: Options) -> Result<()> {
    packages::ensure(&NEEDS)?;
    let toolchain = setup::toolchain()?;
    setup::sbom()?;
    // Not `dist`: cargo names that after the profile.
    let dist = workspace.target.join("packages");
    let name = format!("procprobe-{VERSION}-x86_64");
    let directory = dist.join(&name);
    clear(&directory)?;
    assemble(workspace, &toolchain, &directory)?;
    let archive = dist.join(format!("{name}.tar.gz"));
    pack(workspace, &dist, &name, &archive)?;
    let work = dist.join("work");
    let package = deb::build(workspace, &directory, &work, &dist)?;
    let bill = dist.join(format!("{name}.cdx.json"));
    copy(&directory.join(sbom::NAME), &bill)?;
    let made = [archive, package.clone(), bill];
    for file in &made {
        let size = fs::metadata(file)
            .with_context(|| format!("looking at {}", file.display()))?
            .len();
        say(&format!("made {} ({} KiB)", file.display(), size >> 10));
    }
    let dist = Dist {
        directory,
        package,
        checksums: sum_up(&dist, &made)?,
        work,
    };
    // Known holes are no reason to make nothing, and a reason not to hand it out.
    let advisories = lint::advisories(workspace);
    if options.check {
        check::run(workspace, &toolchain, &dist)?;
    }
    advisories
}

/// The checksums of what is handed out, in the form that `sha256sum --check` reads.
fn sum_up(dist: &Path, made: &[PathBuf]) -> Result<PathBuf> {
    let names = made.iter().filter_map(|file| file.file_name());
    let mut command = Command::new("sha256sum");
    let sums = process::output(command.current_dir(dist).arg("--").args(names))?;
    let file = dist.join("SHA256SUMS");
    fs::write(&file, sums).with_context(|| format!("writing {}", file.display()))?;
    say(&format!("made {}", file.display()));
    Ok(file)
}

/// Everything that goes into the archive.
fn assemble(workspace: &Workspace, toolchain: &Toolchain, directory: &Path) -> Result<()> {
    say("building the agent, statically");
    let built = build::statically(workspace, "dist", &[("probe-user", "procprobe")])?;
    let binary = directory.join("procprobe");
    copy(&built.join("procprobe"), &binary)?;
    for (from, to) in BY_HAND {
        copy(&workspace.root.join(from), &directory.join(to))?;
    }
    let mut cp = Command::new("cp");
    cp.arg("-r").arg(workspace.root.join("dashboards")).arg(directory);
    process::run_quietly(&mut cp).context("copying the dashboards")?;
    say("writing man pages, completions, licences and the bill of materials");
    let mut cargo = workspace.cargo();
    cargo
        .args(["run", "--quiet", "-p", "probe-user", "--example", "manual", "--"])
        .arg(directory);
    process::run_on_stderr(&mut cargo).context("writing man pages")?;
    let crates = Crates::list(workspace)?;
    licences::write(workspace, &crates, &directory.join("THIRD-PARTY"))?;
    sbom::write(
        workspace,
        toolchain,
        &crates,
        &binary,
        &directory.join(sbom::NAME),
    )
}

/// The archive: the same content gives the same bytes.
fn pack(workspace: &Workspace, dist: &Path, name: &str, archive: &Path) -> Result<()> {
    let mut tar = Command::new("tar");
    tar.arg("-C")
        .arg(dist)
        .args(["--sort=name", "--owner=0", "--group=0", "--numeric-owner"])
        .arg("--mode=u=rwX,go=rX")
        .arg(format!("--mtime=@{}", epoch(workspace)?))
        .args(["--use-compress-program=gzip -9n", "-cf"])
        .arg(archive)
        .arg(name);
    process::run_quietly(&mut tar).context("packing the archive")
}

/// When the sources were last changed, in seconds: what files are dated, instead of when they were built.
fn epoch(workspace: &Workspace) -> Result<String> {
    if let Ok(told) = std::env::var("SOURCE_DATE_EPOCH") {
        return Ok(told);
    }
    let mut git = Command::new("git");
    let at = git
        .arg("-C")
        .arg(&workspace.root)
        .args(["log", "-1", "--format=%ct"]);
    let at = process::output(at).context("asking git for the date (or set SOURCE_DATE_EPOCH)")?;
    Ok(at.trim().to_owned())
}

/// An empty directory.
fn clear(directory: &Path) -> Result<()> {
    if directory.exists() {
        fs::remove_dir_all(directory).with_context(|| format!("clearing {}", directory.display()))?;
    }
    fs::create_dir_all(directory).with_context(|| format!("creating {}", directory.display()))
}

/// Copies a file into a directory that may not be there yet.
fn copy(from: &Path, to: &Path) -> Result<()> {
    if let Some(parent) = to.parent() {
        fs::create_dir_all(parent).with_context(|| format!("creating {}", parent.display()))?;
    }
    fs::copy(from, to).with_context(|| format!("copying {} to {}", from.display(), to.display()))?;
    Ok(())
}
