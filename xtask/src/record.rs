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
    let date = process::output(Command::new("date").args(["-u", "+%F"]))?;
    ensure!(!release.is_empty(), "uname says nothing");
    Ok(format!(
        "a {guest} with {cpus} CPUs ({model}), Linux {release}, {}",
        date.trim()
    ))
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
}
