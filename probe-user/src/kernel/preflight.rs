//! What this host and these privileges allow, item by item. `doctor` prints it; loading asks for the fatal ones first.

use std::fs;
use std::path::Path;

use caps::{CapSet, Capability, CapsHashSet};

use super::btf::Btf;
use super::load::BTF_PATH;
use super::{offsets, privileges};

/// How an item turned out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// As it should be.
    Ok,
    /// Works, with something missing.
    Limited,
    /// eBPF cannot be used.
    Failed,
}

/// One thing that was looked at.
#[derive(Clone, Debug)]
pub struct Item {
    /// A short name, the same on every host.
    pub name: &'static str,
    /// How it turned out.
    pub verdict: Verdict,
    /// What was found.
    pub found: String,
    /// What to do about it; empty if nothing.
    pub remedy: String,
}

impl Item {
    /// One item.
    pub fn new(
        name: &'static str,
        verdict: Verdict,
        found: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        Self {
            name,
            verdict,
            found: found.into(),
            remedy: remedy.into(),
        }
    }
}

/// What the missing capabilities are, if any are missing that loading needs.
pub fn missing_privilege() -> Option<String> {
    let effective = caps::read(None, CapSet::Effective).ok()?;
    if effective.contains(&Capability::CAP_SYS_ADMIN) {
        return None;
    }
    let missing: Vec<String> = [Capability::CAP_BPF, Capability::CAP_PERFMON]
        .into_iter()
        .filter(|capability| !effective.contains(capability))
        .map(|capability| capability.to_string())
        .collect();
    match missing.as_slice() {
        [] => None,
        [one] => Some(format!("{one} is missing")),
        several => Some(format!("{} are missing", several.join(" and "))),
    }
}

/// What works only in part for want of a privilege that loading does not need.
pub fn limits() -> Option<String> {
    let effective = caps::read(None, CapSet::Effective).unwrap_or_default();
    let missing: CapsHashSet = privileges::LOOK
        .into_iter()
        .filter(|capability| !effective.contains(capability))
        .collect();
    let are = match missing.len() {
        0 => return None,
        1 => "is",
        _ => "are",
    };
    let unknown = if missing.contains(&Capability::CAP_SYS_PTRACE) {
        "no executables, descriptors and names of locks"
    } else {
        "no descriptors and not all names of locks"
    };
    let names = privileges::names(&missing);
    Some(format!(
        "{names} {are} missing: {unknown} of other users' processes"
    ))
}

/// Looks at everything that does not need a program to be loaded.
pub fn items() -> Vec<Item> {
    vec![
        kernel(),
        btf(),
        members(),
        capabilities(),
        look(),
        held(),
        lockdown(),
        pid_namespace(),
        time_namespace(),
        hidepid(),
        bpf_stats(),
    ]
}

fn read(path: &str) -> Option<String> {
    fs::read_to_string(path).ok().map(|text| text.trim().to_owned())
}

fn kernel() -> Item {
    let release = read("/proc/sys/kernel/osrelease").unwrap_or_else(|| "unknown".to_owned());
    Item::new("kernel", Verdict::Ok, format!("Linux {release}"), "")
}

fn btf() -> Item {
    match fs::metadata(BTF_PATH) {
        Ok(_) => Item::new("btf", Verdict::Ok, format!("{BTF_PATH} is there"), ""),
        Err(error) => Item::new(
            "btf",
            Verdict::Failed,
            format!("{BTF_PATH}: {error}"),
            "use a kernel built with CONFIG_DEBUG_INFO_BTF=y; until then --source proc works",
        ),
    }
}

fn members() -> Item {
    let outcome = fs::read(BTF_PATH)
        .map_err(|error| error.to_string())
        .and_then(|blob| {
            let btf = Btf::parse(&blob).map_err(|error| error.to_string())?;
            offsets::resolve(&btf).map_err(|error| error.to_string())
        });
    match outcome {
        Ok(offsets) => {
            let form = if offsets.switch_has_prev_state == 1 {
                "with"
            } else {
                "without"
            };
            Item::new(
                "kernel structures",
                Verdict::Ok,
                format!("all found; sched_switch {form} prev_state"),
                "",
            )
        }
        Err(why) => Item::new(
            "kernel structures",
            Verdict::Failed,
            why,
            "procprobe needs 5.15 or newer with BTF; until then --source proc works",
        ),
    }
}

fn capabilities() -> Item {
    match missing_privilege() {
        None => Item::new(
            "load eBPF",
            Verdict::Ok,
            "CAP_BPF and CAP_PERFMON (or CAP_SYS_ADMIN)",
            "",
        ),
        Some(missing) => Item::new(
            "load eBPF",
            Verdict::Failed,
            missing,
            "run it with sudo, or give the binary the capabilities: setcap cap_bpf,cap_perfmon,cap_sys_ptrace+ep",
        ),
    }
}

fn look() -> Item {
    let name = "other users' processes";
    match limits() {
        None => Item::new(name, Verdict::Ok, privileges::names(&privileges::LOOK.into()), ""),
        Some(limit) => Item::new(
            name,
            Verdict::Limited,
            limit,
            "run it with sudo, or give the service these capabilities",
        ),
    }
}

fn held() -> Item {
    let held = caps::read(None, CapSet::Permitted).unwrap_or_default();
    let list = if held.len() > 8 {
        format!("all {}", held.len())
    } else {
        privileges::names(&held)
    };
    let keep = privileges::names(&privileges::used_on(&held));
    let aide = if held.contains(&privileges::MEASURE) {
        format!(", and the process that starts the namer {}", privileges::MEASURE)
    } else {
        String::new()
    };
    Item::new(
        "capabilities",
        Verdict::Ok,
        format!("held: {list}; the agent keeps of them, once attached: {keep}{aide}"),
        "",
    )
}

