//! Running other programs: as root, within a limit, beside us; failures are one line.

use std::{
    io,
    os::{fd::AsFd, unix::process::CommandExt},
    path::Path,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, geteuid, kill_process, kill_process_group};

const POLL: Duration = Duration::from_millis(50);

/// Tells the user something; stdout stays free for what a verb runs.
pub fn say(line: &str) {
    eprintln!("xtask: {line}");
}

/// Whether this process may do what root may.
pub fn is_root() -> bool {
    geteuid().is_root()
}

/// A command that runs as root: directly, or through sudo.
pub fn as_root(program: impl AsRef<Path>) -> Result<Command> {
    let program = program.as_ref();
    if is_root() {
        return Ok(Command::new(program));
    }
    let sudo = which::which("sudo").with_context(|| {
        format!(
            "{} needs root and there is no sudo: run this as root",
            program.display()
        )
    })?;
    let mut command = Command::new(sudo);
    command.arg("--").arg(program);
    Ok(command)
}

/// Whether root is within reach, so that something else can be tried first when it is not.
pub fn can_become_root() -> bool {
    is_root() || which::which("sudo").is_ok()
}

/// Runs to the end; what the command prints is the user's to see.
pub fn run(command: &mut Command) -> Result<()> {
    let shown = shown(command);
    let status = command.status().with_context(|| format!("starting `{shown}`"))?;
    if !status.success() {
        bail!("`{shown}` failed ({status}): see its output above");
    }
    Ok(())
}

/// Like [`run`], with the command's stdout sent to stderr.
pub fn run_on_stderr(command: &mut Command) -> Result<()> {
    let stderr = io::stderr()
        .as_fd()
        .try_clone_to_owned()
        .context("duplicating stderr")?;
    run(command.stdout(Stdio::from(stderr)))
}

/// Runs to the end; what the command prints is of interest only if it fails.
pub fn run_quietly(command: &mut Command) -> Result<()> {
    let shown = shown(command);
    let output = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("starting `{shown}`"))?;
    if !output.status.success() {
        eprint!(
            "{}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
        bail!("`{shown}` failed ({}): see its output above", output.status);
    }
    Ok(())
}

/// Runs to the end and returns stdout; stderr is part of the error if it fails.
pub fn output(command: &mut Command) -> Result<String> {
    let shown = shown(command);
    let output = command.output().with_context(|| format!("starting `{shown}`"))?;
    if !output.status.success() {
        bail!(
            "`{shown}` failed ({}): {}",
            output.status,
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    String::from_utf8(output.stdout).with_context(|| format!("`{shown}` printed something that is not UTF-8"))
}

/// Runs on stderr for at most `limit`: for steps that reach for a network that may swallow packets.
pub fn run_within(command: &mut Command, limit: Duration) -> Result<()> {
    let shown = shown(command);
    let stderr = io::stderr()
        .as_fd()
        .try_clone_to_owned()
        .context("duplicating stderr")?;
    // Its own process group, so that the limit also ends what it started.
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::from(stderr))
        .process_group(0)
        .spawn()
        .with_context(|| format!("starting `{shown}`"))?;
    let deadline = Instant::now() + limit;
    loop {
        if let Some(status) = child
            .try_wait()
            .with_context(|| format!("waiting for `{shown}`"))?
        {
            return if status.success() {
                Ok(())
            } else {
                bail!("`{shown}` failed ({status})")
            };
        }
        if Instant::now() >= deadline {
            let ended = kill_process_group(pid(&child), Signal::KILL);
            child.wait().with_context(|| format!("waiting for `{shown}`"))?;
            ended.with_context(|| format!("ending `{shown}`"))?;
            bail!("`{shown}` gave no answer in {} s", limit.as_secs());
        }
        thread::sleep(POLL);
    }
}

/// A child that does not outlive its owner: asked to end, then made to.
pub struct Background {
    pub child: Child,
    pub name: String,
}

impl Background {
    /// Starts the command; its stdout is not shown.
    pub fn start(name: &str, command: &mut Command) -> Result<Self> {
        let child = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            // Ctrl-C is for the one that waits; it then ends this one in order.
            .process_group(0)
            .spawn()
            .with_context(|| format!("starting {name} (`{}`)", shown(command)))?;
        Ok(Self {
            child,
            name: name.to_owned(),
        })
    }

    /// Fails if the child has ended on its own.
    pub fn expect_running(&mut self) -> Result<()> {
        match self
            .child
            .try_wait()
            .with_context(|| format!("asking after {}", self.name))?
        {
            Some(status) => bail!("{} ended early ({status}): see its output above", self.name),
            None => Ok(()),
        }
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        let asked = Instant::now();
        if kill_process(pid(&self.child), Signal::TERM).is_ok() {
            while asked.elapsed() < Duration::from_secs(5) {
                if !matches!(self.child.try_wait(), Ok(None)) {
                    return;
                }
                thread::sleep(POLL);
            }
            say(&format!(
                "{} did not end within 5 s of SIGTERM: killing it",
                self.name
            ));
        }
        // Fails only for a child that is gone already, which is what is wanted.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn pid(child: &Child) -> Pid {
    Pid::from_child(child)
}

fn shown(command: &Command) -> String {
    let mut line = command.get_program().to_string_lossy().into_owned();
    for argument in command.get_args() {
        line.push(' ');
        line.push_str(&argument.to_string_lossy());
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_silent_command_is_cut_off() {
        let error = run_within(Command::new("sleep").arg("30"), Duration::from_millis(100)).unwrap_err();
        assert!(error.to_string().contains("gave no answer"), "{error}");
    }
}
