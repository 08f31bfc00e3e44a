//! `cargo xtask dist --check`: is what is handed out any good? Installed on a clean Debian, linted, validated.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail, ensure};

use super::{Dist, VERSION, boot, clear, supply};
use crate::{
    packages::{self, Need},
    process::{self, say},
    toolchain::Toolchain,
    vm,
    workspace::Workspace,
};

const NEEDS: [Need; 7] = [
    Need::program("debootstrap", "debootstrap"),
    Need::program("man-db", "man"),
    Need::program("groff-base", "groff"),
    Need::program("python3", "python3"),
    Need::program("zsh", "zsh"),
    Need::program("fish", "fish"),
    Need::program("systemd-container", "systemd-nspawn"),
];
/// The Debian it is installed on: the oldest one that has an eBPF-ready kernel and is looked after.
const SUITE: &str = "bookworm";
/// What says whether a manifest is one of Kubernetes's, and of which version (with `appArmorProfile`), and
/// whether a bill of materials is one of `CycloneDX`'s.
const VALIDATORS: [&str; 2] = [
    "kubernetes-validate==1.31.0",
    "cyclonedx-python-lib[json-validation]==11.12.0",
];
const KUBERNETES: &str = "1.31";
/// Changes that no schema should let pass.
const BROKEN: [(&str, &str); 3] = [
    ("hostPID: true", "hostPIDs: true"),
    ("policyTypes: [", "policyTypez: ["),
    ("check-health\"]", "check-health\"]\n              port: 1"),
];
/// `systemd-analyze security` calls this and less "ok".
const EXPOSURE: u32 = 21;

/// Everything, in the order of how long it takes. The first complaint ends it.
pub fn run(workspace: &Workspace, toolchain: &Toolchain, dist: &Dist) -> Result<()> {
    packages::ensure(&NEEDS)?;
    supply::check(workspace, toolchain, dist)?;
    manuals(&dist.directory.join("man"))?;
    completions(&dist.directory.join("completions"))?;
    stands_alone(dist)?;
    manifests(dist)?;
    let root = clean_root(&dist.work)?;
    installed(dist, &Chroot { root })?;
    say("all checks passed");
    Ok(())
}

/// groff's warnings, as man shows them, and its own.
fn manuals(directory: &Path) -> Result<()> {
    let mut count = 0;
    for entry in fs::read_dir(directory).with_context(|| format!("reading {}", directory.display()))? {
        let page = entry
            .with_context(|| format!("reading {}", directory.display()))?
            .path();
        let mut man = Command::new("man");
        man.args(["--warnings", "-E", "UTF-8", "-l", "-Tutf8", "-Z"])
            .arg(&page)
            .env("LC_ALL", "C.UTF-8")
            .env("MANWIDTH", "80");
        let output = man.output().context("starting man")?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(
            output.status.success() && said.trim().is_empty(),
            "{}: {}",
            page.display(),
            said.trim()
        );
        count += 1;
    }
    ensure!(count > 5, "only {count} man pages in {}", directory.display());
    say(&format!("check: {count} man pages without a warning"));
    Ok(())
}

/// Whether the shells can read them.
fn completions(directory: &Path) -> Result<()> {
    for (shell, file) in [
        ("bash", "procprobe.bash"),
        ("zsh", "_procprobe"),
        ("fish", "procprobe.fish"),
    ] {
        process::run_quietly(Command::new(shell).arg("-n").arg(directory.join(file)))?;
    }
    say("check: bash, zsh and fish can read their completions");
    Ok(())
}

/// In a directory with nothing else, as in the container's image: no library, no loader, no shell.
fn stands_alone(dist: &Dist) -> Result<()> {
    let root = dist.work.join("scratch");
    clear(&root)?;
    super::copy(&dist.directory.join("procprobe"), &root.join("procprobe"))?;
    let chroot = Chroot { root };
    let said = chroot.output("/procprobe", &["--version"])?;
    ensure!(
        said.trim() == format!("procprobe {VERSION}"),
        "--version says {said:?}"
    );
    say("check: the binary runs with nothing beside it");
    Ok(())
}

/// The manifests against Kubernetes's own schema, without a cluster.
fn manifests(dist: &Dist) -> Result<()> {
    let validate = dist.venv()?.join("bin/kubernetes-validate");
    let accepted = |file: &Path| {
        let mut command = Command::new(&validate);
        command.args(["--strict", "-k", KUBERNETES]).arg(file);
        let output = command.output().context("starting the validator")?;
        let mut said = String::from_utf8_lossy(&output.stdout).into_owned();
        said.push_str(&String::from_utf8_lossy(&output.stderr));
        Ok::<_, anyhow::Error>((output.status.success(), said))
    };
    let file = dist.directory.join("daemonset.yaml");
    let text = fs::read_to_string(&file).with_context(|| format!("reading {}", file.display()))?;
    let (is_right, said) = accepted(&file)?;
    ensure!(is_right, "daemonset.yaml: {}", said.trim());
    // A validator that lets everything pass is none.
    for (right, wrong) in BROKEN {
        ensure!(text.contains(right), "daemonset.yaml has no {right:?} any more");
        let broken = dist.work.join("broken.yaml");
        fs::write(&broken, text.replace(right, wrong))
            .with_context(|| format!("writing {}", broken.display()))?;
        ensure!(!accepted(&broken)?.0, "the validator took {wrong:?}");
    }
    say(&format!(
        "check: daemonset.yaml follows the schema of Kubernetes {KUBERNETES}"
    ));
    Ok(())
}

