//! `cargo xtask test`: every test that this machine can run, and a failure for those it should have run and could not.
//!
//! After the tests on this host what `procprobe locks` says is held against the corpus (`accuracy/`), and the
//! agent is checked on other kernels, in QEMU, with the core of the live tests (`vm/plan.rs`): on a host that
//! cannot load eBPF they stand in for the live tests.

use std::{
    env,
    ffi::{OsStr, OsString},
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};
use clap::Args;

use crate::{
    accuracy, build,
    process::{self, say},
    setup,
    toolchain::host_rustc,
    vm,
    workspace::Workspace,
};

const BTF: &str = "/sys/kernel/btf/vmlinux";
/// Loading programs, and reading other tasks with them.
const CAPABILITIES: [(u32, &str); 2] = [(38, "CAP_PERFMON"), (39, "CAP_BPF")];
const CAP_SYS_ADMIN: u32 = 21;

/// The oldest and the middle one of Debian's that procprobe runs on, and the newest there is.
const KERNELS: [&str; 3] = ["6.1", "6.12", "latest"];

#[derive(Args)]
pub struct Options {
    /// Succeed although this host cannot load eBPF, so that the live tests did not run
    #[arg(long)]
    allow_skip_live: bool,
    /// Leave the other kernels out, which have to be downloaded (`cargo xtask vm test` runs them alone)
    #[arg(long)]
    no_vm: bool,
    /// Arguments of `cargo test`, such as a filter
    #[arg(last = true, value_name = "ARGS")]
    arguments: Vec<OsString>,
}

/// The verb.
pub fn run(workspace: &Workspace, options: &Options) -> Result<()> {
    setup::tests(workspace)?;
    build::run(workspace)?;
    let obstacle = obstacle()?;
    if let Some(why) = &obstacle {
        say(&format!("the live tests skip: {why}"));
    }
    let mut cargo = command(workspace, obstacle.is_none())?;
    process::run(cargo.args(&options.arguments)).context("testing")?;
    if obstacle.is_none() {
        words_about_locks(workspace, options)?;
    }
    let on_other_kernels = other_kernels(workspace, options)?;
    match obstacle {
        Some(why) if on_other_kernels => {
            say(&format!(
                "all passed; other kernels stood in for this one, on which the live tests did not run: {why}"
            ));
            Ok(())
        }
        Some(why) if options.allow_skip_live => {
            say(&format!(
                "all else passed, but the live tests (those that load eBPF) did not run: {why}"
            ));
            Ok(())
        }
        Some(why) => {
            bail!("the live tests (those that load eBPF) did not run: {why}; or pass --allow-skip-live")
        }
        None => Ok(()),
    }
}

/// Looks at programs whose locks are known, once each.
fn words_about_locks(workspace: &Workspace, options: &Options) -> Result<()> {
    let why_not = if !options.arguments.is_empty() {
        "only some tests were asked for"
    } else if !process::is_root() {
        "xtask is not root (as root: `cargo xtask accuracy corpus --short`)"
    } else {
        return accuracy::short(workspace).context("looking at programs whose locks are known");
    };
    say(&format!(
        "what is said of locks was not held against the corpus: {why_not}"
    ));
    Ok(())
}

/// Checks the agent in QEMU; false if it was told not to.
fn other_kernels(workspace: &Workspace, options: &Options) -> Result<bool> {
    let why_not = if options.no_vm {
        "--no-vm"
    } else if !options.arguments.is_empty() {
        "only some tests were asked for"
    } else {
        vm::test(workspace, &KERNELS).context(
            "checking the agent on other kernels (--no-vm leaves them out, `cargo xtask vm test` runs them alone)",
        )?;
        return Ok(true);
    };
    say(&format!("not checked on other kernels: {why_not}"));
    Ok(false)
}

fn command(workspace: &Workspace, live: bool) -> Result<Command> {
    let path = path_for_tests(workspace)?;
    let mut cargo = workspace.cargo();
    cargo
        // No doc tests: there are none, and their empty summary would close the run.
        .args(["test", "--workspace", "--lib", "--bins", "--tests"])
        .env(build::OBJECT_ENV, workspace.bpf_object())
        .env("PROCPROBE_BIN", workspace.procprobe())
        .env("PROCPROBE_GRAFANA_TYPES", setup::grafana_types(workspace))
        .env("PATH", &path);
    if live {
        // Tests that would skip themselves where eBPF does not load must not do so here.
        cargo.env("PROCPROBE_LIVE", "required");
        if !process::is_root() {
            cargo.env(runner_variable(workspace)?, sudo_runner(&path));
        }
    } else {
        cargo.env_remove("PROCPROBE_LIVE");
    }
    Ok(cargo)
}

/// Where the tests look for the programs they start: the user's path first, then what `setup` unpacked and the system's own.
fn path_for_tests(workspace: &Workspace) -> Result<OsString> {
    let path = env::var_os("PATH").unwrap_or_default();
    let more = [
        setup::prometheus_bin(workspace),
        PathBuf::from("/usr/sbin"),
        PathBuf::from("/sbin"),
    ];
    env::join_paths(env::split_paths(&path).chain(more)).context("composing PATH for the tests")
}

/// sudo replaces PATH even under `-E`; cargo splits the runner at blanks, so a path with any cannot be handed on.
fn sudo_runner(path: &OsStr) -> OsString {
    let mut runner = OsString::from("sudo -E --");
    if !path.to_string_lossy().contains(char::is_whitespace) {
        runner.push(" env PATH=");
        runner.push(path);
    }
    runner
}

/// The variable that names the program under which cargo starts test binaries.
fn runner_variable(workspace: &Workspace) -> Result<String> {
    let triple = host_rustc(workspace, "host")?;
    Ok(format!(
        "CARGO_TARGET_{}_RUNNER",
        triple.replace('-', "_").to_uppercase()
    ))
}

/// Why this host cannot load the programs, with what would change that.
fn obstacle() -> Result<Option<String>> {
    if !Path::new(BTF).exists() {
        return Ok(Some(format!(
            "the kernel has no {BTF}: use one built with CONFIG_DEBUG_INFO_BTF"
        )));
    }
    if !process::can_become_root() {
        return Ok(Some("not root, and no sudo: run as root".to_owned()));
    }
    if process::is_root() {
        let status = fs::read_to_string("/proc/self/status").context("reading /proc/self/status")?;
        return Ok(missing_capability(&status));
    }
    Ok(None)
}

/// Root in a container often lacks what root is usually known for.
fn missing_capability(status: &str) -> Option<String> {
    let mask = status.lines().find_map(|line| line.strip_prefix("CapEff:"))?;
    let mask = u64::from_str_radix(mask.trim(), 16).ok()?;
    let has = |bit: u32| mask & (1 << bit) != 0;
    let missing = CAPABILITIES
        .iter()
        .find(|(bit, _)| !has(*bit) && !has(CAP_SYS_ADMIN));
    missing.map(|(_, name)| format!("root lacks {name} here: run the container with it, or outside"))
}

#[cfg(test)]
mod tests {
    use super::missing_capability;

    #[test]
    fn sys_admin_stands_for_both_newer_capabilities() {
        assert_eq!(missing_capability("Name:\tx\nCapEff:\t000001ffffffffff\n"), None);
        assert_eq!(missing_capability("CapEff:\t0000000000200000\n"), None);
        let container = missing_capability("CapEff:\t00000000a80425fb\n").unwrap();
        assert!(container.contains("CAP_PERFMON"), "{container}");
    }
}
