//! Loading the programs, attaching them, and going live.

use std::fs::{self, File};
use std::io;
use std::path::Path;

use aya::maps::{Array, MapData, PerCpuArray};
use aya::programs::{BtfTracePoint, Iter, ProgramError};
use aya::{Ebpf, EbpfLoader, Pod};
use probe_ebpf::offsets::{ABSENT, Offsets};
use probe_ebpf::totals::{Control, Totals};

use super::btf::Btf;
use super::hierarchy::Hierarchy;
use super::load_error::{LoadError, chain, map_error};
use super::memory::{MEMORY, MemoryPass, MemoryRead};
use super::snapshot::SnapshotError;
use super::tables::{Edges, Locks};
use super::{clock, offsets, preflight};
use crate::model::blocked::syscall_table;

/// Where the kernel's type information is.
pub const BTF_PATH: &str = "/sys/kernel/btf/vmlinux";

/// The eBPF object; empty if this binary was built without the eBPF toolchain.
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/probe.o"));

/// Program name and tracepoint. The order is the order of attaching, which does not matter: none of them does
/// anything before [`Probe::go_live`].
pub const TRACEPOINTS: [(&str, &str); 7] = [
    ("sched_switch", "sched_switch"),
    ("sched_waking", "sched_waking"),
    ("process_fork", "sched_process_fork"),
    ("process_exec", "sched_process_exec"),
    ("process_free", "sched_process_free"),
    ("process_wait", "sched_process_wait"),
    ("signal_generate", "signal_generate"),
];
/// The same for what not every kernel has: without it, something is not known.
pub const OPTIONAL: [(&str, &str); 1] = [("mark_victim", "mark_victim")];
/// Programs of [`TRACEPOINTS`] with another that stands in for them where the verifier refuses the first.
const STAND_INS: [(&str, &str); 1] = [("signal_generate", "signal_generate_opaque")];
/// The iterator program.
pub const SNAPSHOT: &str = "snapshot";

/// Holds some 3,500 exits, or 18,000 births.
pub const DEFAULT_RING_BYTES: u32 = 4 << 20;

/// How to load.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Bytes of the event ring; a power of two and a multiple of the page size.
    pub ring_bytes: u32,
    /// Locks that are told apart.
    pub max_locks: u32,
    /// Pairs of waiter and holder that are told apart.
    pub max_edges: u32,
    /// Whether programs may log through aya-log.
    pub log: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            max_locks: 8_192,
            max_edges: 16_384,
            ring_bytes: DEFAULT_RING_BYTES,
            log: false,
        }
    }
}

/// See [`Probe::scheduler_clock_offset`].
#[derive(Clone, Copy)]
enum ClockOffset {
    NotMeasured,
    /// `None`: the kernel does not note when threads get a CPU.
    Measured(Option<u64>),
}

/// The loaded programs. Dropping it detaches and unloads them all; so does the end of the process, however it ends.
pub struct Probe {
    pub(super) ebpf: Ebpf,
    memory: MemoryPass,
    control: Array<MapData, PodControl>,
    totals: PerCpuArray<MapData, PodTotals>,
    live_since_ns: u64,
    clock_offset: ClockOffset,
    snapshot_flags: u64,
    options: Options,
    /// Waits by lock.
    pub locks: Locks,
    /// Waits by waiter and holder.
    pub edges: Edges,
}

