//! Does the service run, with the unit as it is? Under the systemd of a clean Debian, booted in a container: with its user,
//! its capabilities, its system call filter and all the rest. The kernel is this host's.

use std::{fs, os::unix::fs::PermissionsExt, path::Path, time::Duration};

use anyhow::{Context, Result, ensure};

use crate::process::{self, say};

/// A boot takes ten seconds.
const PATIENCE: Duration = Duration::from_secs(120);
/// What the container runs, and then ends. There is no curl in it.
const SCRIPT: &str = r#"#!/bin/bash
exec >/result 2>&1
get() {
    exec 3<>/dev/tcp/127.0.0.1/9982
    printf 'GET %s HTTP/1.0\r\nHost: localhost\r\n\r\n' "$1" >&3
    cat <&3
    exec 3>&-
}
systemctl start procprobe; echo "start: $?"
grep -E '^(Uid|CapEff|CapPrm|NoNewPrivs|Seccomp):' "/proc/$(systemctl show -P MainPID procprobe)/status"
get /metrics | grep -E '^procprobe_(build_info|context_switches_total.*unit="procprobe.service")'
get /api/v1/tree | grep -o '"source":"bpf","complete":true'
stat -c 'socket: %A %U %G' /run/procprobe/api.sock
echo "held by: $(systemctl show procprobe.socket -P SubState)"
procprobe agent --check-health; echo "health: $?"
systemctl show procprobe -p LimitCORE
systemctl reload procprobe; echo "reload: $?"
get /readyz | tail -n 1
systemctl show procprobe -p NRestarts
systemctl stop procprobe; echo "stop: $?"
systemctl show procprobe -p Result
journalctl -u procprobe --no-pager
echo end
systemctl poweroff
"#;
const UNIT: &str = "[Service]\nExecStart=/check.sh\n";
/// What has to be in its output. The capabilities are `CAP_SYS_PTRACE` and
/// `CAP_DAC_READ_SEARCH` (which every container has), the filter one of system calls.
const EXPECTED: [&str; 15] = [
    "start: 0\n",
    "CapPrm:\t0000000000080004\n",
    "CapEff:\t0000000000080004\n",
    "NoNewPrivs:\t1\n",
    "Seccomp:\t2\n",
    "procprobe_build_info",
    "\"source\":\"bpf\",\"complete\":true",
    "socket: srw-rw---- procprobe procprobe\n",
    "held by: running\n",
    "ok\nhealth: 0\n",
    "LimitCORE=0\n",
    "reload: 0\nready\n",
    "NRestarts=0\n",
    "stop: 0\nResult=success\n",
    "end\n",
];

/// What must not be: a service that names no functions has lost openat2(2), or processes.
const UNWANTED: [&str; 1] = ["have no names"];

/// Boots a root directory in which the package is installed.
pub fn run(root: &Path) -> Result<()> {
    let write = |name: &str, text: &str, mode: u32| {
        let path = root.join(name);
        fs::write(&path, text)
            .and_then(|()| fs::set_permissions(&path, fs::Permissions::from_mode(mode)))
            .with_context(|| format!("writing {}", path.display()))
    };
    write("check.sh", SCRIPT, 0o755)?;
    write("etc/systemd/system/check.service", UNIT, 0o644)?;
    let wants = root.join("etc/systemd/system/multi-user.target.wants");
    fs::create_dir_all(&wants).with_context(|| format!("creating {}", wants.display()))?;
    std::os::unix::fs::symlink("/etc/systemd/system/check.service", wants.join("check.service"))
        .context("enabling the check")?;
    let mut nspawn = process::as_root("systemd-nspawn")?;
    nspawn
        .args([
            "--quiet",
            "--register=no",
            "--keep-unit",
            "--boot",
            "--console=pipe",
        ])
        .args([
            "--capability=CAP_BPF,CAP_PERFMON,CAP_SYS_PTRACE",
            "--system-call-filter=bpf",
        ])
        .arg("-D")
        .arg(root);
    process::run_within(&mut nspawn, PATIENCE).context("booting the container")?;
    let result = root.join("result");
    let said = fs::read_to_string(&result).with_context(|| format!("reading {}", result.display()))?;
    for expected in EXPECTED.into_iter().chain(unit()) {
        ensure!(
            said.contains(expected),
            "no {expected:?} from the container:\n{said}"
        );
    }
    for unwanted in UNWANTED {
        ensure!(
            !said.contains(unwanted),
            "{unwanted:?} from the container:\n{said}"
        );
    }
    say("check: the service starts, serves, reloads and stops under systemd, confined as the unit says");
    Ok(())
}

/// What the agent calls itself. Where the pids controller is on a hierarchy of version 1, a container has no say in it: its
/// services are told apart there by nobody outside of it.
fn unit() -> Option<&'static str> {
    let is_v1 = Path::new("/sys/fs/cgroup/pids").exists();
    if is_v1 {
        say("check: not its own unit, which this host's cgroups (version 1) do not show of a container");
    }
    (!is_v1).then_some("unit=\"procprobe.service\"")
}
