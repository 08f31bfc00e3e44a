//! What every live test begins with, and the tools it looks at the world with.
//!
//! | module | does |
//! |---|---|
//! | [`workload`] | starts a scene with known truth, and ends it whatever happens |
//! | [`probe`] | runs the binary under test |
//! | [`agent`] | keeps an agent running and asks it over HTTP |
//! | [`exposition`] | reads `/metrics` |
//! | [`prometheus`] | a real Prometheus that scrapes the agent |
//! | [`procfs`] | what the kernel itself says in /proc |
//! | [`reachable`] | the binary where any user can run it |
//! | [`unit`] | the unit as it is shipped, and its limits |
//! | [`opened`] | which files the agent opened, against what SECURITY.md says |
//! | [`random`] | numbers that can be had again |
//! | [`stopped`] | one thread of a process that stands still |
//! | [`stream`] | listens to `procprobe events` |
//! | [`json`] | finds its way in the answers |
//! | [`locks`] | watches locks over a window, and finds its way in that answer |
//! | [`wire`] | HTTP byte by byte |
//! | [`tools`] | programs of others: promtool, prometheus, bpftool |

pub mod agent;
pub mod exposition;
pub mod json;
pub mod locks;
pub mod opened;
pub mod probe;
pub mod procfs;
pub mod prometheus;
pub mod random;
pub mod reachable;
pub mod stopped;
pub mod stream;
pub mod tools;
pub mod unit;
pub mod wire;
pub mod workload;

use std::env;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, Once, PoisonError};
use std::time::{Duration, Instant};

/// Held by the test that is running: they all measure the same machine.
static TURN: Mutex<()> = Mutex::new(());

/// A live test's turn.
pub struct Live {
    /// The binary under test.
    pub binary: PathBuf,
    _turn: MutexGuard<'static, ()>,
}

impl Live {
    /// Waits for this test's turn. `None`, with a line that says why, where live tests cannot run and need not.
    ///
    /// # Panics
    /// If `PROCPROBE_LIVE=required` and they cannot run.
    pub fn begin(test: &str) -> Option<Self> {
        let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        match obstacle() {
            None => {
                adopt_orphans();
                Some(Self {
                    binary: env::var_os("PROCPROBE_BIN").expect("checked just now").into(),
                    _turn: turn,
                })
            }
            Some(why) => {
                not_run(test, &why);
                None
            }
        }
    }
}

/// Why live tests cannot run here.
fn obstacle() -> Option<String> {
    let Some(binary) = env::var_os("PROCPROBE_BIN") else {
        return Some(
            "PROCPROBE_BIN does not name the binary (`cargo xtask test` builds and names it)".to_owned(),
        );
    };
    if !Path::new(&binary).exists() {
        return Some(format!("PROCPROBE_BIN: no {}", binary.display()));
    }
    // SAFETY: no arguments, cannot fail.
    if unsafe { libc::geteuid() } != 0 {
        return Some("not root".to_owned());
    }
    if !Path::new("/sys/kernel/btf/vmlinux").exists() {
        return Some("the kernel has no BTF".to_owned());
    }
    None
}

/// Says that a test did not run.
///
/// # Panics
/// If it has to.
pub fn not_run(test: &str, why: &str) {
    assert!(!is_required(), "{test} has to run, but: {why}");
    skipped(test, why);
}

/// Says that a test did not run because this host cannot do what it is about.
pub fn skipped(test: &str, why: &str) {
    // Not `eprintln`: the harness would keep the line to itself.
    let _ = std::io::stderr().write_all(format!("not run: {test}: {why}\n").as_bytes());
}

/// Whether a test that cannot run is a failure.
pub fn is_required() -> bool {
    env::var_os("PROCPROBE_LIVE").is_some_and(|value| value == "required")
}

/// The long version of what takes long: more threads, more kills, a whole minute of Prometheus.
pub fn is_full() -> bool {
    env::var_os("PROCPROBE_FULL").is_some_and(|value| value != "0")
}

/// How much longer than usual to wait for what has to come, where everything takes longer: `PROCPROBE_SLOW=10` in a guest
/// whose processor QEMU translates.
pub fn patience(usual: Duration) -> Duration {
    let factor = env::var("PROCPROBE_SLOW")
        .ok()
        .and_then(|factor| factor.parse().ok());
    usual * factor.unwrap_or(1)
}

/// How often to repeat what is right each time or not at all: a tenth as often where everything takes ten times as long.
pub fn repeated(usual: u64) -> u64 {
    if is_slow() { usual.div_ceil(10) } else { usual }
}

/// Whether everything takes longer here.
pub fn is_slow() -> bool {
    env::var_os("PROCPROBE_SLOW").is_some()
}

/// Tells a person who looks; the harness keeps it to itself unless the test fails.
#[expect(clippy::print_stderr, reason = "figures for the log of a test run")]
pub fn note(text: &str) {
    eprintln!("{text}");
}

/// Makes this process the parent of what its workloads leave behind, so that it can reap them.
fn adopt_orphans() {
    static ONCE: Once = Once::new();
    // SAFETY: takes plain numbers.
    ONCE.call_once(|| unsafe {
        libc::prctl(libc::PR_SET_CHILD_SUBREAPER, 1);
    });
}

/// Asks until the answer is yes.
///
/// # Panics
/// If it is not within ten seconds, or what [`patience`] makes of them.
pub fn eventually(what: &str, mut ask: impl FnMut() -> bool) {
    let limit = patience(Duration::from_secs(10));
    let deadline = Instant::now() + limit;
    while !ask() {
        assert!(Instant::now() < deadline, "not within {limit:?}: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}
