//! Which units have series of their own: `[metrics.units]` of the configuration.

use regex::Regex;
use serde::Deserialize;
use serde::de::{Deserializer, Error};

use super::label_map::whole;

/// An expression that has to match the whole of a unit.
#[derive(Clone, Debug)]
pub struct Pattern(Regex);

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.0.as_str() == other.0.as_str()
    }
}

impl<'de> Deserialize<'de> for Pattern {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let written = String::deserialize(deserializer)?;
        whole(&written).map(Self).map_err(D::Error::custom)
    }
}

/// Those that match `include` (all, if that is empty) and do not match `exclude`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct UnitFilter {
    /// Units with series of their own; empty: all of them.
    pub include: Vec<Pattern>,
    /// Units without, even if they are included.
    pub exclude: Vec<Pattern>,
}

impl UnitFilter {
    /// Whether a unit has series of its own; "" is what belongs to none.
    pub fn takes(&self, unit: &str) -> bool {
        let matches = |patterns: &[Pattern]| patterns.iter().any(|pattern| pattern.0.is_match(unit));
        (self.include.is_empty() || matches(&self.include)) && !matches(&self.exclude)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filter(include: &[&str], exclude: &[&str]) -> UnitFilter {
        let patterns = |written: &[&str]| written.iter().map(|text| Pattern(whole(text).unwrap())).collect();
        UnitFilter {
            include: patterns(include),
            exclude: patterns(exclude),
        }
    }

    #[test]
    fn a_unit_is_taken_by_its_whole_name_and_exclusion_counts_more() {
        let all = UnitFilter::default();
        assert!(all.takes("") && all.takes("nginx.service"));
        let some = filter(&["nginx", r"db-\d+", ""], &["db-0"]);
        assert!(some.takes("nginx") && some.takes("db-1") && some.takes(""));
        assert!(!some.takes("nginx.service") && !some.takes("db-0") && !some.takes("redis"));
        assert!(filter(&[], &["db-.*"]).takes("nginx") && !filter(&[], &["db-.*"]).takes("db-7"));
    }
}
