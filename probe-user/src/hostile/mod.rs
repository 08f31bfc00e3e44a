//! Property tests: whatever bytes come from the kernel, from processes or from /proc, nothing panics and every output
//! stays well-formed.
//!
//! Here is what the inputs are made of and what well-formed means; [`records`] goes through the kernel's records, the
//! names and command lines of processes, [`files`] through /proc.

use proptest::prelude::*;

use crate::export::collector;
use crate::export::engine::View;
use crate::model::event::Event;
use crate::model::groups::{GroupAggregator, Grouping};
use crate::model::lives::{Lives, Retention};
use crate::model::locks::window::LockWindow;
use crate::model::locks::{Look, Tables};
use crate::model::snapshot::Snapshot;
use crate::model::tracker::Units;
use crate::model::unit_resources::Shown;
use crate::model::window::{By, Window};
use crate::model::{ancestry, orphans, tree, zombies};
use crate::source::cgroup::Cgroups;
use crate::source::describe::describe;
use crate::view;

/// The strict reader of `/metrics` that the live tests use.
#[path = "../../tests/live/common/exposition.rs"]
mod exposition;
mod files;
mod records;

/// Bytes that break terminals, tables, JSON, expositions and whoever splits at blanks, and noise.
fn nasty_bytes(most: usize) -> impl Strategy<Value = Vec<u8>> {
    const NASTY: [&[u8]; 15] = [
        b"\x1b[31m",
        b"\x1b]0;title\x07",
        b"\n",
        b"\r\n",
        b"\0",
        b"\"",
        b"\\",
        b"} 1\n# HELP x",
        b") S 1 (",
        b"\xff\xfe",
        b"\xed\xa0\x80",
        b"\xe2\x80\xae",
        b"\xd8\x9c",
        b"%s{}\t",
        "日本".as_bytes(),
    ];
    let piece = prop_oneof![
        3 => proptest::sample::select(NASTY.as_slice()).prop_map(<[u8]>::to_vec),
        1 => proptest::collection::vec(any::<u8>(), 0..8),
        1 => "[a-z :/]{0,12}".prop_map(String::into_bytes),
    ];
    prop_oneof![
        9 => proptest::collection::vec(piece, 0..12).prop_map(|pieces| pieces.concat()),
        1 => Just(vec![b'"'; 4096]),
    ]
    .prop_map(move |mut bytes| {
        bytes.truncate(most);
        bytes
    })
}

/// A character that neither moves a cursor nor begins a line nor turns the text around.
fn is_harmless(character: char) -> bool {
    !character.is_control()
        && !matches!(character, '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{61c}')
}

/// Lines of text stay lines, and hold nothing that a terminal obeys once our own colours are taken off.
fn check_lines(lines: &[String]) {
    for line in lines {
        let plain = anstream::adapter::strip_str(line).to_string();
        assert!(plain.chars().all(is_harmless), "{plain:?}");
    }
}

fn check_json(answer: &impl serde::Serialize) {
    let text = serde_json::to_string(answer).expect("it can be written");
    let value: serde_json::Value = serde_json::from_str(&text).expect("it can be read");
    check_strings(&value);
}

/// A name cannot break a terminal on which somebody looks at a field of the JSON either.
fn check_strings(value: &serde_json::Value) {
    match value {
        serde_json::Value::String(text) => assert!(text.chars().all(is_harmless), "{text:?}"),
        serde_json::Value::Array(values) => values.iter().for_each(check_strings),
        serde_json::Value::Object(fields) => fields.values().for_each(check_strings),
        _ => {}
    }
}

/// Everything that anybody can ask about two looks and the events between them.
fn check_outputs(proc_root: &std::path::Path, first: &Snapshot, events: &[Event], last: &Snapshot) {
    let mut cgroups = Cgroups::new(proc_root);
    let mut lives = Lives::new(Retention::default());
    let mut groups = GroupAggregator::new(Grouping {
        max_groups: 3,
        ..Grouping::default()
    });
    let mut windows =
        [By::Thread, By::Process, By::Comm, By::Unit].map(|by| (by, Window::begin(first, by, None)));
    groups.begin(first, &mut cgroups);
    let mut happened = lives.snapshot(first);
    for event in events {
        groups.event(event, &mut cgroups);
        happened.extend(lives.event(event));
        for (_, window) in &mut windows {
            window.event(event, &mut cgroups);
        }
        check_lines(&[view::events::line(event, first.taken_at, 7)]);
        check_json_line(&view::events::json(event, first.taken_at, 7).expect("JSON"));
    }
    groups.snapshot(last, &mut cgroups, &mut crate::model::waits::NoFiles);
    happened.extend(lives.snapshot(last));
    for happening in &happened {
        check_lines(&[view::events::happening_line(happening, first.taken_at)]);
        check_json_line(&view::events::happening_json(happening, first.taken_at).expect("JSON"));
    }
    for (by, window) in windows {
        check_states(by, window, last, &mut cgroups);
    }
    check_looks(proc_root, last, &lives, &mut cgroups);
    check_metrics(&groups, &lives, last, &mut cgroups);
}

