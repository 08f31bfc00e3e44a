//! Keeps an agent running on a port of its own and asks it over HTTP.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::Value;

use super::exposition::Exposition;
use super::probe::Running;
use super::{Live, patience};

/// An agent that serves, until dropped.
pub struct Agent {
    /// The process.
    pub running: Running,
    /// Where it serves.
    pub address: String,
    log: Arc<Mutex<String>>,
}

impl Agent {
    /// Starts it and waits until it serves. Everything is told over TCP, and no socket is made: other agents
    /// may run.
    ///
    /// # Panics
    /// If it does not.
    pub fn start(live: &Live, arguments: &[&str]) -> Self {
        let mut command = live.command(&["agent", "--listen", "127.0.0.1:0", "--socket", "none"]);
        command.arg("--expose-details").args(arguments);
        Self::begin(command)
    }

    /// The same with a configuration.
    ///
    /// # Panics
    /// If it does not.
    pub fn with_config(live: &Live, text: &str) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let config = directory.path().join("p.toml");
        std::fs::write(&config, text).expect("writing a configuration");
        Self::start(live, &["--config", config.to_str().expect("UTF-8")])
    }

    /// The same with a command of the caller's.
    ///
    /// # Panics
    /// If it does not serve.
    pub fn begin(mut command: Command) -> Self {
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        let mut running = Running(command.spawn().expect("starting the agent"));
        let errors = BufReader::new(running.0.stderr.take().expect("its errors are a pipe"));
        let log = Arc::new(Mutex::new(String::new()));
        let (sender, served) = channel();
        let kept = Arc::clone(&log);
        std::thread::spawn(move || {
            for line in errors.lines().map_while(Result::ok) {
                let address = line
                    .split_once("://")
                    .and_then(|(_, rest)| rest.split_once("/metrics"));
                if let Some((address, _)) = address {
                    let _ = sender.send(address.to_owned());
                }
                kept.lock()
                    .expect("nobody panics with it")
                    .push_str(&format!("{line}\n"));
            }
        });
        let address = served.recv_timeout(patience(Duration::from_secs(30)));
        let address = address.unwrap_or_else(|_| panic!("the agent does not serve: {:?}", log.lock()));
        Self {
            running,
            address,
            log,
        }
    }

    /// What it wrote to standard error so far.
    pub fn log(&self) -> String {
        self.log.lock().expect("nobody panics with it").clone()
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.running.0.id()
    }

    /// The body at a path.
    pub fn get(&self, path: &str) -> String {
        get(&self.address, path)
    }

    /// Every thread, with its times.
    pub fn tree(&self) -> Value {
        serde_json::from_str(&self.get("/api/v1/tree")).expect("JSON")
    }

    /// Who does not reap.
    pub fn zombies(&self) -> Value {
        serde_json::from_str(&self.get("/api/v1/zombies")).expect("JSON")
    }

    /// Who lost a parent.
    pub fn orphans(&self) -> Value {
        serde_json::from_str(&self.get("/api/v1/orphans")).expect("JSON")
    }

    /// Who waits for whom.
    pub fn locks(&self) -> Value {
        serde_json::from_str(&self.get("/api/v1/locks")).expect("JSON")
    }

    /// What Prometheus would scrape.
    pub fn metrics(&self) -> Exposition {
        Exposition::parse(&self.get("/metrics"))
    }

    /// Ends it as a service manager would.
    ///
    /// # Panics
    /// If it does not end well.
    pub fn stop(mut self) {
        self.running.signal(libc::SIGTERM);
        let status = self.running.wait();
        let log = self.log();
        assert!(status.success() && !log.contains("panicked"), "{status}: {log}");
    }
}

impl Drop for Agent {
    /// What it wrote helps whoever reads of a failure.
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the agent wrote:\n{}", self.log());
        }
    }
}

/// The body of a page that is there.
///
/// # Panics
/// If it is not.
pub fn get(address: &str, path: &str) -> String {
    try_get(address, path).unwrap_or_else(|error| panic!("GET http://{address}{path}: {error}"))
}

/// The body of a page, or why there is none.
///
/// # Errors
/// The connection's, or the whole answer if its status is not 200.
pub fn try_get(address: &str, path: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(patience(Duration::from_secs(30))))?;
    // HTTP/1.0: the answer ends with the connection, and comes in one piece.
    write!(stream, "GET {path} HTTP/1.0\r\nHost: {address}\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    match answer.split_once("\r\n\r\n") {
        Some((head, body)) if head.starts_with("HTTP/1.0 200") || head.starts_with("HTTP/1.1 200") => {
            Ok(body.to_owned())
        }
        _ => Err(std::io::Error::other(answer)),
    }
}