impl Probe {
    /// Checks the host, resolves the offsets and loads every program; attaches none.
    ///
    /// # Errors
    /// [`LoadError`] with what is missing. Nothing stays loaded.
    pub fn load(options: Options) -> Result<Self, LoadError> {
        if OBJECT.is_empty() {
            return Err(LoadError::NoObject);
        }
        if let Some(missing) = preflight::missing_privilege() {
            return Err(LoadError::Privilege(missing));
        }
        let blob = fs::read(BTF_PATH).map_err(LoadError::NoBtf)?;
        let mut offsets = offsets::resolve(&Btf::parse(&blob)?)?;
        if !Hierarchy::find(Path::new("/proc")).is_some_and(|hierarchy| hierarchy.is_v1) {
            offsets.css_set_v1 = ABSENT;
        }
        let offsets = PodOffsets(offsets);
        drop(blob);
        let btf = aya::Btf::from_sys_fs().map_err(|error| LoadError::Object(error.into()))?;
        let syscalls = PodSyscalls(syscall_table());
        let mut loader = EbpfLoader::new();
        loader
            .btf(Some(&btf))
            // Task storage, which aya knows no type for; see probe-ebpf/src/storage.rs.
            .allow_unsupported_maps()
            .map_max_entries("EVENTS", options.ring_bytes)
            .map_max_entries("LOCKS", options.max_locks)
            .map_max_entries("EDGES", options.max_edges)
            .override_global("OFFSETS", &offsets, true)
            .override_global("SYSCALLS", &syscalls, true);
        let level = u8::from(options.log) * 5;
        loader.override_global("AYA_LOG_LEVEL", &level, false);
        let mut ebpf = loader.load(OBJECT)?;
        load_programs(&mut ebpf, &btf)?;
        let control = take_map(&mut ebpf, "CONTROL")?;
        let control = Array::try_from(control).map_err(|source| map_error("CONTROL", source))?;
        let totals = take_map(&mut ebpf, "TOTALS")?;
        let totals = PerCpuArray::try_from(totals).map_err(|source| map_error("TOTALS", source))?;
        let memory = MemoryPass::new(&mut ebpf)?;
        let locks = Locks::new("LOCKS", take_map(&mut ebpf, "LOCKS")?)?;
        let edges = Edges::new("EDGES", take_map(&mut ebpf, "EDGES")?)?;
        Ok(Self {
            ebpf,
            memory,
            control,
            totals,
            clock_offset: ClockOffset::NotMeasured,
            live_since_ns: 0,
            snapshot_flags: 0,
            options,
            locks,
            edges,
        })
    }

    /// Attaches the tracepoint programs. They stay idle until [`Self::go_live`].
    ///
    /// # Errors
    /// [`LoadError::Program`] naming the one that was refused.
    pub fn attach(&mut self) -> Result<(), LoadError> {
        for (name, _) in TRACEPOINTS {
            let failed = |answer| LoadError::Program {
                action: "attach",
                program: name,
                answer: Box::new(answer),
            };
            loaded(&mut self.ebpf, name)?.attach().map_err(failed)?;
        }
        for (name, _) in OPTIONAL {
            if let Err(error) = tracepoint(&mut self.ebpf, name)?.attach() {
                tracing::info!(program = name, %error, "optional program not attached");
            }
        }
        Ok(())
    }

    /// Starts the accounting: from here on every thread has a ledger, in effect.
    ///
    /// # Errors
    /// [`LoadError::Map`] if the control map refuses.
    pub fn go_live(&mut self) -> Result<(), LoadError> {
        self.live_since_ns = clock::monotonic_ns();
        self.write_control()
    }

    /// CLOCK_MONOTONIC minus the scheduler clock (wrapping), measured once; `None` if the kernel does not note when
    /// threads get a CPU. The two drift apart by what NTP corrects, some parts in a million: enough for ages.
    ///
    /// # Errors
    /// [`SnapshotError`] if the iterator cannot be read.
    pub fn scheduler_clock_offset(&mut self) -> Result<Option<u64>, SnapshotError> {
        if let ClockOffset::Measured(known) = self.clock_offset {
            return Ok(known);
        }
        let measured = clock::measure_offset(self)?;
        self.clock_offset = ClockOffset::Measured(measured);
        Ok(measured)
    }

    /// How it was loaded.
    pub fn options(&self) -> &Options {
        &self.options
    }

    /// CLOCK_MONOTONIC when the accounting began, 0 if it has not.
    pub fn live_since_ns(&self) -> u64 {
        self.live_since_ns
    }

    pub(super) fn set_snapshot_flags(&mut self, flags: u64) -> Result<(), LoadError> {
        if flags == self.snapshot_flags {
            return Ok(());
        }
        self.snapshot_flags = flags;
        self.write_control()
    }

    fn write_control(&mut self) -> Result<(), LoadError> {
        let control = Control {
            live_since_ns: self.live_since_ns,
            snapshot: self.snapshot_flags,
        };
        self.control
            .set(0, PodControl(control), 0)
            .map_err(|source| map_error("CONTROL", source))
    }

    /// The totals of all CPUs together.
    ///
    /// # Errors
    /// [`LoadError::Map`] if the map cannot be read.
    pub fn totals(&self) -> Result<Totals, LoadError> {
        let values = self
            .totals
            .get(&0, 0)
            .map_err(|source| map_error("TOTALS", source))?;
        let mut sum = Totals::default();
        for value in values.iter() {
            let words: &[u64] = bytemuck::cast_slice(bytemuck::bytes_of(&value.0));
            let sums: &mut [u64] = bytemuck::cast_slice_mut(bytemuck::bytes_of_mut(&mut sum));
            for (sum, word) in sums.iter_mut().zip(words) {
                *sum = sum.wrapping_add(*word);
            }
        }
        Ok(sum)
    }

