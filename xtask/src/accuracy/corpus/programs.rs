//! The programs of the corpus: their sources, and one executable for each library.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result};

use crate::{
    environment,
    packages::find_program,
    process::{self, say},
    programs::need,
    workspace::Workspace,
};

#[derive(Clone, Copy, PartialEq)]
pub enum Language {
    C,
    Cxx,
    Rust,
    Python,
}

/// A way to make an executable.
pub struct Build {
    pub name: &'static str,
    pub language: Language,
    compiler: &'static str,
    arguments: &'static [&'static str],
    /// Whether all scenes are asked of it.
    pub whole: bool,
}

pub const BUILDS: [Build; 13] = [
    c("glibc", "gcc", &["-g"], true),
    c("glibc-static", "gcc", &["-g", "-static"], false),
    c("glibc-32", "gcc", &["-g", "-m32"], true),
    c("glibc-stripped", "gcc", &["-s"], false),
    c("glibc-static-stripped", "gcc", &["-s", "-static"], false),
    c("musl", "musl-gcc", &["-g"], false),
    c("musl-static", "musl-gcc", &["-g", "-static"], true),
    c("musl-static-stripped", "musl-gcc", &["-s", "-static"], false),
    other(
        "c++20",
        Language::Cxx,
        "g++",
        &["-g", "-O1", "-std=c++20", "-pthread"],
    ),
    other(
        "c++20-stripped",
        Language::Cxx,
        "g++",
        &["-s", "-O1", "-std=c++20", "-pthread"],
    ),
    other("rust", Language::Rust, "rustc", &["-g", "-O", "--edition=2024"]),
    other(
        "rust-stripped",
        Language::Rust,
        "rustc",
        &["-O", "--edition=2024", "-Cstrip=symbols"],
    ),
    other("python", Language::Python, "python3", &[]),
];

const fn c(
    name: &'static str,
    compiler: &'static str,
    arguments: &'static [&'static str],
    whole: bool,
) -> Build {
    Build {
        whole,
        ..other(name, Language::C, compiler, arguments)
    }
}

const fn other(
    name: &'static str,
    language: Language,
    compiler: &'static str,
    arguments: &'static [&'static str],
) -> Build {
    Build {
        name,
        language,
        compiler,
        arguments,
        whole: true,
    }
}

impl Language {
    fn source(self) -> &'static str {
        match self {
            Self::C => "locks.c",
            Self::Cxx => "locks.cc",
            Self::Rust => "locks.rs",
            Self::Python => "locks.py",
        }
    }
}

/// Where executables are, and what they are made of.
pub struct Programs {
    directory: PathBuf,
    sources: PathBuf,
}

impl Programs {
    pub fn new(workspace: &Workspace) -> Result<Self> {
        let directory = workspace.target.join("corpus");
        fs::create_dir_all(&directory).with_context(|| format!("creating {}", directory.display()))?;
        Ok(Self {
            directory,
            sources: workspace.root.join("xtask/corpus"),
        })
    }

    /// Where something about a run may be written.
    pub fn file(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// Makes an executable, if there is none that is newer than its source.
    pub fn make(&self, build: &Build) -> Result<()> {
        let compiler = compiler(build)?;
        let (source, program) = (self.source(build), self.directory.join(build.name));
        if build.language == Language::Python || is_newer(&program, &source) {
            return Ok(());
        }
        say(&format!(
            "compiling {} for {}",
            build.language.source(),
            build.name
        ));
        let mut command = Command::new(compiler);
        environment::scrub(&mut command).current_dir(&self.directory);
        command.args(build.arguments);
        if build.language == Language::C {
            command.args(["-O1", "-pthread"]);
        }
        command.arg("-o").arg(&program).arg(&source);
        process::run_quietly(&mut command).with_context(|| {
            format!(
                "compiling for {}; `cargo xtask setup --tests` installs what is missing",
                build.name
            )
        })
    }

    /// The program, to be given its arguments.
    pub fn command(&self, build: &Build) -> Result<Vec<PathBuf>> {
        Ok(match build.language {
            Language::Python => vec![compiler(build)?, self.source(build)],
            _ => vec![self.directory.join(build.name)],
        })
    }

    fn source(&self, build: &Build) -> PathBuf {
        self.sources.join(build.language.source())
    }
}

fn compiler(build: &Build) -> Result<PathBuf> {
    match build.language {
        // As cargo finds it.
        Language::Rust => env::var_os("RUSTC")
            .map(PathBuf::from)
            .or_else(|| find_program(build.compiler))
            .context("no rustc: install a Rust toolchain"),
        // A script on the path that stands for one of several would be one more process.
        Language::Python if Path::new("/usr/bin/python3").exists() => Ok("/usr/bin/python3".into()),
        _ => need(build.compiler),
    }
}

fn is_newer(program: &Path, source: &Path) -> bool {
    let time = |path: &Path| fs::metadata(path).and_then(|about| about.modified());
    matches!((time(program), time(source)), (Ok(program), Ok(source)) if program > source)
}
