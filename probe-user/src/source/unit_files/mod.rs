//! Reads what units may take from the files of their cgroups, on a thread of its own.
//!
//! How many cgroups there are is up to those who run containers, and reading `cpu.stat` has the kernel add up
//! over CPUs. So the engine hands over what it wants to know and goes on; the thread reads for [`BUDGET`] at
//! most, whole units only, and says how many it left; the next round begins behind the last unit that was
//! read. A thread that does not come back is not asked again, and one that died is replaced.
//!
//! | module | does |
//! |---|---|
//! | [`files`] | reads one cgroup and those above it, of either version |
//! | [`kubelet`] | what containers are called, by the kubelet's directories |

pub mod files;
pub mod kubelet;

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded};

use crate::model::unit::unit_of;
use crate::model::unit_resources::UnitReading;
use files::Files;
use kubelet::Names;

/// How long one round may read, waiting for a CPU included: nobody waits for it. (150 units were not read
/// within 200 ms on a host where ten threads wanted each CPU.)
const BUDGET: Duration = Duration::from_secs(1);

/// Names are read again this often, and at once when a container is new (every [`NEW_NAMES_EVERY`] at most):
/// the kubelet makes its link when the container runs.
const NAMES_EVERY: Duration = Duration::from_secs(60);
const NEW_NAMES_EVERY: Duration = Duration::from_secs(10);

/// A unit, and its outermost cgroups that have processes.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// The unit's name.
    pub unit: Arc<str>,
    /// Number and path of each, in the hierarchy that names units.
    pub cgroups: Vec<(u64, Arc<Path>)>,
}

/// What one round found.
#[derive(Debug, Default)]
pub struct Round {
    /// Units that were read.
    pub readings: Vec<UnitReading>,
    /// What they are called, of those whose names are known.
    pub named: Vec<NamedUnit>,
    /// Units that were not, for want of time.
    pub unread: u64,
}

/// What a unit is called in Kubernetes; "" what is not known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamedUnit {
    /// The unit's name here.
    pub unit: Arc<str>,
    /// The names there.
    pub name: kubelet::Name,
    /// Which runtime runs it.
    pub runtime: String,
}

/// See the module.
pub struct UnitFiles {
    thread: Option<Reading>,
    proc_root: Box<Path>,
}

struct Reading {
    wanted: Sender<Vec<Wanted>>,
    found: Receiver<Round>,
    is_busy: bool,
}

impl UnitFiles {
    /// Makes the thread. Mounts are looked for below `proc_root`.
    pub fn new(proc_root: &Path) -> Self {
        Self {
            thread: Reading::begin(proc_root),
            proc_root: proc_root.into(),
        }
    }

    /// Has the thread read. False if it still is at the round before, or there is none to be had.
    pub fn begin(&mut self, wanted: Vec<Wanted>) -> bool {
        if self.thread.is_none() {
            self.thread = Reading::begin(&self.proc_root);
        }
        let Some(thread) = &mut self.thread else {
            return false;
        };
        if thread.is_busy {
            return false;
        }
        thread.is_busy = true;
        if thread.wanted.send(wanted).is_err() {
            self.thread = None;
            return false;
        }
        true
    }

    /// What was found, if there is something within that time.
    pub fn finish(&mut self, within: Duration) -> Option<Round> {
        let thread = self.thread.as_mut().filter(|thread| thread.is_busy)?;
        match thread.found.recv_timeout(within) {
            Ok(round) => {
                thread.is_busy = false;
                Some(round)
            }
            Err(error) if error.is_timeout() => None,
            Err(_) => {
                tracing::error!("the thread that reads cgroups has ended (please report it)");
                self.thread = None;
                None
            }
        }
    }
}

impl Reading {
    /// The thread, where the system gives one.
    fn begin(proc_root: &Path) -> Option<Self> {
        let (wanted, to_read) = bounded(1);
        let (says, found) = bounded(1);
        let files = Files::new(proc_root);
        let spawned = std::thread::Builder::new()
            .name("cgroups".to_owned())
            .spawn(move || run(files, &to_read, &says));
        if let Err(error) = spawned {
            tracing::warn!("procprobe_unit_* is not known: no thread to read cgroups with: {error}");
            return None;
        }
        Some(Self {
            wanted,
            found,
            is_busy: false,
        })
    }
}

/// Reads whatever is wanted, until nobody wants anything.
fn run(mut files: Files, wanted: &Receiver<Vec<Wanted>>, found: &Sender<Round>) {
    let mut last: Option<Arc<str>> = None;
    let mut book = NameBook::new(Path::new(LOGS));
    while let Ok(mut wanted) = wanted.recv() {
        let after = |unit: &Wanted| last.as_ref().is_some_and(|last| unit.unit == *last);
        let first = wanted.iter().position(after).map_or(0, |at| at + 1);
        let first = first.min(wanted.len());
        wanted.rotate_left(first);
        let mut round = read(&mut files, &wanted, Instant::now() + BUDGET);
        round.named = book.name(&wanted, Instant::now());
        last = round.readings.last().map(|reading| Arc::clone(&reading.unit));
        if found.send(round).is_err() {
            return;
        }
    }
}

