//! What a guest said on its console, and the table over all of them.

use std::time::Duration;

use anyhow::Error;

use super::Row;
use crate::record::Table;

/// How a boot ended.
#[derive(Clone, Copy)]
pub enum Ending {
    PoweredOff(Duration),
    TimedOut(Duration),
}

/// What a guest's console said.
#[derive(Default)]
pub struct Report {
    started: bool,
    panicked: bool,
    planned: Vec<String>,
    /// Name, and why it failed.
    checks: Vec<(String, Option<String>)>,
    verdict: Option<bool>,
    /// Why there is no verdict.
    broken: Option<String>,
    took: Option<Duration>,
}

impl Report {
    /// A boot that could not even be tried.
    pub fn broken(error: Error) -> Self {
        Self {
            broken: Some(format!("{error:#}")),
            ..Self::default()
        }
    }

    /// Takes note of a line.
    pub fn line(&mut self, line: &str) {
        if line.contains("init: started") {
            self.started = true;
        } else if line.contains("Kernel panic - not syncing") {
            self.panicked = true;
        } else if let Some(plan) = line.strip_prefix("plan: ") {
            self.planned = plan.split(',').map(str::to_owned).collect();
        } else if let Some(check) = line.strip_prefix("check: ") {
            let (name, outcome) = check.split_once(": ").unwrap_or((check, "FAILED"));
            let why = (outcome != "ok").then(|| outcome.trim_start_matches("FAILED ").to_owned());
            self.checks.push((name.to_owned(), why));
        } else if let Some(verdict) = line.strip_prefix("verdict: ") {
            self.verdict = Some(verdict == "success");
        }
    }

    /// Says how it ended.
    pub fn end(mut self, ending: Ending) -> Self {
        match ending {
            Ending::PoweredOff(took) => self.took = Some(took),
            Ending::TimedOut(limit) => {
                self.broken = Some(format!("no verdict within {} s", limit.as_secs()));
            }
        }
        if self.broken.is_none() && self.panicked {
            self.broken = Some("the kernel panicked".to_owned());
        }
        if self.broken.is_none() && self.verdict.is_none() {
            self.broken = Some("ended without a verdict".to_owned());
        }
        self
    }

    /// Whether the guest's kernel gave up before any of our programs ran.
    pub fn panicked_early(&self) -> bool {
        self.panicked && !self.started
    }

    /// Whether all that was planned was done, and well.
    pub fn passed(&self) -> bool {
        self.verdict == Some(true)
            && self.broken.is_none()
            && self.planned.iter().all(|name| self.is_ok(name))
    }

    fn is_ok(&self, name: &str) -> bool {
        name.is_empty() || self.cell(name) == "ok"
    }

    /// A word for the table.
    fn cell(&self, name: &str) -> &'static str {
        match self.checks.iter().find(|(check, _)| check == name) {
            Some((_, None)) => "ok",
            Some((_, Some(_))) => "FAILED",
            None if self.planned.iter().any(|check| check == name) => "MISSING",
            None => "–",
        }
    }

    /// Everything that went wrong, a line each.
    pub fn complaints(&self) -> Vec<String> {
        let failed = self.checks.iter().filter_map(|(name, why)| {
            let why = why.as_ref()?;
            Some(format!("{name} FAILED: {why}"))
        });
        failed.chain(self.broken.clone()).collect()
    }

    fn word(&self) -> String {
        match (self.passed(), self.took) {
            (true, Some(took)) => format!("ok, {} s", took.as_secs()),
            _ => "FAILED".to_owned(),
        }
    }
}

/// Kernel by check.
pub fn table(rows: &[Row]) -> Table {
    let mut names: Vec<&str> = Vec::new();
    for name in rows.iter().flat_map(|row| &row.report.planned) {
        if !names.contains(&name.as_str()) {
            names.push(name);
        }
    }
    let heading: Vec<String> = names.iter().map(|name| name.to_uppercase()).collect();
    let heading = ["KERNEL", "VERDICT"]
        .into_iter()
        .chain(heading.iter().map(String::as_str));
    let mut table = Table::new(&heading.collect::<Vec<_>>());
    for Row { kernel, report } in rows {
        let mut line = vec![kernel.clone(), report.word()];
        line.extend(names.iter().map(|name| report.cell(name).to_owned()));
        table.row(line);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(lines: &[&str]) -> Report {
        let mut report = Report::default();
        for line in lines {
            report.line(line);
        }
        report.end(Ending::PoweredOff(Duration::from_secs(3)))
    }

    #[test]
    fn only_a_kept_plan_passes() {
        let plan = ["init: started", "plan: tree,every pid", "check: tree: ok"];
        let kept = [&plan[..], &["check: every pid: ok", "verdict: success"]].concat();
        assert!(said(&kept).passed());
        let skipped = [&plan[..], &["verdict: success"]].concat();
        assert!(!said(&skipped).passed());
        assert_eq!(said(&skipped).cell("every pid"), "MISSING");
        let silent = [&plan[..], &["check: every pid: ok"]].concat();
        assert!(!said(&silent).passed());
        assert_eq!(said(&silent).complaints(), ["ended without a verdict"]);
    }

    #[test]
    fn a_failed_check_says_why() {
        let report = said(&["plan: tree", "check: tree: FAILED no: way", "verdict: failure"]);
        assert!(!report.passed());
        assert_eq!(report.complaints(), ["tree FAILED: no: way"]);
    }

    #[test]
    fn only_a_panic_before_init_is_the_translators() {
        assert!(said(&["Kernel panic - not syncing: x"]).panicked_early());
        assert!(!said(&["init: started", "Kernel panic - not syncing: x"]).panicked_early());
    }
}
