//! All judgements together: who was taken for what, the four numbers with their bounds, and the cells that
//! fail.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

use super::judge::Judgement;
use crate::record::Table;

/// Shares that have to be reached.
const KINDS: f64 = 0.95;
const CONTENTION: f64 = 0.99;

/// So many of so many.
#[derive(Clone, Copy, Debug, Default)]
struct Part {
    good: u64,
    all: u64,
}

impl Part {
    fn count(&mut self, good: bool) {
        self.good += u64::from(good);
        self.all += 1;
    }

    fn reaches(self, share: f64) -> bool {
        self.good as f64 >= self.all as f64 * share
    }

    fn text(self) -> String {
        let Self { good, all } = self;
        if all == 0 {
            return "none asked".to_owned();
        }
        format!("{good} of {all} ({:.2} %)", good as f64 / all as f64 * 100.0)
    }
}

/// How a cell came out.
#[derive(Default)]
struct Outcome {
    looks: u64,
    /// What was wrong, and in how many looks.
    faults: BTreeMap<String, u64>,
}

#[derive(Default)]
pub struct Tally {
    told: BTreeMap<(String, String), u64>,
    looks: u64,
    false_words: u64,
    kinds: Part,
    contended: Part,
    idle: Part,
    ends: Part,
    cells: BTreeMap<String, Outcome>,
}

impl Tally {
    /// Takes in one look at a cell.
    pub fn add(&mut self, cell: &str, judgement: &Judgement) {
        self.looks += 1;
        self.false_words += judgement.false_words.len() as u64;
        for (truth, told, right) in &judgement.kinds {
            *self.told.entry((truth.clone(), told.clone())).or_default() += 1;
            self.kinds.count(*right);
        }
        let found = judgement.contended.iter();
        found.for_each(|found| self.contended.count(*found));
        judgement.idle.iter().for_each(|told| self.idle.count(!told));
        judgement.told.iter().for_each(|told| self.ends.count(*told));
        let words = judgement.false_words.iter().map(|word| format!("FALSE: {word}"));
        for fault in words.chain(judgement.missed.iter().cloned()) {
            self.fault(cell, fault);
        }
        self.cells.entry(cell.to_owned()).or_default().looks += 1;
    }

    /// A cell of which there is something to say beside judgements.
    pub fn fault(&mut self, cell: &str, fault: String) {
        let outcome = self.cells.entry(cell.to_owned()).or_default();
        *outcome.faults.entry(fault).or_default() += 1;
    }

