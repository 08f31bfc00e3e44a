//! What the tables, lines and objects look like, word for word: the files under `snapshots/`.
//!
//! `INSTA_UPDATE=always cargo test -p probe-user --lib view` writes them anew; read the difference before committing it.

use std::collections::HashMap;
use std::path::Path;
use std::time::{Duration, SystemTime};

use probe_ebpf::ledger::BlockedOn;
use probe_ebpf::state::State;

use super::{json, tree};
use crate::model::life::AdopterKind;
use crate::model::orphans::Orphan;
use crate::model::snapshot::Snapshot;
use crate::model::thread::{Comm, Condition, Thread, ThreadId};
use crate::model::tracker::tests::{account, snapshot, thread};
use crate::model::tree::layout;
use crate::source::cgroup::Cgroups;
use crate::source::describe::{Description, Descriptions};

mod events;
mod locks;
mod states;

const SECOND: u64 = 1_000_000_000;
const DAY: u64 = 86_400 * SECOND;

/// A thread in a state, for so long, in a system call.
fn in_state(pid: u32, tid: u32, comm: &str, condition: Condition, ns: u64, syscall: i64) -> Thread {
    Thread {
        id: ThreadId { tid, start_ns: DAY },
        condition,
        condition_ns: Some(ns),
        blocked_on: (syscall >= 0).then_some(BlockedOn {
            syscall,
            args: [0x7f00_1234_5678, 128],
        }),
        lifetime_running_ns: Some(6_048 * SECOND / 10),
        ..thread(pid, tid, comm, None, 0)
    }
}

fn alive(state: State) -> Condition {
    Condition::Alive(state)
}

const FUTEX: i64 = 202;
const EPOLL_WAIT: i64 = 232;
const FDATASYNC: i64 = 75;
const READ: i64 = 0;
const NONE: i64 = -1;

/// One that is dead, with its status.
fn dead(pid: u32, comm: &str, status: u32, ns: u64) -> Thread {
    Thread {
        ppid: 612,
        exit_status: Some(status),
        live_threads: 0,
        ..in_state(pid, pid, comm, Condition::Zombie, ns, NONE)
    }
}

/// A small host with one of everything.
fn host() -> Snapshot {
    let process = |pid, ppid, comm, condition, ns, syscall| Thread {
        ppid,
        ..in_state(pid, pid, comm, condition, ns, syscall)
    };
    let kernel = |pid, ppid, comm, state, ns| Thread {
        kernel: true,
        ..process(pid, ppid, comm, alive(state), ns, NONE)
    };
    let threads = vec![
        process(1, 0, "systemd", alive(State::Sleeping), 2 * SECOND, EPOLL_WAIT),
        kernel(2, 0, "kthreadd", State::Sleeping, DAY),
        kernel(15, 2, "rcu_preempt", State::Idle, 4_000_000),
        kernel(16, 2, "kworker/0:1", State::Uninterruptible, 31 * SECOND),
        kernel(17, 2, "ksoftirqd/0", State::Sleeping, 90 * SECOND),
        process(612, 1, "postgres", alive(State::Sleeping), 40_000_000, EPOLL_WAIT),
        Thread {
            ppid: 1,
            ..in_state(612, 613, "worker-1", alive(State::Runnable), 11_800_000, NONE)
        },
        Thread {
            ppid: 1,
            ..in_state(612, 614, "worker-2", alive(State::Sleeping), 12 * SECOND, FUTEX)
        },
        process(
            640,
            612,
            "postgres",
            alive(State::Uninterruptible),
            1_200_000_000,
            FDATASYNC,
        ),
        process(661, 612, "postgres", alive(State::Running), 300_000, NONE),
        dead(901, "sh", 0x100, 11_520 * SECOND),
        dead(902, "crashed", 11, 7 * SECOND),
        process(950, 1, "日本語", alive(State::Sleeping), 75 * SECOND, READ),
        Thread {
            is_lower_bound: true,
            ..process(951, 950, "worker", alive(State::Sleeping), 525_600 * SECOND, READ)
        },
        process(952, 950, "a\x1b[31m\n", alive(State::Stopped), 5 * SECOND, NONE),
        Thread {
            tracer: Some(612),
            ..process(953, 950, "debugged", alive(State::Traced), 6 * SECOND, NONE)
        },
        Thread {
            condition_ns: None,
            lifetime_running_ns: None,
            ..process(954, 1, "unknown", alive(State::Sleeping), 0, NONE)
        },
    ];
    Snapshot {
        boottime_ns: 8 * DAY,
        taken_at: SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000),
        ..snapshot(8 * DAY, threads)
    }
}

