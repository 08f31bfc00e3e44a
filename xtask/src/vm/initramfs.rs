//! The guests' user space: a static init and the static agent, and for the live tests the test program with what it starts.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};

use super::{
    Paths,
    archive::{Archive, gzip},
    kernels::Kernel,
    live::Live,
    userland,
};
use crate::{build, process::say, workspace::Workspace};

const PROFILE: &str = "guest";

/// Where the guest finds the test program, the names of the tests, and the environment they run in.
const LIVE: &str = "/live/live";
const PLAN: &str = "/live/plan";
const ENVIRONMENT: &str = "/live/environment";

/// Builds both programs and packs them.
pub fn build(workspace: &Workspace, paths: &Paths) -> Result<PathBuf> {
    say("building the guests' init and agent, statically");
    let programs = [("probe-user", "procprobe"), ("xtask", "guest-init")];
    let built = build::statically(workspace, PROFILE, &programs)?;
    let mut archive = Archive::default();
    archive.console()?;
    archive.file(Path::new("init"), &built.join("guest-init"))?;
    archive.file(Path::new("procprobe"), &built.join("procprobe"))?;
    write(&paths.initramfs, &gzip(&archive.finish()?)?)?;
    Ok(paths.initramfs.clone())
}

/// The same with the live tests behind it: the kernel unpacks one archive after the other. The second one is not
/// compressed, which would take a translated guest longer than it saves.
pub fn with_live(base: &Path, live: &Live, paths: &Paths) -> Result<PathBuf> {
    let mut archive = Archive::default();
    archive.content(Path::new(PLAN), live.plan.text().as_bytes())?;
    archive.content(Path::new(ENVIRONMENT), live.environment().as_bytes())?;
    userland::stripped(&mut archive, Path::new(LIVE), &live.programs.live, paths)?;
    userland::stripped(
        &mut archive,
        &live.programs.workload,
        &live.programs.workload,
        paths,
    )?;
    userland::collect(&mut archive)?;
    append(base, &archive.finish()?, &paths.live)?;
    Ok(paths.live.clone())
}

/// What tests need that older kernels of Debian have in modules; the guest loads them as they are.
const MODULES: [&str; 1] = ["fuse.ko"];

/// The same for one kernel, with its modules; as it is, if it has none of them, for newer ones have them
/// built in.
pub fn with_modules(base: &Path, kernel: &Kernel, paths: &Paths) -> Result<PathBuf> {
    let found: Vec<(&str, PathBuf)> = MODULES
        .iter()
        .filter_map(|name| Some((*name, kernel.file(name)?)))
        .collect();
    if found.is_empty() {
        return Ok(base.to_owned());
    }
    let mut archive = Archive::default();
    for (name, module) in &found {
        archive.file(&Path::new("modules").join(name), module)?;
    }
    let to = paths.live.with_file_name(format!("initramfs-{}", kernel.release));
    append(base, &archive.finish()?, &to)?;
    Ok(to)
}

/// Writes an archive with another behind it, where the kernel looks for one.
fn append(base: &Path, archive: &[u8], to: &Path) -> Result<()> {
    let mut bytes = fs::read(base).with_context(|| format!("reading {}", base.display()))?;
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes.extend_from_slice(archive);
    write(to, &bytes)
}

fn write(to: &Path, bytes: &[u8]) -> Result<()> {
    if let Some(parent) = to.parent() {
        fs::create_dir_all(parent).with_context(|| format!("creating {}", parent.display()))?;
    }
    fs::write(to, bytes).with_context(|| format!("writing {}", to.display()))
}
