//! Debian's kernels: which there are, and getting one without installing it.
//!
//! Other suites than the machine's own are read with package lists of our own, from the mirror that the machine's apt is
//! configured for; nothing of the machine's configuration changes.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, SystemTime},
};

use anyhow::{Context, Result, bail, ensure};

use super::Paths;
use crate::process::{self, say};

/// The suites of Debian, oldest first; a kernel is taken from whichever has it.
const SUITES: [&str; 5] = ["bullseye", "bookworm", "trixie", "trixie-backports", "sid"];
/// How long package lists are good for.
const LISTS_AGE: Duration = Duration::from_secs(24 * 3600);
/// Packages with the cloud flavour's image: it has BTF, all drivers a guest needs built in, and is small. From 7.2 on the
/// image is in `linux-binary`, and `linux-image` is empty.
const PREFIXES: [&str; 3] = ["linux-binary-", "linux-image-", "linux-binary-unsigned-"];
const SUFFIX: &str = "-cloud-amd64";
/// The oldest that procprobe supports.
const SUPPORTED: [u64; 2] = [5, 15];

/// An unpacked kernel.
pub struct Kernel {
    /// As `uname -r` says, without the flavour.
    pub release: String,
    /// The image to boot.
    pub image: PathBuf,
    /// What its package holds.
    files: PathBuf,
}

impl Kernel {
    /// Whether procprobe should run there, or say why not.
    pub fn supported(&self) -> bool {
        self.is_at_least(SUPPORTED)
    }

    /// A file of its package, by its name.
    pub fn file(&self, name: &str) -> Option<PathBuf> {
        find(&self.files, &|found| found == name)
    }

    /// Whether it is of that version or newer.
    pub fn is_at_least(&self, version: [u64; 2]) -> bool {
        numbers(&self.release).as_slice() >= version.as_slice()
    }
}

/// Gets every kernel that was asked for.
pub fn fetch(paths: &Paths, wanted: &[String]) -> Result<Vec<Kernel>> {
    let apt = Apt { root: &paths.apt };
    apt.update()?;
    let packages = apt.kernels()?;
    let mut kernels: Vec<Kernel> = Vec::new();
    for version in wanted {
        let release = choose(&packages, version)
            .with_context(|| format!("no suite has a kernel {version} (there are {})", lines(&packages)))?;
        if kernels.iter().all(|kernel| kernel.release != release) {
            let image = apt.unpack(&packages, &release, &paths.kernels)?;
            let files = paths.kernels.join(&release);
            kernels.push(Kernel {
                release,
                image,
                files,
            });
        }
    }
    Ok(kernels)
}

/// `linux-image-6.1.0-50-cloud-amd64` is 6.1.0-50.
fn release_of(package: &str) -> Option<&str> {
    let rest = package.strip_suffix(SUFFIX)?;
    let release = PREFIXES
        .iter()
        .rev()
        .find_map(|prefix| rest.strip_prefix(prefix))?;
    release
        .starts_with(|c: char| c.is_ascii_digit())
        .then_some(release)
}

/// The newest release of that version, or of all.
fn choose(packages: &[String], wanted: &str) -> Option<String> {
    let releases = packages.iter().filter_map(|package| release_of(package));
    let fits = |release: &&str| wanted == "latest" || numbers(release).starts_with(&numbers(wanted));
    releases
        .filter(fits)
        .max_by_key(|release| numbers(release))
        .map(str::to_owned)
}

/// A version as numbers: 6.12.107+deb13 is 6, 12, 107, 13.
fn numbers(version: &str) -> Vec<u64> {
    version
        .split(|c: char| !c.is_ascii_digit())
        .filter_map(|part| part.parse().ok())
        .collect()
}

/// What a release is the newest of: of 6.12.107+deb13 it is 6 and 12.
pub fn line(release: &str) -> Vec<u64> {
    numbers(release).into_iter().take(2).collect()
}

/// The versions there are, for someone who asked for another.
fn lines(packages: &[String]) -> String {
    let releases = packages.iter().filter_map(|package| release_of(package));
    let mut lines: Vec<_> = releases
        .filter_map(|release| numbers(release).get(..2).map(<[u64]>::to_vec))
        .collect();
    lines.sort();
    lines.dedup();
    let lines: Vec<_> = lines
        .iter()
        .map(|line| format!("{}.{}", line[0], line[1]))
        .collect();
    lines.join(", ")
}

/// apt with lists of its own.
struct Apt<'a> {
    root: &'a Path,
}

