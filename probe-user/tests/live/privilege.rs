//! What the agent has left once it is attached, on every thread and in the processes it has started; and that
//! all works without the rest.

use std::collections::BTreeSet;
use std::ffi::CString;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::common::agent::Agent;
use crate::common::json::{list, process, text};
use crate::common::procfs::{self, Status};
use crate::common::workload::Workload;
use crate::common::{Live, eventually, locks, probe};

/// The number of the user that only these tests have.
const OURS: u32 = 64_123;
/// `CAP_DAC_READ_SEARCH` and `CAP_SYS_PTRACE`.
pub const LOOK: u64 = (1 << 2) | (1 << 19);
/// `CAP_SYS_ADMIN`.
const SYS_ADMIN: u64 = 1 << 21;

/// A host that has a user `procprobe`: in a mount namespace of its own, files with one line more lie over
/// /etc/passwd and /etc/group. This host's stay as they are.
struct WithUser {
    directory: tempfile::TempDir,
}

impl WithUser {
    fn new() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        for (name, line) in [
            (
                "passwd",
                format!("procprobe:x:{OURS}:{OURS}::/nonexistent:/bin/false\n"),
            ),
            ("group", format!("procprobe:x:{OURS}:\n")),
        ] {
            let there = fs::read_to_string(Path::new("/etc").join(name)).expect("the host's");
            let kept: Vec<&str> = there
                .lines()
                .filter(|line| !line.starts_with("procprobe:"))
                .collect();
            let kept = format!("{}\n{line}", kept.join("\n"));
            fs::write(directory.path().join(name), kept).expect("a file");
        }
        // As package managers leave them; the directory is root's alone.
        for name in ["passwd", "group"] {
            let mode = fs::Permissions::from_mode(0o644);
            fs::set_permissions(directory.path().join(name), mode).expect("its mode");
        }
        Self { directory }
    }

    /// The command runs there.
    fn apply(&self, command: &mut Command) {
        let path = |path: PathBuf| CString::new(path.as_os_str().as_bytes()).expect("no NUL");
        let mounts: Vec<_> = ["passwd", "group"]
            .map(|name| {
                (
                    path(self.directory.path().join(name)),
                    path(Path::new("/etc").join(name)),
                )
            })
            .into();
        let check = |outcome: i32| {
            if outcome == 0 {
                Ok(())
            } else {
                Err(io::Error::last_os_error())
            }
        };
        let root = c"/";
        let enter = move || {
            // SAFETY: system calls with strings that live as long as the closure; nothing is allocated.
            unsafe {
                check(libc::unshare(libc::CLONE_NEWNS))?;
                let private = libc::MS_REC | libc::MS_PRIVATE;
                let null = std::ptr::null();
                check(libc::mount(null, root.as_ptr(), null, private, null.cast()))?;
                for (from, to) in &mounts {
                    check(libc::mount(
                        from.as_ptr(),
                        to.as_ptr(),
                        null,
                        libc::MS_BIND,
                        null.cast(),
                    ))?;
                }
            }
            Ok(())
        };
        // SAFETY: between fork and exec it makes system calls alone.
        unsafe { command.pre_exec(enter) };
    }
}

/// What `status` says of every thread of a process, each set of facts once.
fn facts(pid: u32) -> BTreeSet<String> {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).expect("its threads");
    let statuses = threads.flatten().filter_map(|thread| Status::at(&thread.path()));
    let names = [
        "Uid",
        "Gid",
        "Groups",
        "CapInh",
        "CapPrm",
        "CapEff",
        "CapBnd",
        "CapAmb",
        "NoNewPrivs",
        "Seccomp",
    ];
    statuses
        .map(|status| {
            names
                .map(|name| format!("{name}={}", status.field(name).replace('\t', " ")))
                .join(" ")
        })
        .collect()
}

/// The only facts there should be of a process.
fn confined(uid: u32, capabilities: u64) -> BTreeSet<String> {
    let ids = [uid.to_string(), uid.to_string(), uid.to_string(), uid.to_string()].join(" ");
    let set = format!("{capabilities:016x}");
    let none = format!("{:016x}", 0);
    BTreeSet::from([format!(
        "Uid={ids} Gid={ids} Groups= CapInh={none} CapPrm={set} CapEff={set} CapBnd={none} CapAmb={none} \
         NoNewPrivs=1 Seccomp=2"
    )])
}