fn descriptions() -> Descriptions {
    let describe = |pid, cmdline: &str| {
        let cmdline = cmdline.split(' ').map(str::to_owned).collect();
        (
            pid,
            Description {
                cmdline,
                exe: Some("/usr/bin/x".to_owned()),
            },
        )
    };
    let of = HashMap::from([
        describe(1, "/sbin/init"),
        describe(
            612,
            "/usr/lib/postgresql/17/bin/postgres -D /var/lib/postgresql/17/main",
        ),
        describe(640, "postgres: checkpointer"),
        describe(661, "postgres: app app 10.0.0.7(51234) COMMIT"),
        describe(
            950,
            "日本語のとても長い名前のプログラム --とても長い引数 --もっと長い引数 --そしてもう一つ",
        ),
    ]);
    Descriptions {
        of,
        ..Descriptions::default()
    }
}

/// Without colours, one line after the other.
fn plain(lines: &[String]) -> String {
    anstream::adapter::strip_str(&lines.join("\n")).to_string()
}

/// Somebody who lost a parent.
fn orphan(thread: &Thread) -> Orphan<'_> {
    Orphan {
        thread,
        original_pid: 801,
        original_comm: Some(Comm::new("cron")),
        ancestry: Vec::new(),
        adopter_pid: 1,
        adopter_comm: Some(Comm::new("systemd")),
        kind: AdopterKind::Init,
        adopter_reaps: Some(true),
        adopter_zombies: 0,
        orphaned_ns: Some(7 * SECOND),
        guess: false,
    }
}

fn tree_table(look: tree::Look) -> String {
    let snapshot = host();
    let worker = snapshot.threads.iter().find(|thread| thread.pid == 951).unwrap();
    let root = tempfile::tempdir().unwrap();
    let answer = json::tree(
        &snapshot,
        &layout(&snapshot, None),
        &[orphan(worker)],
        &descriptions(),
        &mut Cgroups::new(root.path()),
        &snapshot.losses,
    );
    // As it comes from an agent: what is shown is what the JSON says, and nothing else.
    let text = serde_json::to_string(&answer).unwrap();
    plain(&tree::lines(&serde_json::from_str(&text).unwrap(), look))
}

#[test]
fn tree_with_threads_in_80_columns() {
    let text = tree_table(tree::Look {
        threads: true,
        kernel: false,
        width: Some(80),
    });
    let widest = text.lines().map(unicode_width::UnicodeWidthStr::width).max();
    assert!(widest <= Some(80), "{widest:?}");
    insta::assert_snapshot!(text);
}

#[test]
fn tree_with_kernel_threads_in_full() {
    insta::assert_snapshot!(tree_table(tree::Look {
        threads: false,
        kernel: true,
        width: None
    }));
}

#[test]
fn a_process_as_json() {
    let mut snapshot = host();
    for thread in &mut snapshot.threads {
        thread.account = (thread.pid == 612).then(|| account(thread.id.tid, 0, 5, 1));
    }
    let root = tempfile::tempdir().unwrap();
    let mut cgroups = Cgroups::new(Path::new(root.path()));
    let mut nodes = layout(&snapshot, None);
    nodes.retain(|node| [612, 901, 954].contains(&node.process.pid()));
    let answer = json::tree(
        &snapshot,
        &nodes,
        &[orphan(nodes[2].process.leader)],
        &descriptions(),
        &mut cgroups,
        &snapshot.losses,
    );
    insta::assert_snapshot!(serde_json::to_string_pretty(&answer).unwrap());
}
