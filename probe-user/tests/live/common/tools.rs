//! Programs of others that judge our output: promtool, prometheus, bpftool.

use std::env;
use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use super::{not_run, skipped};

/// A program on the path; `None`, with a line that says so, if it is missing and may be. It may where live tests need not
/// run, and where `PROCPROBE_WITHOUT` names it: in a guest that has no room for it.
///
/// # Panics
/// If it is missing and may not be.
pub fn find(test: &str, program: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let sbin = ["/usr/sbin", "/sbin"].map(PathBuf::from);
    let found = env::split_paths(&path)
        .chain(sbin)
        .map(|directory| directory.join(program))
        .find(|file| file.is_file());
    if found.is_none() {
        let why = format!("no {program} on the path (`cargo xtask setup --tests` finds or unpacks it)");
        let without = env::var("PROCPROBE_WITHOUT").unwrap_or_default();
        if without.split(',').any(|name| name == program) {
            skipped(test, &why);
        } else {
            not_run(test, &why);
        }
    }
    found
}

/// Lets `promtool check metrics` judge a scrape.
///
/// # Panics
/// If it finds anything.
pub fn check_metrics(promtool: &PathBuf, text: &str) {
    let mut child = Command::new(promtool)
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("starting promtool");
    let mut input = child.stdin.take().expect("its input is a pipe");
    input.write_all(text.as_bytes()).expect("writing to promtool");
    drop(input);
    let output = child.wait_with_output().expect("waiting for promtool");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success() && said.trim().is_empty(),
        "promtool: {said}"
    );
}
