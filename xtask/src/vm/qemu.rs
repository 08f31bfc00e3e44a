//! One boot: QEMU with its serial line on our side, and a limit to how long it may take.

use std::{
    fs::{self, File},
    io::{BufRead, BufReader, Write},
    os::unix::process::CommandExt,
    path::PathBuf,
    process::{Child, ChildStdout, Command, Stdio},
    sync::mpsc::{self, Receiver},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use rustix::process::{Signal, set_parent_process_death_signal};

use super::{
    accel::Accelerator,
    kernels::Kernel,
    plan::Plan,
    verdict::{Ending, Report},
};
use crate::process::say;

/// Some ten times what a guest takes under TCG for the checks alone.
const LIMIT: Duration = Duration::from_secs(180);
/// For each live test on top, which takes ten seconds there on average.
const LIMIT_A_TEST: Duration = Duration::from_secs(20);
/// The live tests' program, its scenes and the shell's world are in the guest's memory too, and so is the copy of the agent
/// that a test makes.
const MEMORY: &str = "3G";
/// Boots of a guest whose kernel panics now and then by the translator's fault.
const ATTEMPTS: u32 = 3;

/// What every guest has in common.
#[derive(Clone)]
pub struct Machine {
    pub initramfs: PathBuf,
    pub accelerator: Accelerator,
    /// Where transcripts go.
    pub logs: PathBuf,
}

impl Machine {
    /// Boots a guest to its verdict; again if the translator was its kernel's death.
    pub fn boot(&self, kernel: &Kernel, name: &str, words: &[&str], plan: &Plan) -> Result<Report> {
        let tests = u32::try_from(plan.run.len()).unwrap_or(u32::MAX);
        let limit = LIMIT + LIMIT_A_TEST.saturating_mul(tests);
        let mut attempt = 1;
        loop {
            let report = self.boot_once(kernel, name, words, plan, limit)?;
            let translator = self.accelerator == Accelerator::Tcg && report.died_of_the_translator();
            if !translator || attempt == ATTEMPTS {
                return Ok(report);
            }
            attempt += 1;
            say(&format!(
                "{name}: panicked by the translator's fault: attempt {attempt} of {ATTEMPTS}"
            ));
        }
    }

    /// Boots a guest and reads its console until it ends, one way or another.
    pub fn boot_once(
        &self,
        kernel: &Kernel,
        name: &str,
        words: &[&str],
        plan: &Plan,
        limit: Duration,
    ) -> Result<Report> {
        let transcript = self.transcript(name)?;
        let mut guest = Guest {
            child: self.command(kernel, words).spawn().context("starting QEMU")?,
        };
        let output = guest.child.stdout.take().context("QEMU without a console")?;
        let lines = read_lines(output);
        Ok(follow(&lines, Report::expecting(plan), transcript, limit))
    }

    fn transcript(&self, name: &str) -> Result<File> {
        fs::create_dir_all(&self.logs).with_context(|| format!("creating {}", self.logs.display()))?;
        let path = self.logs.join(format!("{}.log", name.replace(' ', "-")));
        File::create(&path).with_context(|| format!("creating {}", path.display()))
    }

    fn command(&self, kernel: &Kernel, words: &[&str]) -> Command {
        let mut command = Command::new("qemu-system-x86_64");
        // One CPU until init starts the other: what the kernel rewrites of itself while it boots is then run by nobody
        // else (`guest-init/hold.rs`).
        let line = format!(
            "console=ttyS0 panic=-1 quiet maxcpus=1 noreplace-smp {}",
            words.join(" ")
        );
        command
            .args(self.accelerator.arguments(kernel))
            .args([
                "-m",
                MEMORY,
                "-smp",
                "2",
                "-nographic",
                "-no-reboot",
                "-nic",
                "none",
            ])
            .arg("-kernel")
            .arg(&kernel.image)
            .arg("-initrd")
            .arg(&self.initramfs)
            .args(["-append", &line])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null());
        // SAFETY: one system call, which takes plain numbers.
        unsafe {
            command.pre_exec(|| Ok(set_parent_process_death_signal(Some(Signal::KILL))?));
        }
        command
    }
}

/// A QEMU that does not outlive its owner, whatever that dies of (see [`Machine::command`]).
struct Guest {
    child: Child,
}

impl Drop for Guest {
    fn drop(&mut self) {
        // Fails only for one that has ended, which is what is wanted.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// Lines as they come; the channel closes with the console.
fn read_lines(output: ChildStdout) -> Receiver<String> {
    let (sender, lines) = mpsc::channel();
    thread::spawn(move || {
        for line in BufReader::new(output).split(b'\n').map_while(Result::ok) {
            if sender
                .send(String::from_utf8_lossy(&line).trim_end().to_owned())
                .is_err()
            {
                break;
            }
        }
    });
    lines
}

/// Reads until the console closes or time is up.
fn follow(lines: &Receiver<String>, mut report: Report, mut transcript: File, limit: Duration) -> Report {
    let begun = Instant::now();
    loop {
        let left = limit.saturating_sub(begun.elapsed());
        match lines.recv_timeout(left) {
            Ok(line) => {
                // A transcript that cannot be written must not cost the verdict.
                drop(writeln!(transcript, "{line}"));
                report.line(&line);
            }
            Err(mpsc::RecvTimeoutError::Timeout) => return report.end(Ending::TimedOut(limit)),
            Err(mpsc::RecvTimeoutError::Disconnected) => {
                return report.end(Ending::PoweredOff(begun.elapsed()));
            }
        }
    }
}
