//! Tests of the tracker: whatever overlaps, every nanosecond and switch is counted once.

use std::time::{Duration, SystemTime};

use probe_ebpf::state::{STATES, State};

use super::*;
use crate::model::account::Histograms;
use crate::model::event::Exit;
use crate::model::locks::memory::SharedMemory;
use crate::model::snapshot::{Losses, SourceKind};
use crate::model::thread::{Condition, ReadFrom, ThreadId};

/// Nobody has a unit.
pub(crate) struct NoUnits;

impl Units for NoUnits {
    fn unit(&mut self, _: u64) -> Arc<str> {
        "".into()
    }
}

pub(crate) fn account(tid: u32, read_ns: u64, running_ns: u64, intervals: u32) -> Account {
    let mut time_ns = [0; STATES];
    time_ns[State::Running.index()] = running_ns;
    let mut common = [[0; _]; _];
    common[State::Running.index()][0] = intervals;
    Account {
        id: AccountId {
            birth_ns: 5,
            birth_tid: tid,
        },
        read_ns,
        time_ns,
        closed_ns: time_ns,
        blocked_ns: [0; probe_ebpf::waiting::CLASSES],
        histograms: Some(Histograms::from_kernel(&common, None)),
    }
}

pub(crate) fn thread(pid: u32, tid: u32, comm: &str, account: Option<Account>, voluntary: u64) -> Thread {
    Thread {
        id: ThreadId { tid, start_ns: 1 },
        pid,
        ppid: 1,
        parent_start_ns: 0,
        tracer: None,
        comm: Comm::new(comm),
        kernel: false,
        uid: Some(0),
        nice: 0,
        policy: 0,
        ns_tids: smallvec::SmallVec::new(),
        cgroup_id: 0,
        condition: Condition::Alive(State::Sleeping),
        frozen: Some(false),
        map_locked: None,
        executed: true,
        ends_with: None,
        condition_ns: Some(0),
        is_lower_bound: false,
        blocked_on: None,
        page_fault: false,
        descriptor: None,
        futex: None,
        space: 0,
        sp: 0,
        clear_child_tid: 0,
        pid_namespace: 0,
        exit_status: None,
        live_threads: 1,
        threads: 1,
        sid: 0,
        pgid: 0,
        subreaper: Some(false),
        last_wait_ns: None,
        lifetime_running_ns: Some(0),
        switches: Switches {
            voluntary,
            involuntary: 0,
        },
        account,
        read_from: ReadFrom::Iterator,
    }
}

pub(crate) fn snapshot(began_ns: u64, threads: Vec<Thread>) -> Snapshot {
    Snapshot {
        taken_at: SystemTime::UNIX_EPOCH,
        began_ns,
        ended_ns: began_ns + 10,
        boottime_ns: began_ns,
        source: SourceKind::Bpf,
        threads,
        losses: Losses::none(),
        took: Duration::ZERO,
        hidden: 0,
        memory: SharedMemory::default(),
    }
}

pub(crate) fn exit(tid: u32, at_ns: u64, account: Account, voluntary: u64) -> Event {
    Event {
        at_ns,
        kind: EventKind::Exit(Box::new(Exit {
            status: 0,
            last: true,
            zombie: true,
            killer: None,
            oom: false,
            switches: Switches {
                voluntary,
                involuntary: 0,
            },
            account: Some(account),
        })),
        id: ThreadId { tid, start_ns: 1 },
        pid: tid,
        ppid: 1,
        parent_start_ns: 0,
        namespace_init: false,
        comm: Comm::new("x"),
        kernel: false,
        cgroup_id: 0,
    }
}

#[derive(Default)]
struct Sum {
    running_ns: u64,
    intervals: u64,
    voluntary: u64,
}

impl Sum {
    fn add(&mut self, growth: &Growth) {
        self.running_ns += growth.usage.time_ns[State::Running.index()];
        self.intervals += growth.usage.count(State::Running);
        self.voluntary += growth.switches.voluntary;
    }

    fn advance(&mut self, tracker: &mut Tracker, snapshot: &Snapshot) {
        tracker.advance(snapshot, |_, _, growth| self.add(&growth));
    }

    fn event(&mut self, tracker: &mut Tracker, event: &Event) {
        if let Some((_, growth)) = tracker.event(event) {
            self.add(&growth);
        }
    }

