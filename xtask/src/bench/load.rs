//! Scenes of `probe-workload`, the program that the live tests use as well.

use std::{
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
};

use anyhow::{Context, Result, ensure};

/// A scene, which ends when dropped.
pub struct Load {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Load {
    /// Starts a scene and waits until it stands.
    pub fn start(program: &Path, scene: &[&str]) -> Result<Self> {
        let mut child = Command::new(program)
            .args(scene)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("starting {}", program.display()))?;
        let input = child.stdin.take().context("its input is not a pipe")?;
        let output = child.stdout.take().context("its output is not a pipe")?;
        let mut load = Self {
            child,
            input,
            output: BufReader::new(output),
        };
        load.expect("ready")?;
        Ok(load)
    }

    /// Tells the scene something and waits until it has done so.
    pub fn tell(&mut self, line: &str) -> Result<()> {
        writeln!(self.input, "{line}").context("writing to the workload")?;
        self.expect("done")
    }

    fn expect(&mut self, word: &str) -> Result<()> {
        let mut line = String::new();
        self.output
            .read_line(&mut line)
            .context("reading from the workload")?;
        ensure!(line.starts_with(word), "the workload said {line:?}, not {word}");
        Ok(())
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        // Its children die with it. Fails only if it has ended already, which is what is wanted.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
