//! Finds a compiler and a linker for the eBPF object.
//!
//! No prebuilt `core` exists for `bpfel-unknown-none`, so the compiler has to come with its library's source. The
//! channel does not matter: `RUSTC_BOOTSTRAP=1` opens `-Z build-std` on a stable compiler too. What does matter is that
//! bpf-linker's LLVM is at least as new as the compiler's, or it cannot read the bitcode.

use std::{
    cmp::Reverse,
    env,
    fs::{self, File},
    io::Read,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result};

use crate::{environment, process, workspace::Workspace};

/// A rustc and cargo that come with the source of `core`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Compiler {
    /// The directory of `rustc`, `cargo` and, if installed, `cargo-clippy`.
    pub bin: PathBuf,
    pub release: String,
    pub llvm: u32,
}

/// bpf-linker, and its LLVM's major version where that can be told (it cannot when LLVM is linked statically).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Linker {
    pub path: PathBuf,
    pub llvm: Option<u32>,
}

/// All it takes to build the eBPF object.
pub struct Toolchain {
    pub compiler: Compiler,
    pub linker: Linker,
}

impl Toolchain {
    /// The first compiler whose bitcode the linker reads.
    pub fn find() -> Result<Option<Self>> {
        let Some(linker) = Linker::find()? else {
            return Ok(None);
        };
        let compiler = Compiler::find_all()?
            .into_iter()
            .find(|compiler| linker.reads(compiler));
        Ok(compiler.map(|compiler| Self { compiler, linker }))
    }
}

impl Compiler {
    /// Every suitable compiler: the distribution's, then rustup's toolchains, nightly ones last.
    ///
    /// A nightly changes under one's feet, and its LLVM is the likeliest to be too new for the linker.
    pub fn find_all() -> Result<Vec<Self>> {
        let mut bins = vec![PathBuf::from("/usr/bin"), PathBuf::from("/usr/local/bin")];
        bins.extend(rustup_bins());
        bins.iter()
            .filter_map(|bin| Self::probe(bin).transpose())
            .collect()
    }

    fn probe(bin: &Path) -> Result<Option<Self>> {
        let rustc = bin.join("rustc");
        let has_source = library(bin).is_some_and(|it| it.join("library/core/Cargo.toml").exists());
        if !(rustc.exists() && bin.join("cargo").exists() && has_source) {
            return Ok(None);
        }
        let version = process::output(environment::scrub_all(Command::new(&rustc).arg("-vV")))
            .with_context(|| format!("asking {} for its version", rustc.display()))?;
        Ok(Self::parse(bin, &version).filter(Self::is_new_enough))
    }

    /// Where the source of its library is.
    pub fn library(&self) -> Option<PathBuf> {
        library(&self.bin)
    }

    fn parse(bin: &Path, version: &str) -> Option<Self> {
        let field = |name: &str| {
            version
                .lines()
                .find_map(|line| line.strip_prefix(name))
                .map(str::trim)
        };
        let llvm = field("LLVM version:")?.split('.').next()?.parse().ok()?;
        Some(Self {
            bin: bin.to_owned(),
            release: field("release:")?.to_owned(),
            llvm,
        })
    }

    fn is_new_enough(&self) -> bool {
        at_least(&self.release, env!("CARGO_PKG_RUST_VERSION"))
    }
}

impl Linker {
    /// Looks on the path and where `cargo install` puts things.
    pub fn find() -> Result<Option<Self>> {
        let on_path = which::which("bpf-linker").ok();
        let installed = cargo_home().map(|home| home.join("bin/bpf-linker"));
        for path in [on_path, installed].into_iter().flatten() {
            // One that does not start, because its shared LLVM is gone, is as good as none.
            if path.exists() && process::output(Command::new(&path).arg("--version")).is_ok() {
                let llvm = linked_llvm(&path)?;
                return Ok(Some(Self { path, llvm }));
            }
        }
        Ok(None)
    }

    fn reads(&self, compiler: &Compiler) -> bool {
        self.llvm.is_none_or(|llvm| llvm >= compiler.llvm)
    }
}

/// A line of what the host's compiler says about itself (`rustc -vV`), such as its `host` or `release`.
pub fn host_rustc(workspace: &Workspace, field: &str) -> Result<String> {
    let mut rustc = Command::new(env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()));
    let said = process::output(environment::scrub(rustc.arg("-vV")).current_dir(&workspace.root))?;
    let line = said
        .lines()
        .find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
    let found = line.with_context(|| format!("`rustc -vV` names no {field}"))?;
    Ok(found.trim().to_owned())
}

