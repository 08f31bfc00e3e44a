//! Listens to `procprobe events` while a test makes them happen.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};

use serde_json::Value;

use super::json::{id, text};
use super::probe::Running;
use super::{Live, eventually};

/// A stream of events, until dropped.
pub struct Stream {
    running: Running,
    events: Arc<Mutex<Vec<Value>>>,
}

impl Stream {
    /// Begins to listen. What happens in the first moments may be missed: see [`Self::hears`].
    pub fn start(live: &Live) -> Self {
        Self::run(live.command(&["events", "-o", "json"]))
    }

    /// The same with a command of the caller's.
    pub fn run(mut command: Command) -> Self {
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        let mut running = Running(command.spawn().expect("starting the stream"));
        let lines = BufReader::new(running.0.stdout.take().expect("its output is a pipe"));
        let events = Arc::new(Mutex::new(Vec::new()));
        let kept = Arc::clone(&events);
        std::thread::spawn(move || {
            for line in lines.lines().map_while(Result::ok) {
                let event = serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"));
                kept.lock().expect("nobody panics with it").push(event);
            }
        });
        Self { running, events }
    }

    /// The same, and waits until it does listen: processes that come and go until one is heard of.
    pub fn listening(live: &Live) -> Self {
        Self::start(live).once_it_listens()
    }

    /// Waits until it does listen.
    #[must_use]
    pub fn once_it_listens(self) -> Self {
        eventually("the stream to begin", || {
            let mut canary = Command::new("true").spawn().expect("starting `true`");
            let pid = canary.id();
            canary.wait().expect("waiting for `true`");
            self.hears(pid, "exit")
        });
        self
    }

    /// Waits for an event, and returns it.
    ///
    /// # Panics
    /// If it does not come within ten seconds.
    pub fn expect(&self, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let mut found = None;
        eventually(what, || {
            found = self.select(&wanted).pop();
            found.is_some()
        });
        found.expect("waited for just now")
    }

    /// Events so far that a test wants.
    pub fn select(&self, wanted: impl Fn(&Value) -> bool) -> Vec<Value> {
        let events = self.events.lock().expect("nobody panics with it");
        events.iter().filter(|event| wanted(event)).cloned().collect()
    }

    /// What happened to a process so far.
    pub fn of(&self, pid: u32) -> Vec<Value> {
        self.select(|event| id(event, "pid") == pid)
    }

    /// Waits until the exit of a process has come.
    pub fn await_exit(&self, pid: u32) {
        eventually(&format!("the exit of {pid}"), || {
            self.of(pid).iter().any(|event| text(event, "event") == "exit")
        });
    }

    /// Whether an event of a process comes within half a second.
    pub fn hears(&self, pid: u32, name: &str) -> bool {
        (0..25).any(|_| {
            std::thread::sleep(std::time::Duration::from_millis(20));
            self.of(pid).iter().any(|event| text(event, "event") == name)
        })
    }

    /// Ends it; whether nothing was lost.
    pub fn stop(mut self) -> bool {
        self.running.signal(libc::SIGINT);
        self.running.wait().success()
    }
}