#[test]
fn root_becomes_a_user_with_two_capabilities_and_a_filter_on_every_thread() {
    let Some(live) = Live::begin("least privilege") else {
        return;
    };
    let scene = Workload::start(&["holder-asleep"]);
    let host = WithUser::new();
    let mut command = live.command(&["agent", "--listen", "127.0.0.1:0", "--socket", "none", "-v"]);
    command.arg("--expose-details");
    host.apply(&mut command);
    let agent = Agent::begin(command);
    // Threads of all kinds exist once it has answered everything.
    let named = |agent: &Agent| {
        let answer = agent.locks();
        let found = locks::of(&answer, "locks", scene.pid);
        found
            .first()
            .is_some_and(|lock| lock["code"]["frames"][0].is_string())
    };
    eventually("names of functions", || named(&agent));
    assert!(agent.metrics().sum("procprobe_context_switches_total", &[]) > 0.0);
    assert_eq!(facts(agent.pid()), confined(OURS, LOOK));
    let aide = procfs::child_named(agent.pid(), "procprobe-aide").expect("it has one");
    assert_eq!(facts(aide), confined(OURS, SYS_ADMIN));
    let namer = procfs::child_named(agent.pid(), "procprobe-namer").expect("it has one");
    assert_eq!(facts(namer), confined(OURS, 0));
    // Nobody of that user can look into them.
    let owner = |pid: u32| {
        fs::metadata(format!("/proc/{pid}/mem"))
            .expect("its memory")
            .uid()
    };
    assert_eq!([owner(agent.pid()), owner(aide), owner(namer)], [0; 3]);
    assert!(!agent.log().contains("missing"), "{}", agent.log());
    agent.stop();
}

#[test]
fn root_without_such_a_user_stays_root_and_gives_up_the_rest() {
    let Some(live) = Live::begin("least privilege of root") else {
        return;
    };
    let agent = Agent::start(&live, &[]);
    let facts: Vec<String> = facts(agent.pid()).into_iter().collect();
    assert_eq!(facts.len(), 1, "{facts:?}");
    let set = format!("{LOOK:016x}");
    for fact in [
        format!("CapPrm={set} CapEff={set} CapBnd={:016x} CapAmb={:016x}", 0, 0),
        "NoNewPrivs=1 Seccomp=2".to_owned(),
    ] {
        assert!(facts[0].contains(&fact), "{fact}: {facts:?}");
    }
    agent.stop();
}

/// Everything that the agent does, as a user, with files that only root can reach.
#[test]
fn as_that_user_it_does_what_it_did_as_root() {
    let Some(live) = Live::begin("features without root") else {
        return;
    };
    let lock = Workload::start(&["holder-asleep"]);
    let zombie = Workload::start(&["zombie"]);
    let directory = tempfile::tempdir().expect("a directory");
    let config = directory.path().join("procprobe.toml");
    let write = |text: &str| {
        fs::write(&config, text).expect("a configuration");
        fs::set_permissions(&config, fs::Permissions::from_mode(0o600)).expect("its mode");
    };
    write("[[label_map]]\nunit = '.*'\nrename = \"first\"\n");
    let socket = directory.path().join("api.sock");
    let host = WithUser::new();
    let mut command = live.command(&["agent", "--listen", "127.0.0.1:0", "--expose-details", "-v"]);
    command.arg("--config").arg(&config).arg("--socket").arg(&socket);
    host.apply(&mut command);
    let agent = Agent::begin(command);
    names_and_holders(&agent, &lock);
    eventually("the zombie", || {
        let zombies = agent.zombies();
        list(&zombies, "parents")
            .iter()
            .any(|parent| parent["pid"] == zombie.pid)
    });
    let exe = fs::read_link(format!("/proc/{}/exe", lock.pid)).expect("its executable");
    let tree = agent.tree();
    assert_eq!(
        text(process(&tree, lock.pid), "exe"),
        exe.to_str().expect("UTF-8")
    );
    assert_eq!(tree["lost"]["unread"], 0, "{}", tree["lost"]);
    eventually("what the programs cost", || {
        agent
            .metrics()
            .sum("procprobe_bpf_program_runs_total", &[("program", "sched_switch")])
            > 0.0
    });
    a_hangup_is_heard(&agent, &lock, write);
    the_socket_serves(&live, &socket, &lock);
    a_killed_namer_comes_back(&agent, &lock);
    agent.stop();
}

