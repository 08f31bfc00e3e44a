//! The table of agreement: what is compared, both figures, how far they are apart, whether that is as it should be, and why.

use std::collections::{BTreeMap, HashSet};
use std::fmt::Write;

use anyhow::{Context, Result};

use super::{
    Answers, OffCpu,
    distribution::Distribution,
    kernel::Counts,
    kinds::{
        COMPILED, CPUDIST, INVOLUNTARY, Kind, LONG_US, MOSTLY, OFFCPUTIME, PREEMPTED, RUNNABLE, RUNNING,
        RUNQLAT, RUNQLAT_HERE, SHAPELY, VOLUNTARY, WAITED, WAITED_SHAPE, WAITS,
    },
    locks::Waited,
    ours::Did,
    subjects::Done,
    tools::Named,
};
use crate::{bench::pair::Placement, record::Table};

/// Names under which a compilation runs.
const COMPILER: [&str; 3] = ["gcc", "cc1", "as"];

struct Row {
    subject: String,
    kind: Kind,
    ours: String,
    theirs: String,
    /// `None`: nothing to compare.
    apart: Option<f64>,
}

impl Row {
    fn agrees(&self) -> bool {
        self.apart.is_some_and(|apart| apart <= self.kind.tolerance)
    }
}

/// All rows.
pub struct Report {
    complete: bool,
    rows: Vec<Row>,
}

impl Report {
    /// `pids` are those of the programs whose counts the kernel has, which are in `truth`.
    pub fn make(
        pids: [u32; 2],
        truth: &BTreeMap<u32, Counts>,
        done: &Done,
        answers: &Answers,
    ) -> Result<Self> {
        let mut rows = Vec::new();
        for (number, (subject, pid)) in ["Python, 5 threads", "pthreads, 9 threads"]
            .into_iter()
            .zip(pids)
            .enumerate()
        {
            let did = answers.ours.process(pid);
            let truth = truth.get(&pid).context("a process without counts")?;
            rows.extend(with_kernel(subject, &did, *truth));
            rows.extend(with_peers(subject, &did, answers, &HashSet::from([pid]), RUNQLAT));
            rows.extend(
                answers
                    .off_cpu
                    .iter()
                    .map(|both| off_cpu(subject, both, pid, number)),
            );
            let theirs = answers.futexctn.iter().flatten();
            let theirs = theirs.filter(|waited| waited.pid == pid);
            rows.extend(theirs.flat_map(|theirs| at_lock(subject, answers, theirs)));
        }
        let (did, pids) = (answers.ours.names(&COMPILER), answers.ours.pids(&COMPILER));
        let subject = format!("gcc, {} compilations", done.compilations);
        let ns = done.compiled_us * 1000;
        rows.push(numbers(
            &subject,
            COMPILED,
            did.time_ns("running"),
            ns,
            milliseconds,
        ));
        rows.extend(with_peers(&subject, &did, answers, &pids, RUNQLAT));
        for (placement, pids) in &done.pairs {
            let subject = format!("perf bench sched pipe, {}", placement.name());
            let runqlat = match placement {
                Placement::OneCpu => RUNQLAT_HERE,
                Placement::OneEach => RUNQLAT,
            };
            let did = answers.ours.processes(pids);
            rows.extend(with_peers(&subject, &did, answers, pids, runqlat));
        }
        Ok(Self {
            complete: answers.ours.complete,
            rows,
        })
    }

    /// Whether everything is as it should be.
    pub fn agrees(&self) -> bool {
        self.complete && self.rows.iter().all(Row::agrees)
    }

    pub fn text(&self) -> String {
        self.table().text() + &self.reasons()
    }

    pub fn markdown(&self) -> String {
        self.table().markdown() + "\n" + &self.reasons()
    }

    fn table(&self) -> Table {
        let mut table = Table::new(&[
            "subject",
            "what",
            "procprobe",
            "the other",
            "who",
            "apart",
            "allowed",
            "agrees",
        ]);
        for row in &self.rows {
            table.row(vec![
                row.subject.clone(),
                row.kind.name.to_owned(),
                row.ours.clone(),
                row.theirs.clone(),
                row.kind.with.to_owned(),
                row.apart.map_or_else(|| "–".to_owned(), percent),
                percent(row.kind.tolerance),
                if row.agrees() { "yes" } else { "NO" }.to_owned(),
            ]);
        }
        table
    }

    fn reasons(&self) -> String {
        let lost = if self.complete {
            ""
        } else {
            "- procprobe lost events: not everything is in its answer\n"
        };
        let mut seen = Vec::new();
        let mut text = lost.to_owned();
        for kind in self.rows.iter().map(|row| &row.kind) {
            if !seen.contains(&kind.name) {
                seen.push(kind.name);
                let _ = writeln!(text, "- {} ({}): {}.", kind.name, kind.with, kind.reason);
            }
        }
        text
    }
}

