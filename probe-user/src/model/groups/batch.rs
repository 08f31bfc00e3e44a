//! Threads of one process, added up before their group is looked up: in a snapshot they mostly stand
//! together.

use crate::model::tracker::{Growth, ProcessName};

/// What neighbouring threads of a process gained, so that their group is looked up once.
#[derive(Default)]
pub struct GroupBatch {
    /// What the process is called; `None` if the batch is empty.
    pub name: Option<ProcessName>,
    /// What their reads and writes waited for, if that is known.
    pub descriptor: Option<&'static str>,
    /// All of them.
    pub growth: Growth,
    /// How many threads.
    pub threads: u64,
}

impl GroupBatch {
    /// Adds a thread's growth. If it is of another process, the batch starts over with it, and the one before
    /// is returned.
    pub fn add(
        &mut self,
        name: ProcessName,
        descriptor: Option<&'static str>,
        growth: Growth,
    ) -> Option<Self> {
        if self.name == Some(name) && self.descriptor == descriptor {
            self.growth.add(&growth);
            self.threads += 1;
            return None;
        }
        let next = Self {
            name: Some(name),
            descriptor,
            growth,
            threads: 1,
        };
        Some(std::mem::replace(self, next))
    }
}
