//! What bad input and bad hosts get: one line with what, why and what to do, the right exit code, never a panic.

use std::fs;
use std::io::{BufRead, BufReader};
use std::process::Stdio;

use crate::common::agent::Agent;
use crate::common::probe::{self, Running};
use crate::common::reachable::Reachable;
use crate::common::workload::Workload;
use crate::common::{Live, eventually, procfs};

/// More than any kernel gives out.
const NO_PID: &str = "4194305";

#[test]
fn without_privileges_one_line_says_what_is_missing_and_what_works() {
    let Some(live) = Live::begin("no privileges") else {
        return;
    };
    let binary = Reachable::new(&live);
    for arguments in [
        &["tree"][..],
        &["states", "--for", "100ms"],
        &["events", "--for", "100ms"],
        &["agent", "--listen", "127.0.0.1:0"],
        &["tree", "--source", "bpf", "-o", "json"],
    ] {
        let outcome = binary.as_nobody(arguments);
        let line = outcome.complaint(1);
        assert!(
            line.contains("CAP_BPF") && line.contains("sudo") && line.contains("--source proc"),
            "{line}"
        );
        assert_eq!(outcome.stdout, "", "{arguments:?}");
    }
    let outcome = binary.as_nobody(&["tree", "--source", "proc", "-o", "json"]);
    assert!(
        outcome.status.success() && outcome.stderr.is_empty(),
        "{outcome:?}"
    );
    assert!(
        outcome.stdout.contains("\"source\":\"proc\""),
        "{}",
        outcome.stdout
    );
    let outcome = binary.as_nobody(&["states", "--source", "proc"]);
    assert!(
        outcome.status.success() && outcome.stderr.is_empty(),
        "{outcome:?}"
    );
    let outcome = binary.as_nobody(&["doctor"]);
    assert!(outcome.complaint(1).contains("failed"), "{outcome:?}");
    assert!(outcome.stdout.contains("CAP_BPF"), "{outcome:?}");
}

#[test]
fn who_is_not_there_is_named() {
    let Some(live) = Live::begin("no such process") else {
        return;
    };
    let scene = Workload::start(&["threads", "2"]);
    let tids = fs::read_dir(format!("/proc/{}/task", scene.pid)).expect("its threads");
    let tids = tids
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok());
    let tid = tids
        .into_iter()
        .find(|tid| *tid != scene.pid.to_string())
        .expect("a second thread");
    for source in ["bpf", "proc"] {
        let outcome = live.run(&["tree", NO_PID, "--source", source]);
        assert!(
            outcome.complaint(1).contains(&format!("no process {NO_PID}")),
            "{outcome:?}"
        );
        let outcome = live.run(&["tree", &tid, "--source", source]);
        let line = outcome.complaint(1);
        assert!(
            line.contains(&format!("thread of process {}", scene.pid)),
            "{line}"
        );
    }
    let outcome = live.run(&["states", "--for", "100ms", "--pid", NO_PID]);
    assert!(
        outcome.complaint(1).contains(&format!("no process {NO_PID}")),
        "{outcome:?}"
    );
}

#[test]
fn wrong_arguments_get_one_line_and_exit_code_2() {
    let Some(live) = Live::begin("wrong arguments") else {
        return;
    };
    for arguments in [
        &["states", "--for", "10x"][..],
        &["states", "--for", "0s"],
        &["states", "--for", ""],
        &["states", "--for", "-1s"],
        &["states", "--by", "colour"],
        &["frobnicate"],
        &["tree", "--frobnicate"],
        &["tree", "init"],
        &["tree", "-1"],
        &["tree", "99999999999"],
        &["tree", "-o", "yaml"],
        &["agent", "--listen", "nowhere"],
        &["agent", "--max-groups", "0"],
        &["tree", "1", "2"],
        &["tree", "\u{1b}[31m"],
    ] {
        live.run(arguments).complaint(2);
    }
    let outcome = live.run(&["states", "--for", "10x"]);
    let line = outcome.complaint(2);
    assert!(
        line.contains("10x") && line.contains("not a duration") && line.contains("10s"),
        "{line}"
    );
    for arguments in [
        &["agent", "--source", "proc"][..],
        &["events", "--source", "proc"],
    ] {
        let outcome = live.run(arguments);
        assert!(outcome.complaint(1).contains("needs eBPF"), "{outcome:?}");
    }
}

#[test]
fn a_second_agent_on_the_same_port_says_so() {
    let Some(live) = Live::begin("second agent") else {
        return;
    };
    let agent = Agent::start(&live, &[]);
    let outcome = live.run(&["agent", "--listen", &agent.address]);
    let line = outcome.complaint(1);
    assert!(
        line.contains(&agent.address) && line.contains("--listen"),
        "{line}"
    );
    agent.stop();
}

#[test]
fn a_reader_that_leaves_is_no_failure() {
    let Some(live) = Live::begin("closed pipe") else {
        return;
    };
    // More than a pipe holds, so that somebody has to notice.
    let _threads = Workload::start(&["threads", "2000"]);
    for arguments in [
        &["tree", "--threads"][..],
        &["tree", "--threads", "-o", "json"],
        &["tree", "--threads", "--source", "proc"],
        &["states", "--for", "50ms", "--by", "thread", "--limit", "0"],
        &["states", "--for", "50ms", "--by", "thread", "-o", "json"],
        &["--help"],
    ] {
        let (mut running, finish) = {
            let mut command = live.command(arguments);
            let child = command
                .stdin(Stdio::null())
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn();
            let mut running = Running(child.expect("starting it"));
            let errors = running.0.stderr.take().expect("its errors are a pipe");
            (
                running,
                std::thread::spawn(move || std::io::read_to_string(errors)),
            )
        };
        let mut output = BufReader::with_capacity(64, running.0.stdout.take().expect("its output is a pipe"));
        if arguments[0] != "--help" {
            output.fill_buf().expect("the first bytes");
        }
        drop(output);
        let status = running.wait();
        let said = finish.join().expect("reading its errors").expect("UTF-8");
        assert!(
            status.success() && said.is_empty(),
            "{arguments:?}: {status}: {said}"
        );
    }
}

#[test]
fn interrupted_a_window_ends_early_and_still_prints() {
    let Some(live) = Live::begin("interrupt") else {
        return;
    };
    for (arguments, expected) in [
        (&["states", "--for", "1h"][..], "state changes:"),
        (&["states", "--for", "1h", "-o", "json"], "\"groups\":"),
        (&["events", "--for", "1h"], "EVENT"),
    ] {
        let (running, finish) = probe::start(&mut live.command(arguments));
        let pid = running.0.id();
        eventually("a handler for SIGINT", || procfs::handles_interrupts(pid));
        running.signal(libc::SIGINT);
        let outcome = finish(running);
        assert!(
            outcome.status.success() && outcome.stderr.is_empty(),
            "{arguments:?}: {outcome:?}"
        );
        assert!(outcome.stdout.contains(expected), "{arguments:?}: {outcome:?}");
    }
}