impl Apt<'_> {
    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        let path = |name: &str| self.root.join(name).display().to_string();
        let settings = [
            format!("Dir::Etc::sourcelist={}", path("sources.list")),
            "Dir::Etc::sourceparts=/dev/null".to_owned(),
            format!("Dir::State::Lists={}", path("lists")),
            "Dir::Cache::pkgcache=".to_owned(),
            "Dir::Cache::srcpkgcache=".to_owned(),
            "APT::Sandbox::User=".to_owned(),
            "Acquire::Languages=none".to_owned(),
            "Acquire::IndexTargets::deb::DEP-11::DefaultEnabled=false".to_owned(),
            "Acquire::Retries=3".to_owned(),
        ];
        for setting in settings {
            command.args(["-o", &setting]);
        }
        command.env("LC_ALL", "C");
        command
    }

    /// Fetches the lists, unless those of a short while ago are there.
    fn update(&self) -> Result<()> {
        let stamp = self.root.join("updated");
        let age = fs::metadata(&stamp)
            .and_then(|metadata| metadata.modified())
            .ok()
            .and_then(|at| SystemTime::now().duration_since(at).ok());
        if age.is_some_and(|age| age < LISTS_AGE) {
            return Ok(());
        }
        say("fetching the package lists of Debian's suites (apt)");
        let partial = self.root.join("lists/partial");
        fs::create_dir_all(&partial).with_context(|| format!("creating {}", partial.display()))?;
        let sources = self.root.join("sources.list");
        fs::write(&sources, sources_list()?).with_context(|| format!("writing {}", sources.display()))?;
        let fetched = process::run_quietly(self.command("apt-get").args(["-qq", "update"]));
        if fetched.is_err() && age.is_some() {
            say("the package lists could not be fetched: going on with older ones");
            return Ok(());
        }
        fetched.context("fetching package lists")?;
        fs::write(&stamp, "").with_context(|| format!("writing {}", stamp.display()))
    }

    /// Every package that may hold a kernel.
    fn kernels(&self) -> Result<Vec<String>> {
        let mut search = self.command("apt-cache");
        search.args(["search", "--names-only", "^linux-(image|binary)-.*-cloud-amd64$"]);
        let found = process::output(&mut search).context("looking for kernels")?;
        let names = found.lines().filter_map(|line| line.split(' ').next());
        Ok(names
            .filter(|name| release_of(name).is_some())
            .map(str::to_owned)
            .collect())
    }

    /// Downloads and unpacks a kernel, and finds the image in it.
    fn unpack(&self, packages: &[String], release: &str, into: &Path) -> Result<PathBuf> {
        let into = into.join(release);
        if let Some(image) = find_image(&into) {
            return Ok(image);
        }
        let names = PREFIXES.map(|prefix| format!("{prefix}{release}{SUFFIX}"));
        for package in names.iter().filter(|name| packages.contains(name)) {
            say(&format!("downloading {package} (apt)"));
            fs::create_dir_all(&into).with_context(|| format!("creating {}", into.display()))?;
            let mut download = self.command("apt-get");
            download.args(["-qq", "download", package]).current_dir(&into);
            process::run_quietly(&mut download).with_context(|| format!("downloading {package}"))?;
            let archive = find(&into, &|name| name.ends_with(".deb")).context("apt downloaded nothing")?;
            process::run_quietly(Command::new("dpkg-deb").arg("-x").arg(&archive).arg(&into))?;
            fs::remove_file(&archive).with_context(|| format!("removing {}", archive.display()))?;
            if let Some(image) = find_image(&into) {
                return Ok(image);
            }
        }
        bail!("no package of {release} holds a kernel image")
    }
}

/// The mirror that this machine gets Debian from.
pub fn mirror() -> Result<String> {
    let mut targets = Command::new("apt-get");
    targets.args([
        "indextargets",
        "--format",
        "$(REPO_URI) $(ORIGIN) $(LABEL)",
        "Created-By: Packages",
    ]);
    let known = process::output(&mut targets).context("asking apt for its sources")?;
    let mirror = known.lines().find_map(|line| line.strip_suffix(" Debian Debian"));
    let mirror = mirror.context("apt knows no mirror of Debian here")?;
    Ok(mirror.to_owned())
}

/// One source for every suite.
fn sources_list() -> Result<String> {
    let mirror = mirror()?;
    let keyring = "/usr/share/keyrings/debian-archive-keyring.gpg";
    ensure!(
        Path::new(keyring).exists(),
        "no {keyring}: install debian-archive-keyring"
    );
    let line = |suite: &&str| format!("deb [signed-by={keyring}] {mirror} {suite} main\n");
    Ok(SUITES.iter().map(line).collect())
}

fn find_image(dir: &Path) -> Option<PathBuf> {
    find(dir, &|name| name.starts_with("vmlinuz"))
}

/// The first file of that name, at any depth.
fn find(dir: &Path, wanted: &dyn Fn(&str) -> bool) -> Option<PathBuf> {
    let entries = fs::read_dir(dir).ok()?;
    for path in entries.flatten().map(|entry| entry.path()) {
        let matches = path.is_file() && path.file_name()?.to_str().is_some_and(wanted);
        if matches {
            return Some(path);
        }
        if path.is_dir()
            && let Some(found) = find(&path, wanted)
        {
            return Some(found);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn newest_release_of_a_version() {
        let packages = [
            "linux-image-6.1.0-9-cloud-amd64",
            "linux-image-6.1.0-50-cloud-amd64",
            "linux-image-6.12.107+deb13-cloud-amd64",
            "linux-image-cloud-amd64",
            "linux-binary-unsigned-7.3.4+deb13-cloud-amd64",
        ]
        .map(str::to_owned);
        assert_eq!(choose(&packages, "6.1").as_deref(), Some("6.1.0-50"));
        assert_eq!(choose(&packages, "6.12").as_deref(), Some("6.12.107+deb13"));
        assert_eq!(choose(&packages, "latest").as_deref(), Some("7.3.4+deb13"));
        assert_eq!(choose(&packages, "4.19"), None);
        assert_eq!(lines(&packages), "6.1, 6.12, 7.3");
    }
}
