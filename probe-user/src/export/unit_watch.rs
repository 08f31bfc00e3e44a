//! What units may take, kept current: which units there are, whose cgroups are read, and what came of it.
//!
//! A look has the cgroups read that the look before it saw, while it reads the threads; so this costs a look
//! nothing but the sums, and a unit is known from its second look on.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use foldhash::{HashMap, HashSet};

use crate::model::event::{Event, EventKind, Reason};
use crate::model::groups::AFFLICTED;
use crate::model::snapshot::Snapshot;
use crate::model::unit_filter::UnitFilter;
use crate::model::unit_resources::{Shown, UnitResources};
use crate::source::cgroup::Cgroups;
use crate::source::unit_files::{NamedUnit, UnitFiles, Wanted};

/// Cgroups are read this often at most, however often somebody looks.
const EVERY: Duration = Duration::from_secs(1);
/// A round that has not ended after so long hangs: what it should have read counts as unread.
const HANGS: Duration = Duration::from_secs(10);
/// How long a scrape waits for what is being read.
const PATIENCE: Duration = Duration::from_millis(100);
/// More cgroups than that are not read of one unit (`label_map` can make one of very many): a part of them
/// would give a sum that is too low.
const MOST_CGROUPS: usize = 64;

/// See the module.
pub struct UnitWatch {
    files: UnitFiles,
    resources: UnitResources,
    filter: UnitFilter,
    max: usize,
    /// Units that have processes and a place, by name.
    alive: Vec<Arc<str>>,
    wanted: Vec<Wanted>,
    named: Vec<NamedUnit>,
    left_out: u64,
    unread: u64,
    began: Option<Instant>,
    now_ns: u64,
}

/// What there is of a unit while they are counted.
#[derive(Default)]
struct Candidate {
    threads: u64,
    cgroups: HashMap<u64, Arc<Path>>,
}

impl UnitWatch {
    /// Of at most `max` units. Makes a thread.
    pub fn new(max: usize, filter: UnitFilter) -> Self {
        Self {
            files: UnitFiles::new(Path::new("/proc")),
            resources: UnitResources::default(),
            filter,
            max,
            alive: Vec::new(),
            wanted: Vec::new(),
            named: Vec::new(),
            left_out: 0,
            unread: 0,
            began: None,
            now_ns: 0,
        }
    }

    /// Has the cgroups read that the last look saw, unless they were just now.
    pub fn begin(&mut self) {
        if self.wanted.is_empty() || self.began.is_some_and(|began| began.elapsed() < EVERY) {
            return;
        }
        self.take(Duration::ZERO);
        if self.files.begin(self.wanted.clone()) {
            self.began = Some(Instant::now());
        } else if self.began.is_none_or(|began| began.elapsed() >= HANGS) {
            self.unread += self.wanted.len() as u64;
            self.began = Some(Instant::now());
        }
    }

    /// Takes what was read, which a scrape waits for a moment.
    pub fn settle(&mut self) {
        self.take(PATIENCE);
    }

    fn take(&mut self, within: Duration) {
        if let Some(round) = self.files.finish(within) {
            self.unread += round.unread;
            self.resources.read(&round.readings, self.now_ns);
            self.named = round.named;
        }
    }

    /// An event: of those, who was ended for want of memory counts.
    pub fn event(&mut self, event: &Event, cgroups: &mut Cgroups) {
        let EventKind::Exit(exit) = &event.kind else {
            return;
        };
        if !exit.last || exit.reason() != Reason::Oom {
            return;
        }
        if let Some(cgroup) = cgroups.unit_cgroup(event.cgroup_id)
            && self.filter.takes(&cgroup.unit)
        {
            self.resources.oom_kill(&cgroup.unit, cgroup.id, event.at_ns);
        }
    }

