//! Per-CPU totals, counted whether or not the event ring had room: a full ring costs detail, never a total.

use bytemuck::{Pod, Zeroable};

use crate::state::STATES;

/// One CPU's totals since the programs went live. All counters; the agent adds the CPUs up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Totals {
    /// New processes.
    pub forks: u64,
    /// New threads of existing processes.
    pub threads: u64,
    /// Successful execs.
    pub execs: u64,
    /// Threads that died, the last one of a process included.
    pub thread_exits: u64,
    /// Processes whose last thread died.
    pub process_exits: u64,
    /// Dead processes that were released, reaped or not needing it.
    pub reaps: u64,
    /// Fork, exec and exit events that found the ring full.
    pub lost_forks: u64,
    /// See [`Self::lost_forks`].
    pub lost_execs: u64,
    /// See [`Self::lost_forks`].
    pub lost_exits: u64,
    /// See [`Self::lost_forks`].
    pub lost_reaps: u64,
    /// Time per state of the threads whose exit event was lost, so that sums over all groups stay exact.
    pub lost_time_ns: [u64; STATES],
    /// Voluntary switches of those threads.
    pub lost_voluntary: u64,
    /// Involuntary switches of those threads.
    pub lost_involuntary: u64,
    /// Futex waits that found the table of locks full; their time is in their threads' ledgers all the same.
    pub lost_locks: u64,
    /// Futex waits that found the table of waiters and holders full; the lock has them all the same.
    pub lost_edges: u64,
    /// Transitions not booked because the thread's storage could not be had (no memory, or the map was busy).
    pub storage_failures: u64,
    /// Intervals whose end lay before their start (clocks of two CPUs); booked as zero.
    pub clock_backwards: u64,
    /// Transitions that did not fit the state the ledger had, which an earlier failure explains.
    pub resynced: u64,
}

/// Switches the programs between "loaded" and "live", and says what a snapshot shall carry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Control {
    /// CLOCK_MONOTONIC when accounting began. 0: not yet, the programs return at once. Written when all of them are
    /// attached, so that no thread's account begins with half a picture.
    pub live_since_ns: u64,
    /// [`SNAPSHOT_HISTOGRAMS`] and [`SNAPSHOT_OPEN_LEDGERS`].
    pub snapshot: u64,
}

/// [`Control::snapshot`]: ledgers are sent with their histograms.
pub const SNAPSHOT_HISTOGRAMS: u64 = 1;
/// [`Control::snapshot`]: of open futex waits whose holder memory may name, memory is read again.
pub const SNAPSHOT_OWNERS: u64 = 4;
/// [`Control::snapshot`]: of all open futex waits.
pub const SNAPSHOT_FUTEXES: u64 = 8;
/// [`Control::snapshot`]: threads without a ledger get one, from a context that may sleep, so that the hot path need not.
pub const SNAPSHOT_OPEN_LEDGERS: u64 = 2;
