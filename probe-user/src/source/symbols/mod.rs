//! Names for locks and for the code that waits at them, looked up when somebody wants to see them.
//!
//! | module | does |
//! |---|---|
//! | [`statics`] | which variable an address is in |
//! | [`stack`] | which functions a blocked thread came through |

mod image;
mod stack;
mod statics;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::Path;
use std::time::Duration;

use probe_ebpf::lock::LiveFutex;

use super::reader::{self, Budget, Desk, Subject, subjects};
use crate::model::escape;
use crate::model::locks::LockId;
use crate::model::locks::memory::MemoryGap;
use crate::model::locks::report::{Code, Lock, Report};
use crate::model::snapshot::Snapshot;
use crate::namer::client::lost_here;
use image::Image;

/// Locks that are named: those a person looks at.
const NAMED: usize = 20;
/// Threads of deadlocks and stalls whose code is told.
const STANDSTILLS: usize = 100;
/// How long that may take for all of them together: with the look before it an answer is due within a second.
const DEADLINE: Duration = Duration::from_millis(650);

/// A lock to be named.
struct Wanted {
    id: LockId,
    address: u64,
    /// Threads that wait at it.
    waiters: Vec<Waiter>,
}

/// A thread that waits, with its registers.
struct Waiter {
    tid: u32,
    process: Subject,
    live: LiveFutex,
}

/// Those that were looked at; `None` of one that has ended, may not be looked at, or took the namer along.
#[derive(Default)]
struct Images(HashMap<u32, Option<Image>>);

impl Images {
    fn get(&mut self, process: &Subject) -> Option<&Image> {
        let read = || Image::read(Path::new("/proc"), process.door);
        self.0.entry(process.pid).or_insert_with(read).as_ref()
    }

    /// Asks about a process, unless a question about it was lost already; the answer, and how many were lost.
    fn ask<T>(&mut self, process: &Subject, question: impl FnOnce(&Image) -> Option<T>) -> (Option<T>, u64) {
        let before = lost_here();
        let answer = self.get(process).and_then(question);
        let lost = lost_here() - before;
        if lost > 0 {
            self.0.insert(process.pid, None);
        }
        (answer, lost)
    }
}

/// What was found out.
struct Named {
    id: LockId,
    symbol: Option<String>,
    code: Option<Code>,
    /// Questions about it without an answer.
    lost: u64,
}

/// Names the locks at the top of a report, as far as that can be done in time; how many names or ways were
/// lost for lack of it, or with the namer.
pub fn name(report: &mut Report, snapshot: &Snapshot) -> u64 {
    let mut budget = Budget::new(DEADLINE);
    let asked = reader::shared().ask(
        &mut budget,
        wanted(report, snapshot),
        |desk, images: &mut Images, process, lock| vec![name_lock(desk, images, process, &lock)],
    );
    note_gaps(report, snapshot, &asked.gaps);
    let mut lost = asked.lost + name_standstills(report, snapshot, &mut budget);
    for named in asked.answers {
        lost += named.lost;
        if let Some(lock) = report.locks.iter_mut().find(|lock| lock.id == named.id) {
            lock.symbol = lock.symbol.take().or(named.symbol);
            lock.code = named.code.filter(|code| !code.frames.is_empty());
        }
    }
    lost
}

/// How long the names of locks for metrics may take at a look: they are asked for once each.
const IN_PASSING: Duration = Duration::from_millis(100);

/// Which variables locks are in, `None` of those in none; those that could not be asked about now are left
/// out. Locks are given with a process and their address there.
pub fn variables(
    locks: impl Iterator<Item = (LockId, u32, u64)>,
    snapshot: &Snapshot,
) -> Vec<(LockId, Option<String>)> {
    let locks: Vec<_> = locks.collect();
    let pids: HashSet<u32> = locks.iter().map(|&(_, pid, _)| pid).collect();
    let processes = subjects(snapshot, |pid| pids.contains(&pid));
    let asked = locks
        .into_iter()
        .filter_map(|(lock, pid, address)| Some((*processes.get(&pid)?, (lock, address))));
    let mut budget = Budget::new(IN_PASSING);
    let answers = reader::shared().ask(
        &mut budget,
        asked,
        |_, images: &mut Images, process, (lock, address)| {
            let (symbol, lost) = images.ask(process, |image| statics::variable(image, address));
            if lost > 0 {
                Vec::new()
            } else {
                vec![(lock, symbol)]
            }
        },
    );
    answers.answers
}

