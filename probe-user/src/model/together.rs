//! Threads of one process, added up before anybody looks for their group: in a snapshot they mostly stand together.

use super::tracker::{Growth, ProcessName};

/// What threads of a process gained that stand together, so that their group is looked for once.
#[derive(Default)]
pub struct Together {
    /// What the process is called; `None` if nobody is in yet.
    pub name: Option<ProcessName>,
    /// What their reads and writes waited for, if that is known.
    pub descriptor: Option<&'static str>,
    /// All of them.
    pub growth: Growth,
}

impl Together {
    /// Adds a thread's growth. If it is of others, they begin anew with it, and those before are returned.
    pub fn add(
        &mut self,
        name: ProcessName,
        descriptor: Option<&'static str>,
        growth: Growth,
    ) -> Option<Self> {
        if self.name == Some(name) && self.descriptor == descriptor {
            self.growth.add(&growth);
            return None;
        }
        let next = Self {
            name: Some(name),
            descriptor,
            growth,
        };
        Some(std::mem::replace(self, next))
    }
}
