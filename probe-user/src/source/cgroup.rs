//! Cgroup ids to paths to units.
//!
//! A cgroup's id is the inode number of its directory. The hierarchy is walked when an id turns up that is
//! not known yet, at most once in [`REFRESH`] and for [`AT_A_TIME`]: a user may have made 100,000 cgroups.
//! What is nearest the root comes first; the next walk goes on where one had to stop. A cgroup that is gone
//! by then stays unknown.

use std::collections::{HashMap, VecDeque};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::kernel::hierarchy::Hierarchy;
use crate::model::label_map::LabelMap;
use crate::model::tracker::Units;
use crate::model::unit::{is_monitor, unit_of};
use crate::model::zombies::Pids;

/// How often the hierarchy is walked at most.
const REFRESH: Duration = Duration::from_secs(1);
/// How long it is walked at a time: some 10,000 directories.
const AT_A_TIME: Duration = Duration::from_millis(150);
/// Cgroups that are gone are remembered up to this many, since their processes' last records may come later.
const MAX_KNOWN: usize = 10_000;
/// As many of the living ones have names: 400 bytes each.
const MOST_KNOWN: usize = 50_000;
/// Directories that a walk has still to come to, at most.
const MOST_PENDING: usize = 50_000;
/// Directories deeper than this are not looked into.
const MAX_DEPTH: usize = 32;

/// What a cgroup is called.
#[derive(Clone, Debug)]
struct Named {
    directory: PathBuf,
    path: Arc<str>,
    unit: Arc<str>,
    whole: WholeUnit,
}

/// The outermost cgroup of a unit, which what it may take is set for: those of its workers are below.
#[derive(Clone, Debug)]
struct WholeUnit {
    id: u64,
    /// Below the root of the hierarchy.
    path: Arc<Path>,
    /// As the path says, before `label_map`.
    name: Arc<str>,
}

/// A directory to be looked into, how deep it is, and the unit it is in.
type Place = (PathBuf, usize, Option<WholeUnit>);

/// A unit, and the outermost cgroup of it that a cgroup is in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnitCgroup {
    /// The unit's name.
    pub unit: Arc<str>,
    /// The cgroup's number.
    pub id: u64,
    /// Its path below the root of the hierarchy.
    pub path: Arc<Path>,
}

/// The known cgroups.
pub struct Cgroups {
    root: Option<PathBuf>,
    known: HashMap<u64, Named>,
    walked: Option<Instant>,
    /// What a walk has not come to.
    pending: VecDeque<Place>,
    /// How long a walk may take.
    patience: Duration,
    label_map: LabelMap,
    none: Arc<str>,
}

impl Cgroups {
    /// Of the hierarchy that [`Hierarchy::find`] chooses.
    pub fn new(proc_root: &Path) -> Self {
        let root = Hierarchy::find(proc_root).map(|hierarchy| hierarchy.root);
        Self {
            root,
            known: HashMap::new(),
            walked: None,
            pending: VecDeque::new(),
            patience: AT_A_TIME,
            label_map: LabelMap::default(),
            none: "".into(),
        }
    }

    /// Sets how units are called from here on.
    pub fn set_label_map(&mut self, label_map: LabelMap) {
        self.label_map = label_map;
        for named in self.known.values_mut() {
            named.unit = self.label_map.apply(unit_of(&named.path)).into();
        }
    }

    /// The path of a cgroup below the root of the hierarchy; `None` if it is not known.
    pub fn path(&mut self, id: u64) -> Option<Arc<str>> {
        self.named(id).map(|named| named.path.clone())
    }

    /// The unit that a cgroup is part of. `None` if it is not known, belongs to none, or is that of who
    /// watches over a container: without the container's limits, it would look as if there were none.
    pub fn unit_cgroup(&mut self, id: u64) -> Option<UnitCgroup> {
        let named = self.named(id)?;
        let last = named.whole.path.file_name().and_then(|name| name.to_str());
        let is_whole = !named.unit.is_empty() && !last.is_some_and(is_monitor);
        is_whole.then(|| UnitCgroup {
            unit: Arc::clone(&named.unit),
            id: named.whole.id,
            path: Arc::clone(&named.whole.path),
        })
    }