fn lockdown() -> Item {
    let Some(modes) = read("/sys/kernel/security/lockdown") else {
        return Item::new("lockdown", Verdict::Ok, "off, or not readable", "");
    };
    let mode = modes.split(['[', ']']).nth(1).unwrap_or("unknown").to_owned();
    // Our programs read kernel memory through BTF-typed pointers only, which no lockdown mode forbids.
    Item::new(
        "lockdown",
        Verdict::Ok,
        format!("{mode}; no mode is in the way"),
        "",
    )
}

/// Inode of the initial pid namespace: `PROC_PID_INIT_INO` in `include/linux/proc_ns.h`.
const INITIAL_PID_NAMESPACE: &str = "pid:[4026531836]";

/// Whether /proc and the kernel's ids speak of the same pid namespace.
pub fn in_initial_pid_namespace() -> bool {
    fs::read_link("/proc/self/ns/pid").is_ok_and(|link| link == Path::new(INITIAL_PID_NAMESPACE))
}

/// Inode of the initial time namespace: `PROC_TIME_INIT_INO` there.
const INITIAL_TIME_NAMESPACE: &str = "time:[4026531834]";

/// What whoever reads an answer has to know about where it was asked; `None` on the host itself.
pub fn foreign_view() -> Option<String> {
    let time = fs::read_link("/proc/self/ns/time").ok();
    let foreign_time = time.is_some_and(|link| link != Path::new(INITIAL_TIME_NAMESPACE));
    foreign(!in_initial_pid_namespace(), foreign_time)
}

fn foreign(pids: bool, time: bool) -> Option<String> {
    let what = match (pids, time) {
        (false, false) => return None,
        (true, false) => "pid namespace: its processes alone, by the host's pids; no command lines",
        (false, true) => "time namespace: ages and times are by the host's clocks",
        (true, true) => {
            "pid and time namespace: its processes alone, by the host's pids and clocks; no command lines"
        }
    };
    Some(format!("seen from another {what} (procprobe doctor says more)"))
}

fn pid_namespace() -> Item {
    if in_initial_pid_namespace() {
        return Item::new("pid namespace", Verdict::Ok, "the host's", "");
    }
    Item::new(
        "pid namespace",
        Verdict::Limited,
        "not the host's: /proc shows other ids than the kernel's records",
        "run it on the host, or with hostPID: true (Kubernetes), --pid=host (docker)",
    )
}

fn time_namespace() -> Item {
    let link = fs::read_link("/proc/self/ns/time").ok();
    let found = match link {
        None => "the host's: this kernel has no others",
        Some(link) if link == Path::new(INITIAL_TIME_NAMESPACE) => "the host's",
        Some(_) => "not the host's; ages and times are by the host's clocks all the same",
    };
    Item::new("time namespace", Verdict::Ok, found, "")
}

fn hidepid() -> Item {
    let mounts = read("/proc/self/mounts").unwrap_or_default();
    let options = mounts
        .lines()
        .find(|line| line.split(' ').nth(1) == Some("/proc"));
    let restricted = options.is_some_and(|line| {
        line.split(' ').nth(3).is_some_and(|options| {
            options.split(',').any(|option| {
                option.starts_with("hidepid=") && option != "hidepid=0" && option != "hidepid=off"
            })
        })
    });
    match options {
        None => Item::new(
            "/proc",
            Verdict::Limited,
            "not mounted: no command lines",
            "mount -t proc proc /proc",
        ),
        Some(_) if restricted => Item::new(
            "/proc",
            Verdict::Limited,
            "mounted with hidepid: other users' command lines may be missing",
            "run it as root, or in the group that the gid= mount option names",
        ),
        Some(_) => Item::new("/proc", Verdict::Ok, "mounted, nothing hidden", ""),
    }
}

fn bpf_stats() -> Item {
    let on = read("/proc/sys/kernel/bpf_stats_enabled").is_some_and(|value| value == "1");
    let name = "run-time statistics";
    if on {
        let found = "on: run times of eBPF programs are always counted";
        return Item::new(name, Verdict::Ok, found, "");
    }
    let effective = caps::read(None, CapSet::Effective).unwrap_or_default();
    if effective.contains(&privileges::MEASURE) {
        return Item::new(name, Verdict::Ok, "off: counted while sampled", "");
    }
    Item::new(
        name,
        Verdict::Limited,
        "off, and sampling takes CAP_SYS_ADMIN: no procprobe_bpf_program_* metrics",
        "sysctl kernel.bpf_stats_enabled=1 keeps them on (about 50 ns a run); or do without",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_foreign_view_says_so_in_one_line() {
        assert_eq!(foreign(false, false), None);
        for (pids, time) in [(true, false), (false, true), (true, true)] {
            let line = foreign(pids, time).unwrap();
            assert!(
                !line.contains('\n') && line.contains("pid namespace") == (pids && !time),
                "{line}"
            );
            assert_eq!(line.contains("time namespace"), time, "{line}");
        }
    }

    #[test]
    fn every_failure_names_its_remedy() {
        for item in items() {
            assert!(!item.found.is_empty(), "{}", item.name);
            assert_eq!(
                item.remedy.is_empty(),
                item.verdict == Verdict::Ok,
                "{}: {}",
                item.name,
                item.remedy
            );
        }
    }
}
