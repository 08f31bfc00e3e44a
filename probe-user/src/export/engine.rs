//! Owns the running picture: the source, the event ring, the books. Everything that serves asks here.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use probe_ebpf::totals::Totals;
use prometheus::Histogram;

use super::locks::OpenLockWindow;
use super::unit_watch::UnitWatch;
use crate::aide::client as aide;
use crate::kernel::cost::ProgramCost;
use crate::kernel::events::Events;
use crate::kernel::snapshot::{Detail, Futexes, SnapshotError};
use crate::model::event::Event;
use crate::model::groups::{GroupAggregator, Grouping};
use crate::model::label_map::LabelMap;
use crate::model::life::Happening;
use crate::model::lives::{Lives, Retention};
use crate::model::locks::Look;
use crate::model::locks::aggregator::LockAggregator;
use crate::model::snapshot::{Losses, Snapshot};
use crate::model::thread::Switches;
use crate::model::unit_resources::Shown;
use crate::model::window::{By, Report, Window};
use crate::source::bpf::BpfSource;
use crate::source::describe;
use crate::source::happened;
use crate::source::limits::{available_cpus, pid_limit};
use crate::source::pressure::{self, Pressure};
use crate::source::symbols;
use crate::source::unit_files::NamedUnit;
use crate::source::watch::Watch;

/// Snapshots for the books carry histograms.
const DETAIL: Detail = Detail {
    histograms: true,
    open_ledgers: false,
    futexes: Futexes::Owned,
};

/// The running picture.
pub struct Engine {
    /// The kernel.
    pub source: BpfSource,
    events: Events,
    groups: GroupAggregator,
    began_ns: u64,
    costs: CostSampler,
    durations: Histogram,
    watch: Watch,
    units: UnitWatch,
    reap_delays: Histogram,
    orphaned: [u64; 3],
    /// Windows that API requests have open.
    windows: BTreeMap<u64, OpenWindow>,
    next_window: u64,
    lock_books: LockAggregator,
    /// Windows on locks that API requests have open.
    pub(super) lock_windows: BTreeMap<u64, OpenLockWindow>,
}

struct OpenWindow {
    window: Window,
    began_ns: u64,
    losses: Losses,
}

/// How to keep the picture.
pub struct Settings {
    /// What makes a group, and which have series of their own.
    pub grouping: Grouping,
    /// How many units may have their cgroups read.
    pub max_units: usize,
    /// How much of the dead is remembered.
    pub retention: Retention,
    /// Where to note how long snapshots take.
    pub durations: Histogram,
    /// Where to note how long zombies wait.
    pub reap_delays: Histogram,
}

/// What one scrape shows.
pub struct View<'a> {
    /// Groups and host counts.
    pub groups: &'a GroupAggregator,
    /// Host totals since the programs went live.
    pub totals: Totals,
    /// What was lost.
    pub losses: Losses,
    /// The moment all this was read.
    pub snapshot: Snapshot,
    /// How many pids there can be.
    pub pid_limit: Option<u64>,
    /// How long work stood still for want of something, where the kernel counts it.
    pub pressure: Vec<Pressure>,
    /// CPUs that run threads.
    pub cpus: usize,
    /// The lives of processes.
    pub lives: &'a Lives,
    /// Processes that lost their parent, by adopter, in the order of [`crate::model::life::AdopterKind::ALL`].
    pub orphaned: [u64; 3],
    /// What units may take.
    pub units: Vec<(Arc<str>, Shown)>,
    /// What they are called in Kubernetes, where that is known.
    pub named_units: Vec<NamedUnit>,
    /// Units of which that is not known, since there are too many.
    pub units_left_out: u64,
    /// Cost of our programs.
    pub costs: &'a BTreeMap<String, (Duration, f64)>,
}

impl Engine {
    /// Takes the first snapshot of a source that is attached, with the reading end of its event ring.
    ///
    /// # Errors
    /// [`SnapshotError`] with what was refused.
    pub fn start(mut source: BpfSource, events: Events, settings: Settings) -> Result<Self, SnapshotError> {
        let Settings {
            grouping,
            max_units,
            retention,
            durations,
            reap_delays,
        } = settings;
        source.open_futexes()?;
        let (births, deaths) = born_and_dead(&source.probe.totals()?);
        let first = source.snapshot(DETAIL)?;
        durations.observe(first.took.as_secs_f64());
        let mut units = UnitWatch::new(max_units, grouping.units.clone());
        units.snapshot(&first, &mut source.cgroups);
        let mut groups = GroupAggregator::new(grouping);
        groups.begin(&first, &mut source.cgroups);
        groups.begin_transitions(&first, births, deaths);
        Ok(Self {
            source,
            events,
            groups,
            began_ns: first.began_ns,
            costs: CostSampler::default(),
            durations,
            watch: Watch::begin(&first, retention),
            units,
            reap_delays,
            orphaned: [0; 3],
            windows: BTreeMap::new(),
            next_window: 0,
            lock_books: LockAggregator::default(),
            lock_windows: BTreeMap::new(),
        })
    }