    /// Pids of a cgroup and how many it may have; of it and those above it, the one that is full soonest.
    /// `None` if none of them has a limit.
    pub fn pids(&mut self, id: u64) -> Option<Pids> {
        let directory = self.named(id)?.directory.clone();
        let root = self.root.as_ref()?;
        let read = |directory: &Path, file| -> Option<u64> {
            fs::read_to_string(directory.join(file)).ok()?.trim().parse().ok()
        };
        let upwards = directory.ancestors().take_while(|path| path.starts_with(root));
        let limited = upwards.filter_map(|path| {
            // "max" is no number, and no limit.
            let limit = read(path, "pids.max")?;
            let used = read(path, "pids.current")?;
            Some(Pids {
                used,
                limit: Some(limit),
            })
        });
        limited.min_by_key(|pids| pids.limit.map(|limit| limit.saturating_sub(pids.used)))
    }

    fn named(&mut self, id: u64) -> Option<&Named> {
        if id == 0 {
            return None;
        }
        if !self.known.contains_key(&id) && self.walked.is_none_or(|walked| walked.elapsed() >= REFRESH) {
            self.walked = Some(Instant::now());
            self.walk();
        }
        self.known.get(&id)
    }

    fn walk(&mut self) {
        let Some(root) = self.root.clone() else { return };
        if self.pending.is_empty() {
            if self.known.len() > MAX_KNOWN {
                self.known.clear();
            }
            self.pending.push_back((root.clone(), 0, None));
        }
        let began = Instant::now();
        while let Some((directory, depth, above)) = self.pending.pop_front() {
            let Ok(metadata) = fs::metadata(&directory) else {
                continue;
            };
            let below_root = directory.strip_prefix(&root).unwrap_or(&directory);
            let path = format!(
                "/{}",
                crate::model::escape(below_root.as_os_str().as_encoded_bytes())
            );
            let name = unit_of(&path);
            let whole = above
                .filter(|above| *above.name == *name)
                .unwrap_or_else(|| WholeUnit {
                    id: metadata.ino(),
                    path: below_root.into(),
                    name: name.as_str().into(),
                });
            let unit = self.label_map.apply(name).into();
            self.known.insert(
                metadata.ino(),
                Named {
                    directory: directory.clone(),
                    path: path.into(),
                    unit,
                    whole: whole.clone(),
                },
            );
            if depth < MAX_DEPTH
                && let Ok(entries) = fs::read_dir(&directory)
            {
                let directories = entries
                    .flatten()
                    .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
                let room = MOST_PENDING.saturating_sub(self.pending.len());
                let below = directories.map(|entry| (entry.path(), depth + 1, Some(whole.clone())));
                self.pending.extend(below.take(room));
            }
            if self.known.len() >= MOST_KNOWN {
                self.pending.clear();
            }
            if began.elapsed() >= self.patience {
                return;
            }
        }
    }
}

