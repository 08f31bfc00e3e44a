//! Who has a place in the table: those that do or suffer most.
//!
//! Places are few and names are not: a shell script alone can bring a thousand a second. Whoever comes while
//! there is room gets a place at once. In a full table a living group gets the place of a dead one, or that
//! of one which has long weighed much less. A group that is to leave is shown once more with all it did; what
//! it does from then on is added up in [`OTHER`], so sums stay exact and no counter ever falls. Kernel
//! threads have places of their own: there are more kinds of them than anybody looks at, and they must not
//! take those of services.

use std::collections::BTreeMap;
use std::time::Duration;

use foldhash::{HashMap, HashSet};

use super::key::{GroupKey, KERNEL, LOST, OTHER};
use super::retired::Retired;
use super::totals::GroupTotals;
use super::weight::{self, Weight};

/// How long a group without processes is shown: long enough for every scraper to see the last of it.
pub const LINGER: Duration = Duration::from_secs(600);
/// Kernel threads have at most this many groups, [`KERNEL`] not counted.
const KERNEL_GROUPS: usize = 19;
/// And at most this part of all.
const KERNEL_PART: usize = 5;
/// A living group has its place at least this long, and another waits at least [`PATIENCE`] for it: series
/// that come and go are worth less than none.
const TENURE: Duration = Duration::from_secs(300);
/// See [`TENURE`].
const PATIENCE: Duration = Duration::from_secs(60);
/// A group that takes the place of a living one has to weigh this many times as much ...
const HEAVIER: f64 = 2.0;
/// ... and this many seconds more.
const HEAVIER_SECONDS: f64 = 0.1;
/// At most this many living groups leave at a look.
const SWAPS: usize = 5;
/// Distinct groups without a place that are counted between two looks; beyond that the count stands still.
const FOLDED: usize = 10_000;

/// Threads of a group that there are.
#[derive(Clone, Copy, Debug, Default)]
pub struct Living {
    /// By condition, in the order of [`crate::model::thread::Condition::ALL`].
    pub threads: [u64; 10],
    /// Processes, zombies included.
    pub processes: u64,
    /// Kernel threads.
    pub kernel: bool,
}

struct Place {
    totals: GroupTotals,
    weight: Weight,
    kernel: bool,
    admitted_ns: u64,
    /// When it last had a thread or did anything, and what it had done by then.
    active_ns: u64,
    activity: u64,
    /// Shown once more, then parked.
    leaving: bool,
}

impl Place {
    fn is_alive(&self) -> bool {
        self.totals.threads.iter().any(|&count| count > 0)
    }
}

impl Living {
    /// Adds processes, and threads by condition.
    pub fn add(&mut self, counts: &Self) {
        self.processes += counts.processes;
        let sums = self.threads.iter_mut().zip(counts.threads);
        sums.for_each(|(sum, count)| *sum += count);
    }
}

/// A living group without a place.
struct Candidate {
    weight: Weight,
    kernel: bool,
    since_ns: u64,
}

/// See the module.
pub struct GroupTable {
    services: usize,
    kernel: usize,
    places: HashMap<GroupKey, Place>,
    collective: BTreeMap<&'static str, (GroupKey, GroupTotals)>,
    candidates: HashMap<GroupKey, Candidate>,
    retired: Retired,
    /// Groups without a place that did something since the last look.
    folded: HashSet<GroupKey>,
    folded_count: usize,
    /// Places that are taken: of services, of kernel threads.
    taken: [usize; 2],
    now_ns: u64,
}

impl GroupTable {
    /// An empty table for that many groups, beside [`OTHER`], [`LOST`] and [`KERNEL`].
    pub fn new(max_groups: usize) -> Self {
        let kernel = KERNEL_GROUPS.min(max_groups / KERNEL_PART);
        Self::with_places(max_groups - kernel, kernel)
    }

    /// One whose places are all for services: of units, none of which has a kernel thread.
    pub fn of_units(max_units: usize) -> Self {
        Self::with_places(max_units, 0)
    }

    fn with_places(services: usize, kernel: usize) -> Self {
        Self {
            services,
            kernel,
            places: HashMap::default(),
            collective: BTreeMap::new(),
            candidates: HashMap::default(),
            retired: Retired::default(),
            folded: HashSet::default(),
            folded_count: 0,
            taken: [0; 2],
            now_ns: 0,
        }
    }

    /// Where what a group does is added up: its own totals, if it has a place or there is one.
    pub fn totals(&mut self, key: &GroupKey, kernel: bool) -> &mut GroupTotals {
        if !key.is_collective() && !self.places.contains_key(key) && self.has_room(kernel) {
            self.admit(key, kernel);
        }
        self.present(key, kernel)
    }

