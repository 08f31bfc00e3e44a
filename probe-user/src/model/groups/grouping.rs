//! What processes are counted under: their group, and the unit, group or host whose durations they add to.

use super::key::{GroupBy, GroupKey, KERNEL, OTHER};
use super::table::GroupTable;
use crate::model::tracker::{ProcessName, Units};
use crate::model::unit_filter::UnitFilter;

/// Of what durations are counted: each histogram has ten series and more, and quantiles of one process name
/// say little that those of its unit do not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Durations {
    /// Of all processes together.
    Host,
    /// Of units.
    #[default]
    Unit,
    /// Of groups, as everything else is.
    Group,
}

/// All that the processes of one cgroup and name are counted under.
#[derive(Debug)]
pub struct Names {
    /// The group by its own name, whatever has series: an alert has to name its cause.
    pub own: GroupKey,
    /// Where its counters are; one that adds up others if its unit is left out.
    pub shown: GroupKey,
    /// Where its durations are.
    pub durations: GroupKey,
}

impl Names {
    /// Of a process.
    pub fn of(name: ProcessName, grouping: &Grouping, units: &mut dyn Units) -> Self {
        let own = GroupKey::of(name, grouping.by, units);
        let is_taken = own.is_collective() || grouping.units.takes(&own.unit);
        let rest = || GroupKey::named(if name.kernel { KERNEL } else { OTHER });
        let shown = if is_taken { own.clone() } else { rest() };
        let durations = match grouping.durations {
            Durations::Host => GroupKey::named(""),
            Durations::Unit if is_taken => GroupKey::of(name, GroupBy::Unit, units),
            Durations::Unit => rest(),
            Durations::Group => shown.clone(),
        };
        Self {
            own,
            shown,
            durations,
        }
    }

    /// Of what is counted of nobody in particular.
    pub fn collective(comm: &str) -> Self {
        let key = GroupKey::named(comm);
        Self {
            own: key.clone(),
            shown: key.clone(),
            durations: key,
        }
    }
}

/// What makes a group, and how many there may be.
#[derive(Clone, Debug)]
pub struct Grouping {
    /// Groups with a place, beside [`OTHER`], [`LOST`] and [`KERNEL`].
    pub max_groups: usize,
    /// What makes a group.
    pub by: GroupBy,
    /// Of what durations are counted.
    pub durations: Durations,
    /// Units with durations of their own.
    pub max_units: usize,
    /// Units with a place; the rest is in [`OTHER`].
    pub units: UnitFilter,
}

impl Default for Grouping {
    fn default() -> Self {
        Self {
            max_groups: 200,
            by: GroupBy::default(),
            durations: Durations::default(),
            max_units: 64,
            units: UnitFilter::default(),
        }
    }
}

impl Grouping {
    /// The table of durations; `None` if the groups have them themselves.
    pub(super) fn table_of_durations(&self) -> Option<GroupTable> {
        match (self.durations, self.by) {
            (Durations::Host, _) => Some(GroupTable::of_units(1)),
            (Durations::Unit, GroupBy::Comm) => Some(GroupTable::of_units(self.max_units)),
            (Durations::Unit, GroupBy::Unit) | (Durations::Group, _) => None,
        }
    }
}
