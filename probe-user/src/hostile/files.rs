//! A /proc whose files hold what no kernel writes: damaged, cut, with other numbers and any name.

use std::fs;
use std::path::Path;

use proptest::prelude::*;

use super::{check_outputs, nasty_bytes};
use crate::source::cgroup::Cgroups;
use crate::source::limits::pid_limit;
use crate::source::proc::{ProcSource, parent_now};

/// What a real process's files say here, as a start.
fn real(name: &str) -> Vec<u8> {
    fs::read(Path::new("/proc/self").join(name)).unwrap_or_default()
}

/// Changes to a file: a piece replaced, or all from a place on.
fn damage() -> impl Strategy<Value = Vec<(prop::sample::Index, Vec<u8>, bool)>> {
    let number = prop_oneof![
        Just(i64::MIN.to_string()),
        Just(i64::MAX.to_string()),
        Just(u64::MAX.to_string()),
        Just("-1".to_owned()),
        Just("99999999999999999999999".to_owned()),
    ];
    let piece = prop_oneof![nasty_bytes(64), number.prop_map(String::into_bytes)];
    proptest::collection::vec((any::<prop::sample::Index>(), piece, any::<bool>()), 0..4)
}

fn damaged(mut bytes: Vec<u8>, damage: &[(prop::sample::Index, Vec<u8>, bool)]) -> Vec<u8> {
    for (at, piece, cut) in damage {
        let at = at.index(bytes.len() + 1);
        let end = if *cut {
            bytes.len()
        } else {
            bytes.len().min(at + piece.len())
        };
        bytes.splice(at..end, piece.iter().copied());
    }
    bytes
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    #[test]
    fn every_output_survives_every_file(
        stat in damage(),
        status in damage(),
        limits in damage(),
        comm in nasty_bytes(64),
        cmdline in nasty_bytes(8192),
        mounts in nasty_bytes(256),
    ) {
        let root = tempfile::tempdir().expect("a directory");
        let path = root.path();
        for pid in [40, 41] {
            // 40 is damaged, 41 is not.
            let (stat, status): (&[_], &[_]) = if pid == 40 { (&stat, &status) } else { (&[], &[]) };
            for directory in [path.join(pid.to_string()), path.join(format!("{pid}/task/{pid}"))] {
                fs::create_dir_all(&directory).expect("a directory");
                fs::write(directory.join("stat"), damaged(real("stat"), stat)).expect("a file");
                fs::write(directory.join("status"), damaged(real("status"), status)).expect("a file");
                fs::write(directory.join("comm"), &comm).expect("a file");
                fs::write(directory.join("cmdline"), &cmdline).expect("a file");
            }
        }
        fs::create_dir_all(path.join("self")).expect("a directory");
        fs::write(path.join("self/mounts"), &mounts).expect("a file");
        fs::create_dir_all(path.join("sys/kernel")).expect("a directory");
        fs::write(path.join("sys/kernel/pid_max"), damaged(b"32768\n".to_vec(), &limits)).expect("a file");
        let _ = pid_limit(path);
        let _ = parent_now(path, 40, 1);
        let _ = Cgroups::new(path).path(7);
        let first = ProcSource::new(path).snapshot().expect("/proc can be listed");
        prop_assert!(first.threads.iter().any(|thread| thread.pid == 41), "the other one is still there");
        let last = ProcSource::new(path).snapshot().expect("/proc can be listed");
        check_outputs(path, &first, &[], &last);
    }
}
