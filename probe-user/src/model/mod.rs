//! What the records mean. Pure: no aya, no tokio, no /proc, no clock; everything comes in as arguments.
//!
//! | module | answers |
//! |---|---|
//! | [`thread`] | what one thread is, does and waits for |
//! | [`account`] | how long it was in each state, and the difference of two such accounts |
//! | [`snapshot`] | everything known about the host at one moment |
//! | [`tree`] | processes with their threads, children under parents |
//! | [`tracker`] | what every account gained since it was last looked at |
//! | [`transitions`] | how often threads went from state to state |
//! | [`window`] | what happened between two snapshots, by thread, process, name or unit |
//! | [`groups`] | running totals per group that survive the end of its processes |
//! | [`blocked`] | what a blocked thread waits in |
//! | [`event`] | births, execs and deaths |
//! | [`ancestry`] | the tree with the dead ancestors of the living |
//! | [`life`] | one process from birth to reaping |
//! | [`lives`] | who was born to whom, died of what, lost its parent |
//! | [`locks`] | who waits on whom: contention, deadlocks, stalls |
//! | [`waits`] | what groups waited in, by cause |
//! | [`zombies`], [`orphans`] | the unreaped and the adopted, with who is at fault |
//! | [`unit`] | which container or service a cgroup path belongs to |
//! | [`label_map`] | rules that rename or drop units |
//! | [`unit_filter`] | which units have series of their own |
//! | [`unit_resources`] | what units may take of CPU and pids, and what they were refused |

pub mod account;
pub mod ancestry;
pub mod blocked;
pub mod dying;
pub mod event;
pub mod groups;
pub mod label_map;
pub mod life;
pub mod lives;
pub mod locks;
pub mod orphans;
pub mod snapshot;
pub mod thread;
pub mod tracker;
pub mod transitions;
pub mod tree;
pub mod unit;
pub mod unit_filter;
pub mod unit_resources;
pub mod waits;
pub mod window;
pub mod zombies;

use std::fmt::Write;

/// Text that can break no terminal, table, label or stream: control characters and bytes that are no UTF-8 come out
/// escaped (`\n`, `\u{1b}`, `\xff`), everything printable as it is.
pub fn escape(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        for character in chunk.valid().chars() {
            match character {
                '\n' => out.push_str("\\n"),
                '\t' => out.push_str("\\t"),
                '\r' => out.push_str("\\r"),
                c if c.is_control() || is_invisible(c) => out.extend(c.escape_unicode()),
                c => out.push(c),
            }
        }
        for byte in chunk.invalid() {
            let _ = write!(out, "\\x{byte:02x}");
        }
    }
    out
}

/// Characters that reorder or hide text on a terminal without being control characters.
fn is_invisible(character: char) -> bool {
    matches!(
        character,
        '\u{ad}'
            | '\u{61c}'
            | '\u{180e}'
            | '\u{200b}'..='\u{200f}'
            | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}'
            | '\u{feff}'
            | '\u{fff9}'..='\u{fffb}'
            | '\u{e0000}'..='\u{e007f}'
    )
}