/// The locks that are to be named.
fn wanted(report: &Report, snapshot: &Snapshot) -> Vec<(Subject, Wanted)> {
    let deadly: HashSet<LockId> = report.at_a_standstill().map(|(_, lock)| lock).collect();
    let locks = report.locks.iter().enumerate();
    let locks: Vec<&Lock> = locks
        .filter(|(position, lock)| *position < NAMED || deadly.contains(&lock.id))
        .map(|(_, lock)| lock)
        .collect();
    let pids: HashSet<u32> = locks.iter().map(|lock| lock.pid).collect();
    let processes = subjects(snapshot, |pid| pids.contains(&pid));
    let wanted = locks.into_iter().filter_map(|lock| {
        let waiters = waiters(snapshot, lock.waiters.iter().map(|(party, _)| party.tid), NAMED);
        let wanted = Wanted {
            id: lock.id,
            address: lock.address,
            waiters: waiters
                .into_iter()
                .filter(|waiter| {
                    let of_others = waiter.process.pid != lock.pid;
                    !of_others || reader::shared().leaves_alone(&waiter.process).is_none()
                })
                .collect(),
        };
        Some((*processes.get(&lock.pid)?, wanted))
    });
    wanted.collect()
}

fn name_lock(desk: &Desk, images: &mut Images, process: &Subject, lock: &Wanted) -> Named {
    let (symbol, mut lost) = images.ask(process, |image| statics::variable(image, lock.address));
    let code = lock.waiters.iter().find_map(|waiter| {
        desk.turn_to(&waiter.process);
        let (code, lost_too) = images.ask(&waiter.process, |image| code(image, waiter));
        lost += lost_too;
        code
    });
    Named {
        id: lock.id,
        symbol,
        code,
        lost,
    }
}

/// Tells where the threads of deadlocks and stalls wait; how many were lost, as above.
fn name_standstills(report: &mut Report, snapshot: &Snapshot, budget: &mut Budget) -> u64 {
    let tids = report.at_a_standstill().map(|(party, _)| party.tid);
    let wanted = waiters(snapshot, tids, STANDSTILLS).into_iter();
    let wanted = wanted.map(|waiter| (waiter.process, waiter));
    let asked = reader::shared().ask(budget, wanted, |_, images: &mut Images, process, waiter| {
        let (code, lost) = images.ask(process, |image| code(image, &waiter));
        vec![(waiter.tid, code, lost)]
    });
    note_gaps(report, snapshot, &asked.gaps);
    let lost = asked.lost + asked.answers.iter().map(|(_, _, lost)| lost).sum::<u64>();
    let told = asked
        .answers
        .into_iter()
        .filter_map(|(tid, code, _)| Some((tid, code?)));
    report.codes = told.filter(|(_, code)| !code.frames.is_empty()).collect();
    lost
}

/// Names the processes that did not answer.
fn note_gaps(report: &mut Report, snapshot: &Snapshot, gaps: &BTreeMap<u32, MemoryGap>) {
    for (pid, gap) in snapshot.named(gaps) {
        report.memory_gaps.entry(pid).or_insert(gap);
    }
}

/// Those of the threads whose registers are known.
fn waiters(snapshot: &Snapshot, tids: impl Iterator<Item = u32>, most: usize) -> Vec<Waiter> {
    let thread = |tid| {
        let thread = snapshot.threads.iter().find(|thread| thread.id.tid == tid)?;
        let live = thread.futex.as_ref()?.live.as_ref()?;
        Some((tid, thread.pid, **live))
    };
    let found: Vec<_> = tids.take(most).filter_map(thread).collect();
    let pids: HashSet<u32> = found.iter().map(|(_, pid, _)| *pid).collect();
    let processes = subjects(snapshot, |pid| pids.contains(&pid));
    let waiters = found.into_iter();
    let waiter = |(tid, pid, live)| {
        let process = *processes.get(&pid)?;
        Some(Waiter { tid, process, live })
    };
    waiters.filter_map(waiter).collect()
}

/// The functions by name; where there is none, the module and the offset in it. `None` if the thread has gone on.
fn code(image: &Image, waiter: &Waiter) -> Option<Code> {
    let way = stack::walk(image, waiter.tid, &waiter.live)?;
    let frames = way
        .frames
        .into_iter()
        .map(|(address, name)| name.map_or_else(|| image.place(address), |name| escape(name.as_bytes())));
    Some(Code {
        frames: frames.collect(),
        cut: way.cut,
    })
}
