//! Starts scenes of `probe-workload`, waits until they stand, and ends them with all their descendants.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use super::patience;

/// A scene, until dropped.
pub struct Workload {
    /// Its process, which leads a process group of its own.
    pub pid: u32,
    facts: HashMap<String, i64>,
    input: Option<ChildStdin>,
    lines: Receiver<String>,
    _child: Child,
}

/// A spawner of short-lived children, and the other name of the workload's program that they go by.
pub struct Spawner {
    /// The scene.
    pub scene: Workload,
    _directory: tempfile::TempDir,
}

impl Spawner {
    /// The name of its children.
    pub const CHILD: &str = "pp-short";

    /// Starts it.
    pub fn start() -> Self {
        Self::with_children(Self::CHILD)
    }

    /// Starts it with another name for its children.
    ///
    /// # Panics
    /// If it cannot.
    pub fn with_children(name: &str) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let program = directory.path().join(name);
        std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_probe-workload"), &program).expect("a link");
        Self {
            scene: Workload::start(&["spawner", program.to_str().expect("a path in UTF-8")]),
            _directory: directory,
        }
    }

    /// Spawns so many children, one after the other, and returns the CPU time they took by `getrusage`, microseconds.
    pub fn spawn(&mut self, count: u64) -> i64 {
        self.scene.tell(&count.to_string(), "done")["cpu_us"]
    }
}

impl Workload {
    /// Starts a scene and waits until it stands.
    ///
    /// # Panics
    /// If it does not.
    pub fn start(arguments: &[&str]) -> Self {
        Self::begin(Command::new(env!("CARGO_BIN_EXE_probe-workload")).args(arguments))
    }

    /// Starts a scene by a command that becomes one, and waits until it stands.
    ///
    /// # Panics
    /// If it does not.
    pub fn begin(command: &mut Command) -> Self {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .process_group(0)
            .spawn()
            .expect("starting the workload");
        let output = child.stdout.take().expect("its output is a pipe");
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        let mut workload = Self {
            pid: child.id(),
            facts: HashMap::new(),
            input: child.stdin.take(),
            lines,
            _child: child,
        };
        workload.facts = workload.line("ready");
        workload
    }

    /// A number the scene told when it was ready.
    ///
    /// # Panics
    /// If it did not.
    pub fn fact(&self, key: &str) -> u32 {
        let value = self
            .facts
            .get(key)
            .unwrap_or_else(|| panic!("the workload told no {key}"));
        u32::try_from(*value).expect("a pid")
    }

    /// Whether the scene told something of that name.
    pub fn has_fact(&self, key: &str) -> bool {
        self.facts.contains_key(key)
    }

    /// A number of the scene that is larger than a pid, such as an address.
    ///
    /// # Panics
    /// If it told none.
    pub fn large(&self, key: &str) -> u64 {
        let value = self.facts.get(key).copied();
        let value = value.unwrap_or_else(|| panic!("the workload told no {key}"));
        u64::try_from(value).expect("it is not negative")
    }

    /// Tells the scene something and returns the facts of its answer.
    ///
    /// # Panics
    /// If there is no answer within two minutes.
    pub fn tell(&mut self, line: &str, answer: &str) -> HashMap<String, i64> {
        self.send(line);
        self.line(answer)
    }

    /// Sends it a line whose answer is not waited for.
    ///
    /// # Panics
    /// If it has ended.
    pub fn send(&mut self, line: &str) {
        let input = self.input.as_mut().expect("its input is a pipe");
        writeln!(input, "{line}").expect("writing to the workload");
    }

    fn line(&self, word: &str) -> HashMap<String, i64> {
        let line = self
            .lines
            .recv_timeout(patience(Duration::from_secs(120)))
            .expect("a line from the workload");
        let mut words = line.split(' ');
        assert_eq!(words.next(), Some(word), "the workload said {line:?}");
        words
            .filter_map(|fact| fact.split_once('='))
            .map(|(key, value)| (key.to_owned(), value.parse().expect("a number")))
            .collect()
    }
}

impl Drop for Workload {
    fn drop(&mut self) {
        let group = i32::try_from(self.pid).expect("a pid fits");
        // SAFETY: takes plain numbers; the group is the one this workload was given, and lasts until it is reaped here.
        unsafe { libc::kill(-group, libc::SIGKILL) };
        // Its descendants become our children when their parents die.
        // SAFETY: a null pointer asks for no status.
        while unsafe { libc::waitpid(-group, std::ptr::null_mut(), 0) } > 0 {}
    }
}
