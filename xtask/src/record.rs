//! Tables as they are printed, and as they stand in the documentation.
//!
//! A page has a place for each table, between two comments that name it; `--record` puts the table of a run there, with the
//! machine and the command. What the page says around it is written by hand.

use std::{fs, process::Command};

use anyhow::{Context, Result, ensure};

use crate::{
    process::{self, say},
    verify,
    workspace::Workspace,
};

/// Where the tables of each page are.
pub const VERIFICATION: &str = "docs/verification.md";
pub const PERFORMANCE: &str = "docs/performance.md";

/// Rows under a heading.
pub struct Table {
    heading: Vec<String>,
    rows: Vec<Vec<String>>,
}

impl Table {
    pub fn new(heading: &[&str]) -> Self {
        Self {
            heading: heading.iter().map(|&cell| cell.to_owned()).collect(),
            rows: Vec::new(),
        }
    }

    pub fn row(&mut self, cells: Vec<String>) {
        self.rows.push(cells);
    }

    /// For a terminal: columns that line up.
    pub fn text(&self) -> String {
        let widths = self.widths();
        let mut text = String::new();
        for row in std::iter::once(&self.heading).chain(&self.rows) {
            let cells: Vec<String> = row
                .iter()
                .zip(&widths)
                .map(|(cell, width)| format!("{cell:<width$}"))
                .collect();
            text.push_str(cells.join("  ").trim_end());
            text.push('\n');
        }
        text
    }

    /// For a page.
    pub fn markdown(&self) -> String {
        let line = |cells: &[String]| format!("| {} |\n", cells.join(" | "));
        let mut text = line(&self.heading);
        text.push_str(&line(&vec!["---".to_owned(); self.heading.len()]));
        for row in &self.rows {
            text.push_str(&line(row));
        }
        text
    }

    /// Takes over the rows of an older one that stands on a page, if it has the same heading, but for those that have a
    /// successor here. What a row is about is the key of its first cell, and its place.
    pub fn keep<K: Ord>(&mut self, page: &str, key: impl Fn(&str) -> K) {
        let cells = |line: &str| -> Option<Vec<String>> {
            let inner = line.strip_prefix("| ")?.strip_suffix(" |")?;
            Some(inner.split(" | ").map(str::to_owned).collect())
        };
        let lines = page.lines().map(cells);
        let older = lines.skip_while(|line| line.as_ref() != Some(&self.heading));
        // Behind the heading and the line below it, up to the first that is no row.
        let older: Vec<Vec<String>> = older.skip(2).map_while(|line| line).collect();
        let of = |row: &Vec<String>| row.first().map(|cell| key(cell));
        let successors: Vec<_> = self.rows.iter().map(of).collect();
        let kept = older.into_iter().filter(|row| !successors.contains(&of(row)));
        self.rows.extend(kept);
        self.rows.sort_by_cached_key(of);
    }

    fn widths(&self) -> Vec<usize> {
        let width = |column: usize| {
            let rows = std::iter::once(&self.heading).chain(&self.rows);
            rows.filter_map(|row| row.get(column))
                .map(|cell| cell.chars().count())
                .max()
                .unwrap_or(0)
        };
        (0..self.heading.len()).map(width).collect()
    }
}

/// Puts text into its place on a page, below a line that says how it came about.
pub fn put(workspace: &Workspace, page: &str, place: &str, command: &str, text: &str) -> Result<()> {
    let path = workspace.root.join(page);
    let old = fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
    let text = format!("`{command}` on {}:\n\n{text}", machine()?);
    let new = replaced(&old, place, &text).with_context(|| format!("{page} has no place called {place}"))?;
    fs::write(&path, new).with_context(|| format!("writing {}", path.display()))?;
    say(&format!("recorded in {page}"));
    verify::refresh(workspace)
}

/// What stands in a place.
pub fn standing(workspace: &Workspace, page: &str, place: &str) -> Result<String> {
    let path = workspace.root.join(page);
    let text = fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
    let inside = text
        .split_once(&format!("<!-- begin: {place} -->"))
        .and_then(|(_, rest)| rest.split_once(&format!("<!-- end: {place} -->")));
    let (inside, _) = inside.with_context(|| format!("{page} has no place called {place}"))?;
    Ok(inside.to_owned())
}

/// A page with a place filled anew; `None` if it has no such place.
pub fn replaced(page: &str, place: &str, text: &str) -> Option<String> {
    let (begin, end) = (
        format!("<!-- begin: {place} -->\n"),
        format!("<!-- end: {place} -->"),
    );
    let (before, rest) = page.split_once(&begin)?;
    let (_, after) = rest.split_once(&end)?;
    Some(format!("{before}{begin}\n{}\n\n{end}{after}", text.trim()))
}

/// What it was measured on, in a few words.
pub fn machine() -> Result<String> {
    let cpuinfo = fs::read_to_string("/proc/cpuinfo").context("reading /proc/cpuinfo")?;
    let model = cpuinfo
        .lines()
        .find_map(|line| {
            line.strip_prefix("model name")?
                .split_once(':')
                .map(|(_, model)| model.trim())
        })
        .unwrap_or("an unnamed CPU");
    let cpus = std::thread::available_parallelism().context("counting CPUs")?;
    let release = process::output(Command::new("uname").arg("-r"))?;
    let release = release.split(['-', '+']).next().unwrap_or("?").trim();
    let guest = if cpuinfo.contains(" hypervisor") {
        "virtual machine"
    } else {
        "machine"
    };
    let date = today()?;
    ensure!(!release.is_empty(), "uname says nothing");
    Ok(format!(
        "a {guest} with {cpus} CPUs ({model}), Linux {release}, {date}",
    ))
}

/// The day, as everywhere in the documentation.
pub fn today() -> Result<String> {
    let date = process::output(Command::new("date").args(["-u", "+%F"]))?;
    Ok(date.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_filled_and_filled_again() {
        let page = "# x\n<!-- begin: a -->\nold\n<!-- end: a -->\nrest\n";
        let once = replaced(page, "a", "new\n").unwrap();
        assert_eq!(once, "# x\n<!-- begin: a -->\n\nnew\n\n<!-- end: a -->\nrest\n");
        assert_eq!(replaced(&once, "a", "new\n").unwrap(), once);
        assert_eq!(replaced(page, "b", "new"), None);
    }

    #[test]
    fn tables_line_up_and_have_a_markdown_form() {
        let mut table = Table::new(&["a", "long"]);
        table.row(vec!["µ".into(), "1".into()]);
        assert_eq!(table.text(), "a  long\nµ  1\n");
        assert_eq!(table.markdown(), "| a | long |\n| --- | --- |\n| µ | 1 |\n");
    }

    #[test]
    fn rows_without_a_successor_are_kept_in_order() {
        let page = "x:\n\n| a | b |\n| --- | --- |\n| 1 | old |\n| 2 | old |\n| 3 | old |\n\n| c |\n| --- |\n| 4 |\n";
        let mut table = Table::new(&["a", "b"]);
        table.row(vec!["2".into(), "new".into()]);
        table.keep(page, str::to_owned);
        let body = "| 1 | old |\n| 2 | new |\n| 3 | old |\n";
        assert_eq!(table.markdown(), format!("| a | b |\n| --- | --- |\n{body}"));
        let mut other = Table::new(&["a", "z"]);
        other.keep(page, str::to_owned);
        assert_eq!(other.markdown(), "| a | z |\n| --- | --- |\n");
    }
}
