//! What is compared: with whom, how far apart both may be, and why.

use super::distribution::Shift;

/// Why a kind of figure may differ, and by how much.
pub struct Kind {
    pub name: &'static str,
    pub with: &'static str,
    /// Relative difference, or distance of two distributions.
    pub tolerance: f64,
    /// By how much each of our durations may differ, where both do not begin and end at the same moment.
    pub shift: Shift,
    pub reason: &'static str,
}

pub const VOLUNTARY: Kind = Kind {
    name: "voluntary switches",
    with: "status",
    tolerance: 0.0,
    shift: Shift::NONE,
    reason: "the same counter",
};
pub const INVOLUNTARY: Kind = Kind {
    name: "involuntary switches",
    with: "status",
    ..VOLUNTARY
};
pub const RUNNING: Kind = Kind {
    name: "running",
    with: "schedstat",
    tolerance: 0.001,
    shift: Shift::NONE,
    reason: "the same counter; the last turn of each thread is read a moment earlier or later",
};
pub const RUNNABLE: Kind = Kind {
    name: "runnable",
    with: "schedstat",
    tolerance: 0.005,
    shift: Shift::NONE,
    reason: "the same counter for waits after a wake-up; of a preempted thread whatever of the turn is not running counts as \
             runnable, so that the times add up: the kernel leaves out the switch itself and time taken by interrupts",
};
pub const COMPILED: Kind = Kind {
    name: "running, of all compilations",
    with: "getrusage",
    tolerance: 0.02,
    shift: Shift::NONE,
    reason: "a child's time before its exec is booked to the name it had",
};
pub const RUNQLAT: Kind = Kind {
    name: "wait for a CPU, histogram",
    with: "runqlat",
    tolerance: 0.05,
    shift: Shift {
        shorter_ns: 4_000,
        longer_ns: 32_000,
    },
    reason: "ours begins at sched_waking, runqlat's at sched_wakeup, which comes later where another CPU is told by interrupt: 10 to \
             30 µs to a virtual CPU that is halted. Ours ends earlier, by what the programs of the other tools take in between at the switch. \
             What is apart is what remains if each of ours may be up to 32 µs longer and 4 µs shorter",
};
/// Of a pair that shares a CPU.
pub const RUNQLAT_HERE: Kind = Kind {
    name: "wait for the same CPU, histogram",
    shift: Shift {
        shorter_ns: 4_000,
        longer_ns: 4_000,
    },
    reason: "as for the other waits for a CPU, but nobody is told by interrupt: 4 µs either way",
    ..RUNQLAT
};
pub const PREEMPTED: Kind = Kind {
    name: "stays on a CPU that cpudist counts",
    with: "cpudist",
    tolerance: 0.01,
    shift: Shift::NONE,
    reason: "it leaves out the stays that end in sleep; ours counts those too, so its count is compared with our involuntary \
             switches, and its histogram with ours where nearly all stays end by preemption",
};
pub const CPUDIST: Kind = Kind {
    name: "on a CPU, histogram",
    with: "cpudist",
    tolerance: 0.05,
    shift: Shift::NONE,
    reason: "bounds of buckets differ by 2.4 %, and what ends in sleep is in ours alone",
};
/// The share of stays that cpudist has to have counted for its histogram to be about the same.
pub const MOSTLY: f64 = 0.95;
pub const OFFCPUTIME: Kind = Kind {
    name: "off the CPU, sum",
    with: "offcputime",
    tolerance: 0.02,
    shift: Shift::NONE,
    reason: "offcputime cuts each wait to microseconds and leaves out those below one; a wait counts for it when it ends",
};
pub const WAITS: Kind = Kind {
    name: "waits",
    with: "futexctn",
    tolerance: 0.01,
    shift: Shift::NONE,
    reason: "it counts calls of FUTEX_WAIT, also those that end at once; ours counts waits that blocked, and one whose thread was \
             woken for nothing and went back to sleep within the call twice. What waits by FUTEX_WAIT_BITSET (conditions, whatever has a \
             timeout, Python's locks, Rust's) or FUTEX_LOCK_PI is in ours alone",
};
pub const WAITED: Kind = Kind {
    name: "waited, sum",
    with: "futexctn",
    tolerance: 0.03,
    shift: Shift::NONE,
    reason: "its waits begin and end with the call: the programs of all of these tools run on the way into sleep and out of it, and the \
             thread may lose its CPU there, so that only locks are compared where half of the waits last 200 µs or more. It prints a mean \
             in whole microseconds, which is taken times the count",
};
pub const WAITED_SHAPE: Kind = Kind {
    name: "waits, histogram",
    with: "futexctn",
    tolerance: 0.05,
    shift: Shift::NONE,
    reason: "for the same reason",
};
/// Of locks with fewer waits, or shorter ones, only the count is compared.
pub const SHAPELY: u64 = 100;
pub const LONG_US: f64 = 200.0;
