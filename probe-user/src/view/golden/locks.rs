//! Locks as text, JSON and pictures.

use insta::assert_snapshot;
use probe_ebpf::ledger::BlockedOn;
use probe_ebpf::lock::Outcome;
use probe_ebpf::state::State;

use crate::model::locks::report::{Code, Report};
use crate::model::locks::site::Runtime;
use crate::model::locks::testing::{World, look, no_tables};
use crate::model::locks::window::LockWindow;
use crate::model::snapshot::{Losses, Snapshot};
use crate::model::thread::{Comm, Condition};
use crate::model::tracker::tests::NoUnits;
use crate::view::{graph, json, locks};

const SECOND: u64 = 1_000_000_000;

/// A process with a mutex under load, a deadlock, an idle pool and a name that means no good.
fn report() -> (Report, Snapshot) {
    let mut world = World::default();
    world.runs(100, "ledgerd");
    world.runs(101, "worker-1");
    let holder = world.last();
    holder.condition = Condition::Alive(State::Sleeping);
    holder.condition_ns = Some(380_000_000);
    holder.blocked_on = Some(BlockedOn {
        syscall: 75,
        args: [3, 0],
    });
    world
        .waits(102, "worker-2", "glibc", 0x5654_ae58_60c8, 101)
        .waits(103, "a\"b\n<c>", "glibc", 0x5654_ae58_60c8, 101)
        .waits(104, "left", "glibc", 0x5654_ae58_6088, 105)
        .waits(105, "right", "glibc", 0x5654_ae58_60b0, 104)
        .waits(106, "idle", "condvar", 0x7000, 0)
        .waited("glibc", 0x5654_ae58_60c8, 1_200, 30_000_000, Outcome::WokenOne)
        .edge(0x5654_ae58_60c8, 102, 101, true, 800, 20 * SECOND)
        .edge(0x5654_ae58_60c8, 101, 102, true, 400, 16 * SECOND);
    let first = World::default().snapshot(SECOND, 0);
    let mut window = LockWindow::begin(look(&first, &no_tables()), None);
    let early = world.snapshot(10 * SECOND, 5);
    window.needs_second_look(look(&early, &world.tables));
    let last = world.snapshot(11 * SECOND, 5);
    let mut report = window.end(look(&last, &world.tables), &mut NoUnits);
    report.locks[0].symbol = Some("accounts_mu".to_owned());
    report.locks[0].code = Some(Code {
        frames: vec!["ledger::post".to_owned(), "ledger::handle".to_owned()],
        cut: true,
    });
    let member = report.deadlocks[0].members[0].party.tid;
    let frames = vec!["ledger::transfer".to_owned(), "ledger::handle".to_owned()];
    report.codes.insert(member, Code { frames, cut: false });
    (report, last)
}

#[test]
fn locks_in_80_columns() {
    let look = locks::Look {
        limit: Some(20),
        width: Some(80),
    };
    let lines = locks::lines(&report().0, &Losses::none(), look);
    assert!(
        lines
            .iter()
            .all(|line| unicode_width::UnicodeWidthStr::width(line.as_str()) <= 80)
    );
    assert_snapshot!(lines.join("\n"));
}

#[test]
fn locks_where_nothing_is_cut() {
    let look = locks::Look {
        limit: Some(1),
        width: None,
    };
    let mut losses = Losses::none();
    losses.add("lock_table", 3);
    assert_snapshot!(locks::lines(&report().0, &losses, look).join("\n"));
}

#[test]
fn nothing_contended() {
    let look = locks::Look {
        limit: None,
        width: Some(80),
    };
    let report = Report {
        window_ns: 3 * SECOND,
        ..Report::default()
    };
    assert_snapshot!(locks::lines(&report, &Losses::none(), look).join("\n"));
}

/// Where a run-time system keeps its locks to itself, nothing contended is not the whole answer.
#[test]
fn who_keeps_its_locks_to_itself_is_named_with_the_command_that_tells() {
    let runtimes = [Runtime::Java, Runtime::Go, Runtime::Ruby, Runtime::Node];
    let named = |(pid, runtime): (u32, Runtime)| (pid, (runtime, Comm::default()));
    let report = Report {
        window_ns: 3 * SECOND,
        runtimes: (1..).zip(runtimes).map(named).collect(),
        ..Report::default()
    };
    let look = locks::Look {
        limit: None,
        width: None,
    };
    let lines = locks::lines(&report, &Losses::none(), look).join("\n");
    for words in [
        "1 keeps its locks to itself (Java); what its threads wait for: jstack 1",
        "2 keeps its locks to itself (Go); what its threads wait for: kill -QUIT 2",
        "3 keeps its locks to itself (Ruby); what its threads wait for: rbspy dump --pid 3",
        "4 keeps its locks to itself (Node.js); what its threads wait for: node inspect -p 4",
    ] {
        assert!(lines.contains(words), "{words}: {lines}");
    }
}

#[test]
fn locks_as_json() {
    let (report, last) = report();
    let answer = json::Answer::new(&last, report.window_ns, &Losses::none(), json::locks(&report));
    assert_snapshot!(serde_json::to_string_pretty(&answer).unwrap());
}

#[test]
fn locks_as_dot() {
    assert_snapshot!(graph::dot(&report().0).join("\n"));
}

#[test]
fn locks_as_mermaid() {
    assert_snapshot!(graph::mermaid(&report().0).join("\n"));
}

#[test]
fn a_name_can_close_no_quote() {
    let (mut report, _) = report();
    report.edges[2].waiter.comm = Comm::from_kernel(*b"\"];x[\\#|`<b>\0\0\0\0");
    let dot = graph::dot(&report).join("\n");
    assert!(dot.contains(r#"label="\"];x[\\#|`<b> 103""#), "{dot}");
    let mermaid = graph::mermaid(&report).join("\n");
    assert!(
        mermaid.contains("#quot;#93;;x#91;#92;#35;#124;#96;#lt;b#gt; 103"),
        "{mermaid}"
    );
}

/// What a holder waits for itself: the end of the address tells locks apart, and nothing else.
#[test]
fn what_a_holder_waits_for_is_named_by_its_kind() {
    let kinds = [
        ("glibc", "waiting itself for …2000 for 5.0 s"),
        ("condvar", "waiting itself for a condition for 5.0 s"),
        ("semaphore", "waiting itself for a semaphore for 5.0 s"),
        ("barrier", "waiting itself at a barrier for 5.0 s"),
        ("join", "waiting itself for the end of 103 for 5.0 s"),
    ];
    for (kind, expected) in kinds {
        let mut world = World::default();
        world
            .runs(103, "worker")
            .waits(101, "holder", kind, 0x2000, if kind == "join" { 103 } else { 0 })
            .waits(102, "waiter", "glibc", 0x1000, 101);
        let early = world.snapshot(SECOND, 5);
        let window = LockWindow::begin(look(&early, &no_tables()), None);
        let last = world.snapshot(2 * SECOND, 5);
        let report = window.end(look(&last, &world.tables), &mut NoUnits);
        let lock = report.locks.iter().find(|lock| lock.address == 0x1000);
        let holder = lock.and_then(|lock| lock.holder.as_ref()).expect("a holder");
        assert_eq!(locks::holder(holder), format!("holder 101 (owner), {expected}"));
    }
}
