//! What a snapshot's futex waits need besides the snapshot: whose code waits, and whose memory it is.

use std::collections::{HashMap, HashSet};

use foldhash::HashSet as FastSet;

use probe_ebpf::lock::LockKey;

use super::address_space::{AddressSpaces, Answer, Frame, Request};
use super::reader::questions;
use crate::model::locks::memory::SharedMemory;
use crate::model::locks::protocol;
use crate::model::locks::stall::{self, STALL_AFTER_NS};
use crate::model::locks::thread_index::wait_of;
use crate::model::locks::{LockId, is_shared, key_of};
use crate::model::snapshot::Snapshot;
use crate::model::thread::{Condition, Thread};
use probe_ebpf::waiting::flag;

/// Places in the code of one process that are looked up at a look, of those that are not known yet: programs
/// wait at a few dozen.
const SITES: usize = 500;

/// Looks up the sites of all open waits, then what their owners and stalls depend on.
pub fn complete(snapshot: &mut Snapshot, spaces: &mut AddressSpaces) {
    let mut requests: HashMap<u32, Request> = HashMap::new();
    for thread in &snapshot.threads {
        let Some(open) = &thread.futex else { continue };
        let key = (thread.space, open.wait.ip);
        if spaces.asks_for_site(&key) {
            let sites = &mut requests.entry(thread.pid).or_default().sites;
            if sites.len() < SITES {
                sites.insert(key);
            } else if !sites.contains(&key) {
                spaces.lost += 1;
            }
        }
    }
    spaces.ask(questions(snapshot, requests));
    let requests = requests_for_callers(snapshot, spaces);
    spaces.ask(questions(snapshot, requests));
    for thread in &mut snapshot.threads {
        let Some(open) = &mut thread.futex else { continue };
        let key = LockKey {
            space: thread.space,
            address: open.wait.address,
        };
        if let Some(site) = spaces.site_at(&key, open.wait.ip) {
            open.site = site;
        }
    }
    let mut memory = SharedMemory::default();
    let requests = requests_for_memory(snapshot);
    apply(&mut memory, spaces.ask(questions(snapshot, requests)));
    let requests = requests_for_owners(snapshot, &memory);
    apply(&mut memory, spaces.ask(questions(snapshot, requests)));
    for thread in snapshot.threads.iter().filter(|thread| thread.futex.is_some()) {
        if let Some(Some(runtime)) = spaces.runtimes.get(&thread.space) {
            memory.runtimes.insert(thread.pid, *runtime);
        }
    }
    memory.gaps = std::mem::take(&mut snapshot.memory.gaps);
    snapshot.memory = memory;
}

fn apply(memory: &mut SharedMemory, answers: Vec<Answer>) {
    for answer in answers {
        match answer {
            Answer::Place(key, place) => {
                memory.places.insert(key, place);
            }
            Answer::Mapped(pid, files) => {
                memory.read.insert(pid);
                memory
                    .mapped
                    .extend(files.into_iter().map(|(device, inode)| (pid, device, inode)));
            }
            Answer::Endless(id, mutex) => {
                memory.endless.insert(id, mutex);
            }
            Answer::Signals(pid, handles) => {
                memory.signal_handlers.insert(pid, handles);
            }
            Answer::Site(..)
            | Answer::Caller(..)
            | Answer::Runtime(..)
            | Answer::Python(..)
            | Answer::Semaphores(..)
            | Answer::Whole(..)
            | Answer::NotNow(..) => {}
        }
    }
}

/// Who called what waits, where the site alone does not tell: once for each lock.
fn requests_for_callers(snapshot: &Snapshot, spaces: &AddressSpaces) -> HashMap<u32, Request> {
    let mut requests: HashMap<u32, Request> = HashMap::new();
    for thread in &snapshot.threads {
        let Some(open) = &thread.futex else { continue };
        let key = key_of(thread, open);
        let ip = open.wait.ip;
        let site = spaces.sites.get(&(thread.space, ip));
        let unknown = site.is_some_and(|site| site.needs_caller()) && spaces.asks_for_caller(&key);
        if unknown && thread.sp != 0 {
            let frame = Frame { ip, sp: thread.sp };
            requests.entry(thread.pid).or_default().callers.insert(key, frame);
        }
    }
    requests
}

