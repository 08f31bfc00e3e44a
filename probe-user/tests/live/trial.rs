//! The trial: all that a user without any privilege may do to the agent, all at once and over and over, while
//! a file system does not answer. Ten minutes with `PROCPROBE_FULL=1`, else half of one.
//!
//! The agent lives, a scrape is answered every second, its memory stays small, it opens what SECURITY.md says
//! and nothing that somebody leads it to, tells nobody what that one could not read, and counts what it left
//! out.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::common::agent::{Agent, try_get};
use crate::common::exposition::Exposition;
use crate::common::json::{list, number};
use crate::common::reachable::NOBODY;
use crate::common::unit::{self, Limits};
use crate::common::wire::get_unix;
use crate::common::workload::Workload;
use crate::common::{Live, eventually, is_full, note, opened, patience, tools};

/// What the agent may take, bytes.
const MEMORY: u64 = 150 << 20;
/// What nobody but root may read: in the arguments of one of root's processes, and the name of its program.
const SECRET: &str = "pp-secret-of-root";

fn length() -> Duration {
    if is_full() {
        Duration::from_secs(600)
    } else {
        Duration::from_secs(25)
    }
}

/// How long a scrape may take.
fn soon() -> Duration {
    patience(Duration::from_secs(1))
}

/// Files of root's that somebody may lead the agent to, and a place for the user's own.
struct Ground {
    directory: tempfile::TempDir,
}

impl Ground {
    fn new() -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let ground = Self { directory };
        let open =
            |path: &Path, mode| fs::set_permissions(path, Permissions::from_mode(mode)).expect("its mode");
        open(ground.directory.path(), 0o755);
        let workload = env!("CARGO_BIN_EXE_probe-workload");
        fs::copy(workload, ground.path("workload")).expect("a copy of the workload");
        open(&ground.path("workload"), 0o755);
        fs::create_dir(ground.path("user")).expect("a directory");
        chown(ground.path("user"), Some(NOBODY), Some(NOBODY)).expect("giving it away");
        fs::create_dir(ground.path("root")).expect("a directory");
        // Passed through by name, as links do; not listed.
        open(&ground.path("root"), 0o711);
        fs::copy(workload, ground.path("root").join(SECRET)).expect("a program of root's");
        open(&ground.path("root").join(SECRET), 0o700);
        let fifo = ground.path("root").join("fifo");
        rustix::fs::mknodat(
            rustix::fs::CWD,
            &fifo,
            rustix::fs::FileType::Fifo,
            rustix::fs::Mode::RUSR,
            0,
        )
        .expect("a FIFO");
        ground
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn text(&self, name: &str) -> String {
        self.path(name).to_str().expect("UTF-8").to_owned()
    }

    /// A scene as the user.
    fn scene(&self, arguments: &[String]) -> Workload {
        let mut command = Command::new(self.path("workload"));
        // It has no other place to write to.
        command
            .args(arguments)
            .current_dir(self.path("user"))
            .uid(NOBODY)
            .gid(NOBODY);
        Workload::begin(&mut command)
    }
}

/// The programs, with their arguments.
fn programs(ground: &Ground, address: &str) -> Vec<Vec<String>> {
    let user = ground.text("user");
    let program = ground.path("root").join(SECRET);
    let (program, fifo) = (program.to_str().expect("UTF-8"), ground.text("root/fifo"));
    let hostile: [&[&str]; 13] = [
        &["arguments"],
        &["zeros"],
        &["inflated", &user, "2400000000"],
        &["inflated", &user, "1099511627776"],
        &["shrinking", &user],
        &["swapped", &user, program],
        &["swapped", &user, &fifo],
        &["swapped", &user, "/dev/kmsg"],
        &["swapped", &user, "/etc/shadow"],
        &["swapped", &user],
        &["accusing"],
        &["squatting", address],
        &["requests", address],
    ];
    let others: [&[&str]; 4] = [
        &["names"],
        &["arguments"],
        &["cycle-of-the-hostile"],
        &["renames"],
    ];
    let hostile = hostile.iter().map(|words| ["hostile"].iter().chain(words.iter()));
    let owned = |words: Vec<&&str>| words.into_iter().map(|word| (*word).to_owned()).collect();
    hostile
        .map(|words| owned(words.collect()))
        .chain(others.iter().map(|words| owned(words.iter().collect())))
        .collect()
}

