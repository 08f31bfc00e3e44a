//! Pids that are somebody else's within seconds: nobody is ever under a wrong parent.

use std::collections::HashMap;
use std::fs;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::common::agent::Agent;
use crate::common::json::{id, list, number, text};
use crate::common::workload::Workload;
use crate::common::{Live, note, procfs, repeated};

const PID_MAX: &str = "/proc/sys/kernel/pid_max";
/// How many pids the host is left with beyond those in use.
const ROOM: usize = 2_500;

/// A lower `pid_max`, until dropped.
struct FewPids(String);

impl FewPids {
    fn new() -> Self {
        let former = fs::read_to_string(PID_MAX).expect("reading pid_max");
        // Whoever has a higher one keeps it.
        let few = procfs::tasks().len() + ROOM;
        fs::write(PID_MAX, few.to_string()).expect("writing pid_max");
        Self(former)
    }
}

impl Drop for FewPids {
    fn drop(&mut self) {
        fs::write(PID_MAX, &self.0).expect("restoring pid_max");
    }
}

/// Parents by pid and start, as the scene noted them; and how many pids were used more than once.
fn truth(log: &[u8]) -> (HashMap<(u32, u64), u32>, usize) {
    let mut parents = HashMap::new();
    let mut uses: HashMap<u32, usize> = HashMap::new();
    for record in log.chunks_exact(16) {
        let word = |at: usize| u32::from_ne_bytes(record[at..at + 4].try_into().expect("four bytes"));
        let start = u64::from_ne_bytes(record[8..].try_into().expect("eight bytes"));
        parents.insert((word(0), start), word(4));
        *uses.entry(word(0)).or_default() += 1;
    }
    (parents, uses.values().filter(|&&uses| uses > 1).count())
}

/// Holds a tree against the truth; returns how many it could compare.
fn compare(tree: &Value, truth: &HashMap<(u32, u64), u32>, tick_ns: u64) -> usize {
    let known = list(tree, "processes").iter().filter_map(|process| {
        let start = number(process, "start_ns") / tick_ns;
        let parent = truth.get(&(id(process, "pid"), start))?;
        Some((process, *parent))
    });
    known
        .map(|(process, parent)| {
            assert_eq!(id(process, "ppid"), parent, "a wrong parent: {process}");
            assert!(process["orphan"].is_null(), "no orphan: {process}");
        })
        .count()
}

#[test]
fn nobody_is_under_a_wrong_parent_while_pids_are_reused() {
    let Some(live) = Live::begin("reuse of pids") else {
        return;
    };
    let log = tempfile::NamedTempFile::new().expect("a temporary file");
    let agent = Agent::start(&live, &["--max-groups", "100000"]);
    let few = FewPids::new();
    let scene = Workload::start(&["generations", log.path().to_str().expect("a path in UTF-8")]);
    let began = Instant::now();
    let (mut trees, mut orphans) = (Vec::new(), Vec::new());
    while began.elapsed() < Duration::from_secs(10) {
        trees.push(live.json(&["tree"]));
        for _ in 0..3 {
            trees.push(agent.tree());
            orphans.extend(list(&agent.orphans(), "orphans").iter().cloned());
        }
    }
    drop(scene);
    drop(few);
    let (truth, reused) = truth(&fs::read(log.path()).expect("reading the log"));
    // SAFETY: takes a plain number.
    let ticks = unsafe { libc::sysconf(libc::_SC_CLK_TCK) };
    let tick_ns = 1_000_000_000 / u64::try_from(ticks).expect("ticks per second");
    let compared: usize = trees.iter().map(|tree| compare(tree, &truth, tick_ns)).sum();
    note(&format!(
        "{} lives, {reused} pids used again; {compared} parents compared in {} trees",
        truth.len(),
        trees.len()
    ));
    let enough = usize::try_from(repeated(100)).expect("a small number");
    assert!(
        reused > enough && compared > enough,
        "{reused} reused, {compared} compared"
    );
    let ours = |orphan: &&Value| ["pp-fleeting", "pp-parent"].contains(&text(orphan, "comm"));
    let orphans: Vec<_> = orphans.iter().filter(ours).collect();
    assert!(orphans.is_empty(), "none of them lost its parent: {orphans:?}");
    agent.stop();
}
