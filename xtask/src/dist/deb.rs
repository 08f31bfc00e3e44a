//! The Debian package: the archive's files where Debian has them, and four small scripts.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result};

use super::{VERSION, clear, copy, epoch, sbom};
use crate::{process, workspace::Workspace};

const ARCHITECTURE: &str = "amd64";
/// Where the archive's files go.
const PLACES: [(&str, &str); 15] = [
    ("procprobe", "usr/bin/procprobe"),
    ("procprobe.service", "usr/lib/systemd/system/procprobe.service"),
    ("procprobe.socket", "usr/lib/systemd/system/procprobe.socket"),
    ("procprobe.toml", "etc/procprobe/procprobe.toml"),
    ("web.yml", "usr/share/doc/procprobe/examples/web.yml"),
    ("README.md", "usr/share/doc/procprobe/README.md"),
    ("SECURITY.md", "usr/share/doc/procprobe/SECURITY.md"),
    ("CHANGELOG.md", "usr/share/doc/procprobe/changelog"),
    ("LICENSE-MIT", "usr/share/doc/procprobe/LICENSE-MIT"),
    ("LICENSE-APACHE", "usr/share/doc/procprobe/LICENSE-APACHE"),
    ("THIRD-PARTY", "usr/share/doc/procprobe/THIRD-PARTY"),
    (sbom::NAME, "usr/share/doc/procprobe/procprobe.cdx.json"),
    (
        "completions/procprobe.bash",
        "usr/share/bash-completion/completions/procprobe",
    ),
    (
        "completions/_procprobe",
        "usr/share/zsh/vendor-completions/_procprobe",
    ),
    (
        "completions/procprobe.fish",
        "usr/share/fish/vendor_completions.d/procprobe.fish",
    ),
];
const SCRIPTS: [&str; 3] = ["postinst", "prerm", "postrm"];

/// Makes the package out of the archive's directory.
pub fn build(workspace: &Workspace, from: &Path, work: &Path, into: &Path) -> Result<PathBuf> {
    let root = work.join("deb");
    clear(&root)?;
    for (source, place) in PLACES {
        copy(&from.join(source), &root.join(place))?;
    }
    let shared = root.join("usr/share/procprobe");
    clear(&shared)?;
    let mut cp = Command::new("cp");
    cp.arg("-r").arg(from.join("dashboards")).arg(&shared);
    process::run_quietly(&mut cp).context("copying the dashboards")?;
    let written = workspace.root.join("xtask/dist/deb");
    copy(
        &written.join("copyright"),
        &root.join("usr/share/doc/procprobe/copyright"),
    )?;
    manuals(&from.join("man"), &root.join("usr/share/man/man1"))?;
    compress(&root.join("usr/share/doc/procprobe/changelog"))?;
    control(&written, &root)?;
    permissions(&root)?;
    let package = into.join(format!("procprobe_{VERSION}_{ARCHITECTURE}.deb"));
    let mut build = Command::new("dpkg-deb");
    build
        .args(["--root-owner-group", "--build"])
        .arg(&root)
        .arg(&package)
        .env("SOURCE_DATE_EPOCH", epoch(workspace)?);
    process::run_quietly(&mut build).context("building the package")?;
    Ok(package)
}

fn manuals(from: &Path, to: &Path) -> Result<()> {
    for entry in fs::read_dir(from).with_context(|| format!("reading {}", from.display()))? {
        let entry = entry.with_context(|| format!("reading {}", from.display()))?;
        let page = to.join(entry.file_name());
        copy(&entry.path(), &page)?;
        compress(&page)?;
    }
    Ok(())
}

fn compress(file: &Path) -> Result<()> {
    process::run_quietly(Command::new("gzip").args(["-9n", "-f"]).arg(file))
        .with_context(|| format!("compressing {}", file.display()))
}

/// The control files, with what only the build knows filled in.
fn control(written: &Path, root: &Path) -> Result<()> {
    let to = root.join("DEBIAN");
    for name in SCRIPTS.iter().chain(&["conffiles"]) {
        copy(&written.join(name), &to.join(name))?;
    }
    let template = written.join("control");
    let text = fs::read_to_string(&template).with_context(|| format!("reading {}", template.display()))?;
    let text = text
        .replace("@VERSION@", VERSION)
        .replace("@ARCHITECTURE@", ARCHITECTURE)
        .replace("@SIZE@", &(bytes_below(root)? >> 10).to_string());
    fs::write(to.join("control"), text).with_context(|| format!("writing to {}", to.display()))
}

fn bytes_below(directory: &Path) -> Result<u64> {
    let mut sum = 0;
    visit(directory, &mut |_, metadata| {
        sum += metadata.len();
        Ok(())
    })?;
    Ok(sum)
}

/// Whatever the umask and the sources say: readable by all, and only programs are executable.
fn permissions(root: &Path) -> Result<()> {
    visit(root, &mut |path, metadata| {
        let parent = path.parent().and_then(Path::file_name).unwrap_or_default();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let is_program = parent == "bin" || (parent == "DEBIAN" && SCRIPTS.contains(&&*name));
        let mode = if metadata.is_dir() || is_program {
            0o755
        } else {
            0o644
        };
        fs::set_permissions(path, fs::Permissions::from_mode(mode))
            .with_context(|| format!("setting the mode of {}", path.display()))
    })
}

fn visit(path: &Path, see: &mut dyn FnMut(&Path, &fs::Metadata) -> Result<()>) -> Result<()> {
    let metadata = fs::symlink_metadata(path).with_context(|| format!("looking at {}", path.display()))?;
    see(path, &metadata)?;
    if metadata.is_dir() {
        for entry in fs::read_dir(path).with_context(|| format!("reading {}", path.display()))? {
            let entry = entry.with_context(|| format!("reading {}", path.display()))?;
            visit(&entry.path(), see)?;
        }
    }
    Ok(())
}
