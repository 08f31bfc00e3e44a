//! The guests' whole user space: a static init and the static agent in a gzip'd cpio archive ("newc", which the kernel
//! documents in Documentation/driver-api/early-userspace/buffer-format.rst).

use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, Result, ensure};

use super::Paths;
use crate::{build, process::say, workspace::Workspace};

const PROFILE: &str = "guest";

/// Builds both programs and packs them.
pub fn build(workspace: &Workspace, paths: &Paths) -> Result<PathBuf> {
    say("building the guests' init and agent, statically");
    let programs = [("probe-user", "procprobe"), ("xtask", "guest-init")];
    let built = build::statically(workspace, PROFILE, &programs)?;
    let mut archive = Archive::default();
    archive.directory("dev")?;
    // The kernel opens it for init's output before anything is mounted.
    archive.console()?;
    archive.file("init", &built.join("guest-init"))?;
    archive.file("procprobe", &built.join("procprobe"))?;
    gzip(&archive.finish()?, &paths.initramfs)?;
    Ok(paths.initramfs.clone())
}

fn gzip(bytes: &[u8], to: &Path) -> Result<()> {
    if let Some(parent) = to.parent() {
        fs::create_dir_all(parent).with_context(|| format!("creating {}", parent.display()))?;
    }
    let file = fs::File::create(to).with_context(|| format!("creating {}", to.display()))?;
    let mut child = Command::new("gzip")
        .args(["-1", "-n", "-c"])
        .stdin(Stdio::piped())
        .stdout(file)
        .spawn()
        .context("starting gzip")?;
    if let Some(mut input) = child.stdin.take() {
        input.write_all(bytes).context("writing to gzip")?;
    }
    let status = child.wait().context("waiting for gzip")?;
    ensure!(status.success(), "gzip failed ({status})");
    Ok(())
}

const DIRECTORY: u32 = 0o040_755;
const PROGRAM: u32 = 0o100_755;
const CHARACTER_DEVICE: u32 = 0o020_600;
/// `/dev/console`.
const CONSOLE: (u32, u32) = (5, 1);

/// A newc archive in memory.
#[derive(Default)]
struct Archive {
    bytes: Vec<u8>,
    inodes: u32,
}

impl Archive {
    fn directory(&mut self, name: &str) -> Result<()> {
        self.entry(name, DIRECTORY, (0, 0), &[])
    }

    fn console(&mut self) -> Result<()> {
        self.entry("dev/console", CHARACTER_DEVICE, CONSOLE, &[])
    }

    fn file(&mut self, name: &str, from: &Path) -> Result<()> {
        let content = fs::read(from).with_context(|| format!("reading {}", from.display()))?;
        self.entry(name, PROGRAM, (0, 0), &content)
    }

    fn finish(mut self) -> Result<Vec<u8>> {
        self.inodes = 0;
        self.entry("TRAILER!!!", 0, (0, 0), &[])?;
        Ok(self.bytes)
    }

    /// A header of 13 fields of 8 hexadecimal digits, the name, the content, both padded to 4.
    fn entry(&mut self, name: &str, mode: u32, device: (u32, u32), content: &[u8]) -> Result<()> {
        self.inodes += 1;
        let links = if mode == DIRECTORY { 2 } else { 1 };
        let size = u32::try_from(content.len()).with_context(|| format!("{name} is too large"))?;
        let name_size = u32::try_from(name.len() + 1).with_context(|| format!("{name} is too long"))?;
        let (major, minor) = device;
        let fields = [
            self.inodes,
            mode,
            0,
            0,
            links,
            0,
            size,
            0,
            0,
            major,
            minor,
            name_size,
            0,
        ];
        self.bytes.extend_from_slice(b"070701");
        for field in fields {
            self.bytes.extend_from_slice(format!("{field:08x}").as_bytes());
        }
        self.bytes.extend_from_slice(name.as_bytes());
        self.bytes.push(0);
        self.pad();
        self.bytes.extend_from_slice(content);
        self.pad();
        Ok(())
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_aligned_and_the_trailer_is_last() {
        let mut archive = Archive::default();
        archive.directory("dev").unwrap();
        archive.entry("init", PROGRAM, (0, 0), b"12345").unwrap();
        let bytes = archive.finish().unwrap();
        assert_eq!(bytes.len() % 4, 0);
        let text = String::from_utf8(bytes).unwrap();
        let headers: Vec<_> = text.match_indices("070701").map(|(at, _)| at).collect();
        assert_eq!(headers.len(), 3);
        assert!(headers.iter().all(|at| at % 4 == 0), "{headers:?}");
        // Size, the seventh field after the magic.
        assert_eq!(&text[headers[1] + 6 + 48..headers[1] + 6 + 56], "00000005");
        assert!(text.trim_end_matches('\0').ends_with("TRAILER!!!"));
    }
}