/// Where futexes lie that several processes may share, and those whose owner is not a thread of the waiter's
/// own process.
fn requests_for_memory(snapshot: &Snapshot) -> HashMap<u32, Request> {
    let own: FastSet<(u64, u32)> = snapshot
        .threads
        .iter()
        .map(|thread| (thread.space, thread.inner_tid()))
        .collect();
    let idle = processes_that_wait(snapshot);
    let mut requests: HashMap<u32, Request> = HashMap::new();
    for thread in &snapshot.threads {
        let Some(open) = &thread.futex else { continue };
        let wait = wait_of(thread, open);
        let owner = protocol::identify(wait).owner;
        let foreign = owner.is_some_and(|tid| !own.contains(&(thread.space, tid)));
        let endless = protocol::is_endless(wait);
        let waits = idle.contains(&thread.pid);
        if !(is_shared(&open.wait) || foreign || endless || waits) {
            continue;
        }
        let request = requests.entry(thread.pid).or_default();
        request.places.insert(key_of(thread, open));
        request.signals |= waits;
        if endless {
            let live = open.live.as_deref();
            let saved = live.map_or_else(Vec::new, |live| [live.bp].into_iter().chain(live.saved).collect());
            request.endless.push((thread.id, thread.sp, saved));
        }
    }
    requests
}

/// Processes all of whose threads have long been at futexes without a timeout.
fn processes_that_wait(snapshot: &Snapshot) -> HashSet<u32> {
    let mut waits: HashMap<u32, bool> = HashMap::new();
    let living = |thread: &&Thread| matches!(thread.condition, Condition::Alive(_)) && !thread.kernel;
    for thread in snapshot.threads.iter().filter(living) {
        let long = thread
            .futex
            .as_ref()
            .is_some_and(|open| open.age_ns >= STALL_AFTER_NS && open.wait.flags & flag::TIMED == 0);
        let long = long || stall::waits_for_signal(thread);
        *waits.entry(thread.pid).or_insert(true) &= long;
    }
    waits
        .into_iter()
        .filter(|(_, long)| *long)
        .map(|(pid, _)| pid)
        .collect()
}

/// Whether the processes that could own a shared lock map its file.
fn requests_for_owners(snapshot: &Snapshot, memory: &SharedMemory) -> HashMap<u32, Request> {
    let mut by_inner: HashMap<u32, Vec<u32>> = HashMap::new();
    let mut requests: HashMap<u32, Request> = HashMap::new();
    if memory.places.values().all(Option::is_none) {
        return requests;
    }
    for thread in snapshot.threads.iter().filter(|thread| !thread.kernel) {
        by_inner.entry(thread.inner_tid()).or_default().push(thread.pid);
    }
    for thread in &snapshot.threads {
        let Some(open) = &thread.futex else { continue };
        let Some(Some(LockId::Shared { device, inode, .. })) = memory.place(&key_of(thread, open)) else {
            continue;
        };
        let Some(owner) = protocol::identify(wait_of(thread, open)).owner else {
            continue;
        };
        for pid in by_inner.get(&owner).into_iter().flatten() {
            requests.entry(*pid).or_default().files.insert((device, inode));
        }
    }
    requests
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::model::locks::testing::World;

    #[test]
    fn a_process_that_waits_everywhere_is_asked_about_some_of_it_and_the_rest_counts() {
        let mut world = World::default();
        for tid in 0..600 {
            world.waits(1_000 + tid, "everywhere", "glibc", 0x1000, 0);
            world.last().futex.as_mut().unwrap().wait.ip = u64::from(0x10_0000 + tid);
        }
        let mut snapshot = world.snapshot(1, 0);
        let mut spaces = AddressSpaces::new(Path::new("/nonexistent"));
        complete(&mut snapshot, &mut spaces);
        assert!(spaces.lost >= 600 - SITES as u64, "{}", spaces.lost);
    }
}
