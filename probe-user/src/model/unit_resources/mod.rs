//! What units may take and what they were refused: quotas, pids, kills for want of memory.
//!
//! Counters of cgroups become counters of units. A unit's cgroup is made anew with every restart, and its
//! counters with it, so what a unit has is the sum of what its cgroups had, each told by its number, which
//! the kernel gives to no second one (64-bit inode numbers of kernfs). What is remembered is bounded; of a
//! cgroup that was forgotten and comes back only the growth counts, since its sum may be in the total
//! already.
//!
//! Pure: what the kernel's files say comes in as [`UnitReading`].

mod chain;

use std::sync::Arc;

use foldhash::HashMap;

use super::groups::LINGER;
use super::zombies::Pids;
use chain::Step;

/// Units, cgroups and quotas that are remembered, each.
const MOST: usize = 8_192;
/// Limits and counts of pids that were not read for so long are not those of now.
const FRESH_NS: u64 = 60_000_000_000;

/// What the kernel says of a cgroup with a CPU quota, now or a moment ago.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CpuQuota {
    /// The cgroup's number in the hierarchy of the CPU controller.
    pub id: u64,
    /// How many CPUs' time it may have; `None`: no limit any more.
    pub cores: Option<f64>,
    /// How long it was kept from running, summed over CPUs, since the cgroup was made.
    pub throttled_ns: u64,
}

/// What was read of one cgroup of a unit.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct CgroupReading {
    /// Its number in the hierarchy that names units.
    pub id: u64,
    /// Its quota and those above it, innermost first.
    pub quotas: Vec<CpuQuota>,
    /// Whether the first of them is its own.
    pub has_own_quota: bool,
    /// Pids in it.
    pub pids: Option<u64>,
    /// Of it and those above it that have a limit, the one that is full soonest.
    pub limited_pids: Option<Pids>,
    /// Processes that the out-of-memory killer ended.
    pub oom_kills: Option<u64>,
}

/// What was read of a unit: all of its cgroups.
#[derive(Clone, Debug, PartialEq)]
pub struct UnitReading {
    /// Its name.
    pub unit: Arc<str>,
    /// All that have processes.
    pub cgroups: Vec<CgroupReading>,
}

/// What is shown of a unit. What is not known is `None`.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Shown {
    /// Time that quotas kept it from running, summed over CPUs.
    pub throttled_ns: Option<u64>,
    /// Processes that the out-of-memory killer ended.
    pub oom_kills: Option<u64>,
    /// How many CPUs' time it may have.
    pub cores: Option<f64>,
    /// Pids that count against the limit; without one, those of the unit.
    pub pids_used: Option<u64>,
    /// How many those may become.
    pub pids_limit: Option<u64>,
}

/// See the module.
#[derive(Default)]
pub struct UnitResources {
    units: HashMap<Arc<str>, Unit>,
    cgroups: HashMap<u64, Cgroup>,
    /// Time throttled by the number of the cgroup whose quota it is, and when it was read.
    quotas: HashMap<u64, (u64, u64)>,
    /// The highest number of a cgroup that was forgotten: those up to it are not new, even if they are not
    /// known.
    forgotten_up_to: u64,
}

#[derive(Default)]
struct Unit {
    throttled_ns: u64,
    oom_kills: Option<u64>,
    cores: Option<f64>,
    pids: Option<Pids>,
    read_ns: u64,
    seen_ns: u64,
}

/// A cgroup of a unit.
#[derive(Default)]
struct Cgroup {
    /// Kills as its files have them, and as the events do: of a cgroup that went with its last process no
    /// file was read, and an event may be lost. Each is at most what happened.
    kills_read: u64,
    kills_seen: u64,
    is_read: bool,
    seen_ns: u64,
}

impl Cgroup {
    fn kills(&self) -> u64 {
        self.kills_read.max(self.kills_seen)
    }
}

impl UnitResources {
    /// A process of a unit was ended for want of memory.
    pub fn oom_kill(&mut self, unit: &Arc<str>, cgroup: u64, at_ns: u64) {
        let cgroup = self.cgroups.entry(cgroup).or_default();
        cgroup.seen_ns = cgroup.seen_ns.max(at_ns);
        let before = cgroup.kills();
        cgroup.kills_seen += 1;
        let gained = cgroup.kills() - before;
        let unit = self.units.entry(Arc::clone(unit)).or_default();
        unit.seen_ns = unit.seen_ns.max(at_ns);
        *unit.oom_kills.get_or_insert_default() += gained;
    }

    /// What was read of some units at a moment.
    pub fn read(&mut self, readings: &[UnitReading], at_ns: u64) {
        let gained = self.gained(readings, at_ns);
        for reading in readings {
            let mut chains = Vec::new();
            let mut kills = None;
            for cgroup in &reading.cgroups {
                let is_new = self.is_new(cgroup.id);
                let steps = cgroup.quotas.iter().enumerate().map(|(position, quota)| Step {
                    id: quota.id,
                    cores: quota.cores,
                    // A cgroup of the unit's own has been its own for as long as it is there.
                    throttled_ns: if is_new && position == 0 && cgroup.has_own_quota {
                        quota.throttled_ns
                    } else {
                        gained.get(&quota.id).copied().unwrap_or(0)
                    },
                });
                chains.push(steps.collect::<Vec<_>>());
                if let Some(gained) = self.kills_gained(cgroup, at_ns) {
                    *kills.get_or_insert(0) += gained;
                }
            }
            let effect = chain::effect(&chains.iter().map(Vec::as_slice).collect::<Vec<_>>());
            let unit = self.units.entry(Arc::clone(&reading.unit)).or_default();
            unit.throttled_ns += effect.throttled_ns;
            unit.cores = effect.cores;
            unit.pids = pids(&reading.cgroups);
            if let Some(kills) = kills {
                *unit.oom_kills.get_or_insert_default() += kills;
            }
            (unit.read_ns, unit.seen_ns) = (at_ns, unit.seen_ns.max(at_ns));
        }
        self.make_room();
    }

