//! What the process that reads symbols may, and what its death or silence does.

use std::fs;
use std::time::{Duration, Instant};

use probe_user::namer::client::{Namer, lost_here};

use super::{answers_as_ever, namer};

fn signal(pid: u32, signal: i32) {
    // SAFETY: takes plain numbers.
    let outcome = unsafe { libc::kill(pid.cast_signed(), signal) };
    assert_eq!(outcome, 0, "{}", std::io::Error::last_os_error());
}

fn started() -> (Namer, u32) {
    let mut namer = namer();
    namer.start().expect("it starts");
    let pid = namer.pid().expect("it is a process");
    (namer, pid)
}

#[test]
fn it_has_no_capability_no_file_and_no_room() {
    let (mut namer, pid) = started();
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("its status");
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        line.expect("a field").trim_start_matches(':').trim().to_owned()
    };
    for set in ["CapInh", "CapPrm", "CapEff", "CapAmb"] {
        assert_eq!(field(set), "0000000000000000", "{set}");
    }
    assert_eq!(
        (field("NoNewPrivs"), field("Seccomp")),
        ("1".to_owned(), "2".to_owned())
    );
    assert_eq!(field("Name"), "procprobe-namer");
    let limits = fs::read_to_string(format!("/proc/{pid}/limits")).expect("its limits");
    let limit = |name: &str| {
        let line = limits.lines().find_map(|line| line.strip_prefix(name));
        let words = line.expect("a limit").split_whitespace().next();
        words.expect("a number").parse::<u64>().expect("a number")
    };
    assert!(limit("Max address space") < 1 << 30, "{limits}");
    assert!(
        limit("Max cpu time") <= 30 && limit("Max open files") < 1_000,
        "{limits}"
    );
    assert_eq!((limit("Max core file size"), limit("Max file size")), (0, 0));
    answers_as_ever(&mut namer);
}

#[test]
fn when_it_dies_that_is_one_loss_and_another_is_started() {
    let (mut namer, pid) = started();
    answers_as_ever(&mut namer);
    let before = lost_here();
    signal(pid, libc::SIGKILL);
    // Dead between two questions: nothing is lost, as soon as it can be seen.
    std::thread::sleep(Duration::from_millis(50));
    answers_as_ever(&mut namer);
    assert_ne!(namer.pid(), Some(pid));
    assert_eq!(lost_here(), before);
    // Stopped in the middle of one: an answer that does not come is a loss.
    let pid = namer.pid().expect("another one");
    signal(pid, libc::SIGSTOP);
    let began = Instant::now();
    let question = probe_user::namer::protocol::Question::Sites(vec![0]);
    assert!(namer.ask(question, &[]).is_none());
    let took = began.elapsed();
    assert!(
        took >= Duration::from_millis(500) && took < Duration::from_secs(5),
        "{took:?}"
    );
    assert_eq!(lost_here(), before + 1);
    answers_as_ever(&mut namer);
    assert_ne!(namer.pid(), Some(pid));
    assert!(
        !fs::exists(format!("/proc/{pid}")).expect("looking for it"),
        "it is killed and reaped"
    );
}

#[test]
fn it_ends_with_the_agent() {
    let (namer, pid) = started();
    drop(namer);
    let deadline = Instant::now() + Duration::from_secs(10);
    while fs::exists(format!("/proc/{pid}")).expect("looking for it") {
        assert!(Instant::now() < deadline, "it lives on");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn nobody_else_starts_it() {
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_procprobe"));
    let outcome = command
        .arg(probe_user::namer::ARGUMENT)
        .stdin(std::process::Stdio::null())
        .output()
        .expect("running it");
    let said = String::from_utf8_lossy(&outcome.stderr);
    assert!(!outcome.status.success());
    assert!(
        said.contains("starts itself") && said.lines().count() == 1,
        "{said}"
    );
}
