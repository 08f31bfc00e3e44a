//! One cgroup's files, and those of the ones above it, of either version of cgroups.
//!
//! On version 1 every controller has a hierarchy of its own, and a cgroup need not be in each of them;
//! container runtimes and service managers give it the same path wherever it is, and leave its processes to
//! the nearest one above where it is not.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use foldhash::{HashMap, HashSet};

use crate::kernel::hierarchy::Hierarchy;
use crate::model::unit_resources::{CgroupReading, CpuQuota};
use crate::model::zombies::Pids;

/// More than any of these files has: `cpu.stat` and `memory.events` have a line for each count.
const MOST: u64 = 4_096;

/// The hierarchies, and what is remembered while a round lasts: slices are above many units.
pub struct Files {
    cpu: Option<Hierarchy>,
    pids: Option<Hierarchy>,
    memory: Option<Hierarchy>,
    quotas: HashMap<PathBuf, Option<CpuQuota>>,
    limits: HashMap<PathBuf, Option<Pids>>,
    /// Cgroups that have a quota, or had one in the round before: only of those is `cpu.stat` read.
    have_quota: HashSet<u64>,
    had_quota: HashSet<u64>,
}

impl Files {
    /// Of the hierarchies mounted as `proc_root` says.
    pub fn new(proc_root: &Path) -> Self {
        let of = |controller| Hierarchy::of_controller(proc_root, controller);
        Self {
            cpu: of("cpu"),
            pids: of("pids"),
            memory: of("memory"),
            quotas: HashMap::default(),
            limits: HashMap::default(),
            have_quota: HashSet::default(),
            had_quota: HashSet::default(),
        }
    }

    /// Begins a round: what was read before is old.
    pub fn begin(&mut self) {
        self.quotas.clear();
        self.limits.clear();
        self.had_quota = std::mem::take(&mut self.have_quota);
    }

    /// Reads a cgroup, by its path below the root.
    pub fn read(&mut self, id: u64, path: &Path) -> CgroupReading {
        let mut reading = CgroupReading {
            id,
            oom_kills: self.oom_kills(path),
            ..CgroupReading::default()
        };
        if let Some(cpu) = self.cpu.clone() {
            for above in path.ancestors() {
                let quota = self.quota(&cpu, above);
                reading.has_own_quota |= quota.is_some() && above == path;
                reading.quotas.extend(quota);
            }
        }
        if let Some(pids) = self.pids.clone() {
            reading.pids = number(&pids.root.join(path).join("pids.current"));
            let limited = path.ancestors().filter_map(|above| self.limit(&pids, above));
            let headroom = |pids: &Pids| pids.limit.map(|limit| limit.saturating_sub(pids.used));
            reading.limited_pids = limited.min_by_key(headroom);
        }
        reading
    }

    /// A cgroup's own quota, if it has one, or had one a moment ago.
    fn quota(&mut self, cpu: &Hierarchy, path: &Path) -> Option<CpuQuota> {
        if let Some(known) = self.quotas.get(path) {
            return *known;
        }
        let directory = cpu.root.join(path);
        let quota = self.read_quota(cpu, &directory);
        self.quotas.insert(path.to_owned(), quota);
        quota
    }

    fn read_quota(&mut self, cpu: &Hierarchy, directory: &Path) -> Option<CpuQuota> {
        let cores = if cpu.is_v1 {
            let quota = text(&directory.join("cpu.cfs_quota_us"))?;
            let period = text(&directory.join("cpu.cfs_period_us"))?;
            cores(&quota, &period)
        } else {
            let both = text(&directory.join("cpu.max"))?;
            let (quota, period) = both.trim().split_once(' ')?;
            cores(quota, period)
        };
        // An inode number, so that one made anew is another.
        let id = std::fs::metadata(directory).ok()?.ino();
        if cores.is_none() && !self.had_quota.contains(&id) {
            return None;
        }
        if cores.is_some() {
            self.have_quota.insert(id);
        }
        let stat = text(&directory.join("cpu.stat"))?;
        let throttled_ns = if cpu.is_v1 {
            count(&stat, "throttled_time")?
        } else {
            count(&stat, "throttled_usec")?.checked_mul(1_000)?
        };
        Some(CpuQuota {
            id,
            cores,
            throttled_ns,
        })
    }

