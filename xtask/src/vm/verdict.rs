//! What a guest said on its console, and the table over all of them.

use std::time::Duration;

use anyhow::Error;

use super::{Row, plan::Plan, results::Results};
use crate::record::{self, Table};

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
    /// A CPU ran into a breakpoint that the kernel had set for itself.
    trapped: bool,
    planned: Vec<String>,
    /// Name, and why it failed.
    checks: Vec<(String, Option<String>)>,
    live: Results,
    verdict: Option<bool>,
    /// Why there is no verdict.
    broken: Option<String>,
    took: Option<Duration>,
}

impl Report {
    /// A boot that could not even be tried.
    pub fn broken(plan: &Plan, error: &Error) -> Self {
        Self {
            broken: Some(format!("{error:#}")),
            ..Self::expecting(plan)
        }
    }

    /// Before the boot: the live tests that it has to run.
    pub fn expecting(plan: &Plan) -> Self {
        Self {
            live: Results::of(plan),
            ..Self::default()
        }
    }

    /// Takes note of a line.
    pub fn line(&mut self, line: &str) {
        if line.contains("init: started") {
            self.started = true;
        } else if line.contains("Kernel panic - not syncing") {
            self.panicked = true;
        } else if line.contains("int3: 0000") {
            self.trapped = true;
        } else if let Some(plan) = line.strip_prefix("plan: ") {
            self.planned = plan.split(',').map(str::to_owned).collect();
        } else if let Some(check) = line.strip_prefix("check: ") {
            let (name, outcome) = check.split_once(": ").unwrap_or((check, "FAILED"));
            let why = (outcome != "ok").then(|| outcome.trim_start_matches("FAILED ").to_owned());
            self.checks.push((name.to_owned(), why));
        } else if let Some(test) = line.strip_prefix("live: ") {
            self.live.line(test);
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

    /// Whether the guest's kernel gave up for reasons of QEMU's translator: before any of our programs ran, or at a
    /// breakpoint by which it rewrites itself (`guest-init/hold.rs`), which nobody else sets.
    pub fn died_of_the_translator(&self) -> bool {
        self.panicked && (!self.started || self.trapped)
    }

    /// Whether all that was planned was done, and well.
    pub fn passed(&self) -> bool {
        self.verdict == Some(true)
            && self.broken.is_none()
            && self.planned.iter().all(|name| self.is_ok(name))
            && self.live.passed() == self.live.planned()
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
        let failed = self.planned.iter().filter(|name| !self.is_ok(name));
        let failed = failed.map(|name| {
            let why = self.checks.iter().find(|(check, _)| check == name);
            let why = why
                .and_then(|(_, why)| why.as_deref())
                .unwrap_or("it did not run");
            format!("{name} FAILED: {why}")
        });
        failed
            .chain(self.live.complaints())
            .chain(self.broken.clone())
            .collect()
    }

    /// What live tests left out by themselves, a line each.
    pub fn remarks(&self) -> Vec<String> {
        let skipped = self.live.skips();
        skipped.map(|skip| format!("left out in part: {skip}")).collect()
    }

    fn word(&self) -> String {
        match (self.passed(), self.took) {
            (true, Some(took)) => format!("ok, {} s", took.as_secs()),
            _ => "FAILED".to_owned(),
        }
    }

    /// The checks by number, and those that failed by name.
    fn checks(&self) -> String {
        let planned: Vec<&str> = self.planned.iter().map(String::as_str).collect();
        let planned: Vec<&str> = planned.into_iter().filter(|name| !name.is_empty()).collect();
        let failed: Vec<&str> = planned.iter().copied().filter(|name| !self.is_ok(name)).collect();
        let passed = planned.len() - failed.len();
        match failed.as_slice() {
            [] => format!("{passed} of {}", planned.len()),
            _ => format!("{passed} of {}, not {}", planned.len(), failed.join(", ")),
        }
    }

    /// The live tests by number.
    fn live(&self) -> [String; 3] {
        if self.live.planned() == 0 {
            return ["–", "–", "–"].map(str::to_owned);
        }
        [
            format!("{} of {}", self.live.passed(), self.live.planned()),
            self.live.in_part().to_string(),
            self.live.left_out.to_string(),
        ]
    }
}

/// A row for each kernel.
pub fn table(rows: &[Row]) -> Table {
    let mut table = Table::new(&[
        "KERNEL",
        "VERDICT",
        "CHECKS",
        "LIVE TESTS",
        "OF WHICH IN PART",
        "LEFT OUT",
        "DAY",
    ]);
    let day = record::today().unwrap_or_default();
    for Row { kernel, report } in rows {
        let [passed, in_part, left_out] = report.live();
        table.row(vec![
            kernel.clone(),
            report.word(),
            report.checks(),
            passed,
            in_part,
            left_out,
            day.clone(),
        ]);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(lines: &[&str]) -> Report {
        heard(Report::default(), lines)
    }

    fn heard(mut report: Report, lines: &[&str]) -> Report {
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
    fn only_a_panic_before_init_or_at_a_breakpoint_is_the_translators() {
        let panic = "Kernel panic - not syncing: x";
        assert!(said(&[panic]).died_of_the_translator());
        assert!(!said(&["init: started", panic]).died_of_the_translator());
        let trap = "[   53.5] Oops: int3: 0000 [#1] PREEMPT SMP PTI";
        assert!(said(&["init: started", trap, panic]).died_of_the_translator());
    }

    #[test]
    fn live_tests_count_as_checks_do_and_a_panic_fails_them_all() {
        let plan = Plan {
            run: vec!["a::x".to_owned()],
            left_out: 1,
        };
        let well = [
            "init: started",
            "live: begin a::x",
            "live: ok a::x",
            "verdict: success",
        ];
        let report = heard(Report::expecting(&plan), &well);
        assert!(report.passed());
        assert_eq!(report.live(), ["1 of 1", "0", "1"]);
        // The guest thinks that all is well, and has run none.
        let vanished = heard(Report::expecting(&plan), &[well[0], well[3]]);
        assert!(!vanished.passed());
        assert_eq!(vanished.complaints(), ["did not run: a::x"]);
        let panic = [
            "init: started",
            "live: begin a::x",
            "Kernel panic - not syncing: x",
        ];
        let report = heard(Report::expecting(&plan), &panic);
        assert!(!report.passed());
        assert_eq!(report.complaints(), ["a::x did not end", "the kernel panicked"]);
    }
}
