//! Capabilities: which are needed for what. Giving up the others is [`crate::confine`]'s job.

use caps::{Capability, CapsHashSet};

/// To look into other users' processes, as long as the agent runs: the first for their executables and memory, the second
/// for what the permissions of files keep from us in addition (`/proc/PID/fd`, `/proc/PID/mem`, programs that only their user
/// can read).
pub const LOOK: [Capability; 2] = [Capability::CAP_SYS_PTRACE, Capability::CAP_DAC_READ_SEARCH];
/// To turn the kernel's run-time statistics on for a second now and then. No service needs it: they can be
/// left out, or always be on (`kernel.bpf_stats_enabled=1`). Of an agent that was given it anyway the aide
/// keeps it ([`crate::aide`]), and the agent itself does not.
pub const MEASURE: Capability = Capability::CAP_SYS_ADMIN;
/// To load and attach. Kernels before 5.19 ask for the first with every use of `bpf(2)`, too, if
/// `kernel.unprivileged_bpf_disabled` is set.
pub const LOAD: [Capability; 2] = [Capability::CAP_BPF, Capability::CAP_PERFMON];

/// What of it the agent uses once it is attached.
pub fn used_on(held: &CapsHashSet) -> CapsHashSet {
    LOOK.into_iter()
        .filter(|capability| held.contains(capability))
        .collect()
}

/// Names in alphabetical order; "none" if there are none.
pub fn names(capabilities: &CapsHashSet) -> String {
    let mut names: Vec<String> = capabilities.iter().map(ToString::to_string).collect();
    names.sort();
    if names.is_empty() {
        "none".to_owned()
    } else {
        names.join(" ")
    }
}