    /// Pids of a cgroup that has a limit.
    fn limit(&mut self, pids: &Hierarchy, path: &Path) -> Option<Pids> {
        if let Some(known) = self.limits.get(path) {
            return *known;
        }
        let directory = pids.root.join(path);
        let read = || {
            // "max" is no number, and no limit.
            let limit = number(&directory.join("pids.max"))?;
            let used = number(&directory.join("pids.current"))?;
            Some(Pids {
                used,
                limit: Some(limit),
            })
        };
        let limited = read();
        self.limits.insert(path.to_owned(), limited);
        limited
    }

    /// Of the cgroup alone on version 1, with those below it on version 2.
    fn oom_kills(&self, path: &Path) -> Option<u64> {
        let memory = self.memory.as_ref()?;
        let file = if memory.is_v1 {
            "memory.oom_control"
        } else {
            "memory.events"
        };
        count(&text(&memory.root.join(path).join(file))?, "oom_kill")
    }
}

/// How many CPUs' time a quota of each period is; `None` if there is none ("max", -1).
fn cores(quota: &str, period: &str) -> Option<f64> {
    let quota: u64 = quota.trim().parse().ok()?;
    let period: u64 = period.trim().parse().ok()?;
    (period > 0).then(|| quota as f64 / period as f64)
}

/// The number behind a word at the beginning of a line.
fn count(text: &str, name: &str) -> Option<u64> {
    let value = |line: &str| line.strip_prefix(name)?.strip_prefix(' ')?.trim().parse().ok();
    text.lines().find_map(value)
}

fn number(path: &Path) -> Option<u64> {
    text(path)?.trim().parse().ok()
}

