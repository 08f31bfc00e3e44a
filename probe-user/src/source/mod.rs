//! Where the model's input comes from: the kernel's records, or /proc.
//!
//! | module | does |
//! |---|---|
//! | [`bpf`] | snapshots and events through eBPF, with what the iterator hides added from /proc |
//! | [`proc`] | snapshots from /proc alone; the root directory is a parameter |
//! | [`resolve`] | what a raw record means: which state a thread is in, since when |
//! | [`accounts`] | its times, those of the turn under way included |
//! | [`happened`] | what an event of the ring means |
//! | [`cgroup`] | cgroup ids to paths to units |
//! | [`unit_files`] | what units may take, from the files of their cgroups |
//! | [`symbols`] | names of locks, and of the code that waits |
//! | [`reader`] | the one door to what /proc says of other processes, which may never answer |
//! | [`watch`] | the lives of processes, asking orphans who has them now |
//! | [`locks`] | tables of lock waits |
//! | `futexes` | what open futex waits need besides the snapshot |
//! | `address_space` | what is asked of processes for that: who maps the memory that a futex lies in, and more |
//! | `program` | whose code is at an instruction, and of which program or run-time system |
//! | `caller` | one frame further up |
//! | `code` | whose code an address in a file is, remembered |
//! | [`limits`] | how many pids there can be, how many CPUs |
//! | [`pressure`] | how long work stood still for want of CPU, memory, disk |
//! | [`descriptors`] | pipes, sockets, terminals, files |
//! | [`describe`] | command lines and executables |

pub mod accounts;
mod address_space;
pub mod bpf;
mod caller;
pub mod cgroup;
mod code;
pub mod describe;
pub mod descriptors;
mod futexes;
pub mod happened;
pub mod limits;
pub mod locks;
pub mod memory;
pub mod pressure;
pub mod proc;
mod program;
pub mod reader;
pub mod resolve;
pub mod symbols;
pub mod unit_files;
pub mod watch;

use crate::kernel::snapshot::Detail;
use crate::model::snapshot::Snapshot;

/// Either way of looking at the host.
pub enum Source {
    /// Through eBPF.
    Bpf(Box<bpf::BpfSource>),
    /// From /proc alone.
    Proc(proc::ProcSource),
}

impl Source {
    /// Looks at every thread now.
    ///
    /// # Errors
    /// What the source says, with its remedy.
    pub fn snapshot(&mut self, detail: Detail) -> anyhow::Result<Snapshot> {
        match self {
            Self::Bpf(source) => Ok(source.snapshot(detail)?),
            Self::Proc(source) => Ok(source.snapshot()?),
        }
    }

    /// What names units.
    pub fn cgroups(&mut self) -> &mut cgroup::Cgroups {
        match self {
            Self::Bpf(source) => &mut source.cgroups,
            Self::Proc(source) => &mut source.cgroups,
        }
    }
}
