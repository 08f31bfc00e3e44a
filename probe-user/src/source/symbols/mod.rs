//! Names for locks and for the code that waits at them, looked up when somebody wants to see them.
//!
//! | module | does |
//! |---|---|
//! | [`statics`] | which variable an address is in |
//! | [`stack`] | which functions a blocked thread came through |
//! | [`suspects`] | whose files cost the others time |

mod image;
mod stack;
mod statics;
mod suspects;

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::time::Duration;

use probe_ebpf::lock::LiveFutex;

use super::patience::{stuck, within};
use crate::model::escape;
use crate::model::locks::LockId;
use crate::model::locks::report::{Code, Report};
use crate::model::snapshot::Snapshot;
use crate::namer::client::lost_here;
use image::Image;

/// Locks that are named: those a person looks at.
const NAMED: usize = 20;
/// Threads of deadlocks and stalls whose code is told.
const STANDSTILLS: usize = 100;
/// How long that may take for all of them together.
const DEADLINE: Duration = Duration::from_secs(2);

/// A lock to be named.
struct Wanted {
    id: LockId,
    pid: u32,
    address: u64,
    /// Threads that wait at it.
    waiters: Vec<Waiter>,
}

/// A thread that waits, with its registers.
struct Waiter {
    tid: u32,
    pid: u32,
    live: LiveFutex,
}

/// Those that were looked at; `None` of one that has ended, may not be looked at, or took the namer along.
#[derive(Default)]
struct Subjects(HashMap<u32, Option<Image>>);

impl Subjects {
    fn get(&mut self, pid: u32) -> Option<&Image> {
        let read = || Image::read(Path::new("/proc"), pid);
        self.0.entry(pid).or_insert_with(read).as_ref()
    }

    /// Asks about a process, unless a question about it was lost already; the answer, and how many were lost.
    fn ask<T>(&mut self, pid: u32, question: impl FnOnce(&Image) -> Option<T>) -> (Option<T>, u64) {
        let before = lost_here();
        let answer = self.get(pid).and_then(question);
        let lost = lost_here() - before;
        if lost > 0 {
            suspects::suspect(suspects::user_of(pid));
            self.0.insert(pid, None);
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
    let stuck = stuck(snapshot);
    let deadly: HashSet<LockId> = report.at_a_standstill().map(|(_, lock)| lock).collect();
    let locks = report.locks.iter().enumerate();
    let mut wanted: Vec<Wanted> = locks
        .filter(|(position, lock)| *position < NAMED || deadly.contains(&lock.id))
        .map(|(_, lock)| lock)
        .filter(|lock| !stuck.contains(&lock.pid))
        .map(|lock| Wanted {
            id: lock.id,
            pid: lock.pid,
            address: lock.address,
            waiters: waiters(snapshot, lock.waiters.iter().map(|(party, _)| party.tid), NAMED),
        })
        .collect();
    wanted.sort_by_key(|lock| suspects::is_suspect(suspects::user_of(lock.pid)));
    let asked = wanted.len();
    let named = within("symbols", DEADLINE, move |sender| {
        let mut subjects = Subjects::default();
        for lock in wanted {
            let (symbol, mut lost) = subjects.ask(lock.pid, |image| statics::variable(image, lock.address));
            let code = lock.waiters.iter().find_map(|waiter| {
                let (code, lost_too) = subjects.ask(waiter.pid, |image| code(image, waiter));
                lost += lost_too;
                code
            });
            let named = Named {
                id: lock.id,
                symbol,
                code,
                lost,
            };
            if sender.send(named).is_err() {
                return;
            }
        }
    });
    let mut lost = (asked - named.len()) as u64;
    lost += name_standstills(report, snapshot, &stuck);
    for named in named {
        lost += named.lost;
        if let Some(lock) = report.locks.iter_mut().find(|lock| lock.id == named.id) {
            lock.symbol = lock.symbol.take().or(named.symbol);
            lock.code = named.code.filter(|code| !code.frames.is_empty());
        }
    }
    lost
}

/// Tells where the threads of deadlocks and stalls wait; how many were lost, as above.
fn name_standstills(report: &mut Report, snapshot: &Snapshot, stuck: &HashSet<u32>) -> u64 {
    let tids = report.at_a_standstill().map(|(party, _)| party.tid);
    let wanted = waiters(snapshot, tids, STANDSTILLS);
    let mut wanted: Vec<Waiter> = wanted
        .into_iter()
        .filter(|waiter| !stuck.contains(&waiter.pid))
        .collect();
    wanted.sort_by_key(|waiter| suspects::is_suspect(suspects::user_of(waiter.pid)));
    let asked = wanted.len();
    let codes = within("code", DEADLINE, move |sender| {
        let mut subjects = Subjects::default();
        for waiter in wanted {
            let (code, lost) = subjects.ask(waiter.pid, |image| code(image, &waiter));
            if sender.send((waiter.tid, code, lost)).is_err() {
                return;
            }
        }
    });
    let lost = (asked - codes.len()) as u64 + codes.iter().map(|(_, _, lost)| lost).sum::<u64>();
    let told = codes.into_iter().filter_map(|(tid, code, _)| Some((tid, code?)));
    report.codes = told.filter(|(_, code)| !code.frames.is_empty()).collect();
    lost
}

/// Those of the threads whose registers are known.
fn waiters(snapshot: &Snapshot, tids: impl Iterator<Item = u32>, most: usize) -> Vec<Waiter> {
    let waiter = |tid| {
        let thread = snapshot.threads.iter().find(|thread| thread.id.tid == tid)?;
        let live = thread.futex.as_ref()?.live.as_ref()?;
        Some(Waiter {
            tid,
            pid: thread.pid,
            live: **live,
        })
    };
    tids.take(most).filter_map(waiter).collect()
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
