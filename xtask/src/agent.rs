//! An agent that is measured: started on a port of its own, asked over HTTP, looked at from outside.

use std::{
    fs,
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use clap::Args;

use crate::{build, environment, process::Background, workspace::Workspace};

/// Loading takes a second on a quiet machine.
const START_LIMIT: Duration = Duration::from_secs(60);
const ANSWER_LIMIT: Duration = Duration::from_secs(30);

/// Which agent is examined.
#[derive(Args)]
pub struct Examined {
    /// Examine this binary instead of building one
    #[arg(long, value_name = "FILE")]
    agent: Option<PathBuf>,
}

impl Examined {
    /// The binary that was named, or the one that is built now.
    pub fn binary(&self, workspace: &Workspace) -> Result<PathBuf> {
        if let Some(named) = &self.agent {
            return Ok(named.clone());
        }
        build::run(workspace)?;
        Ok(workspace.procprobe())
    }
}

/// A running agent; ends with its owner.
pub struct Agent {
    process: Background,
    address: SocketAddr,
}

impl Agent {
    /// Starts it and waits until it is ready.
    pub fn start(binary: &Path, arguments: &[&str]) -> Result<Self> {
        // Free now; the agent says so if somebody else was faster.
        let address = TcpListener::bind("127.0.0.1:0")
            .and_then(|listener| listener.local_addr())
            .context("finding a free port")?;
        let mut command = Command::new(binary);
        command
            .args(["agent", "--listen", &address.to_string()])
            .args(arguments);
        let process = Background::start("procprobe", environment::scrub(&mut command))?;
        let mut agent = Self { process, address };
        let deadline = Instant::now() + START_LIMIT;
        while agent.get("/readyz").is_err() {
            agent.process.expect_running()?;
            ensure!(
                Instant::now() < deadline,
                "the agent was not ready in {} s",
                START_LIMIT.as_secs()
            );
            thread::sleep(Duration::from_millis(50));
        }
        Ok(agent)
    }

    /// The body at a path.
    pub fn get(&self, path: &str) -> Result<String> {
        let mut stream = TcpStream::connect(self.address).context("connecting to the agent")?;
        stream
            .set_read_timeout(Some(ANSWER_LIMIT))
            .context("setting a limit")?;
        // HTTP/1.0: the answer ends with the connection, and comes in one piece.
        write!(stream, "GET {path} HTTP/1.0\r\n\r\n").context("asking the agent")?;
        let mut answer = String::new();
        stream
            .read_to_string(&mut answer)
            .with_context(|| format!("reading {path}"))?;
        match answer.split_once("\r\n\r\n") {
            Some((head, body)) if head.split(' ').nth(1) == Some("200") => Ok(body.to_owned()),
            _ => bail!("{path}: {}", answer.lines().next().unwrap_or("no answer")),
        }
    }

    /// Fails if it has ended.
    pub fn expect_running(&mut self) -> Result<()> {
        self.process.expect_running()
    }

    pub fn pid(&self) -> u32 {
        self.process.child.id()
    }

    /// Resident memory, kB.
    pub fn resident_kb(&self) -> Result<u64> {
        let path = format!("/proc/{}/status", self.pid());
        let status = fs::read_to_string(&path).with_context(|| format!("reading {path}"))?;
        kilobytes(&status, "VmRSS:").with_context(|| format!("{path} has no VmRSS"))
    }

    /// Open descriptors.
    pub fn descriptors(&self) -> Result<usize> {
        let path = format!("/proc/{}/fd", self.pid());
        Ok(fs::read_dir(&path)
            .with_context(|| format!("reading {path}"))?
            .count())
    }

    /// What the kernel says its maps take, kB; ledgers are not in it, which live and die with their threads.
    pub fn maps_kb(&self) -> Result<u64> {
        let path = format!("/proc/{}/fdinfo", self.pid());
        let entries = fs::read_dir(&path).with_context(|| format!("reading {path}"))?;
        let texts = entries
            .flatten()
            .filter_map(|entry| fs::read_to_string(entry.path()).ok());
        // Descriptors of programs have a `memlock` too.
        let maps = texts.filter(|text| text.contains("map_id:"));
        let bytes = |text: String| -> Option<u64> {
            let line = text.lines().find_map(|line| line.strip_prefix("memlock:"))?;
            line.trim().parse().ok()
        };
        Ok(maps.filter_map(bytes).sum::<u64>() / 1024)
    }
}

/// A field of /proc that is in kB.
pub fn kilobytes(text: &str, field: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(field))?;
    line.trim().strip_suffix("kB")?.trim().parse().ok()
}

/// Kernel memory in slabs, kB.
pub fn slab_kb() -> Result<u64> {
    let text = fs::read_to_string("/proc/meminfo").context("reading /proc/meminfo")?;
    kilobytes(&text, "Slab:").context("/proc/meminfo has no Slab")
}

/// The sum of all samples of that name in an exposition.
pub fn sum(exposition: &str, name: &str) -> f64 {
    let values = exposition.lines().filter_map(|line| {
        let rest = line.strip_prefix(name)?;
        rest.starts_with(['{', ' ']).then_some(())?;
        rest.rsplit_once(' ')?.1.parse::<f64>().ok()
    });
    values.sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_are_added_up_by_whole_names() {
        let text = "# TYPE a counter\na{x=\"1 2\"} 3\na 4.5\nab 100\n";
        assert!((sum(text, "a") - 7.5).abs() < 1e-9);
        assert_eq!(kilobytes("VmRSS:\t   12 kB\n", "VmRSS:"), Some(12));
    }
}