    /// Reads the memory of open futex waits, as `flags` ask for it; it may hang in others' hands, this does
    /// not.
    ///
    /// # Errors
    /// [`LoadError`] if the pass cannot be begun.
    pub(super) fn read_memory(&mut self, flags: u64) -> Result<MemoryRead, LoadError> {
        if let Err(hangs_in) = self.memory.may_begin() {
            return Ok(MemoryRead {
                hangs_in,
                ..MemoryRead::default()
            });
        }
        self.set_snapshot_flags(flags)?;
        let stream = self.open_iterator(MEMORY)?;
        Ok(self.memory.read(stream))
    }

    /// Opens an iterator at its beginning.
    pub(super) fn open_iterator(&mut self, program: &'static str) -> Result<File, LoadError> {
        let failed = |answer| LoadError::Program {
            action: "attach",
            program,
            answer: Box::new(answer),
        };
        let iterator = iterator(&mut self.ebpf, program)?;
        let link = iterator.attach().map_err(failed)?;
        let link = iterator.take_link(link).map_err(failed)?;
        link.into_file()
            .map_err(|error| failed(ProgramError::from(io::Error::other(error))))
    }
}

fn load_programs(ebpf: &mut Ebpf, btf: &aya::Btf) -> Result<(), LoadError> {
    let failed = |program| {
        move |answer: ProgramError| {
            tracing::info!(program, %answer, "program not loaded");
            LoadError::Program {
                action: "load",
                program,
                answer: Box::new(answer),
            }
        }
    };
    for (name, event) in TRACEPOINTS {
        let Err(refusal) = tracepoint(ebpf, name)?.load(event, btf) else {
            continue;
        };
        let refused = failed(name)(refusal);
        let stand_in = stand_in(name).ok_or(refused)?;
        let program = tracepoint(ebpf, stand_in)?;
        program.load(event, btf).map_err(failed(stand_in))?;
    }
    for (name, event) in OPTIONAL {
        if let Err(error) = tracepoint(ebpf, name)?.load(event, btf) {
            tracing::info!(program = name, error = %chain(&error), "optional program not loaded");
        }
    }
    for name in [SNAPSHOT, MEMORY] {
        iterator(ebpf, name)?.load("task", btf).map_err(failed(name))?;
    }
    Ok(())
}

fn stand_in(program: &str) -> Option<&'static str> {
    let mut pairs = STAND_INS.iter();
    pairs
        .find(|(first, _)| *first == program)
        .map(|(_, second)| *second)
}

/// The program of that name, or the one that stands in for it.
fn loaded<'a>(ebpf: &'a mut Ebpf, name: &'static str) -> Result<&'a mut BtfTracePoint, LoadError> {
    let refused = tracepoint(ebpf, name)?.fd().is_err();
    tracepoint(
        ebpf,
        if refused {
            stand_in(name).unwrap_or(name)
        } else {
            name
        },
    )
}

fn tracepoint<'a>(ebpf: &'a mut Ebpf, name: &'static str) -> Result<&'a mut BtfTracePoint, LoadError> {
    let program = ebpf.program_mut(name).ok_or(LoadError::Missing(name))?;
    program
        .try_into()
        .map_err(|_: ProgramError| LoadError::Missing(name))
}

fn iterator<'a>(ebpf: &'a mut Ebpf, name: &'static str) -> Result<&'a mut Iter, LoadError> {
    let program = ebpf.program_mut(name).ok_or(LoadError::Missing(name))?;
    program
        .try_into()
        .map_err(|_: ProgramError| LoadError::Missing(name))
}

pub(super) fn take_map(ebpf: &mut Ebpf, name: &'static str) -> Result<aya::maps::Map, LoadError> {
    ebpf.take_map(name).ok_or(LoadError::Missing(name))
}

/// aya asks for its own marker of plain data; the contract crate does not know aya.
macro_rules! pod {
    ($name:ident, $inner:ty) => {
        #[derive(Clone, Copy)]
        #[repr(transparent)]
        struct $name($inner);
        // SAFETY: `bytemuck::Pod` holds for the inner type: no padding, any bits are valid.
        unsafe impl Pod for $name {}
    };
}
pod!(PodOffsets, Offsets);
pod!(PodControl, Control);
pod!(PodTotals, Totals);
pod!(PodSyscalls, probe_ebpf::waiting::SyscallTable);
