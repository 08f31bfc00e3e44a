//! procprobe's own answer: `states --by process -o json`.

use std::collections::{BTreeMap, HashSet};

use anyhow::Result;
use serde::Deserialize;

use super::distribution::Distribution;

/// What is compared of it.
#[derive(Deserialize)]
pub struct Answer {
    pub complete: bool,
    pub window_ns: u64,
    groups: Vec<Group>,
}

#[derive(Deserialize)]
struct Group {
    key: String,
    states: BTreeMap<String, State>,
    switches: Switches,
}

#[derive(Deserialize)]
struct State {
    total_ns: Option<u64>,
    histogram: Option<Vec<Bucket>>,
}

/// Of a histogram of ours.
#[derive(Deserialize)]
pub struct Bucket {
    le_ns: Option<u64>,
    count: u64,
}

#[derive(Clone, Copy, Default, Deserialize)]
struct Switches {
    voluntary: u64,
    involuntary: u64,
}

/// What one process, or all processes of some names, did.
#[derive(Default)]
pub struct Did {
    pub voluntary: u64,
    pub involuntary: u64,
    times_ns: BTreeMap<String, u64>,
    histograms: BTreeMap<String, Distribution>,
}

/// The last bucket has no upper bound; nothing here gets near it.
const LAST_NS: u64 = 1 << 37;

/// A histogram of ours.
pub fn distribution(buckets: &[Bucket]) -> Distribution {
    let pairs = buckets.iter();
    Distribution::new(pairs.map(|bucket| (bucket.le_ns.unwrap_or(LAST_NS), bucket.count)))
}

impl Answer {
    pub fn parse(json: &str) -> Result<Self> {
        Ok(serde_json::from_str(json)?)
    }

    /// One process.
    pub fn process(&self, pid: u32) -> Did {
        let ending = format!(" {pid}");
        self.sum(|key| key.ends_with(&ending))
    }

    /// All processes of these pids.
    pub fn processes(&self, pids: &HashSet<u32>) -> Did {
        self.sum(|key| {
            key.rsplit_once(' ')
                .and_then(|(_, pid)| pid.parse().ok())
                .is_some_and(|pid: u32| pids.contains(&pid))
        })
    }

    /// All processes of these names.
    pub fn names(&self, names: &[&str]) -> Did {
        self.sum(|key| {
            key.rsplit_once(' ')
                .is_some_and(|(name, _)| names.contains(&name))
        })
    }

    /// Their pids. Others name a process as it was called when they first saw it.
    pub fn pids(&self, names: &[&str]) -> HashSet<u32> {
        let keys = self.groups.iter().filter_map(|group| group.key.rsplit_once(' '));
        keys.filter(|(name, _)| names.contains(name))
            .filter_map(|(_, pid)| pid.parse().ok())
            .collect()
    }

    fn sum(&self, wanted: impl Fn(&str) -> bool) -> Did {
        let mut did = Did::default();
        for group in self.groups.iter().filter(|group| wanted(&group.key)) {
            did.voluntary += group.switches.voluntary;
            did.involuntary += group.switches.involuntary;
            for (name, state) in &group.states {
                *did.times_ns.entry(name.clone()).or_default() += state.total_ns.unwrap_or(0);
                let buckets = state.histogram.as_deref().unwrap_or_default();
                did.histograms
                    .entry(name.clone())
                    .or_default()
                    .add(&distribution(buckets));
            }
        }
        did
    }
}

impl Did {
    pub fn time_ns(&self, state: &str) -> u64 {
        self.times_ns.get(state).copied().unwrap_or(0)
    }

    /// All that is not on a CPU.
    pub fn off_cpu_ns(&self) -> u64 {
        self.times_ns
            .iter()
            .filter(|(state, _)| *state != "running")
            .map(|(_, ns)| ns)
            .sum()
    }

    pub fn histogram(&self, state: &str) -> Distribution {
        self.histograms.get(state).cloned().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processes_by_pid_and_by_name() {
        let state = r#"{"running":{"total_ns":5,"histogram":[{"le_ns":1024,"count":2}]},"sleeping":{"total_ns":7,"histogram":null}}"#;
        let group = |key: &str| {
            format!(r#"{{"key":"{key}","states":{state},"switches":{{"voluntary":3,"involuntary":1}}}}"#)
        };
        let json = format!(
            r#"{{"complete":true,"window_ns":9,"groups":[{},{},{}]}}"#,
            group("cc1 12"),
            group("cc1 13"),
            group("as 112")
        );
        let answer = Answer::parse(&json).unwrap();
        assert_eq!(answer.process(12).voluntary, 3);
        let both = answer.names(&["cc1"]);
        assert_eq!(
            (both.time_ns("running"), both.off_cpu_ns(), both.involuntary),
            (10, 14, 2)
        );
        assert_eq!(answer.pids(&["cc1"]), HashSet::from([12, 13]));
        assert_eq!(both.histogram("running").count(), 4);
    }
}
