//! Starting the agent: to the end, or beside us until told to stop.

use std::fs::{self, File};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

const AGENT: &str = "/procprobe";
/// Longer than anything should take, shorter than the host waits for the guest.
pub const PATIENCE: Duration = Duration::from_secs(60);
/// Hooks that have to be attached before there is anything to see.
const HOOKS: usize = 7;
/// How long an agent has to have little to do to count as watching.
const CALM: Duration = Duration::from_secs(1);

/// What a finished agent left.
pub struct Finished {
    /// How it ended.
    pub status: ExitStatus,
    /// What it printed.
    pub stdout: String,
    /// What it had to say.
    pub stderr: String,
}

/// Runs the agent to its end.
pub fn run(arguments: &[&str]) -> Result<Finished> {
    let output = Command::new(AGENT)
        .args(arguments)
        .output()
        .context("starting the agent")?;
    Ok(Finished {
        status: output.status,
        stdout: String::from_utf8(output.stdout).context("the agent's output")?,
        stderr: String::from_utf8(output.stderr).context("the agent's messages")?,
    })
}

/// Runs the agent with `-o json`; it has to succeed, and to answer with one object.
pub fn json(arguments: &[&str]) -> Result<Value> {
    let finished = run(&[arguments, &["-o", "json"]].concat())?;
    ensure!(
        finished.status.success(),
        "{} ({}): {}",
        arguments.join(" "),
        finished.status,
        finished.stderr
    );
    let answer = serde_json::from_str(&finished.stdout);
    answer.with_context(|| format!("{}: not one JSON object", arguments.join(" ")))
}

/// An agent that runs beside us; killed when dropped.
pub struct Watching {
    child: Child,
    stdout: &'static str,
}

const STDOUT: &str = "/tmp/stdout";
const STDERR: &str = "/tmp/stderr";

impl Watching {
    /// Starts it.
    pub fn start(arguments: &[&str]) -> Result<Self> {
        let child = Command::new(AGENT)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(File::create(STDOUT).context(STDOUT)?)
            .stderr(File::create(STDERR).context(STDERR)?)
            .spawn()
            .context("starting the agent")?;
        Ok(Self {
            child,
            stdout: STDOUT,
        })
    }

    /// Waits until its hooks are attached and it has nothing to do but wait.
    pub fn wait_until_watching(&mut self) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        let (mut ticks, mut since) = (0, Instant::now());
        while Instant::now() < deadline {
            thread::sleep(Duration::from_millis(50));
            self.expect_running()?;
            if self.links() < HOOKS {
                since = Instant::now();
                ticks = self.ticks()?;
            } else if since.elapsed() >= CALM {
                let now = self.ticks()?;
                // Ticks are hundredths of a second: less than half busy.
                if now - ticks < 50 {
                    return Ok(());
                }
                (ticks, since) = (now, Instant::now());
            }
        }
        bail!("the agent was not ready after {} s", PATIENCE.as_secs())
    }

    /// Fails if it has ended.
    pub fn expect_running(&mut self) -> Result<()> {
        match self.child.try_wait().context("asking after the agent")? {
            Some(status) => bail!("the agent ended early ({status}): {}", said()),
            None => Ok(()),
        }
    }

    /// Its pid.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Tells it to end and returns what it printed; it has to succeed.
    pub fn interrupt(mut self) -> Result<String> {
        self.expect_running()?;
        kill_process(Pid::from_child(&self.child), Signal::INT).context("sending SIGINT")?;
        let status = self.child.wait().context("waiting for the agent")?;
        ensure!(status.success(), "the agent failed ({status}): {}", said());
        fs::read_to_string(self.stdout).context(STDOUT)
    }

    /// Ends it as the out-of-memory killer would.
    pub fn kill(mut self) -> Result<()> {
        self.child.kill().context("killing the agent")?;
        self.child.wait().context("waiting for the agent")?;
        Ok(())
    }

    /// How many hooks it holds.
    fn links(&self) -> usize {
        let descriptors = fs::read_dir(format!("/proc/{}/fd", self.pid()));
        let descriptors = descriptors.into_iter().flatten().flatten();
        descriptors
            .filter_map(|entry| fs::read_link(entry.path()).ok())
            .filter(|link| {
                let link = link.to_string_lossy();
                link.contains("bpf_link") || link.contains("raw-tracepoint")
            })
            .count()
    }

    /// The CPU time it took, in hundredths of a second.
    fn ticks(&self) -> Result<u64> {
        let path = format!("/proc/{}/stat", self.pid());
        let stat = fs::read_to_string(&path).with_context(|| path.clone())?;
        let fields = stat.rsplit_once(')').context("a stat line without a name")?.1;
        let field = |index: usize| fields.split_whitespace().nth(index)?.parse::<u64>().ok();
        // utime and stime, counted from behind the name.
        field(11)
            .zip(field(12))
            .map(|(user, system)| user + system)
            .context("a stat line without times")
    }
}

impl Drop for Watching {
    fn drop(&mut self) {
        // Fails only for one that has ended, which is what is wanted.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn said() -> String {
    fs::read_to_string(STDERR).unwrap_or_default()
}
