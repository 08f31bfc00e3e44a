//! `cargo xtask verify`: one table of all that was recorded: on which kernel, what, how it came out, and the command to do it again.
//!
//! The sections of the documentation are what it is made of, so that it says nothing they do not; whatever records a section
//! makes the table anew.

use std::{collections::BTreeMap, fs};

use anyhow::{Context, Result, ensure};

use crate::{
    record::{self, PERFORMANCE, Table, VERIFICATION},
    workspace::Workspace,
};

/// Where the table is.
const PLACE: &str = "overview";

/// How something came out: the kernel if it was not the host's, what exactly if there is more than one thing, whether it is as it
/// should be if that can be said, and the figure.
#[derive(Debug, Default, PartialEq)]
struct Outcome {
    kernel: Option<String>,
    what: Option<String>,
    good: Option<bool>,
    figure: String,
}

/// A recorded section, and who reads it.
struct Section {
    page: &'static str,
    place: &'static str,
    what: &'static str,
    read: fn(&str) -> Vec<Outcome>,
}

const SECTIONS: [Section; 8] = [
    section(VERIFICATION, "vm", "the agent in a virtual machine", kernels),
    section(VERIFICATION, "vm-lockdown", "the same, locked down", kernels),
    section(
        VERIFICATION,
        "truth",
        "beside the kernel's counts and libbpf-tools",
        agreement,
    ),
    section(VERIFICATION, "soak", "churn", sentence),
    section(PERFORMANCE, "switch", "cost of a context switch", goals),
    section(PERFORMANCE, "futex", "cost of a futex wait", goals),
    section(PERFORMANCE, "scrape", "a scrape of 10,000 threads", scrapes),
    section(PERFORMANCE, "snapshot", "a look at very many threads", looks),
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

/// Rows of a table in a section, without its heading.
fn rows(text: &str) -> impl Iterator<Item = Vec<&str>> {
    let lines = text
        .lines()
        .filter_map(|line| line.strip_prefix('|')?.strip_suffix('|'));
    lines.skip(2).map(|line| line.split('|').map(str::trim).collect())
}

/// A row for each kernel: its name, the verdict, how many checks and live tests passed; or, as older runs have it, one cell
/// for each check.
fn kernels(text: &str) -> Vec<Outcome> {
    let outcome = |cells: Vec<&str>| {
        let [kernel, verdict, checks @ ..] = cells.as_slice() else {
            return None;
        };
        if let [checks, live, ..] = checks
            && checks.contains(" of ")
        {
            return Some(counted(kernel, verdict, checks, live));
        }
        let made = checks.iter().filter(|check| **check != "–");
        let passed = checks.iter().filter(|check| **check == "ok").count();
        let made = made.count();
        let took = verdict.strip_prefix("ok, ");
        Some(Outcome {
            kernel: Some((*kernel).to_owned()),
            good: Some(took.is_some() && passed == made && made > 0),
            figure: format!("{passed} of {made} checks, {}", took.unwrap_or(verdict)),
            ..Outcome::default()
        })
    };
    rows(text).filter_map(outcome).collect()
}

/// A row with numbers: "9 of 9" checks, "105 of 105" live tests, "–" where none were asked for.
fn counted(kernel: &str, verdict: &str, checks: &str, live: &str) -> Outcome {
    let is_whole = |cell: &str| {
        cell.split_once(" of ")
            .is_some_and(|(passed, all)| passed == all && all != "0")
    };
    let took = verdict.strip_prefix("ok, ");
    let tests = match live {
        "–" => String::new(),
        live => format!(", {live} live tests"),
    };
    Outcome {
        kernel: Some(kernel.to_owned()),
        good: Some(took.is_some() && is_whole(checks) && (live == "–" || is_whole(live))),
        figure: format!("{checks} checks{tests}, {}", took.unwrap_or(verdict)),
        ..Outcome::default()
    }
}

/// Rows that say at their end whether they agree.
fn agreement(text: &str) -> Vec<Outcome> {
    let all: Vec<bool> = rows(text).map(|cells| cells.last() == Some(&"yes")).collect();
    let agree = all.iter().filter(|agrees| **agrees).count();
    let outcome = Outcome {
        good: Some(agree == all.len()),
        figure: format!("{agree} of {} figures agree", all.len()),
        ..Outcome::default()
    };
    if all.is_empty() { Vec::new() } else { vec![outcome] }
}

/// One sentence that begins with the verdict.
fn sentence(text: &str) -> Vec<Outcome> {
    let line = text.lines().find_map(|line| line.strip_prefix("Flat: "));
    let outcome = |line: &str| Outcome {
        good: Some(true),
        figure: format!("flat {}", line.trim_end_matches('.')),
        ..Outcome::default()
    };
    line.map(outcome).into_iter().collect()
}

/// Lines that name a figure and, in brackets, its goal: `… 0.72 … (…; the goal is 0.50 or less)`. What a ratio is of says the line
/// before it.
fn goals(text: &str) -> Vec<Outcome> {
    let outcome = |(before, line): (&str, &str)| {
        let (said, rest) = line.split_once(" (")?;
        let rest = rest.split_once("the goal is ")?.1;
        let goal = rest.split_once(" or less")?.0;
        let number = |text: &str| text.trim_start_matches('+').parse::<f64>().ok();
        let figure = said.split_ascii_whitespace().find_map(number)?;
        Some(Outcome {
            what: said.starts_with("ratio").then(|| before.to_owned()),
            good: Some(figure <= number(goal.trim_end_matches(" ns"))?),
            figure: format!("{said}; the goal is {goal}"),
            ..Outcome::default()
        })
    };
    let lines = text.lines().zip(text.lines().skip(1));
    lines.filter_map(outcome).collect()
}

/// Our scrape as a part of each other exporter's; the goal is a fiftieth of process-exporter's.
fn scrapes(text: &str) -> Vec<Outcome> {
    const GOAL: u32 = 50;
    let outcome = |cells: Vec<&str>| {
        let [load, exporter, _, part, ..] = cells.as_slice() else {
            return None;
        };
        let times: u32 = part.strip_prefix("1/")?.parse().ok()?;
        let judged = exporter.starts_with("process-exporter");
        Some(Outcome {
            what: Some((*load).to_owned()),
            good: judged.then_some(times >= GOAL),
            figure: format!("{part} of {exporter}"),
            ..Outcome::default()
        })
    };
    rows(text).filter_map(outcome).collect()
}

/// Times of looks; the goals are for some ten thousand threads: 10 ms, with times and histograms 15 ms.
fn looks(text: &str) -> Vec<Outcome> {
    let outcome = |cells: Vec<&str>| {
        let [threads, look, with_times, ..] = cells.as_slice() else {
            return None;
        };
        let count: u64 = threads.parse().ok()?;
        let ms = |cell: &str| cell.strip_suffix(" ms")?.parse::<f64>().ok();
        let within = ms(look)? <= 10.0 && ms(with_times)? <= 15.0;
        Some(Outcome {
            what: Some((*threads).to_owned()),
            good: (9_000..12_000).contains(&count).then_some(within),
            figure: format!("{look}, with times {with_times}"),
            ..Outcome::default()
        })
    };
    rows(text).filter_map(outcome).collect()
}

#[cfg(test)]
mod tests;
