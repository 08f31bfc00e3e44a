//! Tests of resolving records: every case the module's header names, and the conservation law.

use bytemuck::Zeroable;
use proptest::prelude::*;

use super::*;

const LIVE: u64 = 1_000_000_000;
const CLOCKS: Clocks = Clocks {
    live_since_ns: LIVE,
    scheduler_offset: Some(500),
};

fn record(now_ns: u64, state_bits: u32) -> TaskRecord {
    let mut record = TaskRecord::zeroed();
    record.now_ns = now_ns;
    record.facts.state_bits = state_bits;
    record.facts.tid = 42;
    record
}

fn ledger(state: State, since_ns: u64, woken_ns: u64) -> Ledger {
    let mut ledger = Ledger::zeroed();
    ledger.birth_ns = LIVE;
    ledger.birth_tid = 42;
    ledger.state = state as u8;
    ledger.off_state = state as u8;
    ledger.turn_ns = since_ns;
    ledger.since_ns = since_ns;
    ledger.time_ns[State::Running.index()] = since_ns - LIVE;
    ledger.wake.at_ns = woken_ns;
    ledger
}

fn resolve(record: &TaskRecord, ledger: Option<&Ledger>) -> Thread {
    thread(
        &RawTask {
            record,
            ledger,
            histograms: false,
            rare: None,
        },
        CLOCKS,
    )
}

fn times(thread: &Thread) -> Vec<(State, u64)> {
    let account = thread.account.as_ref().unwrap();
    State::ALL
        .into_iter()
        .map(|state| (state, account.time_ns[state.index()]))
        .filter(|(_, time)| *time > 0)
        .collect()
}

#[test]
fn an_open_wait_counts_until_now() {
    let thread = resolve(
        &record(LIVE + 900, 0x2001),
        Some(&ledger(State::Sleeping, LIVE + 100, 0)),
    );
    assert_eq!(thread.condition, Condition::Alive(State::Sleeping));
    assert_eq!(thread.condition_ns, Some(800));
    assert_eq!(times(&thread), [(State::Running, 100), (State::Sleeping, 800)]);
}

#[test]
fn a_wait_outside_of_system_calls_is_for_a_page() {
    let mut wait = ledger(State::Sleeping, LIVE + 100, 0);
    wait.futex.class = Class::PageFault as u8;
    wait.blocked_on.syscall = NO_SYSCALL;
    let thread = resolve(&record(LIVE + 900, 0x2001), Some(&wait));
    assert!(thread.page_fault);
    assert_eq!(crate::view::waiting::waiting_on(&thread, None), "a page (fault)");
    let woken = resolve(
        &record(LIVE + 900, 0),
        Some(&ledger(State::Sleeping, LIVE + 100, LIVE + 600)),
    );
    assert!(!woken.page_fault);
}

#[test]
fn what_the_freezer_holds_does_not_sleep() {
    let mut frozen = record(LIVE + 900, 0x2001);
    frozen.flags = FROZEN;
    let thread = resolve(&frozen, Some(&ledger(State::Sleeping, LIVE + 100, 0)));
    assert_eq!(thread.condition, Condition::Alive(State::Stopped));
    assert_eq!(
        (thread.frozen, thread.letter(), thread.condition_ns),
        (Some(true), 'F', Some(800))
    );
    assert!(resolve(&record(LIVE + 900, 0x2001), None).frozen == Some(false));
    // Not switched since accounting began: booked as the kernel side will when it does.
    let unwritten = resolve(&frozen, None);
    assert_eq!(times(&unwritten), [(State::Stopped, 900)]);
    let mut found = Ledger::zeroed();
    found.found_state = State::Sleeping as u8 + 1;
    let unwritten = resolve(&frozen, Some(&found));
    assert_eq!(unwritten.condition, Condition::Alive(State::Stopped));
    assert_eq!(times(&unwritten), [(State::Sleeping, 900)]);
}

#[test]
fn a_noted_wake_up_makes_it_runnable() {
    let thread = resolve(
        &record(LIVE + 900, 0),
        Some(&ledger(State::Sleeping, LIVE + 100, LIVE + 600)),
    );
    assert_eq!(thread.condition, Condition::Alive(State::Runnable));
    assert_eq!(thread.condition_ns, Some(300));
    assert_eq!(
        times(&thread),
        [
            (State::Running, 100),
            (State::Runnable, 300),
            (State::Sleeping, 500)
        ]
    );
}

#[test]
fn a_wake_up_before_the_switch_out_makes_it_runnable_all_along() {
    let thread = resolve(
        &record(LIVE + 900, 0),
        Some(&ledger(State::Sleeping, LIVE + 100, LIVE + 90)),
    );
    assert_eq!(thread.condition, Condition::Alive(State::Runnable));
    assert_eq!(times(&thread), [(State::Running, 100), (State::Runnable, 800)]);
}

#[test]
fn a_turn_under_way_is_divided_by_its_time_stamps() {
    let mut running = ledger(State::Sleeping, LIVE + 100, LIVE + 600);
    running.state = State::Running as u8;
    running.woken_ns = LIVE + 600;
    running.since_ns = LIVE + 650;
    let record = record(LIVE + 900, 0);
    let task = RawTask {
        record: &record,
        ledger: Some(&running),
        histograms: true,
        rare: None,
    };
    let thread = thread(&task, CLOCKS);
    assert_eq!(thread.condition_ns, Some(250));
    assert_eq!(
        times(&thread),
        [
            (State::Running, 350),
            (State::Runnable, 50),
            (State::Sleeping, 500)
        ]
    );
    let histograms = thread.account.unwrap().histograms.unwrap();
    let count = |state| histograms.total(state);
    assert_eq!(
        (
            count(State::Running),
            count(State::Runnable),
            count(State::Sleeping)
        ),
        (0, 1, 1)
    );
}