    /// Books every event that waits; returns how long to wait before the next call.
    pub fn drain(&mut self) -> Duration {
        let Self {
            source,
            events,
            groups,
            began_ns,
            windows,
            watch,
            units,
            reap_delays,
            orphaned,
            lock_books,
            lock_windows,
            ..
        } = self;
        events.drain(|raw| {
            let event: Event = happened::event(&raw);
            // Older than the first snapshot: part of what is not counted.
            if event.at_ns >= *began_ns {
                groups.event(&event, &mut source.cgroups);
                lock_books.event(&event);
                units.event(&event, &mut source.cgroups);
                note(&watch.event(&event), reap_delays, orphaned);
            }
            for open in lock_windows.values_mut() {
                open.event(&event, &mut source.cgroups);
            }
            for open in windows.values_mut().filter(|open| event.at_ns >= open.began_ns) {
                open.window.event(&event, &mut source.cgroups);
            }
        })
    }

    /// Reads every thread and brings the books up to date.
    ///
    /// # Errors
    /// [`SnapshotError`] if the iterator cannot be read.
    pub fn refresh(&mut self) -> Result<Snapshot, SnapshotError> {
        self.units.begin();
        let books = &mut self.lock_books;
        let (mut snapshot, tables) = self
            .source
            .look_until(DETAIL, |look| books.needs_second_look(look))?;
        self.source.look_up_descriptors(&mut snapshot)?;
        self.durations.observe(snapshot.took.as_secs_f64());
        // Events after the reading, then the reading: see `crate::model::tracker`.
        self.drain();
        let BpfSource {
            cgroups, descriptors, ..
        } = &mut self.source;
        self.groups.snapshot(&snapshot, cgroups, descriptors);
        self.units.snapshot(&snapshot, cgroups);
        let look = Look {
            snapshot: &snapshot,
            tables: &tables,
        };
        self.groups.locks(&self.lock_books.advance(look), cgroups);
        let watched = !self.lock_windows.is_empty();
        let deleted = self.source.make_room(&snapshot, &tables, watched)?;
        self.lock_books.forget(&deleted);
        let windows = self.lock_windows.values_mut();
        windows.for_each(|open| open.forget(&deleted));
        note(
            &self.watch.snapshot(&snapshot),
            &self.reap_delays,
            &mut self.orphaned,
        );
        Ok(snapshot)
    }

    /// Reads every thread for one answer; returns what was lost meanwhile as well, which is all that this
    /// answer lacks: what was lost before is in none of the books, and the look does not need it.
    ///
    /// # Errors
    /// [`SnapshotError`] if the iterator or the totals cannot be read.
    pub fn look(&mut self) -> Result<(Snapshot, Losses), SnapshotError> {
        let before = self.losses()?;
        let snapshot = self.refresh()?;
        let losses = self.losses()?.since(&before);
        Ok((snapshot, losses))
    }

    /// What was lost since the programs went live.
    ///
    /// # Errors
    /// [`SnapshotError`] if the totals cannot be read.
    pub fn losses(&self) -> Result<Losses, SnapshotError> {
        let mut losses = self.source.losses()?;
        losses.add("malformed", self.events.malformed());
        Ok(losses)
    }

    /// The same with what was lost while answers were drawn.
    ///
    /// # Errors
    /// As [`Self::losses`].
    pub fn total(&self) -> Result<Losses, SnapshotError> {
        let mut losses = self.losses()?;
        losses.add("descriptions", describe::lost());
        losses.add("cgroups", self.units.unread());
        Ok(losses)
    }

