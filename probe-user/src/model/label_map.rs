//! Rules that rename or drop units before they become labels: the `label_map` of the configuration.

use regex::Regex;
use serde::Deserialize;
use serde::de::{Deserializer, Error};

/// One rule. The expression has to match the whole unit, as in Prometheus.
#[derive(Clone, Debug)]
pub struct Rule {
    unit: Regex,
    becomes: Becomes,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Becomes {
    /// Another name; `$1` or `${name}` stands for what a group matched.
    Renamed(String),
    /// No unit at all.
    Dropped,
}

impl PartialEq for Rule {
    fn eq(&self, other: &Self) -> bool {
        self.unit.as_str() == other.unit.as_str() && self.becomes == other.becomes
    }
}

impl<'de> Deserialize<'de> for Rule {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Written {
            unit: String,
            rename: Option<String>,
            #[serde(default)]
            drop: bool,
        }
        let written = Written::deserialize(deserializer)?;
        let becomes = match (written.rename, written.drop) {
            (Some(name), false) => Becomes::Renamed(name),
            (None, true) => Becomes::Dropped,
            _ => {
                return Err(D::Error::custom(
                    "a rule of label_map needs either rename = \"…\" or drop = true",
                ));
            }
        };
        let unit = whole(&written.unit).map_err(|why| D::Error::custom(format!("unit = {why}")))?;
        Ok(Self { unit, becomes })
    }
}

/// An expression that has to match the whole of a unit, or in one line what is wrong with it.
pub(super) fn whole(written: &str) -> Result<Regex, String> {
    Regex::new(&format!("^(?:{written})$")).map_err(|error| {
        let why = error.to_string();
        let why = why.lines().last().unwrap_or_default();
        format!("{written:?} is no regular expression: {why}")
    })
}

/// All rules; the first that matches counts.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(transparent)]
pub struct LabelMap(Vec<Rule>);

impl LabelMap {
    /// What a unit is called in the end.
    pub fn apply(&self, unit: String) -> String {
        let rule = self.0.iter().find(|rule| rule.unit.is_match(&unit));
        match rule.map(|rule| (&rule.unit, &rule.becomes)) {
            None => unit,
            Some((_, Becomes::Dropped)) => String::new(),
            Some((expression, Becomes::Renamed(name))) => {
                expression.replace(&unit, name.as_str()).into_owned()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(text: &str) -> Result<LabelMap, String> {
        #[derive(Deserialize)]
        struct File {
            label_map: LabelMap,
        }
        let file: Result<File, _> = toml::from_str(text);
        file.map(|file| file.label_map)
            .map_err(|error| error.message().to_owned())
    }

    #[test]
    fn the_first_rule_that_matches_all_of_the_unit_counts() {
        let rules = map(r#"
            label_map = [
                { unit = 'session-\d+\.scope', rename = "sessions" },
                { unit = 'user@(?<uid>\d+)\.service', rename = "user-${uid}" },
                { unit = '(docker|podman):.*', drop = true },
                { unit = 'session.*', drop = true },
            ]"#)
        .unwrap();
        let apply = |unit: &str| rules.apply(unit.to_owned());
        assert_eq!(apply("session-12.scope"), "sessions");
        assert_eq!(apply("session-x.scope"), "");
        assert_eq!(apply("user@1000.service"), "user-1000");
        assert_eq!(apply("docker:0123456789ab"), "");
        assert_eq!(apply("my-docker:0123456789ab"), "my-docker:0123456789ab");
        assert_eq!(apply(""), "");
    }

    #[test]
    fn what_is_no_rule_is_refused() {
        let refused = |text: &str, why: &str| {
            let error = map(text).unwrap_err();
            assert!(error.contains(why) && !error.contains('\n'), "{text}: {error}");
        };
        refused(
            "label_map = [{ unit = 'a(' , drop = true }]",
            "no regular expression",
        );
        refused("label_map = [{ unit = 'a' }]", "either rename");
        refused(
            "label_map = [{ unit = 'a', rename = 'b', drop = true }]",
            "either rename",
        );
        refused(
            "label_map = [{ unit = 'a', renam = 'b' }]",
            "unknown field `renam`",
        );
    }
}
