//! Payload of `states`: time in each state over a window.

use std::collections::BTreeMap;

use probe_ebpf::histogram::upper_bound_ns;
use serde::Serialize;

use super::{SwitchesJson, Word, blocked_ns};
use crate::model::account::Histogram;
use crate::model::thread::Condition;
use crate::model::transitions::Transition;
use crate::model::window::{Group, Report};

/// Payload of `states`.
#[derive(Debug, Serialize)]
pub struct States {
    pub(super) groups: Vec<GroupJson>,
    pub(super) transitions: Option<Vec<TransitionJson>>,
}

#[derive(Debug, Serialize)]
pub(super) struct GroupJson {
    key: String,
    threads: u64,
    states: BTreeMap<&'static str, StateJson>,
    switches: Option<SwitchesJson>,
    /// Time sleeping and in uninterruptible sleep by what was waited in.
    blocked_ns: Option<BTreeMap<Word, u64>>,
}

#[derive(Debug, Serialize)]
struct StateJson {
    now: u64,
    total_ns: Option<u64>,
    count: Option<u64>,
    histogram: Option<Vec<BucketJson>>,
}

#[derive(Debug, Serialize)]
pub(super) struct BucketJson {
    /// `null` for the last bucket, which has no upper bound.
    pub(super) le_ns: Option<u64>,
    pub(super) count: u64,
}

#[derive(Debug, Serialize)]
pub(super) struct TransitionJson {
    from: &'static str,
    to: &'static str,
    count: u64,
}

/// A finished window. `known` is false for /proc, which knows the current states only.
pub fn states(report: &Report, known: bool) -> States {
    let transition = |transition: &Transition| TransitionJson {
        from: transition.from,
        to: transition.to,
        count: transition.count,
    };
    States {
        groups: report
            .groups
            .iter()
            .map(|group| self::group(group, known))
            .collect(),
        transitions: known.then(|| report.transitions.iter().map(transition).collect()),
    }
}

fn group(group: &Group, known: bool) -> GroupJson {
    let states = Condition::ALL.into_iter().zip(group.now).map(|(condition, now)| {
        let state = match condition {
            Condition::Alive(state) if known => Some(state),
            _ => None,
        };
        let json = StateJson {
            now,
            total_ns: state.map(|state| group.usage.time_ns[state.index()]),
            count: state.map(|state| group.usage.count(state)),
            histogram: state.map(|state| buckets(group.usage.histogram(state))),
        };
        (condition.name(), json)
    });
    GroupJson {
        key: group.key.clone(),
        threads: group.threads,
        states: states.collect(),
        switches: known.then(|| group.switches.into()),
        blocked_ns: known.then(|| blocked_ns(&group.usage.blocked_ns)),
    }
}

/// The buckets that hold something.
fn buckets(histogram: &Histogram) -> Vec<BucketJson> {
    let all = histogram.iter().enumerate();
    all.filter(|&(_, &count)| count > 0)
        .map(|(bucket, &count)| BucketJson {
            le_ns: upper_bound_ns(bucket),
            count,
        })
        .collect()
}
