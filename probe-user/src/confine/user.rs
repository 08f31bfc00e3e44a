//! From root to a dedicated user, where there is one.

use caps::{CapSet, Capability};
use rustix::process::{Gid, Uid, geteuid};
use rustix::thread::{set_keep_capabilities, set_thread_groups, set_thread_res_gid, set_thread_res_uid};

use crate::export::accounts;

/// Who this process is, or will be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum User {
    /// Was root, and is the user of ours with this number.
    Ours(u32),
    /// Was somebody else to begin with.
    Other(u32),
    /// Is root, for this reason.
    Root(String),
}

impl User {
    /// For people.
    pub fn text(&self) -> String {
        match self {
            Self::Ours(uid) => format!("{} (uid {uid})", accounts::OURS),
            Self::Other(uid) => accounts::user_name(*uid),
            Self::Root(why) => format!("root ({why})"),
        }
    }
}

/// Who [`leave_root`] will make this process, as far as that can be told.
pub fn planned() -> User {
    let uid = geteuid().as_raw();
    if uid != 0 {
        return User::Other(uid);
    }
    match ours() {
        Ok((uid, _)) => User::Ours(uid),
        Err(why) => User::Root(why),
    }
}

/// Becomes the user of ours if this is root and there is one. The capabilities stay permitted, but none is in
/// effect. To be called before other threads exist: the C library is not told.
pub fn leave_root() -> User {
    let uid = geteuid().as_raw();
    if uid != 0 {
        return User::Other(uid);
    }
    let became = ours().and_then(|(uid, gid)| {
        change(uid, gid).map_err(|error| format!("cannot become {}: {error}", accounts::OURS))?;
        Ok(uid)
    });
    match became {
        Ok(uid) => User::Ours(uid),
        Err(why) => User::Root(why),
    }
}

fn ours() -> Result<(u32, u32), String> {
    let found = accounts::user(accounts::OURS);
    let found = found.ok_or_else(|| format!("there is no user {}", accounts::OURS))?;
    let needed = [Capability::CAP_SETUID, Capability::CAP_SETGID];
    let held = caps::read(None, CapSet::Effective).unwrap_or_default();
    match needed.iter().find(|needed| !held.contains(needed)) {
        Some(missing) => Err(format!(
            "{missing} is missing, which becoming {} takes",
            accounts::OURS
        )),
        None if found.0 == 0 => Err(format!("the user {} is root", accounts::OURS)),
        None => Ok(found),
    }
}

/// Uid last: before, the group can still be changed.
fn change(uid: u32, gid: u32) -> rustix::io::Result<()> {
    let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
    set_keep_capabilities(true)?;
    set_thread_groups(&[])?;
    set_thread_res_gid(gid, gid, gid)?;
    set_thread_res_uid(uid, uid, uid)
}
