//! The lines of `events`.

use std::time::{Duration, SystemTime};

use crate::model::event::{Event, EventKind, Exit, Sender};
use crate::model::life::{AdopterKind, Happening, Loss, ProcessId};
use crate::model::thread::Comm;
use crate::model::tracker::tests::{account, exit};
use crate::view::events;

fn life() -> Vec<Event> {
    let exited = |tid, status, last| {
        let mut event = exit(tid, 1_500_001, account(tid, 0, 1_500_000, 3), 4);
        if let EventKind::Exit(exit) = &mut event.kind {
            **exit = Exit {
                status,
                last,
                ..(**exit).clone()
            };
        }
        event
    };
    let killed_by = |mut event: Event| {
        if let EventKind::Exit(exit) = &mut event.kind {
            exit.killer = Some(Sender {
                pid: 1,
                start_ns: 1,
                comm: Comm::new("systemd"),
            });
        }
        event
    };
    let older_than_the_watch = |mut event: Event| {
        event.at_ns = 20_000_000_000;
        if let EventKind::Exit(exit) = &mut event.kind
            && let Some(account) = &mut exit.account
        {
            account.id.birth_ns = 10_000_000_000;
        }
        event
    };
    let with = |kind| Event {
        kind,
        ..exited(4_711, 0, true)
    };
    vec![
        with(EventKind::Fork { caller: 1 }),
        Event {
            pid: 4_000,
            ..with(EventKind::Fork { caller: 4_000 })
        },
        Event {
            comm: Comm::new("a\x1b[31m\n"),
            ..with(EventKind::Exec { old_tid: 4_711 })
        },
        Event {
            comm: Comm::new("日本"),
            ..with(EventKind::Exec { old_tid: 4_712 })
        },
        exited(4_711, 0x700, true),
        exited(4_711, 9, true),
        killed_by(exited(4_711, 9, true)),
        older_than_the_watch(exited(4_711, 0, true)),
        Event {
            pid: 4_000,
            ..exited(4_711, 0, false)
        },
    ]
}

/// What follows from events.
fn happenings() -> Vec<Happening> {
    let id = |pid| ProcessId { pid, start_ns: 1 };
    let loss = Loss {
        original: id(801),
        original_comm: Comm::new("cron"),
        adopter: id(1),
        kind: AdopterKind::Init,
        at_ns: 0,
    };
    vec![
        Happening::Orphaned {
            id: id(4_711),
            comm: Comm::new("worker"),
            loss,
        },
        Happening::Orphaned {
            id: id(4_711),
            comm: Comm::new("worker"),
            loss: Loss {
                original_comm: Comm::default(),
                ..loss
            },
        },
        Happening::Reaped {
            id: id(4_711),
            comm: Comm::new("日本"),
            parent: id(1),
            delay_ns: 412_000_000,
            at_ns: 0,
        },
    ]
}

#[test]
fn events_as_text_and_json() {
    let at = SystemTime::UNIX_EPOCH + Duration::from_nanos(1_800_000_000_123_456_789);
    let mut text = vec![events::HEADING.to_owned()];
    text.extend(life().iter().map(|event| events::line(event, at, 0)));
    text.extend(
        happenings()
            .iter()
            .map(|happening| events::happening_line(happening, at)),
    );
    text.extend(life().iter().map(|event| events::json(event, at, 0).unwrap()));
    text.extend(
        happenings()
            .iter()
            .map(|happening| events::happening_json(happening, at).unwrap()),
    );
    insta::assert_snapshot!(text.join("\n"));
}