    /// The same, without a place for a group that has none.
    fn present(&mut self, key: &GroupKey, kernel: bool) -> &mut GroupTotals {
        if key.is_collective() {
            return self.collective(&key.comm);
        }
        match self.places.get_mut(key) {
            Some(place) if !place.leaving => &mut place.totals,
            _ => {
                if self.folded.len() < FOLDED && !self.folded.contains(key) {
                    self.folded.insert(key.clone());
                }
                let collective = if kernel { KERNEL } else { OTHER };
                &mut self
                    .collective
                    .entry(collective)
                    .or_insert_with(|| fresh(collective))
                    .1
            }
        }
    }

    /// The name under which a group is shown, as things are.
    pub fn face(&self, key: &GroupKey, kernel: bool) -> GroupKey {
        let has_place = self.places.get(key).is_some_and(|place| !place.leaving);
        if has_place || key.is_collective() {
            return key.clone();
        }
        GroupKey::named(if kernel { KERNEL } else { OTHER })
    }

    /// The group where that is added up.
    pub fn shown<'a>(&'a mut self, key: &'a GroupKey, kernel: bool) -> &'a GroupKey {
        self.totals(key, kernel);
        let has_place = self.places.get(key).is_some_and(|place| !place.leaving);
        if has_place || key.is_collective() {
            return key;
        }
        &self.collective[if kernel { KERNEL } else { OTHER }].0
    }

    fn collective(&mut self, comm: &str) -> &mut GroupTotals {
        let name = [OTHER, LOST, KERNEL].into_iter().find(|&name| name == comm);
        let name = name.unwrap_or(OTHER);
        &mut self.collective.entry(name).or_insert_with(|| fresh(name)).1
    }

    /// Adds to what decides about places.
    pub fn weigh(&mut self, key: &GroupKey, seconds: f64) {
        let now_ns = self.now_ns;
        if let Some(place) = self.places.get_mut(key) {
            place.weight.add(seconds, now_ns);
        } else if let Some(candidate) = self.candidates.get_mut(key) {
            candidate.weight.add(seconds, now_ns);
        }
    }

    /// Before the growth of a look is added: those that were to leave do, and the heaviest of those that wait
    /// come in.
    pub fn turn(&mut self, now_ns: u64) {
        self.now_ns = self.now_ns.max(now_ns);
        self.folded.clear();
        let leaving: Vec<_> = self.places.extract_if(|_, place| place.leaving).collect();
        for (key, place) in leaving {
            self.taken[usize::from(place.kernel)] -= 1;
            self.retired.park(key, place.totals, now_ns);
        }
        for kernel in [false, true] {
            for (_, key) in self.waiting(kernel) {
                if self.has_room(kernel) {
                    self.admit(&key, kernel);
                }
            }
        }
    }

    /// After it: who there is now, and who has to leave for whom.
    pub fn settle(&mut self, living: &HashMap<GroupKey, Living>, time: Duration) {
        let (places, now_ns) = (&self.places, self.now_ns);
        self.candidates
            .retain(|key, _| living.contains_key(key) && !places.contains_key(key));
        for (key, group) in living {
            if !key.is_collective() && !self.places.contains_key(key) {
                let new = || Candidate {
                    weight: Weight::default(),
                    kernel: group.kernel,
                    since_ns: now_ns,
                };
                self.candidates.entry(key.clone()).or_insert_with(new);
            }
            self.weigh(key, weight::of_threads(group.threads.iter().sum(), time));
        }
        self.count_threads(living);
        self.expire();
        self.make_room(false);
        self.make_room(true);
        self.folded_count = self.folded.len();
    }

    fn count_threads(&mut self, living: &HashMap<GroupKey, Living>) {
        for place in self.places.values_mut() {
            (place.totals.threads, place.totals.processes) = ([0; 10], 0);
        }
        for (_, totals) in self.collective.values_mut() {
            (totals.threads, totals.processes) = ([0; 10], 0);
        }
        for (key, group) in living {
            let totals = self.present(key, group.kernel);
            totals.processes += group.processes;
            totals
                .threads
                .iter_mut()
                .zip(group.threads)
                .for_each(|(sum, count)| *sum += count);
        }
    }

    /// Marks the groups that have been dead for [`LINGER`].
    fn expire(&mut self) {
        let now_ns = self.now_ns;
        for place in self.places.values_mut() {
            let activity = place.totals.activity();
            if place.is_alive() || place.activity != activity {
                (place.activity, place.active_ns) = (activity, now_ns);
            }
            let idle = Duration::from_nanos(now_ns.saturating_sub(place.active_ns));
            place.leaving |= idle >= LINGER;
        }
    }

