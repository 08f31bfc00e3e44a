//! Who waits on whom as a picture: DOT for graphviz, Mermaid for wikis and pull requests.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

use super::number::duration;
use crate::model::locks::deadlock::{Deadlock, Shape};
use crate::model::locks::report::{Edge, Report};
use crate::model::locks::{LockId, Party};

/// What both languages draw.
struct Picture {
    nodes: BTreeMap<u32, Party>,
    arrows: Vec<Arrow>,
}

struct Arrow {
    from: u32,
    to: u32,
    label: String,
    deadlock: bool,
}

impl Picture {
    fn of(report: &Report) -> Self {
        let mut picture = Self {
            nodes: BTreeMap::new(),
            arrows: Vec::new(),
        };
        let mut drawn = BTreeSet::new();
        for deadlock in &report.deadlocks {
            picture.add_deadlock(deadlock, report, &mut drawn);
        }
        for edge in &report.edges {
            if !drawn.contains(&(edge.waiter.tid, edge.holder.tid)) {
                picture.add_edge(edge, report);
            }
        }
        picture
    }

    fn add_deadlock(&mut self, deadlock: &Deadlock, report: &Report, drawn: &mut BTreeSet<(u32, u32)>) {
        for (position, member) in deadlock.members.iter().enumerate() {
            self.nodes.insert(member.party.tid, member.party);
            let next = match deadlock.shape {
                Shape::DeadOwner => deadlock.dead_owner.unwrap_or(0),
                Shape::Cycle | Shape::Itself => {
                    deadlock.members[(position + 1) % deadlock.members.len()]
                        .party
                        .tid
                }
            };
            let what = if member.joins {
                "joins".to_owned()
            } else {
                name(report, member.waits_for, member.address)
            };
            drawn.insert((member.party.tid, next));
            self.nodes.entry(next).or_insert(Party {
                pid: 0,
                tid: next,
                comm: crate::model::thread::Comm::new("(ended)"),
            });
            self.arrows.push(Arrow {
                from: member.party.tid,
                to: next,
                label: format!("DEADLOCK {what}"),
                deadlock: true,
            });
        }
    }

    fn add_edge(&mut self, edge: &Edge, report: &Report) {
        self.nodes.insert(edge.waiter.tid, edge.waiter);
        self.nodes.insert(edge.holder.tid, edge.holder);
        let address = report
            .locks
            .iter()
            .find(|lock| lock.id == edge.lock)
            .map_or(0, |lock| lock.address);
        self.arrows.push(Arrow {
            from: edge.waiter.tid,
            to: edge.holder.tid,
            label: format!(
                "{} {} ({})",
                name(report, edge.lock, address),
                duration(Some(edge.wait_ns)),
                edge.grade.name()
            ),
            deadlock: false,
        });
    }
}

fn name(report: &Report, id: LockId, address: u64) -> String {
    let lock = report.locks.iter().find(|lock| lock.id == id);
    let kind = lock.map_or("lock", |lock| lock.kind.name());
    match lock.and_then(|lock| lock.symbol.as_deref()) {
        Some(symbol) => format!("{kind} {symbol}"),
        None => format!("{kind} …{:04x}", address & 0xffff),
    }
}

/// For `dot -Tsvg`.
pub fn dot(report: &Report) -> Vec<String> {
    let picture = Picture::of(report);
    let mut lines = vec![
        "digraph locks {".to_owned(),
        "  rankdir=LR;".to_owned(),
        "  node [shape=box, fontname=\"monospace\"];".to_owned(),
        "  edge [fontname=\"monospace\", fontsize=10];".to_owned(),
    ];
    for party in picture.nodes.values() {
        let label = dot_text(&format!("{} {}", party.comm, party.tid));
        lines.push(format!("  t{} [label=\"{label}\"];", party.tid));
    }
    for arrow in &picture.arrows {
        let style = if arrow.deadlock {
            ", color=red, penwidth=3"
        } else {
            ""
        };
        lines.push(format!(
            "  t{} -> t{} [label=\"{}\"{style}];",
            arrow.from,
            arrow.to,
            dot_text(&arrow.label)
        ));
    }
    lines.push("}".to_owned());
    lines
}

/// Text inside the quotes of DOT: backslashes begin escapes there.
fn dot_text(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"")
}

/// For Mermaid.
pub fn mermaid(report: &Report) -> Vec<String> {
    let picture = Picture::of(report);
    let mut lines = vec!["flowchart LR".to_owned()];
    for party in picture.nodes.values() {
        let label = mermaid_text(&format!("{} {}", party.comm, party.tid));
        lines.push(format!("  t{}[\"{label}\"]", party.tid));
    }
    let mut red = Vec::new();
    for (position, arrow) in picture.arrows.iter().enumerate() {
        let line = if arrow.deadlock { "==>" } else { "-->" };
        lines.push(format!(
            "  t{} {line}|\"{}\"| t{}",
            arrow.from,
            mermaid_text(&arrow.label),
            arrow.to
        ));
        if arrow.deadlock {
            red.push(position.to_string());
        }
    }
    if !red.is_empty() {
        lines.push(format!("  linkStyle {} stroke:red", red.join(",")));
    }
    lines
}

/// Text inside the quotes of Mermaid, which knows entities by `#` and reads Markdown and HTML.
fn mermaid_text(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '#' => out.push_str("#35;"),
            '"' => out.push_str("#quot;"),
            '<' => out.push_str("#lt;"),
            '>' => out.push_str("#gt;"),
            '`' | '\\' | '&' | '*' | '_' | '[' | ']' | '|' => {
                let _ = write!(out, "#{};", u32::from(character));
            }
            other => out.push(other),
        }
    }
    out
}
