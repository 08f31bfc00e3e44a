//! What a group is called: unit and process name, or the stem of a kernel thread's.

use std::sync::Arc;

use crate::model::tracker::{ProcessName, Units};

/// Name of the group that takes what exceeds the bound.
pub const OTHER: &str = "(other)";
/// Name of the group that takes the times of threads whose exit event was lost.
pub const LOST: &str = "(lost)";
/// Name of the group that takes kernel threads beyond their bound.
pub const KERNEL: &str = "(kernel)";

/// A group's labels.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GroupKey {
    /// Container, pod or service; "" if none.
    pub unit: Arc<str>,
    /// Process name, escaped; "" where groups are units.
    pub comm: Arc<str>,
}

/// What makes a group.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum GroupBy {
    /// Unit and process name.
    #[default]
    Comm,
    /// The unit alone.
    Unit,
}

impl GroupKey {
    /// A group without a unit.
    pub fn named(comm: &str) -> Self {
        Self {
            unit: "".into(),
            comm: comm.into(),
        }
    }

    /// The group a process belongs to by its name, whether or not there is room for it.
    pub fn of(name: ProcessName, by: GroupBy, units: &mut dyn Units) -> Self {
        let comm = name.comm.to_string();
        match (name.kernel, by) {
            (true, GroupBy::Comm) => Self::named(stem(&comm)),
            (true, GroupBy::Unit) => Self::named(KERNEL),
            (false, GroupBy::Comm) => Self {
                unit: units.unit(name.cgroup_id),
                comm: comm.into(),
            },
            (false, GroupBy::Unit) => Self {
                unit: units.unit(name.cgroup_id),
                comm: "".into(),
            },
        }
    }

    /// Whether it adds up what belongs to others.
    pub fn is_collective(&self) -> bool {
        [OTHER, LOST, KERNEL].contains(&&*self.comm)
    }
}

/// The name that kernel threads of a kind have in common: `kworker` of `kworker/3:1-events`, `jbd2` of
/// `jbd2/vda1-8`, `scsi_eh` of `scsi_eh_2`, `rcu_preempt` as it is. A host with many CPUs has one of each
/// kind per CPU.
fn stem(comm: &str) -> &str {
    // What stands before a separator is the kind, its digits included (`jbd2/vda1-8`, `ext4-rsv-conver`).
    if let Some((kind, _)) = comm
        .split_once(['/', ':', '-'])
        .filter(|(kind, _)| !kind.is_empty())
    {
        return kind;
    }
    // Without one, a number is which of many it is (`kswapd0`, `md127_raid1`).
    let end = comm
        .find(|letter: char| letter.is_ascii_digit())
        .unwrap_or(comm.len());
    let kind = comm[..end].trim_end_matches('_');
    if kind.is_empty() { comm } else { kind }
}

#[cfg(test)]
mod tests {
    use super::stem;

    #[test]
    fn kernel_threads_of_a_kind_share_a_stem() {
        for (comm, expected) in [
            ("kworker/3:1-events", "kworker"),
            ("kworker/R-rcu_gp", "kworker"),
            ("ksoftirqd/63", "ksoftirqd"),
            ("irq/24-nvme0q1", "irq"),
            ("jbd2/vda1-8", "jbd2"),
            ("scsi_eh_2", "scsi_eh"),
            ("kswapd0", "kswapd"),
            ("md127_raid1", "md"),
            ("rcu_preempt", "rcu_preempt"),
            ("xfs-buf/vda1", "xfs"),
            ("card0-crtc0", "card0"),
            ("-x", "-x"),
            ("12", "12"),
            ("/", "/"),
        ] {
            assert_eq!(stem(comm), expected, "{comm}");
        }
    }
}
