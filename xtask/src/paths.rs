//! Where this machine keeps sources and builds, and how that stays out of what is handed out.
//!
//! rustc writes the path of every source file into panic messages and debug information. They tell who built
//! a binary and where, and the same sources built in two places differ. cargo's own `trim-paths` is not
//! stable yet; `--remap-path-prefix` is, and does the same.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, Result, bail, ensure};

use crate::{
    packages,
    toolchain::{Toolchain, cargo_home, rustup_home},
    workspace::Workspace,
};

/// Directories of this machine, each with what it is called in what is built.
pub struct Paths(Vec<(PathBuf, String)>);

impl Paths {
    /// Those that compilers see: the repository, the build directory, cargo's registry, the library's source.
    pub fn of(workspace: &Workspace, toolchain: &Toolchain) -> Self {
        let mut paths = vec![
            (workspace.root.clone(), "/procprobe".to_owned()),
            (workspace.target.clone(), "/build".to_owned()),
        ];
        paths.extend(cargo_home().map(|home| (home, "/cargo".to_owned())));
        paths.extend(rustup_home().map(|home| (home, "/rustup".to_owned())));
        let source = toolchain.compiler.library();
        let name = format!("/rustc/{}", toolchain.compiler.release);
        paths.extend(source.map(|source| (source, name)));
        // rustc sees a path as it was given, or with its links resolved.
        let resolved: Vec<_> = paths
            .iter()
            .filter_map(|(path, name)| Some((fs::canonicalize(path).ok()?, name.clone())))
            .collect();
        paths.extend(resolved);
        Self::ordered(paths)
    }

    fn ordered(mut paths: Vec<(PathBuf, String)>) -> Self {
        paths.sort();
        paths.dedup();
        paths.retain(|(path, name)| path != Path::new(name) && path.parent().is_some());
        // Of several that match, rustc takes the last: it has to be the longest.
        paths.sort_by_key(|(path, _)| path.as_os_str().len());
        Self(paths)
    }

    /// Tells cargo to have them renamed in what it builds for a target, beside the flags that target has.
    pub fn rename<'a>(&self, cargo: &'a mut Command, triple: &str, more: &[&str]) -> &'a mut Command {
        let renamed = self
            .0
            .iter()
            .map(|(path, name)| format!("--remap-path-prefix={}={name}", path.display()));
        let flags: Vec<String> = more.iter().map(|&flag| flag.to_owned()).chain(renamed).collect();
        // A list in TOML is one in Rust's debug format; the environment's form has no place for a space in a
        // path.
        cargo
            .arg("--config")
            .arg(format!("target.{triple}.rustflags={flags:?}"))
    }

    /// A text with their other names in it, for what another tool wrote.
    pub fn renamed(&self, text: &str) -> String {
        let inwards = self.0.iter().rev();
        inwards.fold(text.to_owned(), |text, (path, name)| {
            text.replace(&path.display().to_string(), name)
        })
    }

    /// Fails if a file below a directory names one of them.
    pub fn are_in_none_below(&self, directory: &Path, work: &Path) -> Result<()> {
        let needles = self.children()?;
        ensure!(needles.len() > 5, "hardly any directory to look for: {needles:?}");
        let list = work.join("paths.list");
        fs::write(&list, needles.join("\n")).with_context(|| format!("writing {}", list.display()))?;
        let found = mentions(&list, directory)?;
        ensure!(
            found.is_empty(),
            "paths of this machine in what is handed out:\n{found}"
        );
        // A search that finds nothing anywhere is none.
        let sample = work.join("paths.sample");
        let last = needles.last().map(String::as_str).unwrap_or_default();
        fs::write(&sample, format!("\0{last}\0")).with_context(|| format!("writing {}", sample.display()))?;
        ensure!(
            !mentions(&list, &sample)?.is_empty(),
            "grep does not find {last} where it is"
        );
        Ok(())
    }

    /// What is in those directories: of `/src` itself, nobody could say whose it is.
    fn children(&self) -> Result<Vec<String>> {
        let mut children = Vec::new();
        for (path, _) in &self.0 {
            for entry in fs::read_dir(path).with_context(|| format!("reading {}", path.display()))? {
                let entry = entry.with_context(|| format!("reading {}", path.display()))?;
                children.push(entry.path().display().to_string());
            }
        }
        Ok(children)
    }
}

/// The lines in which grep finds one of a list.
fn mentions(list: &Path, below: &Path) -> Result<String> {
    let grep = packages::find_program("grep").context("no grep on the path: install it")?;
    let output = Command::new(grep)
        .args(["-r", "-a", "-o", "-F", "-f"])
        .arg(list)
        .arg(below)
        .stdin(Stdio::null())
        .env("LC_ALL", "C")
        .output()
        .context("starting grep")?;
    match output.status.code() {
        Some(0) => Ok(first_lines(&String::from_utf8_lossy(&output.stdout))),
        Some(1) => Ok(String::new()),
        _ => bail!("grep: {}", String::from_utf8_lossy(&output.stderr).trim()),
    }
}

fn first_lines(text: &str) -> String {
    let mut lines: Vec<&str> = text.lines().collect();
    lines.sort_unstable();
    lines.dedup();
    lines.truncate(10);
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paths() -> Paths {
        Paths::ordered(vec![
            ("/a b".into(), "/procprobe".into()),
            ("/a b/target".into(), "/build".into()),
            ("/cargo".into(), "/cargo".into()),
        ])
    }

    #[test]
    fn what_lies_deeper_is_renamed_first() {
        let text = "/a b/target/x /a b/src/y /cargo/z";
        assert_eq!(paths().renamed(text), "/build/x /procprobe/src/y /cargo/z");
        let mut cargo = Command::new("cargo");
        paths().rename(&mut cargo, "t", &["-C", "x"]);
        let flags: Vec<_> = cargo.get_args().collect();
        assert_eq!(
            flags[1],
            "target.t.rustflags=[\"-C\", \"x\", \"--remap-path-prefix=/a b=/procprobe\", \
             \"--remap-path-prefix=/a b/target=/build\"]"
        );
    }

    #[test]
    fn a_path_in_what_is_handed_out_is_found() {
        let scratch = std::env::temp_dir().join(format!("xtask-paths-{}", std::process::id()));
        let (sources, made, work) = (
            scratch.join("sources"),
            scratch.join("made"),
            scratch.join("work"),
        );
        for directory in [&sources, &made, &work] {
            fs::create_dir_all(directory).unwrap();
        }
        for child in 0..6 {
            fs::write(sources.join(format!("{child}.rs")), "").unwrap();
        }
        let paths = Paths::ordered(vec![(sources.clone(), "/procprobe".into())]);
        fs::write(made.join("binary"), "\0/procprobe/1.rs\0").unwrap();
        assert!(paths.are_in_none_below(&made, &work).is_ok());
        fs::write(
            made.join("other"),
            format!("\0text{}/5.rs:7\0", sources.display()),
        )
        .unwrap();
        let found = paths.are_in_none_below(&made, &work).unwrap_err().to_string();
        assert!(
            found.contains("other") && found.contains("sources/5.rs"),
            "{found}"
        );
        fs::remove_dir_all(&scratch).unwrap();
    }
}