impl Units for Cgroups {
    fn unit(&mut self, cgroup_id: u64) -> Arc<str> {
        match self.named(cgroup_id) {
            Some(named) => named.unit.clone(),
            None => self.none.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hierarchy_is_found_among_mounts_of_any_name() {
        let dir = tempfile::tempdir().unwrap();
        let cgroup = dir.path().join("c g\\1/job.service");
        fs::create_dir_all(&cgroup).unwrap();
        fs::create_dir_all(dir.path().join("proc/self")).unwrap();
        let mut mounts = b"fuse /home/me/\xff\xfe fuse rw 0 0\n\n \nx\n".to_vec();
        mounts.extend(format!("cgroup2 {}/c\\040g\\1341 cgroup2 rw 0 0\n", dir.path().display()).bytes());
        fs::write(dir.path().join("proc/self/mounts"), mounts).unwrap();
        let mut cgroups = Cgroups::new(&dir.path().join("proc"));
        let id = fs::metadata(&cgroup).unwrap().ino();
        assert_eq!(&*cgroups.unit(id), "job.service");
    }

    #[test]
    fn a_walk_that_has_to_stop_goes_on_at_the_next() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("proc/self")).unwrap();
        for number in 0..20 {
            fs::create_dir_all(dir.path().join(format!("cg/a/b/{number}"))).unwrap();
        }
        fs::create_dir_all(dir.path().join("cg/near.service")).unwrap();
        let mounts = format!("cgroup2 {} cgroup2 rw 0 0\n", dir.path().join("cg").display());
        fs::write(dir.path().join("proc/self/mounts"), mounts).unwrap();
        let mut cgroups = Cgroups::new(&dir.path().join("proc"));
        cgroups.patience = Duration::ZERO;
        let id = |path: &str| fs::metadata(dir.path().join("cg").join(path)).unwrap().ino();
        // One directory at a time: the root, then the two in it.
        let mut walks = 0;
        while !cgroups.known.contains_key(&id("near.service")) {
            cgroups.walk();
            walks += 1;
        }
        assert!(walks <= 3, "the nearest come first: {walks}");
        while !cgroups.known.contains_key(&id("a/b/19")) {
            cgroups.walk();
            walks += 1;
            assert!(walks <= 24);
        }
    }

    #[test]
    fn directories_are_found_by_inode() {
        let dir = tempfile::tempdir().unwrap();
        let cgroup = dir.path().join("cg/system.slice/a\nb.service");
        fs::create_dir_all(cgroup.join("workers")).unwrap();
        fs::create_dir_all(dir.path().join("proc/self")).unwrap();
        let mounts = format!("cgroup2 {} cgroup2 rw 0 0\n", dir.path().join("cg").display());
        fs::write(dir.path().join("proc/self/mounts"), mounts).unwrap();
        let mut cgroups = Cgroups::new(&dir.path().join("proc"));
        let id = fs::metadata(&cgroup).unwrap().ino();
        assert_eq!(cgroups.path(id).as_deref(), Some("/system.slice/a\\nb.service"));
        assert_eq!(&*cgroups.unit(id), "a\\nb.service");
        let whole = |cgroups: &mut Cgroups, id| {
            let found = cgroups.unit_cgroup(id).unwrap();
            (
                found.unit.to_string(),
                found.id,
                found.path.to_str().unwrap().to_owned(),
            )
        };
        let name = "system.slice/a\nb.service";
        let expected = ("a\\nb.service".to_owned(), id, name.to_owned());
        assert_eq!(whole(&mut cgroups, id), expected);
        let workers = fs::metadata(cgroup.join("workers")).unwrap().ino();
        assert_eq!(whole(&mut cgroups, workers), expected, "part of the same");
        let monitor = dir
            .path()
            .join(format!("cg/libpod-conmon-{}.scope", "0".repeat(64)));
        fs::create_dir(&monitor).unwrap();
        let mut anew = Cgroups::new(&dir.path().join("proc"));
        let id_of_monitor = fs::metadata(&monitor).unwrap().ino();
        assert_eq!(&*anew.unit(id_of_monitor), "podman:000000000000");
        assert_eq!(
            anew.unit_cgroup(id_of_monitor),
            None,
            "it has no limits of the container's"
        );
        assert_eq!(cgroups.path(1), None);
        assert_eq!(cgroups.pids(id), None);
        for (directory, used, limit) in [
            ("cg/system.slice", "50", "60"),
            ("cg/system.slice/a\nb.service", "5", "max"),
        ] {
            fs::write(dir.path().join(directory).join("pids.current"), used).unwrap();
            fs::write(dir.path().join(directory).join("pids.max"), limit).unwrap();
        }
        let above = Pids {
            used: 50,
            limit: Some(60),
        };
        assert_eq!(cgroups.pids(id), Some(above), "the limit above it counts too");
        assert_eq!(&*cgroups.unit(0), "");
    }
}
