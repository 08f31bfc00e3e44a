//! The graph of states: how often threads went from one to another.
//!
//! The kernel side books stays, not changes; that is enough. Every stay in a blocked state ends in runnable,
//! every stay in runnable ends in running. Threads enter a state as often as its stays ended, plus those in
//! it at the end, minus those in it at the start. What entered runnable and was neither woken nor born was
//! preempted.

use std::collections::BTreeMap;

use probe_ebpf::state::{STATES, State};

use super::account::Usage;
use super::snapshot::Snapshot;
use super::thread::{Condition, state_name};

/// A change of state and how often it happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transition {
    /// From this state ("new" for a birth).
    pub from: &'static str,
    /// To this one ("dead" for a death).
    pub to: &'static str,
    /// Times.
    pub count: u64,
}

/// How many stays in each state ended.
pub fn ended_stays(usage: &Usage) -> [u64; STATES] {
    let mut ended = [0; STATES];
    for state in State::ALL {
        ended[state.index()] = usage.count(state);
    }
    ended
}

/// Threads by the state they are in, of those that have an account.
pub fn threads_by_state(snapshot: &Snapshot) -> [u64; STATES] {
    let mut counts = [0; STATES];
    for thread in &snapshot.threads {
        if let (Condition::Alive(state), Some(_)) = (thread.condition, &thread.account) {
            counts[state.index()] += 1;
        }
    }
    counts
}

/// All changes that happened, the most frequent first.
pub fn transitions(
    ended: [u64; STATES],
    at_start: [u64; STATES],
    at_end: [u64; STATES],
    births: u64,
    deaths: u64,
) -> Vec<Transition> {
    let ended_of = |state: State| ended[state.index()];
    let entered = |state: State| {
        let index = state.index();
        (ended[index] + at_end[index]).saturating_sub(at_start[index])
    };
    let (running, runnable) = (state_name(State::Running), state_name(State::Runnable));
    let transition = |from, to, count| Transition { from, to, count };
    let mut all = vec![
        transition("new", runnable, births),
        transition(runnable, running, ended_of(State::Runnable)),
        transition(running, "dead", deaths),
    ];
    let mut woken = 0;
    for state in State::ALL.into_iter().filter(|state| state.is_blocked()) {
        woken += ended_of(state);
        all.push(transition(running, state_name(state), entered(state)));
        all.push(transition(state_name(state), runnable, ended_of(state)));
    }
    let preempted = entered(State::Runnable).saturating_sub(woken + births);
    all.push(transition(running, runnable, preempted));
    all.retain(|transition| transition.count > 0);
    all.sort_by(|a, b| {
        b.count
            .cmp(&a.count)
            .then_with(|| (a.from, a.to).cmp(&(b.from, b.to)))
    });
    all
}

/// The same since the agent went live.
#[derive(Clone, Debug, Default)]
pub struct Transitions {
    at_start: [u64; STATES],
    ended: [u64; STATES],
    born_before: u64,
    dead_before: u64,
    shown: BTreeMap<(&'static str, &'static str), u64>,
}

impl Transitions {
    /// From a first snapshot on, before which so many threads were born and died.
    pub fn begin(snapshot: &Snapshot, births: u64, deaths: u64) -> Self {
        Self {
            at_start: threads_by_state(snapshot),
            born_before: births,
            dead_before: deaths,
            ..Self::default()
        }
    }

    /// Adds what a thread or a process did.
    pub fn add(&mut self, usage: &Usage) {
        for (sum, count) in self.ended.iter_mut().zip(ended_stays(usage)) {
            *sum += count;
        }
    }

    /// Brings the counts up to a snapshot; births and deaths as in [`Self::begin`]. Threads go on changing
    /// while one is taken, so a count may come out lower than before: none is shown to fall.
    pub fn look(&mut self, snapshot: &Snapshot, births: u64, deaths: u64) {
        let (births, deaths) = (
            births.saturating_sub(self.born_before),
            deaths.saturating_sub(self.dead_before),
        );
        let at_end = threads_by_state(snapshot);
        for transition in transitions(self.ended, self.at_start, at_end, births, deaths) {
            let shown = self.shown.entry((transition.from, transition.to)).or_default();
            *shown = (*shown).max(transition.count);
        }
    }

    /// How often which change happened.
    pub fn iter(&self) -> impl Iterator<Item = Transition> {
        self.shown
            .iter()
            .map(|(&(from, to), &count)| Transition { from, to, count })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::tracker::tests::snapshot;

    fn of(state: State, count: u64) -> [u64; STATES] {
        let mut counts = [0; STATES];
        counts[state.index()] = count;
        counts
    }

    #[test]
    fn counts_do_not_fall_though_a_look_was_early() {
        let snapshot = snapshot(0, Vec::new());
        let mut all = Transitions::begin(&snapshot, 100, 50);
        all.ended = of(State::Runnable, 7);
        all.look(&snapshot, 103, 50);
        let told = |all: &Transitions, from, to| {
            let found = all.iter().find(|one| (one.from, one.to) == (from, to));
            found.map(|one| one.count)
        };
        assert_eq!(
            told(&all, "new", "runnable"),
            Some(3),
            "those before do not count"
        );
        assert_eq!(told(&all, "runnable", "running"), Some(7));
        assert_eq!(
            told(&all, "running", "runnable"),
            Some(4),
            "neither woken nor born"
        );
        assert_eq!(told(&all, "running", "dead"), None);
        all.look(&snapshot, 105, 52);
        assert_eq!(told(&all, "running", "runnable"), Some(4), "2 by the counts");
        assert_eq!(told(&all, "running", "dead"), Some(2));
    }
}