fn text(path: &Path) -> Option<String> {
    let mut text = String::new();
    File::open(path).ok()?.take(MOST).read_to_string(&mut text).ok()?;
    Some(text)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    struct Tree(tempfile::TempDir);

    impl Tree {
        fn new(mounts: &[(&str, &str, &str)]) -> Self {
            let dir = tempfile::tempdir().unwrap();
            let lines = mounts.iter().map(|(root, kind, options)| {
                format!("{kind} {}/{root} {kind} {options} 0 0\n", dir.path().display())
            });
            fs::create_dir_all(dir.path().join("proc/self")).unwrap();
            fs::write(dir.path().join("proc/self/mounts"), lines.collect::<String>()).unwrap();
            Self(dir)
        }

        fn write(&self, path: &str, content: &str) {
            let path = self.0.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        }

        fn files(&self) -> Files {
            Files::new(&self.0.path().join("proc"))
        }
    }

    fn quotas(reading: &CgroupReading) -> Vec<(Option<f64>, u64)> {
        let quotas = reading.quotas.iter();
        quotas.map(|quota| (quota.cores, quota.throttled_ns)).collect()
    }

    #[test]
    fn version_2() {
        let tree = Tree::new(&[("cg", "cgroup2", "rw")]);
        tree.write("cg/a.slice/cpu.max", "200000 100000\n");
        tree.write(
            "cg/a.slice/cpu.stat",
            "usage_usec 9\nnr_throttled 3\nthrottled_usec 7\n",
        );
        tree.write("cg/a.slice/pids.max", "10\n");
        tree.write("cg/a.slice/pids.current", "8\n");
        tree.write("cg/a.slice/b.service/cpu.max", "50000 100000\n");
        tree.write("cg/a.slice/b.service/cpu.stat", "throttled_usec 2\n");
        tree.write("cg/a.slice/b.service/pids.max", "max\n");
        tree.write("cg/a.slice/b.service/pids.current", "3\n");
        tree.write(
            "cg/a.slice/b.service/memory.events",
            "oom 5\noom_kill 4\noom_group_kill 1\n",
        );
        let mut files = tree.files();
        let read = files.read(7, Path::new("a.slice/b.service"));
        assert_eq!(quotas(&read), [(Some(0.5), 2_000), (Some(2.0), 7_000)]);
        assert!(read.has_own_quota && read.id == 7);
        assert_eq!((read.pids, read.oom_kills), (Some(3), Some(4)));
        let slice = Pids {
            used: 8,
            limit: Some(10),
        };
        assert_eq!(read.limited_pids, Some(slice));

        tree.write("cg/a.slice/b.service/cpu.max", "max 100000\n");
        files.begin();
        let read = files.read(7, Path::new("a.slice/b.service"));
        assert_eq!(
            quotas(&read),
            [(None, 2_000), (Some(2.0), 7_000)],
            "its last word"
        );
        files.begin();
        let read = files.read(7, Path::new("a.slice/b.service"));
        assert_eq!(quotas(&read), [(Some(2.0), 7_000)]);
        assert!(!read.has_own_quota);
        let none = files.read(8, Path::new("c.service"));
        assert_eq!(
            none,
            CgroupReading {
                id: 8,
                ..CgroupReading::default()
            }
        );
    }

    #[test]
    fn version_1_has_a_hierarchy_for_each_controller() {
        let tree = Tree::new(&[
            ("unified", "cgroup2", "rw"),
            ("cpu", "cgroup", "rw,cpu,cpuacct"),
            ("pids", "cgroup", "rw,pids"),
            ("memory", "cgroup", "rw,memory"),
        ]);
        tree.write("cpu/cpu.cfs_quota_us", "-1\n");
        tree.write("cpu/cpu.cfs_period_us", "100000\n");
        tree.write("cpu/docker/cpu.cfs_quota_us", "150000\n");
        tree.write("cpu/docker/cpu.cfs_period_us", "100000\n");
        tree.write(
            "cpu/docker/cpu.stat",
            "nr_periods 9\nnr_throttled 3\nthrottled_time 123\n",
        );
        tree.write("pids/docker/a/pids.max", "20\n");
        tree.write("pids/docker/a/pids.current", "3\n");
        tree.write(
            "memory/docker/a/memory.oom_control",
            "oom_kill_disable 0\nunder_oom 0\noom_kill 2\n",
        );
        tree.write("unified/docker/a/cpu.max", "1 100000\n");
        let read = tree.files().read(1, Path::new("docker/a"));
        assert_eq!(
            quotas(&read),
            [(Some(1.5), 123)],
            "it is not there, but one above it is"
        );
        assert!(!read.has_own_quota);
        assert_eq!((read.pids, read.oom_kills), (Some(3), Some(2)));
        let own = Pids {
            used: 3,
            limit: Some(20),
        };
        assert_eq!(read.limited_pids, Some(own));
        let other = tree.files().read(2, Path::new("docker/b"));
        assert_eq!((other.pids, other.oom_kills), (None, None));
    }

    #[test]
    fn odd_contents_are_no_limits() {
        for (quota, period) in [
            ("", ""),
            ("-1", "100000"),
            ("max", "100000"),
            ("5", "0"),
            ("x", "y"),
        ] {
            assert_eq!(cores(quota, period), None, "{quota:?} {period:?}");
        }
        assert_eq!(count("oom_killed 3\noom_kill x\n", "oom_kill"), None);
        let tree = Tree::new(&[("cg", "cgroup2", "rw")]);
        tree.write("cg/a/cpu.max", "50000");
        tree.write("cg/a/pids.max", "-5\n");
        let read = tree.files().read(1, Path::new("a"));
        assert_eq!(
            read,
            CgroupReading {
                id: 1,
                ..CgroupReading::default()
            }
        );
    }
}
