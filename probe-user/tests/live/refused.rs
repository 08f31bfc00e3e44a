//! The kernel refuses one of the calls that load and attach the programs, each in turn: the error says which and why, and
//! nothing stays behind.

use std::process::Command;

use crate::common::probe::{self, Outcome};
use crate::common::{Live, is_full, note, repeated, tools};
use crate::leftovers::{KINDS, all};

/// More calls than any kernel makes it take.
const MOST: usize = 200;

/// Runs the binary with its `nth` call of `bpf(2)` failing; strace does that, and counts.
fn with_failing(live: &Live, strace: &std::path::Path, nth: usize, arguments: &[&str]) -> Outcome {
    let mut command = Command::new(strace);
    command
        .args(["-f", "-qq", "-o", "/dev/null", "-e", "trace=bpf", "-e"])
        .arg(format!("inject=bpf:error=EPERM:when={nth}"))
        .arg(&live.binary)
        .args(arguments);
    probe::finish(&mut command)
}

/// How many calls it makes when nothing fails.
fn calls(live: &Live, strace: &std::path::Path, arguments: &[&str]) -> usize {
    let directory = tempfile::tempdir().expect("a directory");
    let log = directory.path().join("log");
    let mut command = Command::new(strace);
    command
        .args(["-f", "-qq", "-e", "trace=bpf", "-o"])
        .arg(&log)
        .arg(&live.binary)
        .args(arguments);
    let outcome = probe::finish(&mut command);
    assert!(outcome.status.success(), "{outcome:?}");
    let log = std::fs::read_to_string(&log).expect("what strace wrote");
    log.lines().filter(|line| line.contains(" bpf(")).count()
}

/// A verb that uses everything there is.
const ARGUMENTS: [&str; 5] = ["states", "--for", "50ms", "-o", "json"];

#[test]
fn each_refused_call_is_one_line_and_leaves_nothing() {
    let Some(live) = Live::begin("refused calls") else {
        return;
    };
    let (Some(strace), Some(bpftool)) = (
        tools::find("refused calls", "strace"),
        tools::find("refused calls", "bpftool"),
    ) else {
        return;
    };
    let calls = calls(&live, &strace, &ARGUMENTS);
    assert!((20..MOST).contains(&calls), "{calls} calls of bpf(2)");
    let before = KINDS.map(|kind| all(&bpftool, kind));
    let (mut refused, mut survived) = (0, 0);
    let looks = if is_full() { calls } else { calls.div_ceil(3) };
    for nth in (1..=calls).step_by(calls.div_ceil(repeated(looks as u64) as usize)) {
        let outcome = with_failing(&live, &strace, nth, &ARGUMENTS);
        if outcome.status.success() {
            // A question about what this kernel can, or a program it can do without.
            survived += 1;
            continue;
        }
        refused += 1;
        let line = outcome.complaint(1);
        // If it was a question, the answer is taken for a no, and another call fails for that reason.
        let is_about = ["eBPF", "task iterator", "map"]
            .iter()
            .any(|what| line.contains(what));
        assert!(is_about && line.contains("(os error "), "call {nth}: {line}");
    }
    note(&format!(
        "{calls} calls: {refused} refusals ended it, {survived} did not"
    ));
    // Some of the calls are questions about what this kernel can.
    assert!(
        refused * 4 >= refused + survived,
        "{refused} refusals, {survived} survived"
    );
    for (kind, before) in KINDS.iter().zip(before) {
        crate::common::eventually(&format!("no {kind} left"), || {
            all(&bpftool, kind).is_subset(&before)
        });
    }
}
