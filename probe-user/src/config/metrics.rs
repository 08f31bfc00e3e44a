//! `[metrics]`: what is exported, and of whom.

use serde::Deserialize;
use serde::de::{Deserializer, Error};

use super::complaint::hint;
use crate::export::catalog;
use crate::model::groups::{Durations, GroupBy};
use crate::model::unit_filter::{Pattern, UnitFilter};

/// What is exported.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Metrics {
    /// What makes a group.
    pub group_by: GroupBy,
    /// Of what durations are counted.
    pub durations: Durations,
    /// Which metrics there are.
    pub families: Families,
    /// Which units have series of their own.
    pub units: UnitsOfMetrics,
}

/// Metrics by name.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Families {
    /// If there are any, no others are exported.
    #[serde(deserialize_with = "names")]
    enable: Vec<String>,
    /// Not exported, even if they are enabled.
    #[serde(deserialize_with = "names")]
    disable: Vec<String>,
}

impl Families {
    /// Whether a metric is exported. Which build runs is always said: dashboards find their hosts by it.
    pub fn shows(&self, name: &str) -> bool {
        let has = |names: &[String]| names.iter().any(|listed| listed == name);
        name == catalog::BUILD_INFO.name
            || (self.enable.is_empty() || has(&self.enable)) && !has(&self.disable)
    }
}

/// Units with series of their own.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct UnitsOfMetrics {
    /// How many have durations of their own.
    #[serde(deserialize_with = "units")]
    pub max: u32,
    /// If there are any, no others have series of their own.
    pub include: Vec<Pattern>,
    /// Those without.
    pub exclude: Vec<Pattern>,
}

impl Default for UnitsOfMetrics {
    fn default() -> Self {
        Self {
            max: 64,
            include: Vec::new(),
            exclude: Vec::new(),
        }
    }
}

impl UnitsOfMetrics {
    /// As the model wants it.
    pub fn filter(&self) -> UnitFilter {
        UnitFilter {
            include: self.include.clone(),
            exclude: self.exclude.clone(),
        }
    }
}

/// Names of metrics, as METRICS.md has them.
fn names<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    let names = Vec::<String>::deserialize(deserializer)?;
    let known: Vec<&str> = catalog::names().collect();
    match names.iter().find(|name| !known.contains(&name.as_str())) {
        None => Ok(names),
        Some(name) => Err(D::Error::custom(format!(
            "there is no metric {name} ({})",
            hint(name, &known)
        ))),
    }
}

fn units<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u32, D::Error> {
    let count = u32::deserialize(deserializer)?;
    if (1..=10_000).contains(&count) {
        return Ok(count);
    }
    Err(D::Error::custom("max is a number from 1 to 10000"))
}