    fn values(&self) -> (u64, u64, u64) {
        (self.running_ns, self.intervals, self.voluntary)
    }
}

#[test]
fn what_was_there_at_the_beginning_does_not_count() {
    let mut tracker = Tracker::default();
    let mut sum = Sum::default();
    tracker.begin(&snapshot(
        100,
        vec![thread(7, 7, "a", Some(account(7, 101, 40, 4)), 1_000)],
    ));
    sum.advance(
        &mut tracker,
        &snapshot(200, vec![thread(7, 7, "a", Some(account(7, 201, 60, 9)), 1_003)]),
    );
    assert_eq!(sum.values(), (20, 5, 3));
}

#[test]
fn a_zombie_is_counted_once_however_long_it_stays() {
    let mut tracker = Tracker::default();
    let mut sum = Sum::default();
    tracker.begin(&snapshot(100, vec![]));
    sum.event(&mut tracker, &exit(7, 150, account(7, 150, 60, 9), 3));
    for began in [200, 300, 400] {
        sum.advance(
            &mut tracker,
            &snapshot(
                began,
                vec![thread(7, 7, "a", Some(account(7, began + 1, 60, 9)), 3)],
            ),
        );
    }
    assert_eq!(sum.values(), (60, 9, 3));
}

#[test]
fn an_exit_between_the_reading_and_the_advance_is_counted_once() {
    let mut tracker = Tracker::default();
    let mut sum = Sum::default();
    tracker.begin(&snapshot(100, vec![]));
    let alive = snapshot(200, vec![thread(7, 7, "a", Some(account(7, 201, 50, 8)), 2)]);
    sum.event(&mut tracker, &exit(7, 205, account(7, 205, 60, 9), 3));
    sum.advance(&mut tracker, &alive);
    sum.advance(&mut tracker, &snapshot(300, vec![]));
    assert_eq!(sum.values(), (60, 9, 3));
    assert!(tracker.is_empty());
}

#[test]
fn born_and_dead_after_the_snapshot_began_and_a_zombie_in_the_next() {
    let mut tracker = Tracker::default();
    let mut sum = Sum::default();
    tracker.begin(&snapshot(100, vec![]));
    let empty = snapshot(200, vec![]);
    sum.event(&mut tracker, &exit(7, 205, account(7, 205, 60, 9), 3));
    sum.advance(&mut tracker, &empty);
    sum.advance(
        &mut tracker,
        &snapshot(300, vec![thread(7, 7, "a", Some(account(7, 301, 60, 9)), 3)]),
    );
    assert_eq!(sum.values(), (60, 9, 3));
}

#[test]
fn a_torn_reading_forgets_nothing() {
    let mut tracker = Tracker::default();
    let mut sum = Sum::default();
    tracker.begin(&snapshot(
        100,
        vec![thread(7, 7, "a", Some(account(7, 101, 40, 4)), 10)],
    ));
    sum.advance(&mut tracker, &snapshot(200, vec![thread(7, 7, "a", None, 12)]));
    sum.advance(
        &mut tracker,
        &snapshot(300, vec![thread(7, 7, "a", Some(account(7, 301, 60, 9)), 13)]),
    );
    assert_eq!(sum.values(), (20, 5, 3));
}

#[test]
fn threads_are_booked_under_their_process() {
    let mut tracker = Tracker::default();
    tracker.begin(&snapshot(
        100,
        vec![thread(7, 7, "server", Some(account(7, 101, 0, 0)), 0)],
    ));
    let mut event = exit(8, 150, account(8, 150, 5, 1), 1);
    event.pid = 7;
    event.comm = Comm::new("worker-1");
    let (name, _) = tracker.event(&event).unwrap();
    assert_eq!((name.pid, name.comm), (7, Comm::new("server")));
}

/// A zombie as a snapshot shows it.
fn dead(tid: u32, account: Account, voluntary: u64) -> Thread {
    Thread {
        condition: Condition::Zombie,
        ..thread(tid, tid, "a", Some(account), voluntary)
    }
}