    /// Who lives.
    pub fn snapshot(&mut self, snapshot: &Snapshot, cgroups: &mut Cgroups) {
        self.now_ns = snapshot.ended_ns;
        let mut threads: HashMap<u64, u64> = HashMap::default();
        for thread in &snapshot.threads {
            *threads.entry(thread.cgroup_id).or_default() += 1;
        }
        let mut units: HashMap<Arc<str>, Candidate> = HashMap::default();
        for (id, threads) in threads {
            let Some(cgroup) = cgroups.unit_cgroup(id).filter(|one| self.filter.takes(&one.unit)) else {
                continue;
            };
            let unit = units.entry(cgroup.unit).or_default();
            unit.threads += threads;
            unit.cgroups.insert(cgroup.id, cgroup.path);
        }
        self.choose(units);
    }

    /// Units that have a place keep it; then come those with most threads.
    fn choose(&mut self, units: HashMap<Arc<str>, Candidate>) {
        let before: HashSet<Arc<str>> = self.alive.drain(..).collect();
        let all = units.len();
        let mut units: Vec<_> = units.into_iter().collect();
        units.retain(|(_, unit)| unit.cgroups.len() <= MOST_CGROUPS);
        units.sort_by(|(a, one), (b, other)| {
            let rank = |name: &Arc<str>, unit: &Candidate| (before.contains(name), unit.threads);
            rank(b, other).cmp(&rank(a, one)).then_with(|| a.cmp(b))
        });
        units.truncate(self.max);
        // Nothing is left out where nothing is wanted.
        self.left_out = if self.max == 0 {
            0
        } else {
            (all - units.len()) as u64
        };
        self.alive.extend(units.iter().map(|(name, _)| Arc::clone(name)));
        self.alive.sort();
        let wanted = units.into_iter().map(|(unit, candidate)| Wanted {
            unit,
            cgroups: candidate.cgroups.into_iter().collect(),
        });
        self.wanted = wanted.collect();
        // A round goes on behind the unit that the last one ended with.
        self.wanted.sort_by(|a, b| a.unit.cmp(&b.unit));
    }

    /// What is shown, by unit.
    pub fn shown(&self) -> Vec<(Arc<str>, Shown)> {
        self.resources.shown(&self.alive, AFFLICTED, self.now_ns)
    }

    /// What units are called in Kubernetes, of those that live.
    pub fn named(&self) -> Vec<NamedUnit> {
        let lives = |unit: &&NamedUnit| self.alive.binary_search(&unit.unit).is_ok();
        self.named.iter().filter(lives).cloned().collect()
    }

    /// Units that have no place.
    pub const fn left_out(&self) -> u64 {
        self.left_out
    }

    /// How often a unit's cgroups were not read in time.
    pub const fn unread(&self) -> u64 {
        self.unread
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn units(of: &[(&str, u64, u64)]) -> HashMap<Arc<str>, Candidate> {
        let unit = |&(name, threads, cgroups): &(&str, u64, u64)| {
            let candidate = Candidate {
                threads,
                cgroups: (0..cgroups).map(|id| (id, Path::new("a").into())).collect(),
            };
            (name.into(), candidate)
        };
        of.iter().map(unit).collect()
    }

    fn alive(watch: &UnitWatch) -> Vec<&str> {
        watch.alive.iter().map(|name| &**name).collect()
    }

    #[test]
    fn places_are_kept_and_given_to_those_with_most_threads() {
        let mut watch = UnitWatch::new(2, UnitFilter::default());
        watch.choose(units(&[("a", 1, 1), ("b", 2, 1), ("c", 3, 1)]));
        assert_eq!((alive(&watch), watch.left_out()), (vec!["b", "c"], 1));
        watch.choose(units(&[("a", 9, 1), ("b", 2, 1), ("c", 3, 1)]));
        assert_eq!(alive(&watch), ["b", "c"], "they had theirs");
        watch.choose(units(&[("a", 9, 1), ("c", 3, 1)]));
        assert_eq!((alive(&watch), watch.left_out()), (vec!["a", "c"], 0));
    }

    #[test]
    fn a_unit_of_too_many_cgroups_is_left_out_whole() {
        let mut watch = UnitWatch::new(9, UnitFilter::default());
        watch.choose(units(&[("a", 900, 65), ("b", 64, 64)]));
        assert_eq!((alive(&watch), watch.left_out()), (vec!["b"], 1));
    }
}
