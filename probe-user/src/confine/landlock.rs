//! No file is written, made or executed, by the kernel's Landlock: where it has it.

use std::path::PathBuf;

use landlock::{
    ABI, Access, AccessFs, AccessNet, BitFlags, LandlockStatus, PathBeneath, PathFd, RestrictionStatus,
    Ruleset, RulesetAttr, RulesetCreated, RulesetCreatedAttr, RulesetError, Scope,
};
use procfs::process::{MMPermissions, MMapPath, Process};

/// The newest that is asked for; of it, the kernel takes what it knows.
const KNOWN: ABI = ABI::V7;

/// Nothing at all: no file, no directory, no TCP, no abstract socket, no signal to others. What is open stays
/// open. `None` where the kernel has no Landlock.
///
/// # Errors
/// The kernel's.
pub fn nothing() -> Result<Option<u8>, String> {
    let outcome = everything().and_then(|ruleset| ruleset.create()?.restrict_self());
    outcome
        .map(|status| version(&status))
        .map_err(|error| error.to_string())
}

fn everything() -> Result<Ruleset, RulesetError> {
    Ruleset::default()
        .handle_access(AccessFs::from_all(KNOWN))?
        .handle_access(AccessNet::from_all(KNOWN))?
        .scope(Scope::from_all(KNOWN))
}

/// Reads, starts this very program again, and writes to nothing but what that takes: /dev/null, and the /proc
/// of whom it starts (`oom_score_adj`).
///
/// # Errors
/// The kernel's.
pub fn own_program_only() -> Result<Option<u8>, String> {
    let outcome = starts_itself().and_then(RulesetCreated::restrict_self);
    outcome
        .map(|status| version(&status))
        .map_err(|error| error.to_string())
}

fn starts_itself() -> Result<RulesetCreated, RulesetError> {
    let handled = AccessFs::from_write(KNOWN) | AccessFs::Execute;
    let mut ruleset = Ruleset::default()
        .handle_access(handled)?
        .handle_access(AccessNet::from_all(KNOWN))?
        .scope(Scope::AbstractUnixSocket)?
        .create()?;
    for file in own_code() {
        ruleset = allow(ruleset, file, AccessFs::Execute.into())?;
    }
    for written in ["/dev/null", "/proc"] {
        ruleset = allow(ruleset, written.into(), AccessFs::WriteFile.into())?;
    }
    Ok(ruleset)
}

/// What is not there needs no leave.
fn allow(
    ruleset: RulesetCreated,
    path: PathBuf,
    access: BitFlags<AccessFs>,
) -> Result<RulesetCreated, RulesetError> {
    match PathFd::new(path) {
        Ok(descriptor) => ruleset.add_rule(PathBeneath::new(descriptor, access)),
        Err(_) => Ok(ruleset),
    }
}

/// This program and, where it is not static, what the kernel starts in its place: its loader, which is mapped
/// as its libraries are.
fn own_code() -> Vec<PathBuf> {
    let maps = Process::myself().and_then(|process| process.maps());
    let mapped = maps.iter().flat_map(|maps| maps.iter());
    let is_code = |permissions: MMPermissions| permissions.contains(MMPermissions::EXECUTE);
    let files = mapped
        .filter(|map| is_code(map.perms))
        .filter_map(|map| match &map.pathname {
            MMapPath::Path(path) => Some(path.clone()),
            _ => None,
        });
    // By this name also when another version has taken its place since.
    std::iter::once(PathBuf::from("/proc/self/exe"))
        .chain(files)
        .collect()
}

fn version(status: &RestrictionStatus) -> Option<u8> {
    match status.landlock {
        LandlockStatus::Available { effective_abi, .. } => Some(effective_abi as u8),
        _ => None,
    }
}