/// Runs each of them over and over until dropped.
struct Crowd {
    stop: Arc<AtomicBool>,
    rounds: Arc<AtomicU64>,
    threads: Vec<JoinHandle<()>>,
}

impl Crowd {
    fn begin(ground: &Arc<Ground>, address: &str) -> Self {
        let (stop, rounds) = (Arc::<AtomicBool>::default(), Arc::<AtomicU64>::default());
        let run = |(number, arguments): (usize, Vec<String>)| {
            let (ground, stop, rounds) = (Arc::clone(ground), Arc::clone(&stop), Arc::clone(&rounds));
            std::thread::spawn(move || {
                // Some stay longer than a look at them takes, some hardly as long.
                let stays = Duration::from_millis(1_500 + 400 * number as u64);
                while !stop.load(Ordering::Relaxed) {
                    let scene = ground.scene(&arguments);
                    let until = Instant::now() + stays;
                    while Instant::now() < until && !stop.load(Ordering::Relaxed) {
                        std::thread::sleep(Duration::from_millis(50));
                    }
                    drop(scene);
                    rounds.fetch_add(1, Ordering::Relaxed);
                }
            })
        };
        let programs = programs(ground, address);
        let threads = programs.into_iter().enumerate().map(run).collect();
        Self {
            stop,
            rounds,
            threads,
        }
    }

    /// Ends them; how many there were.
    fn end(mut self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            thread.join().expect("every program could be run");
        }
        self.rounds.load(Ordering::Relaxed)
    }
}

/// The agent under trial, with strace beside it.
struct Tried {
    agent: Agent,
    /// Of the agent itself.
    pid: u32,
    socket: PathBuf,
    log: PathBuf,
    _limits: Option<Limits>,
}

impl Tried {
    fn start(live: &Live, ground: &Ground, strace: &Path, setpriv: Option<&PathBuf>) -> Self {
        let run = ground.path("run");
        fs::create_dir(&run).expect("a directory");
        let binary = ground.path("procprobe");
        fs::copy(&live.binary, &binary).expect("a copy of the binary");
        let (socket, log) = (run.join("api.sock"), ground.path("opened"));
        let limits = setpriv.map(|_| Limits::of_unit(&format!("pp-trial-{}", std::process::id())));
        let mut words: Vec<String> = Vec::new();
        if let Some(limits) = &limits {
            chown(&run, Some(unit::AGENT), Some(unit::AGENT)).expect("giving it away");
            let missing = &limits.missing;
            assert!(!missing.contains(&"memory"), "no limit of memory: {missing:?}");
            note(&format!("limits that cannot be set here: {missing:?}"));
            words.extend(
                [
                    "sh",
                    "-c",
                    "d=$1; shift; for f in $d; do echo $$ > $f || exit 9; done; exec \"$@\"",
                    "sh",
                ]
                .map(str::to_owned),
            );
            let doors = limits.doors();
            let doors: Vec<&str> = doors.iter().map(|door| door.to_str().expect("UTF-8")).collect();
            words.push(doors.join(" "));
        }
        if let Some(setpriv) = setpriv {
            let confined = unit::confined(setpriv, unit::AGENT, &unit::capabilities());
            words.push(setpriv.to_str().expect("UTF-8").to_owned());
            words.extend(
                confined
                    .get_args()
                    .map(|word| word.to_str().expect("UTF-8").to_owned()),
            );
        }
        let mut command = opened::traced(strace, &log);
        command
            .args(words)
            .arg(&binary)
            .args(["agent", "--listen", "127.0.0.1:0", "--socket"])
            .arg(&socket)
            .env_remove("PROCPROBE_LOG");
        let agent = Agent::begin(command);
        let strace = agent.pid();
        let children = fs::read_to_string(format!("/proc/{strace}/task/{strace}/children"));
        let children = children.expect("the children of strace");
        let pid = children.trim().parse().expect("the agent is its one child");
        Self {
            agent,
            pid,
            socket,
            log,
            _limits: limits,
        }
    }

