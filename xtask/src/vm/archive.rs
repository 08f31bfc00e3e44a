//! Archives that the kernel unpacks into its first file system: "newc", which the kernel documents in
//! Documentation/driver-api/early-userspace/buffer-format.rst.

use std::{
    collections::BTreeSet,
    fs,
    io::Write,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, Result, ensure};

const DIRECTORY: u32 = 0o040_755;
const PROGRAM: u32 = 0o100_755;
const CHARACTER_DEVICE: u32 = 0o020_600;
/// `/dev/console`.
const CONSOLE: (u32, u32) = (5, 1);

/// An archive in memory.
#[derive(Default)]
pub struct Archive {
    bytes: Vec<u8>,
    inodes: u32,
    /// What is in it.
    paths: BTreeSet<PathBuf>,
}

impl Archive {
    /// A directory and those above it, unless they are there.
    pub fn directory(&mut self, path: &Path) -> Result<()> {
        let relative = relative(path);
        let mut above: Vec<&Path> = relative.ancestors().collect();
        above.reverse();
        for directory in above {
            if !directory.as_os_str().is_empty() && self.paths.insert(directory.to_owned()) {
                self.entry(name(directory)?, DIRECTORY, (0, 0), &[])?;
            }
        }
        Ok(())
    }

    /// The kernel opens it for init's output before anything is mounted.
    pub fn console(&mut self) -> Result<()> {
        self.directory(Path::new("dev"))?;
        self.entry("dev/console", CHARACTER_DEVICE, CONSOLE, &[])
    }

    /// A file of this host, with the directories above it; once, however often it is asked for.
    pub fn file(&mut self, path: &Path, from: &Path) -> Result<()> {
        if self.paths.contains(relative(path)) {
            return Ok(());
        }
        let content = fs::read(from).with_context(|| format!("reading {}", from.display()))?;
        self.content(path, &content)
    }

    /// A file with this content.
    pub fn content(&mut self, path: &Path, content: &[u8]) -> Result<()> {
        let path = relative(path);
        if let Some(parent) = path.parent() {
            self.directory(parent)?;
        }
        self.paths.insert(path.to_owned());
        self.entry(name(path)?, PROGRAM, (0, 0), content)
    }

    /// All of it.
    pub fn finish(mut self) -> Result<Vec<u8>> {
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

fn relative(path: &Path) -> &Path {
    path.strip_prefix("/").unwrap_or(path)
}

fn name(path: &Path) -> Result<&str> {
    path.to_str()
        .with_context(|| format!("{} is no UTF-8", path.display()))
}

/// Packs an archive.
pub fn gzip(bytes: &[u8]) -> Result<Vec<u8>> {
    let mut child = Command::new("gzip")
        .args(["-1", "-n", "-c"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .context("starting gzip")?;
    let input = child.stdin.take().context("gzip without stdin")?;
    // From a thread: it answers before it has read all.
    std::thread::scope(|scope| {
        let writing = scope.spawn(move || {
            let mut input = input;
            input.write_all(bytes)
        });
        let output = child.wait_with_output().context("waiting for gzip")?;
        ensure!(output.status.success(), "gzip failed ({})", output.status);
        match writing.join() {
            Ok(written) => written.context("writing to gzip")?,
            Err(_) => anyhow::bail!("the thread that writes to gzip panicked"),
        }
        Ok(output.stdout)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_aligned_and_the_trailer_is_last() {
        let mut archive = Archive::default();
        archive.directory(Path::new("dev")).unwrap();
        archive.content(Path::new("init"), b"12345").unwrap();
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

    #[test]
    fn directories_come_before_what_is_in_them_and_once() {
        let mut archive = Archive::default();
        archive.content(Path::new("/a/b/c"), b"").unwrap();
        archive.content(Path::new("/a/b/d"), b"").unwrap();
        archive.file(Path::new("/a/b/c"), Path::new("/nowhere")).unwrap();
        let text = String::from_utf8(archive.finish().unwrap()).unwrap();
        let names: Vec<&str> = text
            .split('\0')
            .filter_map(|part| part.split_once("070701").map(|(_, header)| &header[13 * 8..]))
            .collect();
        assert_eq!(names, ["a", "a/b", "a/b/c", "a/b/d", "TRAILER!!!"]);
    }
}
