//! Which cgroup hierarchy tells containers and services apart on this host.
//!
//! The kernel side reads cgroup ids from it, and the names come from its mount.

use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

/// A mounted hierarchy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hierarchy {
    /// Where it is mounted.
    pub root: PathBuf,
    /// Whether it is that of the pids controller on version 1, rather than version 2.
    pub is_v1: bool,
}

impl Hierarchy {
    /// The one that tells units apart: that of the pids controller. Where that is of version 1, on a host of
    /// version 1 or a hybrid one, version 2 may have no controllers, and runtimes may make no cgroups there.
    pub fn find(proc_root: &Path) -> Option<Self> {
        Self::of_controller(proc_root, "pids")
    }

    /// The one that a controller is in, among the mounts (`/proc/self/mounts`): its own of version 1 if there
    /// is one, else version 2, where whether it is switched on shows in its files.
    pub fn of_controller(proc_root: &Path, controller: &str) -> Option<Self> {
        let mounts = fs::read(proc_root.join("self/mounts")).unwrap_or_default();
        let mounted = |wanted: &dyn Fn(&[u8], &[u8]) -> bool| {
            mounts.split(|&byte| byte == b'\n').find_map(|line| {
                let mut fields = line.split(|&byte| byte == b' ').skip(1);
                let (path, kind, options) = (fields.next()?, fields.next()?, fields.next()?);
                wanted(kind, options).then(|| PathBuf::from(OsString::from_vec(unescape(path))))
            })
        };
        let has_it = |options: &[u8]| {
            options
                .split(|&byte| byte == b',')
                .any(|option| option == controller.as_bytes())
        };
        let is_v1 = |kind: &[u8], options: &[u8]| kind == b"cgroup" && has_it(options);
        let v1 = mounted(&is_v1).map(|root| Self { root, is_v1: true });
        v1.or_else(|| {
            let root = mounted(&|kind, _| kind == b"cgroup2")?;
            Some(Self { root, is_v1: false })
        })
    }
}

/// A mount point as it is: the kernel writes blanks, line ends and backslashes as three octal digits. Other users' mounts
/// need not be UTF-8 either, and must not hide ours.
fn unescape(field: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&byte, after)) = rest.split_first() {
        let octal = after
            .get(..3)
            .filter(|digits| byte == b'\\' && digits.iter().all(|digit| (b'0'..b'8').contains(digit)));
        if let Some(digits) = octal {
            let value = digits.iter().fold(0_u8, |value, digit| {
                value.wrapping_mul(8).wrapping_add(digit - b'0')
            });
            out.push(value);
            rest = &after[3..];
        } else {
            out.push(byte);
            rest = after;
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn find(mounts: &str) -> Option<Hierarchy> {
        let proc_root = tempfile::tempdir().unwrap();
        fs::create_dir(proc_root.path().join("self")).unwrap();
        fs::write(proc_root.path().join("self/mounts"), mounts).unwrap();
        Hierarchy::find(proc_root.path())
    }

    #[test]
    fn version_1_is_asked_where_the_controllers_are() {
        let unified = "cgroup2 /sys/fs/cgroup cgroup2 rw,nsdelegate 0 0\n";
        let pids = "cgroup /sys/fs/cgroup/pids cgroup rw,nosuid,pids 0 0\n";
        let hybrid = "cgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0\n";
        let named = "cgroup /sys/fs/cgroup/systemd cgroup rw,xattr,name=systemd 0 0\n";
        let at = |root: &str, is_v1| {
            let root = PathBuf::from(root);
            Some(Hierarchy { root, is_v1 })
        };
        assert_eq!(find(unified), at("/sys/fs/cgroup", false));
        assert_eq!(find(&format!("{named}{pids}")), at("/sys/fs/cgroup/pids", true));
        assert_eq!(
            find(&format!("{hybrid}{named}{pids}")),
            at("/sys/fs/cgroup/pids", true)
        );
        assert_eq!(find(named), None);
        assert_eq!(find(""), None);
    }
}