    /// The numbers, each with its bound, and whether it holds.
    fn numbers(&self) -> [(&'static str, String, String, bool); 5] {
        let share = |share: f64| format!("{:.0} % or more", share * 100.0);
        let all = || "all".to_owned();
        let not_looked_at = self.cells.values().filter(|cell| cell.looks == 0).count();
        let false_words = self.false_words + not_looked_at as u64;
        [
            (
                "words that are false: deadlock, stall, end of an owner, holder",
                format!("{false_words} in {} looks", self.looks),
                "0".to_owned(),
                false_words == 0,
            ),
            (
                "kind of what is waited at",
                self.kinds.text(),
                share(KINDS),
                self.kinds.reaches(KINDS),
            ),
            (
                "contention found where it is",
                self.contended.text(),
                share(CONTENTION),
                self.contended.reaches(CONTENTION),
            ),
            (
                "no contention told where there is none",
                self.idle.text(),
                all(),
                self.idle.reaches(1.0),
            ),
            (
                "deadlocks and stalls told that can be known",
                self.ends.text(),
                all(),
                self.ends.reaches(1.0),
            ),
        ]
    }

    /// Whether every bound holds.
    pub fn is_good(&self) -> bool {
        self.looks > 0 && self.numbers().iter().all(|(.., holds)| *holds)
    }

    fn bounds(&self) -> Table {
        let mut table = Table::new(&["what", "figure", "goal", "agrees"]);
        for (what, figure, goal, holds) in self.numbers() {
            let agrees = if holds { "yes" } else { "NO" };
            table.row(vec![what.into(), figure, goal, agrees.into()]);
        }
        table
    }

    /// True kinds down, told ones across.
    fn confusion(&self) -> String {
        let told: BTreeSet<&str> = self.told.keys().map(|(_, told)| told.as_str()).collect();
        let truths: BTreeSet<&str> = self.told.keys().map(|(truth, _)| truth.as_str()).collect();
        let mut heading = vec!["true \\ told"];
        heading.extend(&told);
        let mut table = Table::new(&heading);
        for truth in truths {
            let count = |told: &&str| {
                let count = self.told.get(&(truth.to_owned(), (*told).to_owned()));
                count.map_or_else(|| "·".to_owned(), u64::to_string)
            };
            let mut row = vec![truth.to_owned()];
            row.extend(told.iter().map(count));
            table.row(row);
        }
        table.text()
    }

    /// A line for each cell in which anything was wrong.
    fn failing(&self) -> String {
        let mut text = String::new();
        for (name, cell) in self.cells.iter().filter(|(_, cell)| !cell.faults.is_empty()) {
            let faults = cell.faults.iter();
            let faults = faults.map(|(fault, count)| format!("{fault} ({count} of {})", cell.looks));
            let _ = writeln!(text, "{name}: {}", faults.collect::<Vec<_>>().join("; "));
        }
        text
    }

    pub fn text(&self) -> String {
        format!(
            "{}\n{}\n{}",
            self.confusion(),
            self.failing(),
            self.bounds().text()
        )
    }

    /// For a page; what can be read by a machine is the one table.
    pub fn markdown(&self) -> String {
        let cells = self.cells.len();
        let failing = match self.failing() {
            none if none.is_empty() => "No cell failed in any look.".to_owned(),
            some => format!("Not right in every look:\n\n```text\n{some}```"),
        };
        format!(
            "{}\n{cells} cells. What was true, and what was told of it:\n\n```text\n{}```\n\n{failing}\n",
            self.bounds().markdown(),
            self.confusion()
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(truth: &str, told: &str) -> Judgement {
        let right = truth == told;
        Judgement {
            kinds: vec![(truth.into(), told.into(), right)],
            contended: vec![right],
            missed: (!right)
                .then(|| format!("{told} told of a {truth}"))
                .into_iter()
                .collect(),
            ..Judgement::default()
        }
    }

    #[test]
    fn bounds_are_shares_of_all_looks() {
        let mut tally = Tally::default();
        assert!(!tally.is_good(), "nothing was looked at");
        (0..199).for_each(|_| tally.add("a", &judged("mutex", "mutex")));
        assert!(tally.is_good());
        tally.add("b", &judged("mutex", "parker"));
        assert!(tally.is_good(), "{}", tally.text());
        assert!(tally.text().contains("b: parker told of a mutex (1 of 1)"));
        let confusion = tally.confusion();
        assert!(confusion.contains("mutex        199    1"), "{confusion}");
        (0..9).for_each(|_| tally.add("b", &judged("mutex", "parker")));
        assert!(!tally.is_good());
    }

    #[test]
    fn one_false_word_is_too_many() {
        let mut tally = Tally::default();
        let word = BTreeSet::from(["a stall".to_owned()]);
        let judgement = Judgement {
            false_words: word,
            ..Judgement::default()
        };
        tally.add("a", &judgement);
        assert!(!tally.is_good());
        assert!(tally.markdown().contains("a: FALSE: a stall (1 of 1)"));
    }

    #[test]
    fn a_cell_that_was_not_looked_at_fails() {
        let mut tally = Tally::default();
        tally.add("a", &judged("mutex", "mutex"));
        tally.fault("b", "the scene failed".into());
        assert!(!tally.is_good());
    }
}