fn with_kernel(subject: &str, did: &Did, truth: Counts) -> Vec<Row> {
    let plain = |count: u64| count.to_string();
    vec![
        numbers(subject, VOLUNTARY, did.voluntary, truth.voluntary, plain),
        numbers(subject, INVOLUNTARY, did.involuntary, truth.involuntary, plain),
        numbers(
            subject,
            RUNNING,
            did.time_ns("running"),
            truth.running_ns,
            milliseconds,
        ),
        numbers(
            subject,
            RUNNABLE,
            did.time_ns("runnable"),
            truth.runnable_ns,
            milliseconds,
        ),
    ]
}

fn with_peers(subject: &str, did: &Did, answers: &Answers, pids: &HashSet<u32>, runqlat: Kind) -> Vec<Row> {
    let theirs = |all: &Vec<Named>| {
        let mut sum = Distribution::default();
        let those = all.iter().filter(|named| pids.contains(&named.pid));
        those.for_each(|named| sum.add(&named.distribution));
        sum
    };
    let mut rows = Vec::new();
    if let Some(theirs) = answers.runqlat.as_ref().map(theirs) {
        rows.push(distributions(
            subject,
            runqlat,
            &did.histogram("runnable"),
            &theirs,
        ));
    }
    if let Some(theirs) = answers.cpudist.as_ref().map(theirs) {
        let count = |count: u64| format!("{count}×");
        rows.push(numbers(
            subject,
            PREEMPTED,
            did.involuntary,
            theirs.count(),
            count,
        ));
        let ours = did.histogram("running");
        if theirs.count() as f64 >= ours.count() as f64 * MOSTLY {
            rows.push(distributions(subject, CPUDIST, &ours, &theirs));
        }
    }
    rows
}

/// Of threads that have ended, with all of their waits but the one before the load.
fn off_cpu(subject: &str, both: &OffCpu, pid: u32, number: usize) -> Row {
    let theirs = both.theirs_us.get(number).copied().unwrap_or(0);
    let ours = both.ours.process(pid).off_cpu_ns().saturating_sub(both.before_ns);
    numbers(subject, OFFCPUTIME, ours, theirs * 1000, milliseconds)
}

/// What was waited at one lock, as the other one saw it.
fn at_lock(subject: &str, answers: &Answers, theirs: &Waited) -> Vec<Row> {
    let ours = answers.locks.at(theirs.pid, theirs.address);
    let subject = format!("{subject}: {}", ours.name);
    let count = |count: u64| format!("{count}×");
    let mut rows = vec![numbers(&subject, WAITS, ours.waits, theirs.waits, count)];
    let is_long = theirs.distribution.quantile_us(0.5) >= Some(LONG_US);
    if theirs.waits >= SHAPELY && is_long {
        let sum = numbers(&subject, WAITED, ours.wait_ns, theirs.wait_ns, milliseconds);
        rows.push(sum);
        let ours = ours.distribution;
        rows.extend(ours.map(|ours| distributions(&subject, WAITED_SHAPE, &ours, &theirs.distribution)));
    }
    rows
}

fn distributions(subject: &str, kind: Kind, ours: &Distribution, theirs: &Distribution) -> Row {
    Row {
        subject: subject.to_owned(),
        apart: ours.distance(theirs, kind.shift),
        kind,
        ours: shape(ours),
        theirs: shape(theirs),
    }
}

fn numbers(subject: &str, kind: Kind, ours: u64, theirs: u64, show: impl Fn(u64) -> String) -> Row {
    let apart = match (ours, theirs) {
        (0, 0) => Some(0.0),
        (_, 0) => None,
        _ => Some(ours.abs_diff(theirs) as f64 / theirs as f64),
    };
    Row {
        subject: subject.to_owned(),
        kind,
        ours: show(ours),
        theirs: show(theirs),
        apart,
    }
}

fn milliseconds(ns: u64) -> String {
    format!("{:.3} ms", ns as f64 / 1e6)
}

fn percent(share: f64) -> String {
    format!("{:.2} %", share * 100.0)
}

/// Count, median and 99th percentile.
fn shape(distribution: &Distribution) -> String {
    let at = |share| {
        distribution
            .quantile_us(share)
            .map_or_else(|| "–".to_owned(), |us| format!("{us:.1}"))
    };
    format!("{}×, {} / {} µs", distribution.count(), at(0.5), at(0.99))
}
