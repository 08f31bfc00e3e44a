//! `cargo xtask build`: the eBPF object by its own toolchain, then the agent around it by the host's.

use std::{path::PathBuf, process::Command};

use anyhow::{Context, Result, ensure};

use crate::{
    environment,
    paths::Paths,
    process::{self, say},
    setup,
    toolchain::Toolchain,
    workspace::Workspace,
};

/// Tells probe-user's build script where the object is.
pub const OBJECT_ENV: &str = "PROCPROBE_BPF_OBJECT";

/// The verb; also the first half of `run`, `test` and `bench`.
pub fn run(workspace: &Workspace) -> Result<()> {
    let toolchain = setup::toolchain()?;
    object(workspace, &toolchain)?;
    agent(workspace)?;
    say(&format!("built {}", workspace.procprobe().display()));
    Ok(())
}

/// A cargo invocation of the eBPF toolchain, for `build` here and clippy in `lint`.
///
/// Everything that could leak in from the outer cargo, which belongs to another toolchain, is removed first.
pub fn bpf_cargo(workspace: &Workspace, toolchain: &Toolchain, program: &str) -> Command {
    let bin = &toolchain.compiler.bin;
    let mut cargo = Command::new(bin.join(program));
    environment::scrub_all(&mut cargo)
        .current_dir(&workspace.root)
        // `-Z build-std` is all that is unstable here; a stable compiler does it when told so.
        .env("RUSTC_BOOTSTRAP", "1")
        .env("CARGO", bin.join("cargo"))
        .env("RUSTC", bin.join("rustc"))
        .env("CARGO_TARGET_DIR", workspace.bpf_target())
        .env("CARGO_TARGET_BPFEL_UNKNOWN_NONE_LINKER", &toolchain.linker.path);
    cargo
}

/// What the eBPF target needs after the subcommand. Its object goes into everybody's binary, so it never
/// names this machine's paths.
pub fn bpf_arguments<'a>(
    cargo: &'a mut Command,
    workspace: &Workspace,
    toolchain: &Toolchain,
) -> &'a mut Command {
    cargo.args(BPF_ARGUMENTS);
    Paths::of(workspace, toolchain).rename(cargo, BPF_TRIPLE, &[])
}

const BPF_TRIPLE: &str = "bpfel-unknown-none";

const BPF_ARGUMENTS: [&str; 11] = [
    "--release",
    "-Z",
    "build-std=core",
    "--target",
    BPF_TRIPLE,
    "-p",
    "probe-ebpf",
    "--bin",
    "probe",
    "--features",
    "programs",
];

/// The eBPF object alone.
pub fn object(workspace: &Workspace, toolchain: &Toolchain) -> Result<()> {
    let mut cargo = bpf_cargo(workspace, toolchain, "cargo");
    bpf_arguments(cargo.arg("build"), workspace, toolchain);
    process::run_on_stderr(&mut cargo).context("building the eBPF object")?;
    let object = workspace.bpf_object();
    ensure!(
        object.exists(),
        "the eBPF build succeeded but left no {}: has its target been renamed?",
        object.display()
    );
    Ok(())
}

/// The target of static builds: the glibc that every host has.
pub const STATIC_TRIPLE: &str = "x86_64-unknown-linux-gnu";

/// Programs that need nothing beside them, linked statically; returns the directory they are in.
pub fn statically(workspace: &Workspace, profile: &str, programs: &[(&str, &str)]) -> Result<PathBuf> {
    ensure!(
        cfg!(target_arch = "x86_64"),
        "static programs are built for x86-64, and so has to be this host"
    );
    let toolchain = setup::toolchain()?;
    object(workspace, &toolchain)?;
    let mut cargo = workspace.cargo();
    cargo.args([
        "build",
        "--quiet",
        "--profile",
        profile,
        "--target",
        STATIC_TRIPLE,
    ]);
    for (package, binary) in programs {
        cargo.args(["-p", package, "--bin", binary]);
    }
    let flags = ["-C", "target-feature=+crt-static"];
    Paths::of(workspace, &toolchain).rename(&mut cargo, STATIC_TRIPLE, &flags);
    cargo.env(OBJECT_ENV, workspace.bpf_object());
    process::run_on_stderr(&mut cargo).context("building static programs")?;
    Ok(workspace.target.join(STATIC_TRIPLE).join(profile))
}

fn agent(workspace: &Workspace) -> Result<()> {
    let mut cargo = workspace.cargo();
    cargo
        .args(["build", "--release", "-p", "probe-user", "--bin", "procprobe"])
        .env(OBJECT_ENV, workspace.bpf_object());
    process::run_on_stderr(&mut cargo).context("building procprobe")
}
