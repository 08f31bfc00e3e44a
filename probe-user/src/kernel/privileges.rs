//! Capabilities: which are needed for what, and giving up those that are not needed any more.

use std::io;

use caps::{CapSet, Capability, CapsHashSet};

/// To look into other users' processes, as long as the agent runs: the first for their executables and memory, the second
/// for what the permissions of files keep from us in addition (`/proc/PID/fd`, `/proc/PID/mem`, programs that only their user
/// can read).
pub const LOOK: [Capability; 2] = [Capability::CAP_SYS_PTRACE, Capability::CAP_DAC_READ_SEARCH];
/// To turn the kernel's run-time statistics on for a second now and then. No service needs it: they can be left out, or
/// always be on (`kernel.bpf_stats_enabled=1`). An agent that was given it anyway uses it for nothing else.
pub const MEASURE: Capability = Capability::CAP_SYS_ADMIN;
/// To load and attach. Kernels before 5.19 ask for the first with every use of `bpf(2)`, too, if
/// `kernel.unprivileged_bpf_disabled` is set.
pub const LOAD: [Capability; 2] = [Capability::CAP_BPF, Capability::CAP_PERFMON];

/// Gives up every capability but those that are used from here on, for this thread and all that it starts, and the way
/// to any by executing something else. `works` tries what the agent will do: what it turns out to need is kept.
///
/// Returns the names of what is kept.
///
/// # Errors
/// The system's, if it does not take them.
pub fn shed(mut works: impl FnMut() -> bool) -> anyhow::Result<String> {
    // SAFETY: takes plain numbers.
    if unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) } != 0 {
        anyhow::bail!("cannot set no_new_privs: {}", io::Error::last_os_error());
    }
    let held = caps::read(None, CapSet::Permitted)?;
    limit_bounding_set();
    // Kernels and sandboxes that know no ambient set have none to clear.
    let _ = caps::clear(None, CapSet::Ambient);
    caps::clear(None, CapSet::Inheritable)?;
    let mut keep = used_on(&held);
    caps::set(None, CapSet::Effective, &keep)?;
    for needed in LOAD {
        if works() {
            break;
        }
        keep.extend(held.contains(&needed).then_some(needed));
        caps::set(None, CapSet::Effective, &keep)?;
    }
    caps::set(None, CapSet::Permitted, &keep)?;
    Ok(names(&keep))
}

/// What of it the agent uses once it is attached.
pub fn used_on(held: &CapsHashSet) -> CapsHashSet {
    let used = LOOK.into_iter().chain([MEASURE]);
    used.filter(|capability| held.contains(capability)).collect()
}

/// Nothing that is executed later gets more either. Takes `CAP_SETPCAP`; where that is missing the service manager has
/// limited the set, or nobody has.
fn limit_bounding_set() {
    for capability in caps::all() {
        if capability != MEASURE && !LOOK.contains(&capability) && !LOAD.contains(&capability) {
            let _ = caps::drop(None, CapSet::Bounding, capability);
        }
    }
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
