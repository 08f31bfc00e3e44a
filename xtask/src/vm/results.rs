//! How the live tests went in a guest, by what its console said.
//!
//! `live: begin NAME`, then `live: skip NAME: why` for what a test leaves out by itself, and `live: ok NAME` or
//! `live: FAILED NAME: why`. What was planned and has no such line has failed.

use super::plan::{self, Plan};

/// The outcomes so far.
#[derive(Default)]
pub struct Results {
    planned: Vec<String>,
    pub left_out: usize,
    begun: Vec<String>,
    /// Name, and why it failed.
    ended: Vec<(String, Option<String>)>,
    /// Name, and what of it did not run.
    skipped: Vec<(String, String)>,
}

impl Results {
    pub fn of(plan: &Plan) -> Self {
        Self {
            planned: plan.run.clone(),
            left_out: plan.left_out,
            ..Self::default()
        }
    }

    /// Takes note of what follows `live: `.
    pub fn line(&mut self, line: &str) {
        let (what, rest) = line.split_once(' ').unwrap_or((line, ""));
        let (name, why) = rest.split_once(": ").unwrap_or((rest, ""));
        let name = name.to_owned();
        match what {
            "begin" => self.begun.push(name),
            "skip" => self.skipped.push((name, why.to_owned())),
            "ok" => self.ended.push((name, None)),
            _ => self.ended.push((name, Some(why.to_owned()))),
        }
    }

    /// How many there should be; 0 if the live tests were not asked for.
    pub fn planned(&self) -> usize {
        self.planned.len()
    }

    /// How many passed, and left nothing out that they may not.
    pub fn passed(&self) -> usize {
        self.planned
            .iter()
            .filter(|test| self.why_not(test).is_none())
            .count()
    }

    /// How many passed and left a part out.
    pub fn in_part(&self) -> usize {
        let passed = self.planned.iter().filter(|test| self.why_not(test).is_none());
        passed
            .filter(|test| self.skipped.iter().any(|(name, _)| name == *test))
            .count()
    }

    /// What was skipped, a line each.
    pub fn skips(&self) -> impl Iterator<Item = String> {
        self.skipped.iter().map(|(name, why)| format!("{name}: {why}"))
    }

    /// Everything that went wrong, a line each; those that did not even begin share one, as they will have one reason.
    pub fn complaints(&self) -> impl Iterator<Item = String> {
        let silent: Vec<&str> = self
            .planned
            .iter()
            .filter(|test| self.has_vanished(test))
            .map(String::as_str)
            .collect();
        let silent = (!silent.is_empty()).then(|| format!("did not run: {}", silent.join(", ")));
        let rest = self.planned.iter().filter(|test| !self.has_vanished(test));
        rest.filter_map(|test| Some(format!("{test} {}", self.why_not(test)?)))
            .chain(silent)
    }

    fn has_vanished(&self, test: &str) -> bool {
        !self.begun.iter().any(|name| name == test) && !self.ended.iter().any(|(name, _)| name == test)
    }

    /// Why a test has not passed.
    fn why_not(&self, test: &str) -> Option<String> {
        let mut ends = self.ended.iter().filter(|(name, _)| name == test);
        match (ends.next(), ends.next()) {
            (Some((_, Some(why))), _) | (_, Some((_, Some(why)))) => Some(format!("FAILED: {why}")),
            (None, _) if self.begun.iter().any(|name| name == test) => Some("did not end".to_owned()),
            (None, _) => Some("did not run".to_owned()),
            (Some((_, None)), _) => self.skipped_too_much(test),
        }
    }

    fn skipped_too_much(&self, test: &str) -> Option<String> {
        self.skipped
            .iter()
            .find(|(name, why)| name == test && !plan::may_skip(test, why))
            .map(|(_, why)| format!("was skipped: {why}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn heard(lines: &[&str]) -> Results {
        let plan = Plan {
            run: vec!["a::x".to_owned(), "names::y".to_owned()],
            left_out: 0,
        };
        let mut results = Results::of(&plan);
        for line in lines {
            results.line(line);
        }
        results
    }

    fn complaints(lines: &[&str]) -> Vec<String> {
        heard(lines).complaints().collect()
    }

    const WELL: [&str; 4] = ["begin a::x", "ok a::x", "begin names::y", "ok names::y"];

    #[test]
    fn what_was_planned_and_passed_is_fine() {
        assert_eq!(complaints(&WELL), Vec::<String>::new());
        assert_eq!((heard(&WELL).passed(), heard(&WELL).planned()), (2, 2));
    }

    #[test]
    fn what_vanished_or_never_ended_has_failed() {
        assert_eq!(complaints(&WELL[2..]), ["did not run: a::x"]);
        assert_eq!(complaints(&WELL[..3]), ["names::y did not end"]);
        assert_eq!(complaints(&[]), ["did not run: a::x, names::y"]);
    }

    #[test]
    fn a_failure_says_why_whatever_else_is_said() {
        let failed = ["begin a::x", "FAILED a::x: at x.rs:1:2: no: way", "ok names::y"];
        assert_eq!(complaints(&failed), ["a::x FAILED: at x.rs:1:2: no: way"]);
        let both = [&failed[..], &["ok a::x"]].concat();
        assert_eq!(complaints(&both).len(), 1);
        assert_eq!(heard(&both).passed(), 1);
    }

    #[test]
    fn a_skip_that_nobody_listed_is_a_failure() {
        let skip = [&WELL[..], &["skip a::x: units: no cgroup hierarchy is mounted"]].concat();
        assert_eq!(
            complaints(&skip),
            ["a::x was skipped: units: no cgroup hierarchy is mounted"]
        );
        let listed = [&WELL[..], &["skip names::y: check: no promtool on the path"]].concat();
        assert_eq!(complaints(&listed), Vec::<String>::new());
        assert_eq!(heard(&listed).in_part(), 1);
    }
}