fn check_json_line(line: &str) {
    assert!(!line.contains('\n'), "one line an event: {line:?}");
    check_strings(&serde_json::from_str(line).expect("one object a line"));
}

fn check_states(by: By, window: Window, last: &Snapshot, cgroups: &mut Cgroups) {
    let report = window.end(last, cgroups);
    for width in [None, Some(80), Some(200)] {
        let look = view::states::Look {
            by,
            limit: None,
            width,
        };
        check_lines(&view::states::lines(&report, 2, &last.losses, look));
        check_lines(&view::states::current_lines(&report, look));
    }
    check_json(&view::json::states(&report, true));
}

fn check_looks(proc_root: &std::path::Path, last: &Snapshot, lives: &Lives, cgroups: &mut Cgroups) {
    let descriptions = describe(proc_root, last);
    for shown in [last.clone(), ancestry::with_ancestry(last, lives)] {
        let nodes = tree::layout(&shown, None);
        let lost = orphans::report(&shown, Some(lives));
        for width in [None, Some(80)] {
            let look = view::tree::Look {
                threads: true,
                kernel: true,
                width,
            };
            let answer = view::json::tree(&shown, &nodes, &lost, &descriptions, cgroups, &shown.losses);
            check_lines(&view::tree::lines(&answer, look));
            check_lines(&view::orphans::lines(&lost, width));
        }
        check_json(&view::json::tree(
            &shown,
            &nodes,
            &lost,
            &descriptions,
            cgroups,
            &shown.losses,
        ));
        check_json(&view::json::orphans(&lost));
    }
    let report = zombies::report(last, Some(lives), Some(32_768));
    check_lines(&view::zombies::lines(&report, cgroups, Some(80)));
    check_json(&view::json::zombies(last, &report, &descriptions, cgroups));
}

/// Locks, in all their forms.
fn check_locks(looks: [&Snapshot; 2], events: &[Event], tables: &[Tables; 2]) {
    let [first, last] = [0, 1].map(|number| Look {
        snapshot: looks[number],
        tables: &tables[number],
    });
    let mut cgroups = Cgroups::new(std::path::Path::new("/nonexistent"));
    let mut window = LockWindow::begin(first, None);
    for event in events {
        window.event(event, &mut cgroups);
    }
    window.needs_second_look(last);
    let report = window.end(last, &mut cgroups);
    let look = view::locks::Look {
        limit: None,
        width: Some(80),
    };
    check_lines(&view::locks::lines(&report, &last.snapshot.losses, look));
    check_lines(&view::graph::dot(&report));
    check_lines(&view::graph::mermaid(&report));
    check_json(&view::json::locks(&report));
    for line in view::graph::dot(&report) {
        let quotes = line.replace("\\\\", "").replace("\\\"", "").matches('"').count();
        assert!(quotes % 2 == 0, "quotes pair up: {line:?}");
    }
    for line in view::graph::mermaid(&report) {
        assert!(line.matches('"').count() % 2 == 0, "quotes pair up: {line:?}");
    }
}

/// Units of all the names there are, with something to show.
fn units(snapshot: &Snapshot, cgroups: &mut Cgroups) -> Vec<(std::sync::Arc<str>, Shown)> {
    let shown = Shown {
        oom_kills: Some(1),
        ..Shown::default()
    };
    let units = snapshot
        .threads
        .iter()
        .map(|thread| cgroups.unit(thread.cgroup_id));
    units.map(|unit| (unit, shown)).collect()
}

fn check_metrics(groups: &GroupAggregator, lives: &Lives, last: &Snapshot, cgroups: &mut Cgroups) {
    let view = View {
        pressure: Vec::new(),
        cpus: 2,
        groups,
        totals: bytemuck::Zeroable::zeroed(),
        losses: last.losses.clone(),
        snapshot: last.clone(),
        pid_limit: None,
        lives,
        orphaned: [0; 3],
        units: units(last, cgroups),
        named_units: Vec::new(),
        units_left_out: 0,
        costs: &std::collections::BTreeMap::new(),
    };
    let mut families = collector::families(&view);
    families.retain(|family| !family.get_metric().is_empty());
    let text = prometheus::TextEncoder::new()
        .encode_to_string(&families)
        .expect("it can be written");
    let read = exposition::Exposition::parse(&text);
    for sample in &read.samples {
        for value in sample.labels.values() {
            assert!(value.chars().all(is_harmless), "{sample:?}");
        }
    }
    assert!(read.count("procprobe_build_info") == 1 && !read.labels().is_empty());
}

proptest! {
    #[test]
    fn escaped_text_is_harmless_and_tells_bytes_apart(bytes in nasty_bytes(4096)) {
        let text = crate::model::escape(&bytes);
        prop_assert!(text.chars().all(is_harmless), "{text:?}");
        prop_assert!(text.len() <= bytes.len() * 10);
        prop_assert!(bytes.is_empty() == text.is_empty());
    }
}