    fn resident(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid)).expect("the agent lives");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kilobytes = line.and_then(|line| line.trim().strip_suffix(" kB"));
        kilobytes
            .and_then(|text| text.parse::<u64>().ok())
            .expect("its memory")
            << 10
    }

    /// An answer through the socket, which tells everything.
    fn whole(&self, path: &str) -> Value {
        serde_json::from_str(&get_unix(&self.socket, path)).expect("JSON")
    }

    /// Ends it as a service manager would.
    fn stop(mut self) -> PathBuf {
        self.signal(libc::SIGTERM);
        let status = self.agent.running.wait();
        let log = self.agent.log();
        assert!(status.success() && !log.contains("panicked"), "{status}: {log}");
        self.log.clone()
    }

    /// Only while strace lives, which reaps it.
    fn signal(&self, signal: i32) {
        // SAFETY: takes plain numbers.
        unsafe { libc::kill(i32::try_from(self.pid).expect("a pid"), signal) };
    }
}

impl Drop for Tried {
    fn drop(&mut self) {
        // A strace that is killed lets the agent go on.
        if matches!(self.agent.running.0.try_wait(), Ok(None)) {
            self.signal(libc::SIGKILL);
        }
    }
}

/// What was measured, once a second.
#[derive(Default)]
struct Figures {
    scrapes: Vec<Duration>,
    trees: Vec<Duration>,
    peak: u64,
}

impl Figures {
    fn line(&mut self) -> String {
        let of = |times: &mut Vec<Duration>| {
            times.sort();
            let median = times.get(times.len() / 2).copied().unwrap_or_default();
            let last = times.last().copied().unwrap_or_default();
            format!(
                "{} of them, {median:?} at the median, {last:?} at most",
                times.len()
            )
        };
        let (scrapes, trees) = (of(&mut self.scrapes), of(&mut self.trees));
        format!(
            "scrapes: {scrapes}; trees: {trees}; memory: {} MiB",
            self.peak >> 20
        )
    }
}

/// Looks at the agent as Prometheus does, and as any user may.
fn look(tried: &Tried, figures: &mut Figures, number: u64) {
    let address = &tried.agent.address;
    let timed = |path: &str| {
        let began = Instant::now();
        let body =
            try_get(address, path).unwrap_or_else(|error| panic!("{path}: {error}; {}", tried.agent.log()));
        (body, began.elapsed())
    };
    let (metrics, took) = timed("/metrics");
    figures.scrapes.push(took);
    assert!(!metrics.contains(SECRET), "a name that nobody may read");
    assert!(Exposition::parse(&metrics).sum("procprobe_processes", &[]) > 10.0);
    assert!(timed("/healthz").0.contains("ok"));
    if number.is_multiple_of(3) {
        // Other answers stand in line with those that the user asks for.
        let (tree, took) = timed("/api/v1/tree");
        figures.trees.push(took);
        tells_nothing(&serde_json::from_str(&tree).expect("JSON"), &tree);
    }
    figures.peak = figures.peak.max(tried.resident());
    assert!(figures.peak < MEMORY, "{} MiB", figures.peak >> 20);
}

/// What every local user could see anyway, and no more.
fn tells_nothing(tree: &Value, text: &str) {
    let processes = list(tree, "processes");
    assert!(processes.len() > 10, "{text}");
    assert!(
        processes
            .iter()
            .all(|process| process["exe"].is_null() && process["cmdline"].is_null()),
        "{text}"
    );
    assert!(!text.contains("password") && !text.contains("0x7f"), "{text}");
}

