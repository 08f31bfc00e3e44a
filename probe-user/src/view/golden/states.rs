//! The tables of `states`.

use probe_ebpf::histogram::bucket_of;
use probe_ebpf::state::State;

use super::plain;
use crate::model::snapshot::Losses;
use crate::model::thread::Switches;
use crate::model::transitions::Transition;
use crate::model::window::{By, Group, Report};
use crate::view::states;

fn group(key: &str, threads: u64, times: &[(State, u64, u64)], switches: (u64, u64)) -> Group {
    let mut group = Group {
        key: key.to_owned(),
        threads,
        ..Group::default()
    };
    for &(state, ns, count) in times {
        let index = state.index();
        group.usage.time_ns[index] = ns;
        group.usage.closed_ns[index] = ns;
        if let Some(mean) = ns.checked_div(count) {
            group.usage.histogram_mut(state)[bucket_of(mean)] = count - count / 10;
            group.usage.histogram_mut(state)[bucket_of(mean * 4)] = count / 10;
        }
    }
    group.now[2] = threads;
    group.switches = Switches {
        voluntary: switches.0,
        involuntary: switches.1,
    };
    group
}

fn report() -> Report {
    use State::{Idle, Runnable, Running, Sleeping, Stopped, Uninterruptible};
    let python = [
        (Running, 10_200_000_000, 2_115),
        (Runnable, 12_100_000_000, 2_115),
        (Sleeping, 57_700_000_000, 1_204),
    ];
    let fio = [
        (Running, 900_000_000, 22_034),
        (Runnable, 100_000_000, 22_034),
        (Sleeping, 400_000_000, 31),
        (Uninterruptible, 18_600_000_000, 22_000),
    ];
    Report {
        groups: vec![
            group("python3", 8, &python, (1_204, 911)),
            group("fio", 2, &fio, (22_031, 3)),
            group(
                "a name that is much longer than the others, and then some",
                1,
                &[(Sleeping, 10_000_000_000, 0)],
                (0, 0),
            ),
            group("日本語", 1, &[(Stopped, 10_000_000_000, 0)], (0, 0)),
            group("", 3, &[(Idle, 29_000_000_000, 12), (Running, 900, 12)], (12, 0)),
        ],
        transitions: vec![
            Transition {
                from: "running",
                to: "sleeping",
                count: 23_110,
            },
            Transition {
                from: "sleeping",
                to: "runnable",
                count: 23_102,
            },
            Transition {
                from: "running",
                to: "runnable",
                count: 914,
            },
            Transition {
                from: "new",
                to: "runnable",
                count: 1,
            },
        ],
        window_ns: 10_000_000_000,
    }
}

fn states_table(by: By, limit: Option<usize>, width: usize, losses: &Losses) -> String {
    let look = states::Look {
        by,
        limit,
        width: Some(width),
    };
    let text = plain(&states::lines(&report(), 2, losses, look));
    let widest = text.lines().map(unicode_width::UnicodeWidthStr::width).max();
    assert!(widest <= Some(width), "{widest:?}");
    text
}

#[test]
fn states_in_80_columns() {
    insta::assert_snapshot!(states_table(By::Comm, None, 80, &Losses::none()));
}

#[test]
fn states_in_140_columns_with_losses() {
    let mut losses = Losses::none();
    losses.add("ring_exit", 1_204);
    losses.add("torn", 1);
    insta::assert_snapshot!(states_table(By::Unit, Some(3), 140, &losses));
}

#[test]
fn states_of_proc() {
    let look = states::Look {
        by: By::Comm,
        limit: None,
        width: Some(80),
    };
    insta::assert_snapshot!(plain(&states::current_lines(&report(), look)));
}