impl Dist {
    /// A Python with the validators. Fetched once.
    pub fn venv(&self) -> Result<PathBuf> {
        let venv = self.work.join("venv");
        let stamp = venv.join("validators");
        let wanted = VALIDATORS.join("\n");
        if fs::read_to_string(&stamp).is_ok_and(|text| text == wanted) {
            return Ok(venv);
        }
        process::run_quietly(Command::new("python3").args(["-m", "venv"]).arg(&venv))?;
        let mut pip = Command::new(venv.join("bin/pip"));
        pip.args(["install", "--quiet", "--disable-pip-version-check"])
            .args(VALIDATORS);
        process::run_quietly(&mut pip).context("installing the validators")?;
        fs::write(&stamp, wanted).with_context(|| format!("writing {}", stamp.display()))?;
        Ok(venv)
    }
}

/// A minimal Debian with systemd and nothing of ours. Fetched once, then copied.
fn clean_root(work: &Path) -> Result<PathBuf> {
    let pristine = work.join(SUITE);
    if !pristine.join("usr/bin/systemd-analyze").exists() {
        say(&format!("fetching a minimal Debian {SUITE} (debootstrap)"));
        remove(&pristine)?;
        let mut debootstrap = process::as_root("debootstrap")?;
        debootstrap
            .args(["--variant=minbase", "--include=systemd", SUITE])
            .arg(&pristine)
            .arg(vm::mirror()?);
        process::run_quietly(&mut debootstrap).context("debootstrap")?;
    }
    let root = work.join("root");
    remove(&root)?;
    let mut copy = process::as_root("cp")?;
    process::run_quietly(copy.args(["-a", "--reflink=auto"]).arg(&pristine).arg(&root))?;
    Ok(root)
}

fn remove(directory: &Path) -> Result<()> {
    process::run_quietly(process::as_root("rm")?.arg("-rf").arg(directory))
}

/// A root directory, and commands in it.
struct Chroot {
    root: PathBuf,
}

impl Chroot {
    fn output(&self, program: &str, arguments: &[&str]) -> Result<String> {
        let mut command = process::as_root("chroot")?;
        command.arg(&self.root).arg(program).args(arguments);
        command
            .env("LC_ALL", "C.UTF-8")
            .env("DEBIAN_FRONTEND", "noninteractive");
        process::output(&mut command)
    }
}

/// Installs, looks at what is there and what is not, and removes it again.
fn installed(dist: &Dist, debian: &Chroot) -> Result<()> {
    let package = debian.root.join("procprobe.deb");
    process::run_quietly(process::as_root("cp")?.arg(&dist.package).arg(&package))?;
    debian.output("dpkg", &["-i", "/procprobe.deb"])?;
    let version = debian.output("procprobe", &["--version"])?;
    ensure!(
        version.trim() == format!("procprobe {VERSION}"),
        "--version says {version:?}"
    );
    let user = debian.output("getent", &["passwd", "procprobe"])?;
    ensure!(
        user.trim().ends_with(":/nonexistent:/usr/sbin/nologin"),
        "the user is {user:?}"
    );
    let conffiles = debian.output("dpkg-query", &["-W", "-f", "${Conffiles}", "procprobe"])?;
    ensure!(
        conffiles.contains("/etc/procprobe/procprobe.toml"),
        "conffiles: {conffiles:?}"
    );
    let check = debian.output("procprobe", &["agent", "--check-config"])?;
    ensure!(
        check.trim() == "ok: /etc/procprobe/procprobe.toml",
        "--check-config says {check:?}"
    );
    say(&format!("check: the package installs on a clean {SUITE}"));
    unit(debian)?;
    boot::run(&debian.root)?;
    debian.output("dpkg", &["--purge", "procprobe"])?;
    for left in ["etc/procprobe", "usr/bin/procprobe"] {
        ensure!(!debian.root.join(left).exists(), "{left} stays after a purge");
    }
    say("check: the package leaves nothing behind");
    Ok(())
}

/// The unit, judged by the systemd of that Debian.
fn unit(debian: &Chroot) -> Result<()> {
    let enabled = debian
        .root
        .join("etc/systemd/system/multi-user.target.wants/procprobe.service");
    if fs::symlink_metadata(&enabled).is_ok() {
        bail!("installing the package enables the service");
    }
    let unit = "/usr/lib/systemd/system/procprobe.service";
    let mut verify = process::as_root("chroot")?;
    verify
        .arg(&debian.root)
        .args(["systemd-analyze", "verify", "--man=no", unit]);
    let output = verify.output().context("starting systemd-analyze")?;
    let said = String::from_utf8_lossy(&output.stderr);
    let ours: Vec<&str> = said.lines().filter(|line| line.contains("procprobe")).collect();
    ensure!(
        output.status.success() && ours.is_empty(),
        "systemd-analyze verify: {said}"
    );
    let threshold = format!("--threshold={EXPOSURE}");
    let judged = debian.output(
        "systemd-analyze",
        &["security", "--offline=true", "--no-pager", &threshold, unit],
    )?;
    let score = judged.lines().last().unwrap_or_default().trim();
    say(&format!("check: the unit is well-formed; {score}"));
    Ok(())
}
