//! C programs that benches and comparisons start, compiled where they run.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result};

use crate::{
    packages::find_program,
    process::{self, say},
};

/// A directory of our own that goes with its owner.
pub struct Directory(pub PathBuf);

impl Directory {
    pub fn new(name: &str) -> Result<Self> {
        let path = std::env::temp_dir().join(format!("procprobe-{name}-{}", std::process::id()));
        fs::create_dir_all(&path).with_context(|| format!("creating {}", path.display()))?;
        Ok(Self(path))
    }

    pub fn write(&self, name: &str, text: &str) -> Result<PathBuf> {
        let path = self.0.join(name);
        fs::write(&path, text).with_context(|| format!("writing {}", path.display()))?;
        Ok(path)
    }

    /// Compiles a program of one file.
    pub fn compile(&self, name: &str, source: &str) -> Result<PathBuf> {
        let file = self.write(&format!("{name}.c"), source)?;
        let program = self.0.join(name);
        let mut gcc = Command::new(need("gcc")?);
        gcc.args(["-O1", "-pthread", "-o"]).arg(&program).arg(&file);
        process::run_quietly(&mut gcc)?;
        Ok(program)
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.0) {
            say(&format!("{} stays: {error}", self.0.display()));
        }
    }
}

/// A program that the tests need too.
pub fn need(name: &str) -> Result<PathBuf> {
    find_program(name).with_context(|| format!("no {name}: run `cargo xtask setup --tests`"))
}

/// `gcc` that compiles a file to nowhere.
pub fn compilation(gcc: &Path, file: &Path) -> Command {
    let mut command = Command::new(gcc);
    command.args(["-O2", "-c", "-o", "/dev/null"]).arg(file);
    command
}

/// A source file that takes the compiler some tenths of a second.
pub fn source() -> String {
    let function = |number: u32| {
        format!(
            "int f{number}(int *a, int n) {{ int s = 0; for (int i = 0; i < n; i++) for (int j = i; j < n; j++) {{ \
             s += a[i] * a[j] ^ (s >> {}); if (s % {} == 0) a[i] = s; }} return s; }}\n",
            number % 7 + 1,
            number % 13 + 2
        )
    };
    (0..60).map(function).collect()
}