#[test]
fn a_wake_up_that_was_not_traced_is_taken_from_the_kernels_count() {
    let mut running = ledger(State::Uninterruptible, LIVE + 100, LIVE + 50);
    running.state = State::Running as u8;
    running.since_ns = LIVE + 650;
    running.kernel_runnable_ns = 1_000;
    let mut record = record(LIVE + 900, 0);
    record.lifetime_runnable_ns = 1_150;
    let thread = resolve(&record, Some(&running));
    assert_eq!(
        times(&thread),
        [
            (State::Running, 350),
            (State::Runnable, 150),
            (State::Uninterruptible, 400)
        ]
    );
}

#[test]
fn an_old_wake_up_means_nothing() {
    let thread = resolve(
        &record(LIVE + 900, 2),
        Some(&ledger(State::Uninterruptible, LIVE + 100, LIVE + 90)),
    );
    assert_eq!(thread.condition, Condition::Alive(State::Uninterruptible));
    assert_eq!(
        times(&thread),
        [(State::Running, 100), (State::Uninterruptible, 800)]
    );
}

#[test]
fn without_a_switch_the_kernel_tells_the_state_and_the_scheduler_since_when() {
    let mut asleep = record(LIVE + 900, 1);
    asleep.exec_start_ns = 2_000;
    asleep.last_arrival_ns = 1_000;
    let thread = resolve(&asleep, None);
    assert_eq!(thread.condition, Condition::Alive(State::Sleeping));
    assert_eq!(thread.condition_ns, Some(LIVE + 900 - 2_500));
    assert!(!thread.is_lower_bound);
    assert_eq!(times(&thread), [(State::Sleeping, 900)]);
}

#[test]
fn what_the_scheduler_did_not_note_is_a_lower_bound() {
    let thread = resolve(&record(LIVE + 900, 1), None);
    assert_eq!(thread.condition_ns, Some(900));
    assert!(thread.is_lower_bound);
}

#[test]
fn a_first_wake_up_tells_what_it_was_blocked_in() {
    let mut unwritten = Ledger::zeroed();
    unwritten.wake.at_ns = LIVE + 300;
    unwritten.wake.from_bits = 2;
    let thread = resolve(&record(LIVE + 900, 0), Some(&unwritten));
    assert_eq!(thread.condition, Condition::Alive(State::Runnable));
    assert_eq!(
        times(&thread),
        [(State::Runnable, 600), (State::Uninterruptible, 300)]
    );
}

#[test]
fn a_zombie_books_no_time_after_its_death() {
    let mut dead = record(LIVE + 900, TASK_DEAD);
    dead.facts.exit_state = EXIT_ZOMBIE;
    let thread = resolve(&dead, Some(&ledger(State::Runnable, LIVE + 100, 0)));
    assert_eq!(thread.condition, Condition::Zombie);
    assert_eq!(thread.condition_ns, Some(800));
    assert_eq!(times(&thread), [(State::Running, 100)]);
}

#[test]
fn a_torn_record_has_no_account() {
    let mut torn = record(LIVE + 900, 1);
    torn.flags |= probe_ebpf::record::TORN;
    assert!(resolve(&torn, None).account.is_none());
}

proptest! {
    /// The times of all states add up to the time since the account began, whatever was noted when.
    #[test]
    fn conservation(
        state in 0_u8..8,
        bits in prop::sample::select(vec![0_u32, 1, 2, 0x402, 4, 8, 0x40, 0x200, 0x2001]),
        off in 0_u8..8,
        since in 0_u64..1_000_000,
        turn in 0_u64..1_000_000,
        counted in 0_u64..1_000_000,
        woken in 0_u64..2_000_000,
        now in 0_u64..2_000_000,
        on_cpu: bool,
        written: bool,
        from_bits in prop::sample::select(vec![0_u32, 1, 2, 0x402]),
    ) {
        let mut record = record(LIVE + now, bits);
        record.flags = if on_cpu { ON_CPU } else { 0 };
        let mut ledger = ledger(State::from_byte(state).unwrap(), LIVE + since, LIVE + woken);
        ledger.wake.from_bits = from_bits;
        ledger.off_state = off;
        ledger.turn_ns = LIVE + since.min(turn);
        ledger.time_ns[State::Running.index()] = ledger.turn_ns - LIVE;
        ledger.woken_ns = ledger.turn_ns + turn % 7;
        ledger.kernel_runnable_ns = counted;
        if State::from_byte(state) != Some(State::Running) {
            // Off the CPU the state is the one the turn began with.
            ledger.off_state = state;
            ledger.since_ns = ledger.turn_ns;
        }
        if !written {
            ledger.birth_ns = 0;
        }
        let thread = resolve(&record, Some(&ledger));
        let account = thread.account.unwrap();
        let now_ns = if written { (LIVE + now).max(ledger.since_ns) } else { LIVE + now };
        prop_assert_eq!(account.time_ns.iter().sum::<u64>(), now_ns - LIVE);
    }
}
