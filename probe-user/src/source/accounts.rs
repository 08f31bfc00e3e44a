//! A thread's account: the turns that its ledger has booked, and what the turn under way has brought.

use probe_ebpf::ledger::Ledger;
use probe_ebpf::record::{FROZEN, TaskRecord};
use probe_ebpf::state::{STATES, State};
use probe_ebpf::waiting::CLASSES;

use super::resolve::{Clocks, woken_ns};
use crate::kernel::snapshot::RawTask;
use crate::model::account::{Account, AccountId, Histograms};
use crate::model::thread::Condition;

/// The account with the open interval added.
pub(super) fn account(
    task: &RawTask<'_>,
    ledger: Option<&Ledger>,
    condition: Condition,
    clocks: Clocks,
) -> Account {
    let record = task.record;
    let alive = matches!(condition, Condition::Alive(_));
    match ledger {
        Some(ledger) => {
            let mut account = closed(ledger);
            account.read_ns = record.now_ns;
            account.histograms = task.histograms.then(|| histograms(task));
            if alive {
                add_open(&mut account, record, ledger, clocks);
            }
            account
        }
        None => unwritten(task, condition, clocks),
    }
}

/// A ledger's finished turns.
pub(super) fn closed(ledger: &Ledger) -> Account {
    Account {
        id: AccountId {
            birth_ns: ledger.birth_ns,
            birth_tid: ledger.birth_tid,
        },
        read_ns: 0,
        time_ns: ledger.time_ns,
        closed_ns: ledger.time_ns,
        blocked_ns: ledger.blocked_ns,
        histograms: None,
    }
}

/// The stays of a turn that is under way: how long the thread was in the off state, runnable and running so far.
struct OpenTurn {
    off: (State, u64),
    runnable_ns: Option<u64>,
    running_ns: Option<u64>,
}

/// Divides the turn by its time stamps; where the wake-up was not traced, by the kernel's count of time in a run queue.
fn open_turn(record: &TaskRecord, ledger: &Ledger, clocks: Clocks) -> OpenTurn {
    let state = State::from_byte(ledger.state).unwrap_or(State::Runnable);
    let off = State::from_byte(ledger.off_state).unwrap_or(State::Runnable);
    let begin_ns = ledger.turn_ns;
    let now_ns = record.now_ns.max(ledger.since_ns).max(begin_ns);
    if state != State::Running || off == State::Running {
        let until_ns = woken_ns(record, ledger, off, clocks).unwrap_or(now_ns);
        let runnable_ns = (until_ns < now_ns).then_some(now_ns - until_ns);
        return OpenTurn {
            off: (off, until_ns.saturating_sub(begin_ns)),
            runnable_ns,
            running_ns: None,
        };
    }
    let entered_ns = ledger.since_ns.clamp(begin_ns, now_ns);
    let running_ns = Some(now_ns - entered_ns);
    if !off.is_blocked() {
        return OpenTurn {
            off: (off, entered_ns - begin_ns),
            runnable_ns: None,
            running_ns,
        };
    }
    let queued_ns = match record.lifetime_runnable_ns {
        u64::MAX => entered_ns - begin_ns,
        counted => counted.wrapping_sub(ledger.kernel_runnable_ns),
    };
    let woken_ns = if ledger.woken_ns == 0 {
        entered_ns.saturating_sub(queued_ns)
    } else {
        ledger.woken_ns
    };
    let woken_ns = woken_ns.clamp(begin_ns, entered_ns);
    OpenTurn {
        off: (off, woken_ns - begin_ns),
        runnable_ns: Some(entered_ns - woken_ns),
        running_ns,
    }
}

/// Adds what the turn under way has brought so far; a stay that is over counts in the histograms too.
fn add_open(account: &mut Account, record: &TaskRecord, ledger: &Ledger, clocks: Clocks) {
    let turn = open_turn(record, ledger, clocks);
    let mut over = Vec::new();
    account.time_ns[turn.off.0.index()] += turn.off.1;
    book_class(account, turn.off.0, ledger.futex.class, turn.off.1);
    if let Some(runnable_ns) = turn.runnable_ns {
        account.time_ns[State::Runnable.index()] += runnable_ns;
        over.push(turn.off);
    }
    if let Some(running_ns) = turn.running_ns {
        account.time_ns[State::Running.index()] += running_ns;
        over.push(
            turn.runnable_ns
                .map_or(turn.off, |runnable_ns| (State::Runnable, runnable_ns)),
        );
    }
    for (state, duration_ns) in over {
        account.closed_ns[state.index()] += duration_ns;
        if let Some(histograms) = &mut account.histograms {
            histograms.count(state, duration_ns);
        }
    }
}

/// The state that the kernel side will book the time of an unwritten account to (see `open_ledger()`).
fn booked_as(state: State, task: &RawTask<'_>) -> State {
    if task.record.flags & FROZEN == 0 {
        return state;
    }
    let found = task.ledger.and_then(|ledger| ledger.found_state.checked_sub(1));
    found.and_then(State::from_byte).unwrap_or(State::Stopped)
}

/// The account of a thread that has not switched since accounting began: it has been in one state all along, or was
/// woken and has not got a CPU yet.
fn unwritten(task: &RawTask<'_>, condition: Condition, clocks: Clocks) -> Account {
    let record = task.record;
    let birth_ns = clocks.live_since_ns;
    let now_ns = record.now_ns.max(birth_ns);
    let mut account = Account {
        id: AccountId {
            birth_ns,
            birth_tid: record.facts.tid,
        },
        read_ns: now_ns,
        time_ns: [0; STATES],
        closed_ns: [0; STATES],
        blocked_ns: [0; CLASSES],
        histograms: task.histograms.then(|| histograms(task)),
    };
    let Condition::Alive(state) = condition else {
        return account;
    };
    let state = booked_as(state, task);
    let woken = task
        .ledger
        .map(|ledger| ledger.wake)
        .filter(|wake| wake.at_ns >= birth_ns);
    let woken =
        woken.and_then(|wake| Some((State::from_blocked_bits(wake.from_bits)?, wake.at_ns.min(now_ns))));
    let class = record.futex.class;
    if let Some((from, woken_ns)) = woken {
        account.time_ns[from.index()] += woken_ns - birth_ns;
        book_class(&mut account, from, class, woken_ns - birth_ns);
        account.time_ns[state.index()] += now_ns - woken_ns;
    } else {
        account.time_ns[state.index()] += now_ns - birth_ns;
        book_class(&mut account, state, class, now_ns - birth_ns);
    }
    account
}

/// Books time blocked to what the thread waits in, as the kernel side does.
fn book_class(account: &mut Account, state: State, class: u8, ns: u64) {
    if !matches!(state, State::Sleeping | State::Uninterruptible) {
        return;
    }
    if let Some(sum) = account.blocked_ns.get_mut(usize::from(class)) {
        *sum += ns;
    }
}

fn histograms(task: &RawTask<'_>) -> Histograms {
    let rare = task.rare.map(|rare| &rare.histogram);
    task.ledger
        .map(|ledger| Histograms::from_kernel(&ledger.histogram, rare))
        .unwrap_or_default()
}
