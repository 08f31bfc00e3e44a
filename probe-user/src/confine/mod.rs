//! What processes of ours give up, in one place: uid 0, capabilities, system calls, the file system.
//!
//! | module | does | for |
//! |---|---|---|
//! | [`user`] | goes from root to the user `procprobe` | agent, aide |
//! | [`capabilities`] | keeps some, or none | agent, aide, namer |
//! | [`filter`] | makes a filter of system calls and puts it on | agent, aide, namer |
//! | [`refused`] | which system calls agent and aide have no use for | agent, aide |
//! | [`landlock`] | no file is written or executed | aide, namer |
//! | [`own`] | starts this program again, as one of them | agent, aide |
//! | [`status`] | what the kernel says of this process afterwards | `doctor`, the agent's log |
//!
//! The agent is not put under Landlock: a process that is may look at no other any more
//! (`hook_ptrace_access_check()` in security/landlock: `/proc/PID/{maps,mem,exe,root}` answer EACCES,
//! measured on 6.18), and looking at others is what it is for.

pub mod capabilities;
pub mod filter;
pub mod landlock;
pub mod own;
pub mod refused;
pub mod status;
pub mod user;

use std::fs;
use std::time::{Duration, Instant};

use anyhow::Context;
use rustix::process::{DumpableBehavior, set_dumpable_behavior};

use filter::Applied;
use refused::Role;
use user::User;

/// What became of it. What could not be done is said, and the agent goes on.
#[derive(Debug)]
pub struct Confined {
    /// Who it runs as.
    pub user: User,
    /// The capabilities that are left.
    pub kept: String,
    /// The filter of system calls, or why there is none.
    pub filter: Result<Applied, String>,
}

/// Confines the agent, for good. `works` tries what it will do: the capabilities that it turns out to need
/// are kept.
///
/// # Errors
/// If other threads exist, before or after, which keep what this one gives up; or if the system does not take
/// the capabilities.
pub fn agent(works: impl FnMut() -> bool) -> anyhow::Result<Confined> {
    alone()?;
    // No privilege by executing something.
    rustix::thread::set_no_new_privs(true).context("cannot set no_new_privs")?;
    let user = user::leave_root();
    let kept = capabilities::keep_what_works(works)?;
    // Its core would have others' memory in it; and whoever else runs as this user cannot trace it.
    set_dumpable_behavior(DumpableBehavior::NotDumpable).context("cannot be made undumpable")?;
    let filter = refused::apply(Role::Agent);
    alone()?;
    Ok(Confined { user, kept, filter })
}

/// Uids, capabilities and filters belong to threads, and new ones inherit them. One that is about to end gets
/// a moment.
fn alone() -> anyhow::Result<()> {
    let deadline = Instant::now() + Duration::from_secs(1);
    loop {
        let threads = fs::read_dir("/proc/self/task").map_or(1, Iterator::count);
        if threads == 1 {
            return Ok(());
        }
        anyhow::ensure!(
            Instant::now() < deadline,
            "cannot give up privileges: there are {threads} threads already (please report it)"
        );
        std::thread::sleep(Duration::from_millis(1));
    }
}