/// What the whole of it says: the sick are named, and no name comes from a file of root's.
fn judge(tried: &Tried, sick: &[&Workload]) {
    let tree = tried.whole("/api/v1/tree?ancestry=true");
    assert!(
        list(&tree, "processes")
            .iter()
            .any(|process| !process["exe"].is_null()),
        "{tree}"
    );
    let total = &tree["lost_total"];
    assert!(
        number(total, "memory") > 0 && number(total, "descriptions") > 0,
        "{total}"
    );
    let gaps = list(&tree, "memory_gaps");
    for scene in sick {
        let pid = scene.fact("pid");
        assert!(
            gaps.iter().any(|gap| gap["pid"] == pid),
            "{pid} is not named: {gaps:?}"
        );
    }
    assert_eq!(tree["complete"], false);
    let locks = tried.whole("/api/v1/locks?for=500ms");
    for lock in list(&locks, "locks")
        .iter()
        .filter(|lock| lock["comm"] == "pp-swapped")
    {
        assert!(lock["symbol"].is_null(), "a name out of another file: {lock}");
    }
    let accused = |deadlock: &&Value| {
        list(deadlock, "threads")
            .iter()
            .any(|thread| thread["comm"] == "pp-accuser")
    };
    assert_eq!(
        list(&locks, "deadlocks").iter().find(accused),
        None,
        "a forged tid accuses nobody"
    );
}

/// What it opened is what SECURITY.md says, and nothing that the user led it to.
fn opened_what_is_said(ground: &Ground, log: &Path) {
    let (listed, mut missing) = (opened::listed(), Vec::new());
    let root = ground.text("root");
    let all = opened::opened(log);
    assert!(all.len() > 50, "strace saw nothing: {all:?}");
    for (opened, count) in &all {
        let got = &opened.got;
        assert!(!got.starts_with(&root), "{opened:?}");
        if !opened.usable {
            continue;
        }
        assert!(!got.starts_with("/dev/") || got == "/dev/null", "{opened:?}");
        assert!(!got.contains("shadow"), "{opened:?}");
        let is_listed = |path: &str| listed.iter().any(|pattern| pattern.is_match(path));
        // By its descriptor, once it was checked: what it is called is up to its owner.
        let is_listed =
            is_listed(got) || opened.asked.starts_with("/proc/self/fd/") && is_listed(&opened.asked);
        if !is_listed {
            missing.push(format!("{opened:?} ({count} times)"));
        }
    }
    assert!(missing.is_empty(), "SECURITY.md does not list {missing:#?}");
    note(&format!("{} different files opened", all.len()));
}

fn run(name: &str, as_unit: bool) {
    let Some(live) = Live::begin(name) else { return };
    let Some(strace) = tools::find(name, "strace") else {
        return;
    };
    let setpriv = if as_unit {
        let Some(setpriv) = tools::find(name, "setpriv") else {
            return;
        };
        Some(setpriv)
    } else {
        None
    };
    let ground = Arc::new(Ground::new());
    let sick = ["page", "locked"].map(|mode| Workload::start(&["sick", mode]));
    let secret = {
        let mut command = Command::new(ground.path("root").join(SECRET));
        command.args(["sleeper", "pp-rooted", "--password=pp-hunter2"]);
        Workload::begin(&mut command)
    };
    let tried = Tried::start(&live, &ground, &strace, setpriv.as_ref());
    let crowd = Crowd::begin(&ground, &tried.agent.address);
    let (began, mut figures, mut number) = (Instant::now(), Figures::default(), 0);
    while began.elapsed() < length() {
        let second = Instant::now();
        look(&tried, &mut figures, number);
        number += 1;
        std::thread::sleep(Duration::from_secs(1).saturating_sub(second.elapsed()));
    }
    judge(&tried, &[&sick[0], &sick[1]]);
    let rounds = crowd.end();
    eventually("it is at rest", || tried.resident() < MEMORY);
    let late = figures.scrapes.iter().filter(|took| **took > soon()).count();
    let line = figures.line();
    note(&format!(
        "{name}: {rounds} programs run; {line}; {late} scrapes late"
    ));
    let log = tried.stop();
    opened_what_is_said(&ground, &log);
    drop(secret);
    // In the short form one: beside a build, all of this machine's CPUs may be taken for a second.
    let may_be_late = usize::from(!is_full());
    assert!(late <= may_be_late, "{line}");
    assert!(rounds >= 17, "{rounds}");
}

#[test]
fn root_stands_the_trial() {
    run("the trial of the agent as root", false);
}

#[test]
fn the_unit_stands_the_trial() {
    run(
        "the trial of the agent with the unit's user, capabilities and limits",
        true,
    );
}
