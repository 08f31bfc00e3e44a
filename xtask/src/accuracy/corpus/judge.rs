//! One answer held against one truth. Pure: what was said, what is true, which processes are meant.
//!
//! Threads of a scene have names by their part: h may hold, w waits and never holds, d is in a deadlock, x
//! has nothing to do with it.

use std::collections::{BTreeSet, HashSet};

use super::{
    answer::{Answer, Deadlock, Lock, Stall, Thread},
    truth::{Contended, Expected, Object, Truth},
};

/// What is said of something that is not in the answer.
pub const NOTHING: &str = "nothing";

/// How a look came out.
#[derive(Debug, Default, PartialEq)]
pub struct Judgement {
    /// The true kind, the told kind, and whether that is right.
    pub kinds: Vec<(String, String, bool)>,
    /// Of each object that is contended, whether that was found; of each that is not, whether it was told all
    /// the same.
    pub contended: Vec<bool>,
    pub idle: Vec<bool>,
    /// Whether what had to be told was, if there is anything to tell.
    pub told: Option<bool>,
    /// Words that are not true.
    pub false_words: BTreeSet<String>,
    /// What else is not as it should be.
    pub missed: BTreeSet<String>,
}

/// Judges what an answer says about some processes.
pub fn judge(truth: &Truth, answer: &Answer, pids: &HashSet<u32>) -> Judgement {
    let mut judgement = Judgement::default();
    let entries: Vec<Entry<'_>> = entries(truth, answer, pids);
    for object in &truth.objects {
        let its = entries.iter().filter(|entry| std::ptr::eq(entry.object, object));
        of_object(object, &its.collect::<Vec<_>>(), &mut judgement);
    }
    holders(truth, answer, pids, &mut judgement);
    ends(truth, answer, pids, &mut judgement);
    judgement
}

/// An entry of the answer with what it is about in truth.
struct Entry<'a> {
    object: &'a Object,
    lock: &'a Lock,
    contended: bool,
}

fn entries<'a>(truth: &'a Truth, answer: &'a Answer, pids: &HashSet<u32>) -> Vec<Entry<'a>> {
    let contended = answer.locks.iter().map(|lock| (lock, true));
    let idle = answer.not_contention.iter().map(|lock| (lock, false));
    let ours = contended.chain(idle).filter(|(lock, _)| pids.contains(&lock.pid));
    let entry = |(lock, contended): (&'a Lock, bool)| {
        let object = truth.at(lock.address()?)?;
        Some(Entry {
            object,
            lock,
            contended,
        })
    };
    ours.filter_map(entry).collect()
}