/// Whole units until the time is over, and one in any case: else none would ever be read behind one that
/// takes longer.
fn read(files: &mut Files, wanted: &[Wanted], deadline: Instant) -> Round {
    files.begin();
    let mut round = Round::default();
    for unit in wanted {
        if !round.readings.is_empty() && Instant::now() >= deadline {
            break;
        }
        let cgroups = unit.cgroups.iter().map(|(id, path)| files.read(*id, path));
        round.readings.push(UnitReading {
            unit: Arc::clone(&unit.unit),
            cgroups: cgroups.collect(),
        });
    }
    round.unread = (wanted.len() - round.readings.len()) as u64;
    round
}

/// Where a kubelet leaves its logs.
const LOGS: &str = "/var/log";

/// The names as they were last read.
struct NameBook {
    log: Box<Path>,
    names: Names,
    read: Option<Instant>,
}

impl NameBook {
    fn new(log: &Path) -> Self {
        Self {
            log: log.into(),
            names: Names::default(),
            read: None,
        }
    }

    /// Names of all units that have one. Of several cgroups under one name (`label_map`) there is no one
    /// name.
    fn name(&mut self, wanted: &[Wanted], now: Instant) -> Vec<NamedUnit> {
        let single = wanted.iter().filter_map(|unit| match &unit.cgroups[..] {
            [(_, path)] => Some((Arc::clone(&unit.unit), unit_of(&format!("/{}", path.display())))),
            _ => None,
        });
        let pods: Vec<_> = single.filter(|(_, own)| own.starts_with("pod:")).collect();
        if pods.is_empty() {
            return Vec::new();
        }
        let is_nameless = |(_, own): &(_, String)| !self.names.knows(own);
        let every = if pods.iter().any(is_nameless) {
            NEW_NAMES_EVERY
        } else {
            NAMES_EVERY
        };
        if self.read.is_none_or(|read| now.duration_since(read) >= every) {
            self.read = Some(now);
            self.names.renew(&self.log, now + BUDGET);
        }
        let named = pods.into_iter().filter_map(|(unit, own)| {
            let (name, runtime) = self.names.of(&own)?;
            Some(NamedUnit {
                unit,
                name,
                runtime: runtime.to_owned(),
            })
        });
        named.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_are_named_by_their_only_cgroup() {
        let dir = tempfile::tempdir().unwrap();
        let uid = "6f3c2a1e-0b7d-4c55-9e21-3d8f5a6b7c90";
        let id = "0123456789abcdef".repeat(4);
        let cgroup = |id: &str| Path::new(&format!("kubepods/pod{uid}/crio-{id}")).into();
        let unit = |unit: &str, cgroups| Wanted {
            unit: unit.into(),
            cgroups,
        };
        let other = "f".repeat(64);
        let wanted = [
            unit("renamed", vec![(1, cgroup(&id))]),
            unit("merged", vec![(2, cgroup(&other)), (3, cgroup(&id))]),
            unit("a.service", vec![(4, Path::new("a.service").into())]),
        ];
        let mut book = NameBook::new(dir.path());
        let began = Instant::now();
        assert!(book.name(&wanted, began).is_empty(), "no kubelet yet");
        let links = dir.path().join("containers");
        std::fs::create_dir_all(&links).unwrap();
        std::fs::write(links.join(format!("web_shop_app-{id}.log")), "").unwrap();
        assert!(
            book.name(&wanted, began + Duration::from_secs(1)).is_empty(),
            "not so soon"
        );
        let named = book.name(&wanted, began + NEW_NAMES_EVERY);
        assert_eq!(named.len(), 1, "{named:?}");
        assert_eq!((&*named[0].unit, &*named[0].runtime), ("renamed", "crio"));
        assert_eq!((&*named[0].name.pod, &*named[0].name.container), ("web", "app"));
    }

    fn wanted(count: usize) -> Vec<Wanted> {
        let unit = |at: usize| Wanted {
            unit: format!("{at}.service").into(),
            cgroups: vec![(at as u64, Path::new("a").into())],
        };
        (0..count).map(unit).collect()
    }

    #[test]
    fn a_round_ends_in_time_and_says_what_it_left() {
        let dir = tempfile::tempdir().unwrap();
        let mut files = Files::new(dir.path());
        let late = read(&mut files, &wanted(3), Instant::now());
        assert_eq!((late.readings.len(), late.unread), (1, 2));
        let all = read(&mut files, &wanted(3), Instant::now() + Duration::from_secs(60));
        assert_eq!((all.readings.len(), all.unread), (3, 0));
    }

    #[test]
    fn one_round_at_a_time() {
        let dir = tempfile::tempdir().unwrap();
        let mut files = UnitFiles::new(dir.path());
        assert!(files.finish(Duration::ZERO).is_none(), "nothing was wanted");
        assert!(files.begin(wanted(2)));
        assert!(!files.begin(wanted(2)), "busy until its answer is taken");
        assert_eq!(files.finish(Duration::from_secs(60)).unwrap().readings.len(), 2);
        assert!(files.begin(wanted(1)));
    }
}