    /// How much longer each quota has throttled since it was last read. What it did before it was first read,
    /// nobody knows to whom.
    fn gained(&mut self, readings: &[UnitReading], at_ns: u64) -> HashMap<u64, u64> {
        let mut gained = HashMap::default();
        let cgroups = readings.iter().flat_map(|reading| &reading.cgroups);
        for quota in cgroups.flat_map(|cgroup| &cgroup.quotas) {
            let now = (quota.throttled_ns, at_ns);
            let before = self.quotas.insert(quota.id, now).unwrap_or(now).0;
            *gained.entry(quota.id).or_default() += quota.throttled_ns.saturating_sub(before);
        }
        gained
    }

    fn is_new(&self, cgroup: u64) -> bool {
        let known = self.cgroups.get(&cgroup);
        known.map_or(cgroup > self.forgotten_up_to, |cgroup| !cgroup.is_read)
    }

    /// How many more kills a cgroup has than were known. `None` if its files do not say.
    fn kills_gained(&mut self, reading: &CgroupReading, at_ns: u64) -> Option<u64> {
        let was_forgotten = reading.id <= self.forgotten_up_to && !self.cgroups.contains_key(&reading.id);
        let cgroup = self.cgroups.entry(reading.id).or_default();
        cgroup.seen_ns = at_ns;
        let is_first = !std::mem::replace(&mut cgroup.is_read, true);
        let kills = reading.oom_kills?;
        let before = if was_forgotten { kills } else { cgroup.kills() };
        cgroup.kills_read = cgroup.kills_read.max(kills);
        if is_first {
            // The events know nothing of those before the agent: the next one would not show.
            cgroup.kills_seen = cgroup.kills();
        }
        Some(cgroup.kills() - before)
    }

    /// Forgets what was seen longest ago.
    fn make_room(&mut self) {
        oldest(&self.units, |unit| unit.seen_ns).inspect(|&until| {
            self.units.retain(|_, unit| unit.seen_ns > until);
        });
        oldest(&self.quotas, |quota| quota.1).inspect(|&until| {
            self.quotas.retain(|_, quota| quota.1 > until);
        });
        oldest(&self.cgroups, |cgroup| cgroup.seen_ns).inspect(|&until| {
            let forgotten_up_to = &mut self.forgotten_up_to;
            self.cgroups.retain(|&id, cgroup| {
                let stays = cgroup.seen_ns > until;
                if !stays {
                    *forgotten_up_to = id.max(*forgotten_up_to);
                }
                stays
            });
        });
    }

    /// Units that have processes, or had until a moment ago (at most `gone` of those, the last ones), by
    /// name.
    pub fn shown(&self, alive: &[Arc<str>], gone: usize, now_ns: u64) -> Vec<(Arc<str>, Shown)> {
        let linger_ns = u64::try_from(LINGER.as_nanos()).unwrap_or(u64::MAX);
        let is_alive = |unit: &Arc<str>| alive.contains(unit);
        let mut last: Vec<_> = self.units.iter().collect();
        last.retain(|(name, unit)| !is_alive(name) && now_ns.saturating_sub(unit.seen_ns) < linger_ns);
        last.sort_by_key(|(name, unit)| (std::cmp::Reverse(unit.seen_ns), Arc::clone(name)));
        last.truncate(gone);
        let last = last
            .into_iter()
            .map(|(name, unit)| (Arc::clone(name), unit.counters()));
        let alive = alive.iter().filter_map(|name| {
            let unit = self.units.get(name)?;
            let is_fresh = now_ns.saturating_sub(unit.read_ns) < FRESH_NS;
            let shown = if is_fresh { unit.all() } else { unit.counters() };
            Some((Arc::clone(name), shown))
        });
        let mut shown: Vec<_> = alive.chain(last).collect();
        shown.sort_by(|a, b| a.0.cmp(&b.0));
        shown
    }
}

impl Unit {
    /// What goes on when nothing of it lives any more.
    fn counters(&self) -> Shown {
        Shown {
            throttled_ns: (self.cores.is_some() || self.throttled_ns > 0).then_some(self.throttled_ns),
            oom_kills: self.oom_kills,
            ..Shown::default()
        }
    }

    fn all(&self) -> Shown {
        Shown {
            cores: self.cores,
            pids_used: self.pids.map(|pids| pids.used),
            pids_limit: self.pids.and_then(|pids| pids.limit),
            ..self.counters()
        }
    }
}

/// What counts against the limit that is nearest; without one, all pids of the unit. `None` if a part of
/// them is not known.
fn pids(cgroups: &[CgroupReading]) -> Option<Pids> {
    let limited = cgroups.iter().filter_map(|cgroup| cgroup.limited_pids);
    let nearest = limited.min_by_key(|pids| pids.limit.map(|limit| limit.saturating_sub(pids.used)));
    nearest.or_else(|| {
        let used = cgroups.iter().map(|cgroup| cgroup.pids).sum::<Option<u64>>()?;
        Some(Pids { used, limit: None })
    })
}

/// Up to when what is too much was seen: the older half, so that this is not sought anew each time.
fn oldest<K, V>(of: &HashMap<K, V>, seen_ns: impl Fn(&V) -> u64) -> Option<u64> {
    if of.len() <= MOST {
        return None;
    }
    let mut all: Vec<u64> = of.values().map(seen_ns).collect();
    let middle = all.len() / 2;
    Some(*all.select_nth_unstable(middle).1)
}

#[cfg(test)]
mod tests;
