//! Debian packages: what is missing, what can be had, and installing it without asking questions.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
};

use anyhow::{Context, Result, bail};

use crate::process::{self, say};

/// Something that tests or builds start or include, and the Debian package that brings it.
pub struct Need {
    pub package: &'static str,
    pub found_by: FoundBy,
}

/// How to see, without asking the package manager, that a need is met: works on any distribution, and at once.
pub enum FoundBy {
    Program(&'static str),
    File(&'static str),
}

impl Need {
    pub const fn program(package: &'static str, program: &'static str) -> Self {
        Self {
            package,
            found_by: FoundBy::Program(program),
        }
    }

    pub const fn file(package: &'static str, path: &'static str) -> Self {
        Self {
            package,
            found_by: FoundBy::File(path),
        }
    }

    pub fn is_met(&self) -> bool {
        match self.found_by {
            FoundBy::Program(name) => find_program(name).is_some(),
            FoundBy::File(path) => Path::new(path).exists(),
        }
    }
}

/// Looks on the path, and in the system directories that a user's path often lacks.
pub fn find_program(name: &str) -> Option<PathBuf> {
    which::which(name).ok().or_else(|| {
        ["/usr/sbin", "/sbin"]
            .iter()
            .map(|dir| Path::new(dir).join(name))
            .find(|path| path.exists())
    })
}

/// apt, where it exists and root is within reach.
pub struct Apt {
    apt_get: PathBuf,
}

/// Package lists are fetched at most once, and only if something is to be installed.
static UPDATED: OnceLock<()> = OnceLock::new();

impl Apt {
    pub fn find() -> Option<Self> {
        let apt_get = which::which("apt-get").ok()?;
        process::can_become_root().then_some(Self { apt_get })
    }

    /// The version that would be installed, if the configured suites have the package at all.
    pub fn candidate(&self, package: &str) -> Result<Option<String>> {
        self.update()?;
        let policy = process::output(
            Command::new("apt-cache")
                .args(["policy", package])
                .env("LC_ALL", "C"),
        )?;
        Ok(parse_candidate(&policy))
    }

    /// Whether all of these can be installed.
    pub fn has(&self, packages: &[&str]) -> Result<bool> {
        for package in packages {
            if self.candidate(package)?.is_none() {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Installs, without recommended packages and without questions.
    pub fn install(&self, packages: &[&str]) -> Result<()> {
        self.update()?;
        say(&format!("installing {} (apt)", packages.join(" ")));
        let mut command = self.get()?;
        command
            .args(["install", "-y", "--no-install-recommends"])
            .args(packages);
        process::run_quietly(&mut command).with_context(|| format!("installing {}", packages.join(", ")))
    }

    /// Unpacks a package's files into a directory without installing it: no scripts, no services, no dependencies.
    pub fn unpack(&self, package: &str, into: &Path) -> Result<()> {
        self.update()?;
        say(&format!("unpacking {package} into {} (apt)", into.display()));
        let download = into.with_extension("download");
        fs::create_dir_all(&download).with_context(|| format!("creating {}", download.display()))?;
        // Downloading into a directory needs no root; as root, apt's own user could not write there.
        let mut get = Command::new(&self.apt_get);
        get.args(["-qq", "-o", "APT::Sandbox::User=root", "download", package])
            .current_dir(&download);
        process::run_quietly(&mut get).with_context(|| format!("downloading {package}"))?;
        for entry in fs::read_dir(&download).with_context(|| format!("reading {}", download.display()))? {
            let archive = entry
                .with_context(|| format!("reading {}", download.display()))?
                .path();
            process::run_on_stderr(Command::new("dpkg-deb").arg("-x").arg(&archive).arg(into))?;
        }
        fs::remove_dir_all(&download).with_context(|| format!("removing {}", download.display()))
    }

    fn update(&self) -> Result<()> {
        if UPDATED.get().is_none() {
            say("fetching package lists (apt)");
            process::run_quietly(self.get()?.arg("update")).context("fetching package lists")?;
            UPDATED.get_or_init(|| ());
        }
        Ok(())
    }

    /// `apt-get` as root, quiet, and patient with another apt that holds the lock.
    fn get(&self) -> Result<Command> {
        let mut command = process::as_root("/usr/bin/env")?;
        command
            .args(["DEBIAN_FRONTEND=noninteractive", "LC_ALL=C"])
            .arg(&self.apt_get)
            .arg("-qq");
        command.args([
            "-o",
            "Dpkg::Use-Pty=0",
            "-o",
            "DPkg::Lock::Timeout=300",
            "-o",
            "Acquire::Retries=3",
        ]);
        Ok(command)
    }
}

fn parse_candidate(policy: &str) -> Option<String> {
    let version = policy
        .lines()
        .find_map(|line| line.trim().strip_prefix("Candidate:"))?
        .trim();
    (version != "(none)").then(|| version.to_owned())
}

/// Installs the packages of those needs that are not met; does not touch apt if there are none.
pub fn ensure(needs: &[Need]) -> Result<()> {
    let missing: Vec<_> = needs
        .iter()
        .filter(|need| !need.is_met())
        .map(|need| need.package)
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    match Apt::find() {
        Some(apt) => apt.install(&missing),
        None => bail!(
            "missing what these Debian packages hold: {}; no apt or no root here: install the equivalent by hand",
            missing.join(" ")
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn candidate_of_known_and_unknown_packages() {
        let known =
            "rustc-web:\n  Installed: (none)\n  Candidate: 1.96.0+dfsg1-1~deb12u2\n  Version table:\n";
        assert_eq!(parse_candidate(known).as_deref(), Some("1.96.0+dfsg1-1~deb12u2"));
        assert_eq!(
            parse_candidate("x:\n  Installed: (none)\n  Candidate: (none)\n"),
            None
        );
        assert_eq!(parse_candidate(""), None);
    }
}
