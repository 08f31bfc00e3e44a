//! Names for locks and for the code that waits at them, looked up when somebody wants to see them.
//!
//! | module | does |
//! |---|---|
//! | [`statics`] | which variable an address is in |
//! | [`stack`] | which functions a blocked thread came through |

mod image;
mod stack;
mod statics;

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::time::Duration;

use blazesym::symbolize::source::{Process, Source};
use blazesym::symbolize::{Input, Symbolizer};
use probe_ebpf::lock::LiveFutex;

use super::patience::{stuck, within};
use crate::model::escape;
use crate::model::locks::LockId;
use crate::model::locks::report::{Code, Report};
use crate::model::snapshot::Snapshot;
use image::Image;
use stack::Stacks;

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

/// A process, and how to unwind its code.
struct Subject {
    image: Image,
    stacks: Stacks,
}

/// Those that were looked at.
#[derive(Default)]
struct Subjects(HashMap<u32, Option<Subject>>);

impl Subjects {
    /// `None` if the process has ended or may not be looked at.
    fn get(&mut self, pid: u32) -> Option<&mut Subject> {
        let read = || {
            Some(Subject {
                image: Image::read(Path::new("/proc"), pid)?,
                stacks: Stacks::default(),
            })
        };
        self.0.entry(pid).or_insert_with(read).as_mut()
    }
}

/// What was found out.
struct Named {
    id: LockId,
    symbol: Option<String>,
    code: Option<Code>,
}

/// Names the locks at the top of a report, as far as that can be done in time.
pub fn name(report: &mut Report, snapshot: &Snapshot) {
    let stuck = stuck(snapshot);
    let deadly: HashSet<LockId> = report.at_a_standstill().map(|(_, lock)| lock).collect();
    let locks = report.locks.iter().enumerate();
    let wanted: Vec<Wanted> = locks
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
    let named = within("symbols", DEADLINE, move |sender| {
        let mut subjects = Subjects::default();
        let symbolizer = Symbolizer::builder().enable_demangling(false).build();
        for lock in wanted {
            let symbol = subjects
                .get(lock.pid)
                .and_then(|subject| statics::variable(&subject.image, lock.address));
            let mut waiters = lock.waiters.iter();
            let named = Named {
                id: lock.id,
                symbol,
                code: waiters.find_map(|waiter| code(subjects.get(waiter.pid)?, &symbolizer, waiter)),
            };
            if sender.send(named).is_err() {
                return;
            }
        }
    });
    name_standstills(report, snapshot, &stuck);
    for named in named {
        if let Some(lock) = report.locks.iter_mut().find(|lock| lock.id == named.id) {
            lock.symbol = lock.symbol.take().or(named.symbol);
            lock.code = named.code.filter(|code| !code.frames.is_empty());
        }
    }
}

/// Tells where the threads of deadlocks and stalls wait.
fn name_standstills(report: &mut Report, snapshot: &Snapshot, stuck: &HashSet<u32>) {
    let tids = report.at_a_standstill().map(|(party, _)| party.tid);
    let wanted = waiters(snapshot, tids, STANDSTILLS);
    let wanted: Vec<Waiter> = wanted
        .into_iter()
        .filter(|waiter| !stuck.contains(&waiter.pid))
        .collect();
    let codes = within("code", DEADLINE, move |sender| {
        let mut subjects = Subjects::default();
        let symbolizer = Symbolizer::builder().enable_demangling(false).build();
        for waiter in wanted {
            let code = subjects
                .get(waiter.pid)
                .and_then(|subject| code(subject, &symbolizer, &waiter));
            if code.is_some_and(|code| sender.send((waiter.tid, code)).is_err()) {
                return;
            }
        }
    });
    let told = codes.into_iter().filter(|(_, code)| !code.frames.is_empty());
    report.codes = told.collect();
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

/// A symbol as it was written. Only names that say they are mangled are: C++ would take a function `w` for the type `wchar_t`.
fn readable(symbol: &str) -> String {
    let name = if symbol.starts_with("_R") || symbol.starts_with("_ZN") && symbol.contains("17h") {
        format!("{:#}", rustc_demangle::demangle(symbol))
    } else if symbol.starts_with("_Z") {
        let parsed = cpp_demangle::Symbol::new(symbol).ok();
        parsed
            .and_then(|parsed| parsed.demangle().ok())
            .unwrap_or_else(|| symbol.to_owned())
    } else {
        symbol.to_owned()
    };
    escape(name.as_bytes())
}

/// The functions by name; where there is none, the module and the offset in it. `None` if the thread has gone on.
fn code(subject: &mut Subject, symbolizer: &Symbolizer, waiter: &Waiter) -> Option<Code> {
    let Subject { image, stacks } = subject;
    let walked = stacks.walk(image, waiter.tid, &waiter.live)?;
    let mut source = Process::new(waiter.pid.into());
    source.debug_syms = false;
    let named = symbolizer.symbolize(&Source::Process(source), Input::AbsAddr(&walked.addresses));
    let named = named.unwrap_or_default();
    let frames = walked.addresses.iter().enumerate().map(|(at, &address)| {
        let symbol = named.get(at).and_then(|symbol| symbol.as_sym());
        symbol.map_or_else(|| image.place(address), |symbol| readable(&symbol.name))
    });
    Some(Code {
        frames: frames.collect(),
        cut: walked.cut,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_mangled_names_are_demangled() {
        assert_eq!(readable("w"), "w");
        assert_eq!(readable("_Z3addii"), "add(int, int)");
        assert_eq!(readable("_ZN3app4work17h0123456789abcdefE"), "app::work");
    }
}
