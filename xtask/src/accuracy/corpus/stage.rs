//! A scene that is played: the program, what it says of itself, its processes; and what else keeps the
//! machine busy.

use std::{
    collections::HashSet,
    fs,
    io::{BufRead, BufReader},
    os::unix::process::CommandExt,
    process::{Child, ChildStdout, Command, Stdio},
};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process_group};

use super::{
    matrix::{Cell, Place},
    programs::{BUILDS, Programs},
    truth::{Line, Truth},
};
use crate::programs::need;

/// What a thread calls itself when the scene is not what was said.
const FAILED: &str = "xfailed";
/// An argument that has a program start threads that do nothing.
const CROWD: &str = "crowd";

/// A program with all its processes, which end with their owner.
struct Program {
    child: Child,
    output: Option<BufReader<ChildStdout>>,
}

impl Program {
    fn start(words: &[&std::path::Path]) -> Result<Self> {
        let [program, arguments @ ..] = words else {
            bail!("no program to start")
        };
        let mut command = Command::new(program);
        command
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped());
        // A group of its own, by which all of its processes are known.
        let mut child = command
            .process_group(0)
            .spawn()
            .with_context(|| format!("starting {}", program.display()))?;
        let output = child.stdout.take().map(BufReader::new);
        Ok(Self { child, output })
    }

    /// Reads what it says of itself until the scene stands; why it does not play, if so.
    fn listen(&mut self, truth: &mut Truth) -> Result<Option<String>> {
        let output = self.output.take().context("a program without output")?;
        for line in output.lines() {
            let line = line.context("reading from a program of the corpus")?;
            match truth.read(&line)? {
                Line::More => {}
                Line::Ready => return Ok(None),
                Line::Without(why) => return Ok(Some(why)),
            }
        }
        bail!("a program of the corpus ended before its scene stood")
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // Fails only if all have ended already, which is what is wanted.
        let _gone = kill_process_group(Pid::from_child(&self.child), Signal::KILL);
        drop(self.child.wait());
    }
}

/// A scene that stands.
pub struct Scene {
    pub cell: Cell,
    pub truth: Truth,
    program: Program,
}

/// A scene that is about to stand.
pub struct Beginning {
    cell: Cell,
    program: Program,
}

impl Beginning {
    pub fn new(programs: &Programs, cell: Cell) -> Result<Self> {
        let mut words = Vec::new();
        if cell.place == Place::Namespace {
            words.push(need("unshare")?);
            words.extend(["--pid", "--fork", "--kill-child"].map(Into::into));
        }
        words.extend(programs.command(cell.build)?);
        words.extend([cell.protocol, cell.scene].map(Into::into));
        if cell.place == Place::Namespace {
            words.push(CROWD.into());
        }
        let words: Vec<_> = words.iter().map(std::path::PathBuf::as_path).collect();
        let program = Program::start(&words).with_context(|| cell.name())?;
        Ok(Self { cell, program })
    }

    /// Waits until it stands; `None` if this library has no such scene.
    pub fn stand(mut self) -> Result<Option<Scene>> {
        let mut truth = Truth::default();
        let without = self.program.listen(&mut truth);
        if without.with_context(|| self.cell.name())?.is_some() {
            return Ok(None);
        }
        if self.cell.build.name == "rust-stripped" {
            truth.without_symbols(self.cell.protocol);
        }
        Ok(Some(Scene {
            cell: self.cell,
            truth,
            program: self.program,
        }))
    }
}

impl Scene {
    /// Its processes.
    pub fn pids(&self) -> HashSet<u32> {
        let group = self.program.child.id();
        let Ok(entries) = fs::read_dir("/proc") else {
            return HashSet::new();
        };
        let names = entries.flatten().map(|entry| entry.file_name());
        let pids = names.filter_map(|name| name.to_str()?.parse::<u32>().ok());
        pids.filter(|pid| group_of(*pid) == Some(group)).collect()
    }

    /// Fails if the scene is not what was said, or over.
    pub fn check(&self) -> Result<()> {
        let pids = self.pids();
        for pid in &pids {
            let tasks = fs::read_dir(format!("/proc/{pid}/task"));
            let names = tasks.into_iter().flatten().flatten();
            let names = names.filter_map(|task| fs::read_to_string(task.path().join("comm")).ok());
            if names.into_iter().any(|name| name.trim() == FAILED) {
                bail!("{}: the scene failed", self.cell.name());
            }
        }
        if pids.is_empty() {
            bail!("{}: the scene is over", self.cell.name());
        }
        Ok(())
    }
}

/// The process group of a process.
fn group_of(pid: u32) -> Option<u32> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // Behind the name: state, parent, group.
    stat.rsplit_once(')')?
        .1
        .split_ascii_whitespace()
        .nth(2)?
        .parse()
        .ok()
}

/// Programs that leave nobody a CPU for long: one for each.
pub struct Hogs {
    _programs: Vec<Program>,
}

impl Hogs {
    pub fn start(programs: &Programs) -> Result<Self> {
        let [build, ..] = &BUILDS;
        programs.make(build)?;
        let words = programs.command(build)?;
        let arguments = ["hog", "busy"].map(std::path::Path::new);
        let words: Vec<_> = words
            .iter()
            .map(std::path::PathBuf::as_path)
            .chain(arguments)
            .collect();
        let cpus = std::thread::available_parallelism().context("counting CPUs")?;
        let start = |_| {
            let mut hog = Program::start(&words)?;
            hog.listen(&mut Truth::default())?;
            Ok(hog)
        };
        Ok(Self {
            _programs: (0..cpus.get()).map(start).collect::<Result<_>>()?,
        })
    }
}