#[test]
fn what_was_counted_of_a_thread_whose_exit_was_lost_is_known() {
    for zombie in [false, true] {
        let mut tracker = Tracker::default();
        let mut sum = Sum::default();
        tracker.begin(&snapshot(
            100,
            vec![thread(7, 7, "a", Some(account(7, 101, 40, 4)), 10)],
        ));
        sum.advance(
            &mut tracker,
            &snapshot(200, vec![thread(7, 7, "a", Some(account(7, 201, 60, 9)), 13)]),
        );
        // It ends at 70 and 14; the kernel's total of what was lost has all of that.
        let last = if zombie {
            vec![dead(7, account(7, 301, 70, 9), 14)]
        } else {
            vec![]
        };
        for began in [300, 400, 500] {
            sum.advance(&mut tracker, &snapshot(began, last.clone()));
            let counted = tracker.counted_of_lost();
            let lost = (
                70 - counted.time_ns[State::Running.index()],
                14 - counted.switches.voluntary,
            );
            // 30 and 4 since the beginning, each counted once.
            assert_eq!(
                (sum.running_ns + lost.0, sum.voluntary + lost.1),
                (30, 4),
                "{zombie} {began}"
            );
        }
        assert!(tracker.is_empty());
    }
}

#[test]
fn a_late_exit_is_no_lost_one() {
    for zombie in [false, true] {
        let mut tracker = Tracker::default();
        let mut sum = Sum::default();
        tracker.begin(&snapshot(
            100,
            vec![thread(7, 7, "a", Some(account(7, 101, 40, 4)), 10)],
        ));
        let last = if zombie {
            vec![dead(7, account(7, 201, 65, 9), 14)]
        } else {
            vec![]
        };
        sum.advance(&mut tracker, &snapshot(200, last));
        sum.event(&mut tracker, &exit(7, 205, account(7, 205, 70, 9), 14));
        sum.advance(&mut tracker, &snapshot(300, vec![]));
        assert_eq!((sum.running_ns, sum.voluntary), (30, 4), "{zombie}");
        assert_eq!(tracker.counted_of_lost(), Counted::default());
    }
}

#[test]
fn who_was_dead_at_the_beginning_is_not_lost() {
    let mut tracker = Tracker::default();
    tracker.begin(&snapshot(100, vec![dead(7, account(7, 101, 40, 4), 10)]));
    let mut sum = Sum::default();
    sum.advance(
        &mut tracker,
        &snapshot(200, vec![dead(7, account(7, 201, 40, 4), 10)]),
    );
    sum.advance(&mut tracker, &snapshot(300, vec![]));
    assert_eq!(sum.values(), (0, 0, 0));
    assert_eq!(tracker.counted_of_lost(), Counted::default());
}

#[test]
fn a_process_that_the_kernel_hides_does_not_keep_the_dead() {
    let hidden = Thread {
        read_from: ReadFrom::Proc,
        ..thread(1, 1, "init", None, 0)
    };
    let mut tracker = Tracker::default();
    tracker.begin(&snapshot(100, vec![hidden.clone()]));
    for tid in 10..20_u32 {
        tracker.event(&exit(tid, 150, account(tid, 150, 60, 9), 3));
    }
    tracker.advance(&snapshot(200, vec![hidden]), |_, _, _| {});
    assert!(tracker.ended.is_empty(), "{} kept", tracker.ended.len());
}

#[test]
fn threads_that_end_behind_the_last_belong_to_their_process_too() {
    let mut tracker = Tracker::default();
    tracker.begin(&snapshot(
        100,
        vec![
            thread(7, 7, "process", Some(account(7, 100, 10, 1)), 0),
            thread(7, 8, "worker", Some(account(8, 100, 10, 1)), 0),
        ],
    ));
    let first = exit(7, 200, account(7, 200, 20, 2), 1);
    let mut second = exit(8, 201, account(8, 201, 30, 3), 1);
    (second.pid, second.comm) = (7, Comm::new("worker"));
    if let EventKind::Exit(exit) = &mut second.kind {
        exit.last = false;
    }
    tracker.event(&first);
    let (name, growth) = tracker.event(&second).expect("it has grown");
    assert_eq!((name.pid, name.comm), (7, first.comm));
    assert_eq!(growth.usage.time_ns[State::Running.index()], 20);
    tracker.event(&Event {
        kind: EventKind::Reap,
        ..first
    });
    assert_eq!(tracker.process(7), None, "its pid may be another's from here on");
}