/// Whether a version such as `1.96.0` or `1.98.0-nightly` or `1.96.0+dfsg1` reaches `wanted`.
pub fn at_least(version: &str, wanted: &str) -> bool {
    let numbers = |text: &str| -> Vec<u32> {
        text.split(|c: char| !c.is_ascii_digit())
            .take(2)
            .map_while(|part| part.parse().ok())
            .collect()
    };
    numbers(version) >= numbers(wanted)
}

fn library(bin: &Path) -> Option<PathBuf> {
    Some(bin.parent()?.join("lib/rustlib/src/rust"))
}

/// Cargo's own directory, with the sources of everybody's crates.
pub fn cargo_home() -> Option<PathBuf> {
    env::var_os("CARGO_HOME")
        .map(PathBuf::from)
        .or_else(|| Some(env::home_dir()?.join(".cargo")))
}

/// Rustup's, with its toolchains.
pub fn rustup_home() -> Option<PathBuf> {
    env::var_os("RUSTUP_HOME")
        .map(PathBuf::from)
        .or_else(|| Some(env::home_dir()?.join(".rustup")))
}

fn rustup_bins() -> Vec<PathBuf> {
    let entries = rustup_home().and_then(|home| fs::read_dir(home.join("toolchains")).ok());
    let mut names: Vec<_> = entries
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path().join("bin"))
        .collect();
    // "stable" sorts after "nightly" and after the numbers.
    names.sort_by_key(|path| Reverse(path.clone()));
    names
}

/// The major version of the shared LLVM that a program asks for, read from its dynamic section's strings, which
/// linkers place in the file's first part.
fn linked_llvm(program: &Path) -> Result<Option<u32>> {
    const PART: u64 = 1 << 20;
    let mut head = Vec::new();
    File::open(program)
        .and_then(|file| file.take(PART).read_to_end(&mut head))
        .with_context(|| format!("reading {}", program.display()))?;
    Ok(find_llvm(&head))
}

fn find_llvm(bytes: &[u8]) -> Option<u32> {
    ["libLLVM.so.", "libLLVM-"].iter().find_map(|name| {
        let start = bytes
            .windows(name.len())
            .position(|window| window == name.as_bytes())?
            + name.len();
        let digits: String = bytes
            .iter()
            .skip(start)
            .map(|&b| char::from(b))
            .take_while(char::is_ascii_digit)
            .collect();
        digits.parse().ok()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const VERSION: &str = "rustc 1.96.0 (ac68faa20 2026-05-25) (built from a source tarball)\nbinary: rustc\n\
        host: x86_64-unknown-linux-gnu\nrelease: 1.96.0\nLLVM version: 22.1.8\n";

    fn compiler() -> Compiler {
        Compiler::parse(Path::new("/usr/bin"), VERSION).unwrap()
    }

    #[test]
    fn reads_release_and_llvm() {
        assert_eq!(
            compiler(),
            Compiler {
                bin: "/usr/bin".into(),
                release: "1.96.0".into(),
                llvm: 22
            }
        );
        assert_eq!(Compiler::parse(Path::new("/"), "rustc 1.96.0"), None);
    }

    #[test]
    fn versions_compare_as_numbers() {
        assert!(at_least("1.96.0", "1.87"));
        assert!(at_least("1.100.0-nightly", "1.87"));
        assert!(at_least("1.96.0+dfsg1-1~deb12u2", "1.87"));
        assert!(!at_least("1.85.0", "1.87"));
    }

    #[test]
    fn linker_must_not_be_older_than_the_compiler() {
        let linker = |llvm| Linker {
            path: PathBuf::new(),
            llvm,
        };
        assert!(linker(Some(22)).reads(&compiler()));
        assert!(linker(None).reads(&compiler()));
        assert!(!linker(Some(21)).reads(&compiler()));
    }

    #[test]
    fn both_spellings_of_libllvm() {
        assert_eq!(find_llvm(b"\0libLLVM.so.22.1\0libc.so.6\0"), Some(22));
        assert_eq!(find_llvm(b"\0libLLVM-19.so\0"), Some(19));
        assert_eq!(find_llvm(b"\0libc.so.6\0"), None);
    }
}