    /// Reads every thread and shows the result.
    ///
    /// # Errors
    /// [`SnapshotError`] if the iterator or the totals cannot be read.
    pub fn view(&mut self) -> Result<View<'_>, SnapshotError> {
        // Before the snapshot: whoever died unheard by now is missing in it, and known to be lost.
        let lost = self.source.probe.totals()?;
        let snapshot = self.refresh()?;
        let totals = self.source.probe.totals()?;
        let switches = Switches {
            voluntary: lost.lost_voluntary,
            involuntary: lost.lost_involuntary,
        };
        self.groups.lost(lost.lost_time_ns, switches);
        let (births, deaths) = born_and_dead(&lost);
        self.groups.look_at_transitions(&snapshot, births, deaths);
        self.name_locks(&snapshot);
        let mut losses = snapshot.losses.clone();
        losses.add("malformed", self.events.malformed());
        losses.add("descriptions", describe::lost());
        self.units.settle();
        losses.add("cgroups", self.units.unread());
        self.costs.exact(&self.source.probe.cost());
        Ok(View {
            groups: &self.groups,
            totals,
            losses,
            snapshot,
            pid_limit: pid_limit(Path::new("/proc")),
            pressure: pressure::read(Path::new("/proc")),
            cpus: available_cpus(),
            lives: self.watch.lives(),
            orphaned: self.orphaned,
            units: self.units.shown(),
            named_units: self.units.named(),
            units_left_out: self.units.left_out(),
            costs: &self.costs.totals,
        })
    }

    /// Asks what the locks are called at which most time was waited, of those that nobody has asked for yet.
    fn name_locks(&mut self, snapshot: &Snapshot) {
        let nameless = self.groups.lock_edges().nameless();
        let asked = nameless.iter().map(|one| (one.lock, one.pid, one.address));
        for (lock, name) in symbols::variables(asked, snapshot) {
            self.groups.name_lock(lock, name.map(String::into_boxed_str));
        }
    }

    /// Opens a window; it is fed with events until it is closed.
    ///
    /// # Errors
    /// [`SnapshotError`] if the iterator cannot be read.
    pub fn open_window(&mut self, by: By, pid: Option<u32>) -> Result<u64, SnapshotError> {
        let snapshot = self.refresh()?;
        let window = Window::begin(&snapshot, by, pid);
        let id = self.new_window();
        self.windows.insert(
            id,
            OpenWindow {
                window,
                began_ns: snapshot.began_ns,
                losses: snapshot.losses,
            },
        );
        Ok(id)
    }

    /// A number for another window.
    pub(super) fn new_window(&mut self) -> u64 {
        self.next_window += 1;
        self.next_window
    }

    /// Closes a window; `None` if it is not open.
    ///
    /// # Errors
    /// [`SnapshotError`] if the iterator cannot be read.
    pub fn close_window(&mut self, id: u64) -> Result<Option<(Report, Snapshot, Losses)>, SnapshotError> {
        let snapshot = self.refresh()?;
        let Some(open) = self.windows.remove(&id) else {
            return Ok(None);
        };
        let losses = snapshot.losses.since(&open.losses);
        Ok(Some((
            open.window.end(&snapshot, &mut self.source.cgroups),
            snapshot,
            losses,
        )))
    }

    /// Forgets a window whose asker has left.
    pub fn drop_window(&mut self, id: u64) {
        self.windows.remove(&id);
        self.lock_windows.remove(&id);
    }

    /// Sets how units are called from here on.
    pub fn set_label_map(&mut self, label_map: LabelMap) {
        self.source.cgroups.set_label_map(label_map);
        self.groups.units_changed();
    }

    /// The lives of processes.
    pub fn lives(&self) -> &Lives {
        self.watch.lives()
    }

    /// Begins a sample of what our programs cost.
    pub fn begin_cost_sample(&mut self) {
        self.costs.begin(self.source.probe.cost());
    }

    /// Ends it; the time since the last one is taken to have been like it.
    pub fn end_cost_sample(&mut self) {
        self.costs.end(&self.source.probe.cost());
    }
}

/// Threads that were born and that died since the programs went live.
fn born_and_dead(totals: &Totals) -> (u64, u64) {
    (totals.forks + totals.threads, totals.thread_exits)
}

/// Counts what followed from events.
fn note(happened: &[Happening], reap_delays: &Histogram, orphaned: &mut [u64; 3]) {
    for happening in happened {
        match happening {
            Happening::Reaped { delay_ns, .. } => reap_delays.observe(*delay_ns as f64 / 1e9),
            Happening::Orphaned { loss, .. } => orphaned[loss.kind as usize] += 1,
        }
    }
}

/// Sampled cost of our programs. Statistics cost about as much as a small program, so they are on for a second now and
/// then; the counters are scaled up by the time in between.
#[derive(Default)]
struct CostSampler {
    totals: BTreeMap<String, (Duration, f64)>,
    running: Option<Sample>,
    last_end: Option<Instant>,
    always_on: bool,
}

struct Sample {
    began: Instant,
    before: Vec<ProgramCost>,
    /// Keeps the statistics on.
    _on: OwnedFd,
}

impl CostSampler {
    fn begin(&mut self, before: Vec<ProgramCost>) {
        let setting = std::fs::read_to_string("/proc/sys/kernel/bpf_stats_enabled").unwrap_or_default();
        self.always_on = setting.trim() == "1";
        let Some(on) = aide::statistics() else { return };
        for cost in &before {
            self.totals.entry(cost.program.clone()).or_default();
        }
        self.running = Some(Sample {
            began: Instant::now(),
            before,
            _on: on,
        });
    }

    fn end(&mut self, after: &[ProgramCost]) {
        let Some(sample) = self.running.take() else { return };
        let length = sample.began.elapsed();
        let since = self
            .last_end
            .replace(Instant::now())
            .map_or(length, |last| last.elapsed());
        let scale = since.as_secs_f64() / length.as_secs_f64().max(1e-3);
        for (before, after) in sample.before.iter().zip(after) {
            let total = self.totals.entry(after.program.clone()).or_default();
            total.0 += after.run_time.saturating_sub(before.run_time).mul_f64(scale);
            total.1 += after.runs.saturating_sub(before.runs) as f64 * scale;
        }
    }

    /// With the statistics always on the kernel's own counters are exact; never lower than what was shown before.
    fn exact(&mut self, now: &[ProgramCost]) {
        if !self.always_on {
            return;
        }
        for cost in now {
            let total = self.totals.entry(cost.program.clone()).or_default();
            *total = (total.0.max(cost.run_time), total.1.max(cost.runs as f64));
        }
    }
}
