//! `cargo xtask verify`: one table of all that was recorded: on which kernel, what, how it came out, and the command to do it again.
//!
//! The sections of the documentation are what it is made of, so that it says nothing they do not; whatever records a section
//! makes the table anew.

mod read;

use std::{collections::BTreeMap, fs};

use anyhow::{Context, Result, ensure};

use self::read::Outcome;
use crate::{
    record::{self, PERFORMANCE, Table, VERIFICATION},
    workspace::Workspace,
};

/// Where the table is.
const PLACE: &str = "overview";

/// A recorded section, and who reads it.
struct Section {
    page: &'static str,
    place: &'static str,
    what: &'static str,
    read: fn(&str) -> Vec<Outcome>,
}

const SECTIONS: [Section; 10] = [
    section(
        VERIFICATION,
        "vm",
        "the agent in a virtual machine",
        read::kernels,
    ),
    section(
        VERIFICATION,
        "vm-lockdown",
        "the same, locked down",
        read::kernels,
    ),
    section(
        VERIFICATION,
        "truth",
        "beside the kernel's counts and libbpf-tools",
        read::agreement,
    ),
    section(
        VERIFICATION,
        "corpus",
        "words about locks against programs whose truth is known",
        read::agreement,
    ),
    section(VERIFICATION, "soak", "churn", read::sentence),
    section(PERFORMANCE, "switch", "cost of a context switch", read::goals),
    section(PERFORMANCE, "futex", "cost of a futex wait", read::goals),
    section(PERFORMANCE, "scrape", "a scrape of 10,000 threads", read::scrapes),
    section(
        PERFORMANCE,
        "snapshot",
        "a look at very many threads",
        read::looks,
    ),
    section(
        PERFORMANCE,
        "slowdown",
        "real programs, CPU time beside the agent",
        read::slowdown,
    ),
];

const fn section(
    page: &'static str,
    place: &'static str,
    what: &'static str,
    read: fn(&str) -> Vec<Outcome>,
) -> Section {
    Section {
        page,
        place,
        what,
        read,
    }
}

/// The verb.
pub fn run(workspace: &Workspace) -> Result<()> {
    let (table, good) = overview(workspace)?;
    print!("{}", table.text());
    write(workspace, &table)?;
    ensure!(good, "not everything is as it should be: see the table");
    Ok(())
}

/// Makes the table anew.
pub fn refresh(workspace: &Workspace) -> Result<()> {
    write(workspace, &overview(workspace)?.0)
}

fn write(workspace: &Workspace, table: &Table) -> Result<()> {
    let path = workspace.root.join(VERIFICATION);
    let page = fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
    let page = record::replaced(&page, PLACE, &table.markdown())
        .with_context(|| format!("{VERIFICATION} has no place called {PLACE}"))?;
    fs::write(&path, page).with_context(|| format!("writing {}", path.display()))
}

/// The table, and whether all of it is good.
fn overview(workspace: &Workspace) -> Result<(Table, bool)> {
    let mut pages = BTreeMap::new();
    for page in [VERIFICATION, PERFORMANCE] {
        let path = workspace.root.join(page);
        let text = fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
        pages.insert(page, text);
    }
    let mut table = Table::new(&["kernel", "what", "verdict", "figure", "command", "on"]);
    let mut good = true;
    for section in &SECTIONS {
        let text = pages.get(section.page).and_then(|page| part(page, section.place));
        let text = text.with_context(|| format!("{} has no place called {}", section.page, section.place))?;
        let origin = Origin::of(text);
        let outcomes = (section.read)(text);
        good &= origin.is_some() && !outcomes.is_empty();
        if outcomes.is_empty() {
            table.row(vec!["–".into(), section.what.into(), "not recorded".into()]);
        }
        for outcome in outcomes {
            good &= outcome.good != Some(false);
            table.row(row(section, &outcome, origin.as_ref()));
        }
    }
    Ok((table, good))
}

fn row(section: &Section, outcome: &Outcome, origin: Option<&Origin<'_>>) -> Vec<String> {
    let kernel = outcome.kernel.as_deref().or(origin.map(|origin| origin.kernel));
    let what = match &outcome.what {
        Some(what) => format!("{}: {what}", section.what),
        None => section.what.to_owned(),
    };
    let verdict = match outcome.good {
        Some(true) => "ok",
        Some(false) => "MISSED",
        None => "–",
    };
    vec![
        kernel.unwrap_or("?").to_owned(),
        what,
        verdict.to_owned(),
        outcome.figure.clone(),
        origin.map_or_else(String::new, |origin| format!("`{}`", origin.command)),
        origin.map_or_else(String::new, |origin| origin.date.to_owned()),
    ]
}

/// What stands between the comments of a place.
fn part<'a>(page: &'a str, place: &str) -> Option<&'a str> {
    let (_, rest) = page.split_once(&format!("<!-- begin: {place} -->"))?;
    Some(rest.split_once(&format!("<!-- end: {place} -->"))?.0)
}

/// The line above a table: `` `command` on a machine …, Linux 6.1.2, 2026-01-02: ``.
struct Origin<'a> {
    command: &'a str,
    kernel: &'a str,
    date: &'a str,
}

impl<'a> Origin<'a> {
    fn of(text: &'a str) -> Option<Self> {
        let line = text.lines().find(|line| line.starts_with('`'))?;
        let (command, rest) = line.strip_prefix('`')?.split_once("` on ")?;
        let (rest, date) = rest.strip_suffix(':')?.rsplit_once(", ")?;
        let (_, kernel) = rest.rsplit_once("Linux ")?;
        Some(Self {
            command,
            kernel,
            date,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_section_says_where_it_comes_from() {
        let page = "x\n<!-- begin: a -->\n\n`cargo xtask a --b` on a machine with 2 CPUs (X, Y), Linux 6.1.2, 2026-01-02:\n\n<!-- end: a -->\n";
        let origin = part(page, "a").and_then(Origin::of).unwrap();
        assert_eq!(
            (origin.command, origin.kernel, origin.date),
            ("cargo xtask a --b", "6.1.2", "2026-01-02")
        );
        assert!(part(page, "b").is_none());
    }
}
