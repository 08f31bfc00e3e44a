//! How parallel processes are: what of their threads runs, could run, or waits at contended locks, on average over a window.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use probe_ebpf::lock::LockKey;
use probe_ebpf::state::State;
use probe_ebpf::waiting::Class;

use super::report::Parallelism;
use super::{LockId, Look, Tables};
use crate::model::window::{Group, Report as Usage};

/// Nanoseconds that each process waited at contended locks in a window: what the tables `gained` and the waits that are open
/// at its end, less what was open `before` it.
pub fn blocked(
    look: Look<'_>,
    gained: &Tables,
    contended: &BTreeSet<LockId>,
    before: &HashMap<LockKey, u64>,
) -> BTreeMap<u32, u64> {
    let mut blocked: BTreeMap<u32, u64> = BTreeMap::new();
    for (key, stats) in &gained.locks {
        if contended.contains(&gained.id(*key)) {
            *blocked.entry(stats.pid).or_default() += stats.wait_ns;
        }
    }
    for (thread, open, id) in look.open_waits() {
        if contended.contains(&id) {
            *blocked.entry(thread.pid).or_default() += open.counted_ns;
        }
    }
    let threads = look.snapshot.threads.iter();
    let pid_of: HashMap<u64, u32> = threads.map(|thread| (thread.space, thread.pid)).collect();
    for (key, ns) in before {
        let pid = pid_of.get(&key.space);
        if let Some(sum) = pid.and_then(|pid| blocked.get_mut(pid)) {
            *sum = sum.saturating_sub(*ns);
        }
    }
    blocked
}

/// The processes that waited at contended locks, and the one that was asked for; who waited most first.
pub fn of(usage: &Usage, blocked: &BTreeMap<u32, u64>, asked: Option<u32>) -> Vec<Parallelism> {
    let window_ns = usage.window_ns.max(1) as f64;
    let average = |ns: u64| ns as f64 / window_ns;
    let of_group = |group: &Group| {
        let (pid, comm) = group.process?;
        let is_wanted = blocked.contains_key(&pid) || asked == Some(pid);
        is_wanted.then(|| Parallelism {
            pid,
            comm,
            threads: group.threads,
            running: average(group.usage.time_ns[State::Running.index()]),
            runnable: average(group.usage.time_ns[State::Runnable.index()]),
            lock_blocked: average(blocked.get(&pid).copied().unwrap_or(0)),
            futex_blocked: average(group.usage.blocked_ns[Class::Futex as usize]),
        })
    };
    let mut all: Vec<Parallelism> = usage.groups.iter().filter_map(of_group).collect();
    all.sort_by(|a, b| b.lock_blocked.total_cmp(&a.lock_blocked));
    all
}