    /// Marks those that leave for heavier ones.
    fn make_room(&mut self, kernel: bool) {
        let waiting = self.waiting(kernel);
        let leaving = self
            .places
            .values()
            .filter(|place| place.kernel == kernel && place.leaving);
        let mut free = self.limit(kernel) - self.taken[usize::from(kernel)] + leaving.count();
        if waiting.len() <= free {
            return;
        }
        let mut leavers = self.leavers(kernel);
        let mut swaps = 0;
        for (weight, key) in waiting {
            if free > 0 {
                free -= 1;
                continue;
            }
            let Some((alive, light, leaver)) = leavers.last() else {
                return;
            };
            if *alive {
                if swaps == SWAPS || weight <= light * HEAVIER + HEAVIER_SECONDS {
                    return;
                }
                let since_ns = self.candidates[&key].since_ns;
                if Duration::from_nanos(self.now_ns - since_ns) < PATIENCE {
                    continue;
                }
                swaps += 1;
            }
            if let Some(place) = self.places.get_mut(leaver) {
                place.leaving = true;
            }
            leavers.pop();
        }
    }

    /// Living groups without a place, with their weights, heaviest first.
    fn waiting(&self, kernel: bool) -> Vec<(f64, GroupKey)> {
        let candidates = self.candidates.iter();
        let mut waiting: Vec<_> = candidates
            .filter(|(_, candidate)| candidate.kernel == kernel)
            .map(|(key, candidate)| (candidate.weight.at(self.now_ns), key.clone()))
            .collect();
        waiting.sort_by(|a, b| b.0.total_cmp(&a.0).then_with(|| a.1.cmp(&b.1)));
        waiting
    }

    /// Groups that may leave: whether they live, their weight and name; who leaves first comes last.
    fn leavers(&self, kernel: bool) -> Vec<(bool, f64, GroupKey)> {
        let now_ns = self.now_ns;
        let may_leave = |place: &Place| {
            let quiet = !place.is_alive() && place.active_ns < now_ns;
            let tenured = Duration::from_nanos(now_ns.saturating_sub(place.admitted_ns)) >= TENURE;
            place.kernel == kernel && !place.leaving && (quiet || place.is_alive() && tenured)
        };
        let places = self.places.iter().filter(|(_, place)| may_leave(place));
        let mut leavers: Vec<_> = places
            .map(|(key, place)| {
                // Of the dead, who has been dead for longest.
                let weight = place.weight.at(now_ns);
                let order = if place.is_alive() {
                    weight
                } else {
                    place.active_ns as f64
                };
                (place.is_alive(), order, key.clone())
            })
            .collect();
        leavers.sort_by(|a, b| {
            b.0.cmp(&a.0)
                .then_with(|| b.1.total_cmp(&a.1))
                .then_with(|| b.2.cmp(&a.2))
        });
        leavers
    }

    fn limit(&self, kernel: bool) -> usize {
        if kernel { self.kernel } else { self.services }
    }

    fn has_room(&self, kernel: bool) -> bool {
        self.taken[usize::from(kernel)] < self.limit(kernel)
    }

    fn admit(&mut self, key: &GroupKey, kernel: bool) {
        let candidate = self.candidates.remove(key);
        let mut totals = self.retired.restore(key);
        totals.kernel = kernel;
        let place = Place {
            activity: totals.activity(),
            totals,
            weight: candidate.map_or_else(Weight::default, |candidate| candidate.weight),
            kernel,
            admitted_ns: self.now_ns,
            active_ns: self.now_ns,
            leaving: false,
        };
        self.taken[usize::from(kernel)] += 1;
        self.places.insert(key.clone(), place);
    }

    /// All groups with their totals.
    pub fn iter(&self) -> impl Iterator<Item = (&GroupKey, &GroupTotals)> {
        let places = self.places.iter().map(|(key, place)| (key, &place.totals));
        places.chain(self.collective.values().map(|(key, totals)| (key, totals)))
    }

    /// The same, to change them.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = (&GroupKey, &mut GroupTotals)> {
        let places = self
            .places
            .iter_mut()
            .map(|(key, place)| (key, &mut place.totals));
        places.chain(self.collective.values_mut().map(|(key, totals)| (&*key, totals)))
    }

    /// How many groups had no place between the last two looks.
    pub fn folded(&self) -> usize {
        self.folded_count
    }
}

fn fresh(comm: &'static str) -> (GroupKey, GroupTotals) {
    let totals = GroupTotals {
        kernel: comm == KERNEL,
        ..GroupTotals::default()
    };
    (GroupKey::named(comm), totals)
}
