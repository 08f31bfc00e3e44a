//! Runs the binary under test, to its end.

use std::io::Read;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::{Live, patience};

/// No run of the tests takes longer, but where all does.
const PATIENCE: Duration = Duration::from_secs(60);

/// What a run left.
#[derive(Debug)]
pub struct Outcome {
    /// How it ended.
    pub status: ExitStatus,
    /// All of standard output.
    pub stdout: String,
    /// All of standard error.
    pub stderr: String,
}

impl Outcome {
    /// The single line on standard error of a run that failed with `code`.
    ///
    /// # Panics
    /// If it ended otherwise, or said more or less than that.
    pub fn complaint(&self, code: i32) -> &str {
        assert_eq!(self.status.code(), Some(code), "{self:?}");
        assert!(!self.stderr.contains("panicked"), "{self:?}");
        let line = self
            .stderr
            .strip_suffix('\n')
            .expect("a whole line on standard error");
        assert!(
            line.starts_with("procprobe: ") && !line.contains('\n'),
            "{self:?}"
        );
        line
    }
}

/// A child that is killed and reaped when the test is done with it, or has failed.
pub struct Running(pub Child);

impl Running {
    /// Waits for its end.
    ///
    /// # Panics
    /// If it does not come.
    pub fn wait(&mut self) -> ExitStatus {
        let deadline = Instant::now() + patience(PATIENCE);
        loop {
            if let Some(status) = self.0.try_wait().expect("waiting for a child") {
                return status;
            }
            assert!(Instant::now() < deadline, "{:?} does not end", self.0);
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: i32) {
        let pid = i32::try_from(self.0.id()).expect("a pid fits");
        // SAFETY: takes plain numbers; the child is not reaped before it is dropped or waited for, so the pid is its own.
        unsafe { libc::kill(pid, signal) };
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Fails if it has ended already, which is just as well.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Starts a command with its output caught; returns what will have read it all.
pub fn start(command: &mut Command) -> (Running, impl FnOnce(Running) -> Outcome + use<>) {
    let child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let mut running = Running(child.unwrap_or_else(|error| panic!("{command:?}: {error}")));
    let out = collect(running.0.stdout.take());
    let err = collect(running.0.stderr.take());
    let finish = move |mut running: Running| {
        let status = running.wait();
        Outcome {
            status,
            stdout: out.join().expect("reading its output"),
            stderr: err.join().expect("reading its errors"),
        }
    };
    (running, finish)
}

fn collect(stream: Option<impl Read + Send + 'static>) -> std::thread::JoinHandle<String> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut stream) = stream {
            stream.read_to_end(&mut bytes).expect("reading from a child");
        }
        String::from_utf8(bytes).expect("whatever a process is called, the output is UTF-8")
    })
}

/// Runs a command to its end.
pub fn finish(command: &mut Command) -> Outcome {
    let (running, finish) = start(command);
    finish(running)
}

impl Live {
    /// The binary with arguments.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.binary);
        command.args(arguments).env_remove("PROCPROBE_LOG");
        command
    }

    /// Runs the binary to its end.
    pub fn run(&self, arguments: &[&str]) -> Outcome {
        finish(&mut self.command(arguments))
    }

    /// Runs the binary, which has to succeed in silence, and returns its output.
    pub fn text(&self, arguments: &[&str]) -> String {
        let outcome = self.run(arguments);
        assert!(
            outcome.status.success() && outcome.stderr.is_empty(),
            "{arguments:?}: {outcome:?}"
        );
        outcome.stdout
    }

    /// The same for an answer in JSON.
    pub fn json(&self, arguments: &[&str]) -> Value {
        let mut all = arguments.to_vec();
        all.extend(["-o", "json"]);
        let text = self.text(&all);
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{all:?}: {error}: {text}"))
    }
}