fn of_object(object: &Object, entries: &[&Entry<'_>], judgement: &mut Judgement) {
    let name = object.name();
    if object.is_judged() {
        for kind in entries.iter().map(|entry| &entry.lock.kind) {
            judgement.kind(object, kind);
        }
        if entries.is_empty() && object.contended != Contended::Either {
            judgement.kind(object, NOTHING);
        }
    }
    let told = entries.iter().any(|entry| entry.contended);
    match object.contended {
        Contended::Yes => {
            judgement.contended.push(told);
            if !told {
                judgement
                    .missed
                    .insert(format!("contention of a {name} not told"));
            }
        }
        Contended::No => {
            judgement.idle.push(told);
            if told {
                judgement
                    .missed
                    .insert(format!("contention told of an idle {name}"));
            }
        }
        Contended::Either => {}
    }
}

/// Whoever is named as a holder has to be one that may hold, or has ended with it: then it has a number
/// alone.
fn holders(truth: &Truth, answer: &Answer, pids: &HashSet<u32>, judgement: &mut Judgement) {
    let locks = answer.locks.iter().filter(|lock| pids.contains(&lock.pid));
    let named = locks.filter_map(|lock| {
        let holder = lock.holder.as_ref()?;
        Some((holder, holder.evidence.as_deref().unwrap_or("?")))
    });
    let edges = answer.edges.iter();
    let edges = edges.filter(|edge| edge.waiter.pid.is_some_and(|pid| pids.contains(&pid)));
    let edges = edges.map(|edge| (&edge.holder, edge.evidence.as_str()));
    for (holder, evidence) in named.chain(edges) {
        let is_dead = holder.comm.is_none() && truth.dead == Some(holder.tid);
        if !is_dead && !is_one_of(holder, pids, &['h', 'd']) {
            let stranger = if holder.pid.is_some_and(|pid| pids.contains(&pid)) {
                ""
            } else {
                " of another process"
            };
            let word = format!("held by {}{stranger} ({evidence})", shown(holder));
            judgement.false_words.insert(word);
        }
    }
}

/// Deadlocks and stalls.
fn ends(truth: &Truth, answer: &Answer, pids: &HashSet<u32>, judgement: &mut Judgement) {
    let is_ours = |thread: &Thread| thread.pid.is_some_and(|pid| pids.contains(&pid));
    let deadlocks = answer
        .deadlocks
        .iter()
        .filter(|it| it.threads.iter().any(is_ours));
    let deadlocks: Vec<&Deadlock> = deadlocks.collect();
    let stalls: Vec<&Stall> = answer.stalls.iter().filter(|it| pids.contains(&it.pid)).collect();
    for deadlock in &deadlocks {
        judgement.false_words.extend(wrong(truth, deadlock, pids));
    }
    if !stalls.is_empty() && truth.expected == Expected::None {
        judgement.false_words.insert("a stall".to_owned());
    }
    let dead: HashSet<u32> = tids(deadlocks.iter().flat_map(|it| &it.threads));
    let stalled = tids(stalls.iter().flat_map(|it| &it.threads));
    if !dead.is_disjoint(&stalled) {
        let word = "a stall of threads that are in a deadlock".to_owned();
        judgement.false_words.insert(word);
    }
    let told = match truth.expected {
        Expected::Deadlock => !deadlocks.is_empty(),
        Expected::Stall => !deadlocks.is_empty() || !stalls.is_empty(),
        Expected::None | Expected::Maybe => return,
    };
    judgement.told = Some(told);
    if !told {
        let instead = if stalls.is_empty() { "" } else { ", but a stall" };
        let due = if truth.expected == Expected::Deadlock {
            "deadlock"
        } else {
            "stall"
        };
        judgement.missed.insert(format!("{due} not told{instead}"));
    }
}

/// What is not true of a deadlock that is told.
fn wrong(truth: &Truth, told: &Deadlock, pids: &HashSet<u32>) -> Option<String> {
    let kind = &told.kind;
    if matches!(truth.expected, Expected::None | Expected::Maybe) {
        let dead = told.dead_owner.map(|tid| format!(", thread {tid} has ended"));
        return Some(format!("deadlock ({kind}{})", dead.unwrap_or_default()));
    }
    let is_other = |thread: &Thread| !is_one_of(thread, pids, &['h']);
    if let Some(stranger) = told.forked_from.as_ref().filter(|thread| is_other(thread)) {
        return Some(format!(
            "deadlock ({kind}): held by {} at the fork",
            shown(stranger)
        ));
    }
    let has_ended = told.dead_owner.filter(|_| told.forked_from.is_none());
    if has_ended.is_some() && has_ended != truth.dead {
        return Some(format!("deadlock ({kind}): a thread has ended that has not"));
    }
    if truth.dead.is_some() && has_ended.is_none() {
        return Some(format!("deadlock ({kind}): its holder has ended"));
    }
    let mut members = told.threads.iter();
    let stranger = members.find(|thread| !is_one_of(thread, pids, &['d', 'w']))?;
    Some(format!("deadlock ({kind}) with {}", shown(stranger)))
}

fn is_one_of(thread: &Thread, pids: &HashSet<u32>, parts: &[char]) -> bool {
    let ours = thread.pid.is_some_and(|pid| pids.contains(&pid));
    ours && thread.comm.as_ref().is_some_and(|comm| comm.starts_with(parts))
}

fn shown(thread: &Thread) -> &str {
    thread.comm.as_deref().unwrap_or("a thread without a name")
}

fn tids<'a>(threads: impl Iterator<Item = &'a Thread>) -> HashSet<u32> {
    threads.map(|thread| thread.tid).collect()
}

impl Judgement {
    fn kind(&mut self, object: &Object, told: &str) {
        let right = object.is(told);
        let truth = object.name();
        self.kinds.push((truth.to_owned(), told.to_owned(), right));
        if !right {
            self.missed.insert(format!("{told} told of a {truth}"));
        }
    }

    /// Whether all is as it should be.
    pub fn is_right(&self) -> bool {
        self.false_words.is_empty() && self.missed.is_empty()
    }
}

#[cfg(test)]
mod tests;