/// The scene's lock with its holder, which memory names, and its waiters' code, which their stacks do.
fn names_and_holders(agent: &Agent, scene: &Workload) {
    eventually("the lock, its holder and its waiters' code", || {
        let answer = agent.locks();
        let found = locks::of(&answer, "locks", scene.pid);
        found.first().is_some_and(|lock| {
            lock["kind"] == "mutex"
                && lock["holder"]["tid"].is_number()
                && lock["code"]["frames"][0].is_string()
        })
    });
}

fn a_hangup_is_heard(agent: &Agent, scene: &Workload, write: impl Fn(&str)) {
    let unit = || process(&agent.tree(), scene.pid)["unit"].clone();
    if unit() != "first" {
        // Without cgroups there are no units to be renamed; the log says that it was heard.
        assert_eq!(unit(), Value::Null);
    }
    write("max_groups = 50\n[[label_map]]\nunit = '.*'\nrename = \"second\"\n");
    agent.running.signal(libc::SIGHUP);
    eventually("the new configuration", || {
        agent.log().contains("a restart is needed for max_groups") && unit() != "first"
    });
}

fn the_socket_serves(live: &Live, socket: &Path, scene: &Workload) {
    let pid = scene.pid.to_string();
    let path = socket.to_str().expect("UTF-8");
    let tree = live.json(&["tree", &pid, "--ancestry", "--agent", path]);
    assert!(process(&tree, scene.pid)["exe"].is_string(), "{tree}");
}

fn a_killed_namer_comes_back(agent: &Agent, scene: &Workload) {
    let namer = || procfs::child_named(agent.pid(), "procprobe-namer");
    let first = namer().expect("it has one");
    // SAFETY: takes plain numbers.
    assert_eq!(unsafe { libc::kill(first.cast_signed(), libc::SIGKILL) }, 0);
    names_and_holders(agent, scene);
    eventually("another namer", || namer().is_some_and(|pid| pid != first));
}

#[test]
fn an_agent_whose_aide_is_gone_ends_and_says_why() {
    let Some(live) = Live::begin("an aide that is killed") else {
        return;
    };
    let mut agent = Agent::start(&live, &[]);
    let aide = procfs::child_named(agent.pid(), "procprobe-aide").expect("it has one");
    // What a service manager tells all of them together is for the agent.
    // SAFETY: takes plain numbers.
    let signal = |signal| unsafe { libc::kill(aide.cast_signed(), signal) };
    assert_eq!(signal(libc::SIGTERM), 0);
    assert!(agent.metrics().sum("procprobe_context_switches_total", &[]) > 0.0);
    assert_eq!(signal(libc::SIGKILL), 0);
    let status = agent.running.wait();
    assert_eq!(status.code(), Some(1));
    eventually("its reason", || {
        agent
            .log()
            .contains("the agent cannot go on: the process that starts the namer ended")
    });
}

#[test]
fn doctor_tells_what_the_agent_will_have() {
    let Some(live) = Live::begin("doctor on privileges") else {
        return;
    };
    let host = WithUser::new();
    let mut command = live.command(&["doctor"]);
    host.apply(&mut command);
    let outcome = probe::finish(&mut command);
    let line = |text: &str, name: &str| {
        let line = text.lines().find(|line| line[9..].starts_with(name));
        line.unwrap_or_else(|| panic!("no {name}: {text}")).to_owned()
    };
    let said = line(&outcome.stdout, "user ");
    assert!(
        said.starts_with("ok") && said.contains(&format!("procprobe (uid {OURS})")),
        "{said}"
    );
    let said = line(&outcome.stdout, "system calls ");
    assert!(said.starts_with("ok"), "{said}");
    let kept = "the agent keeps of them, once attached: CAP_DAC_READ_SEARCH CAP_SYS_PTRACE, and the process that \
                starts the namer CAP_SYS_ADMIN";
    assert!(
        outcome.stdout.contains(kept) && outcome.stdout.contains("Landlock"),
        "{}",
        outcome.stdout
    );
    let none = WithUser::new();
    fs::write(none.directory.path().join("passwd"), "root:x:0:0::/:/bin/sh\n").expect("a file");
    let mut command = live.command(&["doctor"]);
    none.apply(&mut command);
    let outcome = probe::finish(&mut command);
    let said = line(&outcome.stdout, "user ");
    assert!(
        said.starts_with("limited") && outcome.stdout.contains("→ useradd --system"),
        "{outcome:?}"
    );
}
