//! The unit as it is shipped: whom it runs the agent as, with what, and how much of the host it gives it.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

/// Its text.
pub const UNIT: &str = include_str!("../../../../xtask/dist/procprobe.service");

/// A user that no distribution gives to anybody, in place of the unit's.
pub const AGENT: u32 = 64_995;

/// The value of a key that is there once.
///
/// # Panics
/// If it is not.
pub fn value(key: &str) -> &'static str {
    let mut values = UNIT
        .lines()
        .filter_map(|line| line.strip_prefix(key)?.strip_prefix('='));
    let value = values.next().unwrap_or_else(|| panic!("the unit has no {key}="));
    assert_eq!(values.next(), None, "the unit has {key}= twice");
    value
}

/// The capabilities that it gives, by name without `CAP_`.
///
/// # Panics
/// If it gives others than it bounds.
pub fn capabilities() -> Vec<String> {
    let of = |key| -> Vec<String> {
        let names = value(key).split(' ');
        names
            .map(|name| name.strip_prefix("CAP_").expect("a capability").to_lowercase())
            .collect()
    };
    let ambient = of("AmbientCapabilities");
    assert_eq!(ambient, of("CapabilityBoundingSet"));
    ambient
}

/// `setpriv` to a user with just these capabilities; the program comes behind it.
pub fn confined(setpriv: &PathBuf, uid: u32, capabilities: &[String]) -> Command {
    let set = || {
        let names = capabilities.iter().map(|name| format!(",+{name}"));
        format!("-all{}", names.collect::<String>())
    };
    let mut command = Command::new(setpriv);
    command
        .arg(format!("--reuid={uid}"))
        .arg(format!("--regid={uid}"))
        .args(["--clear-groups", "--no-new-privs"])
        .arg(format!("--inh-caps={}", set()))
        .arg(format!("--ambient-caps={}", set()))
        .arg(format!("--bounding-set={}", set()))
        .env_remove("PROCPROBE_LOG");
    command
}

/// Cgroups with the unit's limits, until dropped.
pub struct Limits {
    directories: Vec<PathBuf>,
    /// Limits that this host has no controller for, or does not let us set.
    pub missing: Vec<&'static str>,
}

/// Bytes, as systemd writes them.
fn bytes(text: &str) -> u64 {
    let (number, factor) = match text.strip_suffix('M') {
        Some(number) => (number, 1 << 20),
        None => (text, 1),
    };
    number.parse::<u64>().expect("a number of bytes") * factor
}

impl Limits {
    /// Makes them, of whichever version of cgroups there is.
    ///
    /// # Panics
    /// If the unit has no such limits.
    pub fn of_unit(name: &str) -> Self {
        let memory = bytes(value("MemoryMax")).to_string();
        let tasks = value("TasksMax");
        let percent: u64 = value("CPUQuota")
            .trim_end_matches('%')
            .parse()
            .expect("a percentage");
        let quota = (percent * 1_000).to_string();
        let wanted = [
            (
                "memory",
                "memory.max",
                memory.clone(),
                "memory.limit_in_bytes",
                memory,
            ),
            ("pids", "pids.max", tasks.to_owned(), "pids.max", tasks.to_owned()),
            (
                "cpu",
                "cpu.max",
                format!("{quota} 100000"),
                "cpu.cfs_quota_us",
                quota,
            ),
        ];
        let mut limits = Self {
            directories: Vec::new(),
            missing: Vec::new(),
        };
        for (controller, file, text, old_file, old_text) in wanted {
            let new = PathBuf::from("/sys/fs/cgroup").join(name);
            let old = PathBuf::from("/sys/fs/cgroup").join(controller).join(name);
            let made = limits.set(new, file, &text) || limits.set(old, old_file, &old_text);
            if !made {
                limits.missing.push(controller);
            }
        }
        limits
    }

    fn set(&mut self, directory: PathBuf, file: &str, text: &str) -> bool {
        let is_ours = self.directories.contains(&directory);
        if !is_ours && fs::create_dir(&directory).is_err() {
            return false;
        }
        let done = directory.join(file).exists() && fs::write(directory.join(file), text).is_ok();
        if done && !is_ours {
            self.directories.push(directory);
        } else if !done && !is_ours {
            let _ = fs::remove_dir(&directory);
        }
        done
    }

    /// The files that take a process in.
    pub fn doors(&self) -> Vec<PathBuf> {
        let directories = self.directories.iter();
        directories
            .map(|directory| directory.join("cgroup.procs"))
            .collect()
    }
}

impl Drop for Limits {
    fn drop(&mut self) {
        for directory in &self.directories {
            // Who was just killed keeps it for a moment.
            for _ in 0..100 {
                if fs::remove_dir(directory).is_ok() {
                    break;
                }
                std::thread::sleep(std::time::Duration::from_millis(50));
            }
        }
    }
}
