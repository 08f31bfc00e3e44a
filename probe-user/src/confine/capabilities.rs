//! Giving up capabilities, for good: in the bounding set, too, from which executing something would bring
//! them back.

use caps::{CapSet, Capability, CapsHashSet};

use crate::kernel::privileges;

/// Gives up every capability but those that the agent uses from here on. `works` tries what it will do: of
/// those for loading, it keeps what that turns out to need. Returns the names of what is kept.
///
/// # Errors
/// The system's, if it does not take them.
pub fn keep_what_works(mut works: impl FnMut() -> bool) -> anyhow::Result<String> {
    let held = caps::read(None, CapSet::Permitted)?;
    let mut keep = privileges::used_on(&held);
    caps::set(None, CapSet::Effective, &keep)?;
    for needed in privileges::LOAD {
        if works() {
            break;
        }
        keep.extend(held.contains(&needed).then_some(needed));
        caps::set(None, CapSet::Effective, &keep)?;
    }
    keep_only(&keep)?;
    Ok(privileges::names(&keep))
}

/// Keeps just these, of those that are permitted; whatever is executed later gets none.
///
/// # Errors
/// The system's, if it does not take them.
pub fn keep_only(keep: &CapsHashSet) -> Result<(), caps::errors::CapsError> {
    let held = caps::read(None, CapSet::Permitted)?;
    // Where it is missing the service manager has limited the bounding set, or nobody has; no_new_privs
    // keeps what is in there away as well.
    if held.contains(&Capability::CAP_SETPCAP) {
        caps::raise(None, CapSet::Effective, Capability::CAP_SETPCAP)?;
    }
    // Those that are kept as well: what is held does not come from there, and nothing that is executed needs
    // any.
    for capability in caps::all() {
        let _ = caps::drop(None, CapSet::Bounding, capability);
    }
    // Kernels and sandboxes that know no ambient set have none to clear.
    let _ = caps::clear(None, CapSet::Ambient);
    caps::clear(None, CapSet::Inheritable)?;
    let keep: CapsHashSet = keep.intersection(&held).copied().collect();
    caps::set(None, CapSet::Effective, &keep)?;
    caps::set(None, CapSet::Permitted, &keep)
}
