//! Snapshots and events through eBPF.
//!
//! Some kernels hide a process from the iterator (a container host's own pid 1, for one). What /proc lists and the
//! iterator does not show is looked for now and then, read from /proc with every snapshot, and marked.

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

use probe_ebpf::lock::LockKey;
use probe_ebpf::totals::Totals;
use procfs::ProcResult;

use super::address_space::AddressSpaces;
use super::cgroup::Cgroups;
use super::descriptors::Descriptors;
use super::futexes;
use super::memory;
use super::proc;
use super::reader::{self, Subject};
use super::resolve::{self, Clocks};
use crate::kernel::events::Events;
use crate::kernel::load::{Options, Probe};
use crate::kernel::load_error::LoadError;
use crate::kernel::snapshot::{Detail, Futexes, SnapshotError};
use crate::kernel::{clock, preflight};
use crate::model::locks::LockId;
use crate::model::locks::memory::SharedMemory;
use crate::model::snapshot::{Losses, Snapshot, SourceKind};
use crate::model::thread::Thread;
use crate::namer;

/// How often /proc is compared with the iterator.
const COMPARE_EVERY: Duration = Duration::from_secs(60);
const PROC: &str = "/proc";
/// The first look of all.
const FIRST: Detail = Detail {
    histograms: false,
    open_ledgers: true,
    futexes: Futexes::All,
};

/// The kernel, seen through our programs.
pub struct BpfSource {
    /// The loaded programs.
    pub probe: Probe,
    /// Names units.
    pub cgroups: Cgroups,
    /// Tells what descriptors stand for.
    pub descriptors: Descriptors,
    /// Whose code and whose memory futex waits are.
    pub(super) spaces: AddressSpaces,
    /// Where futexes of several processes lie.
    pub(super) places: HashMap<LockKey, Option<LockId>>,
    /// How many threads the last snapshot had.
    threads: usize,
    hidden: Vec<u32>,
    compared: Option<Instant>,
    torn: u64,
    unread: u64,
    /// Waits whose memory was not read.
    memory: u64,
    /// Descriptors that were not looked up.
    unknown_descriptors: u64,
}

impl BpfSource {
    /// Loads the programs without attaching any: good for one look at what is, not at what happens.
    ///
    /// # Errors
    /// [`LoadError`] with what is missing.
    pub fn load(options: Options) -> Result<Self, LoadError> {
        let probe = Probe::load(options)?;
        Ok(Self {
            probe,
            cgroups: Cgroups::new(Path::new(PROC)),
            descriptors: Descriptors::new(Path::new(PROC)),
            spaces: AddressSpaces::new(Path::new(PROC)),
            places: HashMap::new(),
            threads: 0,
            hidden: Vec::new(),
            compared: None,
            torn: 0,
            unread: 0,
            memory: 0,
            unknown_descriptors: 0,
        })
    }

    /// Attaches the programs, starts accounting, and gives every thread its ledger from here, where memory may be
    /// waited for. Returns the reading end of the event ring.
    ///
    /// # Errors
    /// [`SnapshotError`] with what was refused.
    pub fn start(&mut self) -> Result<Events, SnapshotError> {
        let events = self.attach()?;
        self.open_futexes()?;
        Ok(events)
    }

    /// The first part of [`Self::start`]: all that takes privileges, and no thread but the one that calls.
    ///
    /// # Errors
    /// [`SnapshotError`] with what was refused.
    pub fn attach(&mut self) -> Result<Events, SnapshotError> {
        let events = self.probe.take_events()?;
        self.probe.attach()?;
        self.probe.go_live()?;
        self.probe.read_snapshot(FIRST, |_| {})?;
        Ok(events)
    }

    /// The second part: the waits that are open already. Memory of others is read by a thread of its own.
    ///
    /// # Errors
    /// [`SnapshotError`] if the pass cannot be begun.
    pub fn open_futexes(&mut self) -> Result<(), SnapshotError> {
        self.probe.read_futexes(FIRST)?;
        Ok(())
    }

    /// For a single answer, for which the code of all processes is read for the first time.
    pub fn be_patient(&mut self) {
        self.spaces.patience = Duration::from_secs(1);
    }

    /// Whether the kernel's iterator shows this process its threads: a look at nothing else.
    pub fn sees_threads(&mut self) -> bool {
        let mut seen = 0_usize;
        let read = self.probe.read_snapshot(Detail::default(), |_| seen += 1);
        read.is_ok() && seen > 0
    }

    /// Looks at every thread now.
    ///
    /// # Errors
    /// [`SnapshotError`] if the iterator cannot be read.
    pub fn snapshot(&mut self, detail: Detail) -> Result<Snapshot, SnapshotError> {
        self.spaces.begin_look();
        self.snapshot_of_look(detail)
    }

