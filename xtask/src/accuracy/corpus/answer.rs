//! What is judged of `procprobe locks -o json`, and the part of it that is about one scene.

use std::collections::HashSet;

use anyhow::{Context, Result};
use serde::Deserialize;
use serde_json::{Map, Value};

#[derive(Debug, Default, Deserialize)]
pub struct Answer {
    pub locks: Vec<Lock>,
    pub not_contention: Vec<Lock>,
    #[serde(default)]
    pub edges: Vec<Edge>,
    pub deadlocks: Vec<Deadlock>,
    pub stalls: Vec<Stall>,
}

#[derive(Debug, Deserialize)]
pub struct Lock {
    pub pid: u32,
    pub address: String,
    pub kind: String,
    /// Of what is contended, if it is known.
    pub holder: Option<Thread>,
}

#[derive(Debug, Deserialize)]
pub struct Thread {
    pub pid: Option<u32>,
    pub tid: u32,
    pub comm: Option<String>,
    /// Of a holder.
    pub evidence: Option<String>,
}

#[derive(Debug, Deserialize)]
pub struct Edge {
    pub waiter: Thread,
    pub holder: Thread,
    pub evidence: String,
}

#[derive(Debug, Deserialize)]
pub struct Deadlock {
    pub kind: String,
    pub threads: Vec<Thread>,
    /// The thread that the lock's memory names and that cannot give it back.
    pub dead_owner: Option<u32>,
    /// That it has not ended, but is of the process from which this one was forked.
    pub forked_from: Option<Thread>,
}

#[derive(Debug, Deserialize)]
pub struct Stall {
    pub pid: u32,
    pub threads: Vec<Thread>,
}

impl Lock {
    pub fn address(&self) -> Option<u64> {
        u64::from_str_radix(self.address.trim_start_matches("0x"), 16).ok()
    }
}

/// An answer, and its text for those who want to see what was said.
pub struct Said {
    pub answer: Answer,
    raw: Value,
}

impl Said {
    pub fn read(json: &str) -> Result<Self> {
        let raw: Value = serde_json::from_str(json).context("reading procprobe's answer")?;
        let answer = Answer::deserialize(&raw).context("reading procprobe's answer about locks")?;
        Ok(Self { answer, raw })
    }

    /// What is in it about these processes, without histograms.
    pub fn about(&self, pids: &HashSet<u32>) -> Value {
        let lists = ["deadlocks", "stalls", "locks", "not_contention"];
        let part = lists.map(|list| {
            let all = self.raw.get(list).and_then(Value::as_array).into_iter().flatten();
            let theirs = all.filter(|entry| concerns(entry, pids)).map(without_histogram);
            (list.to_owned(), Value::Array(theirs.collect()))
        });
        Value::Object(Map::from_iter(part))
    }
}

fn concerns(entry: &Value, pids: &HashSet<u32>) -> bool {
    let is_ours = |entry: &Value| {
        let pid = entry.get("pid").and_then(Value::as_u64);
        pid.is_some_and(|pid| u32::try_from(pid).is_ok_and(|pid| pids.contains(&pid)))
    };
    let threads = entry.get("threads").and_then(Value::as_array);
    is_ours(entry) || threads.is_some_and(|threads| threads.iter().any(is_ours))
}

fn without_histogram(entry: &Value) -> Value {
    let mut entry = entry.clone();
    if let Some(fields) = entry.as_object_mut() {
        fields.remove("histogram");
    }
    entry
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_part_about_a_process() {
        let json = r#"{"locks":[{"pid":1,"address":"0x10","kind":"mutex","holder":null,"histogram":[]},
            {"pid":2,"address":"0x20","kind":"mutex","holder":null}],"not_contention":[],
            "deadlocks":[{"kind":"self","threads":[{"pid":1,"tid":1,"comm":"a"}],"dead_owner":null}],
            "stalls":[]}"#;
        let said = Said::read(json).unwrap();
        assert_eq!(said.answer.locks[0].address(), Some(16));
        let about = said.about(&HashSet::from([1]));
        assert_eq!(about["locks"].as_array().unwrap().len(), 1);
        assert_eq!(about["deadlocks"].as_array().unwrap().len(), 1);
        assert!(about["locks"][0].get("histogram").is_none());
    }
}
