//! What the checks watch: this binary started again, playing a part.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::process::{Child, ChildStdout, Command, ExitCode, Stdio};
use std::time::Duration;
use std::{process, thread};

use anyhow::{Context, Result};
use rustix::process::{Pid, Signal, kill_process};

/// The code that [`EXITS`] ends with.
pub const EXIT_CODE: u8 = 7;

/// Sleeps for good.
pub const SLEEPS: &str = "sleeps";
/// Ends with [`EXIT_CODE`].
pub const EXITS: &str = "exits";
/// Runs into an instruction that there is not, so that the kernel sends it SIGILL.
pub const FAULTS: &str = "faults";
/// Sends SIGKILL to the pid it is given.
pub const KILLS: &str = "kills";
/// Starts a child that ends at once, says its pid, and never waits for it.
pub const NEGLECTS: &str = "neglects";
/// Starts [`ECHOES`], says its pid, and for every number it reads plays as many rounds with it, then says so.
pub const SERVES: &str = "serves";
/// Sends every byte back.
pub const ECHOES: &str = "echoes";

/// A command that plays a part.
pub fn command(part: &str) -> Command {
    let mut command = Command::new("/init");
    command.arg(part);
    command
}

/// A running actor; killed and waited for when dropped.
pub struct Actor {
    /// The process.
    pub child: Child,
    says: BufReader<ChildStdout>,
}

impl Actor {
    /// Starts one. It can be talked to through its pipes.
    pub fn start(part: &str) -> Result<Self> {
        let mut child = command(part)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("starting the actor that {part}"))?;
        let says = child.stdout.take().context("an actor without stdout")?;
        let says = BufReader::new(says);
        Ok(Self { child, says })
    }

    /// Its pid.
    pub fn pid(&self) -> u64 {
        u64::from(self.child.id())
    }

    /// The next number it says.
    pub fn number(&mut self) -> Result<u64> {
        let mut line = String::new();
        self.says.read_line(&mut line).context("reading from an actor")?;
        line.trim()
            .parse()
            .with_context(|| format!("an actor said {line:?}"))
    }

    /// Tells it a number.
    pub fn tell(&mut self, number: u64) -> Result<()> {
        let input = self.child.stdin.as_mut().context("an actor without stdin")?;
        writeln!(input, "{number}").context("writing to an actor")
    }
}

impl Drop for Actor {
    fn drop(&mut self) {
        // Fails only for one that has ended, which is what is wanted.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// Plays a part.
pub fn run(part: &str, argument: Option<&str>) -> ExitCode {
    let outcome = match part {
        SLEEPS => sleep_for_good(),
        EXITS => process::exit(i32::from(EXIT_CODE)),
        FAULTS => fault(),
        KILLS => kill(argument),
        NEGLECTS => neglect(),
        SERVES => serve(),
        ECHOES => echo(),
        _ => Err(anyhow::anyhow!("no such part")),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("actor that {part}: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn sleep_for_good() -> Result<()> {
    loop {
        thread::sleep(Duration::from_secs(3600));
    }
}

fn fault() -> Result<()> {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: does nothing but fault.
    unsafe {
        std::arch::asm!("ud2");
    };
    anyhow::bail!("nothing came of the fault")
}

fn kill(argument: Option<&str>) -> Result<()> {
    let pid = argument.context("kills whom?")?.parse()?;
    let pid = Pid::from_raw(pid).context("pid 0")?;
    kill_process(pid, Signal::KILL).context("sending SIGKILL")
}

fn neglect() -> Result<()> {
    let child = command(EXITS).spawn().context("starting a child")?;
    println!("{}", child.id());
    sleep_for_good()
}

fn serve() -> Result<()> {
    let mut partner = Actor::start(ECHOES)?;
    println!("{}", partner.pid());
    for line in io::stdin().lock().lines() {
        let rounds: u64 = line?.trim().parse()?;
        let input = partner.child.stdin.as_mut().context("an actor without stdin")?;
        for _ in 0..rounds {
            input.write_all(b"x")?;
            partner.says.read_exact(&mut [0])?;
        }
        println!("{rounds}");
    }
    Ok(())
}

fn echo() -> Result<()> {
    let (mut input, mut output) = (io::stdin().lock(), io::stdout().lock());
    let mut byte = [0];
    loop {
        if input.read(&mut byte)? == 0 {
            return Ok(());
        }
        output.write_all(&byte)?;
        output.flush()?;
    }
}
