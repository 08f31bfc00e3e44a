//! What one group did, added up for as long as the agent runs.

use crate::model::account::Usage;
use crate::model::thread::Switches;
use crate::model::waits::Waits;

/// A process that lived less than this is short-lived: what it did was mostly to begin and to end.
pub const SHORT_LIVED_NS: u64 = 1_000_000_000;

/// A group's totals.
#[derive(Clone, Debug, Default)]
pub struct GroupTotals {
    /// Time and durations since the agent went live, the dead included.
    pub usage: Usage,
    /// Switches since then.
    pub switches: Switches,
    /// Processes that ended, by reason, in the order of [`crate::model::event::Reason::ALL`].
    pub exits: [u64; 5],
    /// Processes that the group's processes forked.
    pub forks: u64,
    /// Processes that lived less than [`SHORT_LIVED_NS`].
    pub short_lived: u64,
    /// Time on a CPU of their first threads, nanoseconds.
    pub short_lived_running_ns: u64,
    /// Threads in each condition at the last snapshot, in the order of [`Condition::ALL`].
    pub threads: [u64; 10],
    /// Processes at the last snapshot, zombies included.
    pub processes: u64,
    /// What its threads waited in.
    pub waits: Waits,
    /// Threads of the kernel's own, which nobody forks, kills or waits for.
    pub kernel: bool,
}

impl GroupTotals {
    /// Grows with whatever the group does: any work shows as a switch, a fork or an exit.
    pub fn activity(&self) -> u64 {
        let switches = self.switches.voluntary + self.switches.involuntary;
        switches + self.forks + self.exits.iter().sum::<u64>()
    }
}