    /// The same, with what is left of the time of the look that it is part of.
    pub(super) fn snapshot_of_look(&mut self, detail: Detail) -> Result<Snapshot, SnapshotError> {
        let clocks = Clocks {
            live_since_ns: self.probe.live_since_ns(),
            scheduler_offset: self.probe.scheduler_clock_offset()?,
        };
        let began_ns = clock::monotonic_ns();
        let started = Instant::now();
        let expected = if self.threads == 0 {
            threads_now()
        } else {
            self.threads
        };
        let mut threads = Vec::with_capacity(expected + expected / 8);
        let Self { probe, torn, .. } = self;
        let bytes = probe.read_snapshot(detail, |task| {
            *torn += u64::from(task.torn());
            threads.push(resolve::thread(task, clocks));
        })?;
        let read = self.probe.read_futexes(detail)?;
        let missing = memory::add(&mut threads, &read, detail.futexes);
        self.memory += missing.waits;
        self.threads = threads.len();
        let took = started.elapsed();
        tracing::info!(threads = threads.len(), bytes, ?took, "snapshot");
        let hidden = self.add_hidden(&mut threads);
        let mut snapshot = Snapshot {
            taken_at: SystemTime::now(),
            began_ns,
            ended_ns: clock::monotonic_ns(),
            boottime_ns: clock::boottime_ns(),
            source: SourceKind::Bpf,
            threads,
            losses: Losses::none(),
            took,
            hidden,
            memory: SharedMemory {
                gaps: missing.gaps,
                ..SharedMemory::default()
            },
        };
        if detail.futexes != Futexes::None {
            futexes::complete(&mut snapshot, &mut self.spaces);
        }
        self.count_losses(&mut snapshot)?;
        Ok(snapshot)
    }

    /// Looks up the descriptors that a snapshot's threads wait at, for whoever tells those apart.
    ///
    /// # Errors
    /// [`LoadError`] if the totals cannot be read.
    pub fn look_up_descriptors(&mut self, snapshot: &mut Snapshot) -> Result<(), LoadError> {
        self.unknown_descriptors += self.descriptors.look(snapshot, &mut self.spaces.budget);
        self.count_losses(snapshot)
    }

    /// Gives a snapshot what was lost so far, and whose fault that is.
    pub(super) fn count_losses(&mut self, snapshot: &mut Snapshot) -> Result<(), LoadError> {
        self.memory += std::mem::take(&mut self.spaces.lost);
        for (pid, gap) in std::mem::take(&mut self.spaces.gaps) {
            snapshot.memory.gaps.entry(pid).or_insert(gap);
        }
        snapshot.losses = self.losses()?;
        Ok(())
    }

    /// What was lost since the programs were loaded.
    ///
    /// # Errors
    /// [`LoadError`] if the totals cannot be read.
    pub fn losses(&self) -> Result<Losses, LoadError> {
        let totals: Totals = self.probe.totals()?;
        let mut losses = Losses::none();
        losses.add("ring_fork", totals.lost_forks);
        losses.add("ring_exec", totals.lost_execs);
        losses.add("ring_exit", totals.lost_exits);
        losses.add("ring_reap", totals.lost_reaps);
        losses.add("lock_table", totals.lost_locks);
        losses.add("edge_table", totals.lost_edges);
        losses.add("storage", totals.storage_failures);
        losses.add("clock", totals.clock_backwards);
        losses.add("torn", self.torn);
        losses.add("unread", self.unread);
        losses.add("symbols", namer::client::lost());
        losses.add("memory", self.memory);
        losses.add("descriptors", self.unknown_descriptors);
        Ok(losses)
    }

    /// Adds the threads of processes that the iterator does not show; returns how many processes.
    fn add_hidden(&mut self, threads: &mut Vec<Thread>) -> usize {
        if self
            .compared
            .is_none_or(|compared| compared.elapsed() >= COMPARE_EVERY)
        {
            self.compared = Some(Instant::now());
            self.hidden = self.hidden_pids(threads);
        }
        let mut found = 0;
        for (_, outcome) in self.threads_of(self.hidden.clone()) {
            match outcome {
                Ok(hidden) => {
                    found += 1;
                    threads.extend(hidden);
                }
                Err(procfs::ProcError::NotFound(_)) => {}
                Err(_) => self.unread += 1,
            }
        }
        found
    }

    /// Threads of processes as /proc has them.
    fn threads_of(&mut self, pids: Vec<u32>) -> Vec<(u32, ProcResult<Vec<Thread>>)> {
        // Since when they live only /proc would say.
        let asked = pids.into_iter().map(|pid| (Subject::of(pid, 0), ()));
        let budget = &mut self.spaces.budget;
        let asked = reader::shared().ask(budget, asked, |_, (): &mut (), subject, ()| {
            vec![(subject.pid, proc::threads_of(Path::new(PROC), subject.pid))]
        });
        self.unread += asked.lost;
        asked.answers
    }

    /// Processes that /proc lists, that are older than this moment's births, and that the iterator did not
    /// show.
    fn hidden_pids(&mut self, threads: &[Thread]) -> Vec<u32> {
        // In a pid namespace of its own /proc has other numbers; there is nothing to compare.
        if !preflight::in_initial_pid_namespace() {
            return Vec::new();
        }
        let shown: HashSet<u32> = threads.iter().map(|thread| thread.pid).collect();
        let newest_ns = threads.iter().map(|thread| thread.id.start_ns).max().unwrap_or(0);
        let listed = proc::pids(Path::new(PROC)).unwrap_or_default();
        let missing = listed.into_iter().filter(|pid| !shown.contains(pid)).collect();
        let is_older = |threads: Vec<Thread>| {
            let first = threads.first();
            first.is_some_and(|thread| thread.id.start_ns < newest_ns)
        };
        let found = self.threads_of(missing).into_iter();
        found
            .filter_map(|(pid, threads)| threads.is_ok_and(is_older).then_some(pid))
            .collect()
    }
}

/// How many threads there are, from the fourth field of /proc/loadavg ("2/345"): growing a vector to tens of thousands copies
/// megabytes. 0 if unknown.
fn threads_now() -> usize {
    let line = std::fs::read_to_string(Path::new(PROC).join("loadavg")).unwrap_or_default();
    let field = line.split(' ').nth(3).and_then(|field| field.split('/').nth(1));
    field.and_then(|count| count.parse().ok()).unwrap_or(0)
}
