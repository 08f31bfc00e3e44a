//! A real Prometheus that scrapes every second, and evaluates rules.

use std::fs::{self, File};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::Value;

use super::agent::{get, try_get};
use super::eventually;
use super::json::list;
use super::probe::Running;

/// A server, until dropped.
pub struct Prometheus {
    _running: Running,
    _directory: tempfile::TempDir,
    address: String,
}

impl Prometheus {
    /// Starts it with targets of one job and the texts of rule files.
    ///
    /// # Panics
    /// If it does not become ready.
    pub fn start(program: &Path, targets: &[&str], rules: &[String]) -> Self {
        Self::start_with(program, targets, rules, &[])
    }

    /// The same, with flags.
    ///
    /// # Panics
    /// If it does not become ready.
    pub fn start_with(program: &Path, targets: &[&str], rules: &[String], flags: &[&str]) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let config = directory.path().join("prometheus.yml");
        let mut text = format!(
            "global: {{scrape_interval: 1s}}\nscrape_configs:\n- job_name: procprobe\n  static_configs: [{{targets: {targets:?}}}]\n\
             rule_files:\n"
        );
        for (number, rules) in rules.iter().enumerate() {
            let name = format!("rules{number}.yml");
            fs::write(directory.path().join(&name), rules).expect("writing its rules");
            text.push_str(&format!("- {name}\n"));
        }
        fs::write(&config, text).expect("writing its configuration");
        let port = TcpListener::bind("127.0.0.1:0")
            .and_then(|socket| socket.local_addr())
            .expect("a free port");
        let log = File::create(directory.path().join("log")).expect("its log");
        let data = directory.path().join("data");
        let child = Command::new(program)
            .arg(format!("--config.file={}", config.display()))
            .arg(format!("--storage.tsdb.path={}", data.display()))
            .arg(format!("--web.listen-address={port}"))
            .args(flags)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn();
        let running = Running(child.expect("starting prometheus"));
        let address = port.to_string();
        eventually("prometheus to be ready", || try_get(&address, "/-/ready").is_ok());
        Self {
            _running: running,
            _directory: directory,
            address,
        }
    }

    /// The series of a query.
    ///
    /// # Panics
    /// If it does not parse or cannot be evaluated.
    pub fn query(&self, query: &str) -> Vec<Value> {
        let mut encoded = String::new();
        for byte in query.bytes() {
            encoded.push_str(&format!("%{byte:02X}"));
        }
        let answer = try_get(&self.address, &format!("/api/v1/query?query={encoded}"));
        let answer = answer.unwrap_or_else(|error| panic!("{query}: {error}"));
        let answer: Value = serde_json::from_str(&answer).expect("JSON from prometheus");
        assert_eq!(answer["status"], "success", "{query}: {answer}");
        list(&answer["data"], "result").to_vec()
    }

    /// What it says about the rules that it evaluates, each with its health.
    pub fn rules(&self) -> Vec<Value> {
        let answer = get(&self.address, "/api/v1/rules");
        let answer: Value = serde_json::from_str(&answer).expect("JSON from prometheus");
        let groups = list(&answer["data"], "groups").iter();
        groups.flat_map(|group| list(group, "rules").to_vec()).collect()
    }
}
