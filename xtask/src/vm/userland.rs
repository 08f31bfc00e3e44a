//! Programs of this host that the live tests start, with the libraries they are linked against: what a guest has of a
//! distribution.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result};

use super::{Paths, archive::Archive};
use crate::{
    packages::{self, Need},
    process,
};

/// Programs by name; they are in the guest's `/usr/bin`.
const PROGRAMS: [&str; 21] = [
    "sh", "true", "sleep", "cat", "tr", "ls", "sort", "head", "date", "grep", "mount", "umount", "env",
    "chmod", "mkdir", "rm", "unshare", "setpriv", "strace", "curl", "openssl",
];
/// Those in `/usr/sbin`.
const SYSTEM_PROGRAMS: [&str; 1] = ["bpftool"];
/// Read by some of them where there is one.
const FILES: [&str; 4] = [
    "/etc/ssl/openssl.cnf",
    "/usr/lib/ssl/openssl.cnf",
    "/etc/nsswitch.conf",
    "/etc/protocols",
];
/// Who there is in a guest.
const PASSWD: &str = "root:x:0:0:root:/:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/sh\n";
const GROUP: &str = "root:x:0:\nnogroup:x:65534:\n";

/// What all of this comes from, beside what `setup --tests` sees to.
pub const NEEDS: [Need; 7] = [
    Need::program("binutils", "strip"),
    Need::program("util-linux", "unshare"),
    Need::program("strace", "strace"),
    Need::program("curl", "curl"),
    Need::program("openssl", "openssl"),
    Need::program("bpftool", "bpftool"),
    Need::program("python3", "python3"),
];

/// Everything but the test's own programs.
pub fn collect(archive: &mut Archive) -> Result<()> {
    for (names, directory) in [(&PROGRAMS[..], "/usr/bin"), (&SYSTEM_PROGRAMS[..], "/usr/sbin")] {
        for name in names {
            let found = packages::find_program(name).with_context(|| format!("no {name} for the guests"))?;
            program(archive, &Path::new(directory).join(name), &found)?;
        }
    }
    for name in ["sh", "true"] {
        let found = packages::find_program(name).with_context(|| format!("no {name} for the guests"))?;
        archive.file(&Path::new("/bin").join(name), &found)?;
    }
    for file in FILES.map(Path::new).iter().filter(|file| file.exists()) {
        archive.file(file, file)?;
    }
    archive.content(Path::new("/etc/passwd"), PASSWD.as_bytes())?;
    archive.content(Path::new("/etc/group"), GROUP.as_bytes())?;
    python(archive)
}

/// A program without its debug information, which the kernel would have to unpack into memory, but with its symbols, which
/// are what the agent names locks by.
pub fn stripped(archive: &mut Archive, path: &Path, from: &Path, paths: &Paths) -> Result<()> {
    let name = path.file_name().context("a program without a name")?;
    let to = paths.stripped.join(name);
    std::fs::create_dir_all(&paths.stripped)
        .with_context(|| format!("creating {}", paths.stripped.display()))?;
    let mut strip = Command::new("strip");
    process::run_quietly(strip.arg("--strip-debug").arg("-o").arg(&to).arg(from))?;
    program(archive, path, &to)
}

/// A program and its libraries, each where the loader will look for it.
fn program(archive: &mut Archive, path: &Path, from: &Path) -> Result<()> {
    archive.file(path, from)?;
    for library in libraries(from)? {
        archive.file(&library, &library)?;
    }
    Ok(())
}

fn libraries(program: &Path) -> Result<Vec<PathBuf>> {
    let output = Command::new("ldd")
        .arg(program)
        .env("LC_ALL", "C")
        .output()
        .context("starting ldd")?;
    // A static program is none that it knows, and has none.
    Ok(needed(&String::from_utf8_lossy(&output.stdout)))
}

/// `libc.so.6 => /lib/libc.so.6 (0x7f…)`, or the loader alone: `/lib64/ld-linux-x86-64.so.2 (0x7f…)`.
fn needed(ldd: &str) -> Vec<PathBuf> {
    ldd.lines()
        .filter_map(|line| {
            let path = line.split_once("=> ").map_or(line, |(_, path)| path);
            let path = path.trim().split(" (").next()?;
            path.starts_with('/').then(|| PathBuf::from(path))
        })
        .collect()
}

/// What the tests' programs in Python import, and Python tells where that is.
const IMPORTS: &str = "
import os, queue, sys, threading
print(os.path.realpath(sys.executable))
for module in list(sys.modules.values()):
    for path in (getattr(module, '__file__', None), getattr(module, '__cached__', None)):
        if path and os.path.exists(path):
            print(path)
";

/// Python with no more modules than that. It is found by its own path: so it has the one it has here, and a script in
/// `/usr/bin` names that.
fn python(archive: &mut Archive) -> Result<()> {
    let mut command = Command::new("python3");
    command
        .args(["-c", IMPORTS])
        .env("LC_ALL", "C")
        .env("PYTHONNOUSERSITE", "1");
    let said = process::output(&mut command).context("asking python3 for its modules")?;
    let mut paths = said.lines().map(Path::new);
    let interpreter = paths.next().context("python3 says nothing")?;
    program(archive, interpreter, interpreter)?;
    for path in paths {
        program_or_text(archive, path)?;
    }
    let launcher = Path::new("/usr/bin/python3");
    if interpreter != launcher {
        let script = format!("#!/bin/sh\nexec {} \"$@\"\n", interpreter.display());
        archive.content(launcher, script.as_bytes())?;
    }
    Ok(())
}

/// A module: one that is a library has libraries of its own.
fn program_or_text(archive: &mut Archive, path: &Path) -> Result<()> {
    if path.extension().is_some_and(|extension| extension == "so") {
        return program(archive, path, path);
    }
    archive.file(path, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_and_the_loader_are_needed_and_what_the_kernel_brings_is_not() {
        let said = "\tlinux-vdso.so.1 (0x00007ffd)\n\tlibc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x00007f)\n\
                    \t/lib64/ld-linux-x86-64.so.2 (0x00007f)\n\tlibgone.so => not found\n";
        let paths = ["/lib/x86_64-linux-gnu/libc.so.6", "/lib64/ld-linux-x86-64.so.2"];
        assert_eq!(needed(said), paths.map(PathBuf::from));
        assert_eq!(needed("\tnot a dynamic executable\n"), Vec::<PathBuf>::new());
    }
}
