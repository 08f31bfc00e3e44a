//! Finds libbpf-tools: on this system, or in a chroot made for the purpose (its package needs a newer distribution than
//! many hosts run).

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    rc::Rc,
};

use anyhow::{Context, Result};
use clap::Args;

use crate::{
    packages::find_program,
    process::{self, say},
};

/// Debian renames them, because bcc has tools of the same names; the plain name may be bcc's script, see [`is_elf`].
fn names(tool: &str) -> [String; 2] {
    [format!("{tool}-libbpf"), tool.to_owned()]
}

const DIRECTORIES: [&str; 4] = ["usr/sbin", "usr/bin", "usr/local/bin", "usr/local/sbin"];

/// One of the tools, and the root directory it runs in.
pub struct Peer {
    program: PathBuf,
    root: Option<Rc<Root>>,
}

/// Where to look for them.
#[derive(Args)]
pub struct Place {
    /// A chroot with libbpf-tools, for hosts that do not have them
    #[arg(long = "peers", env = "PROCPROBE_PEERS", value_name = "DIR")]
    chroot: Option<PathBuf>,
}

impl Place {
    /// The tools of the host, and those in the chroot.
    pub fn open(&self) -> Result<Peers> {
        let mount = |dir: &PathBuf| Root::mount(dir).map(Rc::new);
        let chroot = self.chroot.as_ref().map(mount).transpose()?;
        Ok(Peers { chroot })
    }
}

/// Where the tools are.
pub struct Peers {
    chroot: Option<Rc<Root>>,
}

impl Peers {
    /// The host's own first, then the one in the chroot.
    pub fn find(&self, tool: &str) -> Option<Peer> {
        let host = names(tool)
            .iter()
            .filter_map(|name| find_program(name))
            .find(|path| is_elf(path));
        if let Some(program) = host {
            return Some(Peer { program, root: None });
        }
        let root = self.chroot.as_ref()?;
        Some(Peer {
            program: find_below(&root.dir, tool)?,
            root: Some(Rc::clone(root)),
        })
    }
}

impl Peer {
    /// Counts until it is told to end.
    pub fn command(&self, arguments: &[&str]) -> Command {
        // One interval, longer than any measurement; a histogram a second would be noise.
        const FOREVER: &str = "86400";
        let mut command = Command::new(if self.root.is_some() {
            Path::new("chroot")
        } else {
            &self.program
        });
        if let Some(root) = &self.root {
            command.arg(&root.dir).arg(&self.program);
        }
        command.args(arguments).arg(FOREVER);
        command
    }
}

/// The program's path as seen from inside the chroot.
fn find_below(dir: &Path, tool: &str) -> Option<PathBuf> {
    let places = DIRECTORIES
        .iter()
        .flat_map(|place| names(tool).map(|name| Path::new(place).join(name)));
    places
        .filter(|place| is_elf(&dir.join(place)))
        .map(|place| Path::new("/").join(place))
        .next()
}

fn is_elf(path: &Path) -> bool {
    use std::io::Read;
    let mut magic = [0; 4];
    fs::File::open(path)
        .and_then(|mut file| file.read_exact(&mut magic))
        .is_ok_and(|()| magic == *b"\x7fELF")
}

/// A chroot with the kernel's file systems bound into it; what was bound here is unbound when dropped.
struct Root {
    dir: PathBuf,
    mounted: Vec<PathBuf>,
}

impl Root {
    fn mount(dir: &Path) -> Result<Self> {
        let mut root = Self {
            dir: dir.to_owned(),
            mounted: Vec::new(),
        };
        for name in ["proc", "sys"] {
            let mut mount = Command::new("mount");
            // Private: what is bound below `sys` there must not show up in the host's.
            mount
                .args(["--bind", "--make-private"])
                .arg(Path::new("/").join(name));
            root.add(name, &mut mount)?;
        }
        // A file system of its own, which binding `sys` does not bring along, and which not every host has mounted.
        root.add(
            "sys/kernel/tracing",
            Command::new("mount").args(["-t", "tracefs", "tracefs"]),
        )?;
        Ok(root)
    }

    /// Mounts something at `name`, unless someone else has already: then it is theirs to undo.
    fn add(&mut self, name: &str, mount: &mut Command) -> Result<()> {
        let at = self.dir.join(name);
        let is_mounted = fs::read_dir(&at)
            .with_context(|| format!("reading {}", at.display()))?
            .next()
            .is_some();
        if !is_mounted {
            process::run(mount.arg(&at))?;
            self.mounted.push(at);
        }
        Ok(())
    }
}

impl Drop for Root {
    fn drop(&mut self) {
        for at in self.mounted.iter().rev() {
            if let Err(error) = process::run(Command::new("umount").arg(at)) {
                say(&format!("{} stays mounted: {error:#}", at.display()));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_binaries_count() {
        assert!(is_elf(Path::new("/proc/self/exe")));
        assert!(!is_elf(Path::new("/proc/self/status")));
        assert!(!is_elf(Path::new("/nonexistent")));
    }
}
