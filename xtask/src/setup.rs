//! `cargo xtask setup`: finds or installs what the other verbs need.
//!
//! It only looks at files first, so that it costs nothing when all is there: `run` and `test` call it every time. What
//! it installs, it names. Order: what is there already, then apt where it works, then rustup.

use std::{env, ops::RangeInclusive, path::PathBuf, process::Command, time::Duration};

use anyhow::{Context, Result, bail};
use clap::Args;

use crate::{
    environment,
    packages::{self, Apt, Need},
    process::{self, say},
    toolchain::{Compiler, Toolchain, at_least, cargo_home},
    workspace::{Workspace, cargo_program},
};

const BPF_LINKER: &str = "0.13.0";
const CARGO_CYCLONEDX: &str = "0.5.9";
/// The LLVM versions that this bpf-linker can be built against.
const LINKER_LLVMS: RangeInclusive<u32> = 21..=23;

/// Distribution packages with a compiler and its library source, the newer set first.
const COMPILER_SETS: [[&str; 3]; 2] = [
    ["rustc-web", "cargo-web", "rust-web-src"],
    ["rustc", "cargo", "rust-src"],
];

/// What the tests start: load, the kernel's view of our programs, workloads, a renderer of graphs.
const TEST_NEEDS: [Need; 16] = [
    Need::program("linux-perf", "perf"),
    Need::program("bpftool", "bpftool"),
    Need::program("python3", "python3"),
    Need::program("gcc", "gcc"),
    Need::file("libc6-dev", "/usr/include/stdio.h"),
    Need::program("g++", "g++"),
    Need::program("musl-tools", "musl-gcc"),
    Need::program("procps", "ps"),
    Need::program("util-linux", "setpriv"),
    Need::program("curl", "curl"),
    Need::program("openssl", "openssl"),
    Need::program("graphviz", "dot"),
    Need::program("nodejs", "node"),
    Need::program("npm", "npm"),
    Need::program("strace", "strace"),
    Need::program("faketime", "faketime"),
];

/// For programs of 32 bits, where the machine runs them.
const MULTILIB: Need = Need::file("gcc-multilib", "/usr/include/asm");

/// What only their long version starts: a browser.
const FULL_TEST_NEEDS: [Need; 1] = [Need::program("chromium", "chromium")];

/// Grafana's published types, and the compiler that holds our dashboards against them.
const GRAFANA_TYPES: [(&str, &str); 2] = [("@grafana/schema", "13.2.3"), ("typescript", "5.9.3")];

#[derive(Args, Clone, Copy)]
pub struct Options {
    /// Also what the tests use: perf, bpftool, prometheus, graphviz, python3, a C compiler, Grafana's types
    #[arg(long)]
    tests: bool,
    /// Also what `lint` uses: clippy for the eBPF compiler, cargo-deny
    #[arg(long)]
    lint: bool,
}

/// The verb.
pub fn run(workspace: &Workspace, options: Options) -> Result<()> {
    let toolchain = toolchain()?;
    let Toolchain { compiler, linker } = &toolchain;
    say(&format!(
        "eBPF compiler: rustc {} (LLVM {}) in {}",
        compiler.release,
        compiler.llvm,
        compiler.bin.display()
    ));
    say(&format!("eBPF linker: {}", linker.path.display()));
    if options.tests {
        tests(workspace)?;
    }
    if options.lint {
        lint(&toolchain)?;
    }
    Ok(())
}

/// The eBPF toolchain, installed if need be.
pub fn toolchain() -> Result<Toolchain> {
    if let Some(toolchain) = Toolchain::find()? {
        return Ok(toolchain);
    }
    let apt = Apt::find();
    if usable_compilers()?.is_empty() {
        install_compiler(apt.as_ref())?;
    }
    if Toolchain::find()?.is_none() {
        install_linker(apt.as_ref(), &usable_compilers()?)?;
    }
    Toolchain::find()?.context(
        "no eBPF toolchain although its parts are installed: bpf-linker's LLVM must be at least as new as rustc's; \
         update bpf-linker",
    )
}

/// What the tests need beyond the build.
pub fn tests(workspace: &Workspace) -> Result<()> {
    packages::ensure(&TEST_NEEDS)?;
    if cfg!(target_arch = "x86_64") {
        packages::ensure(&[MULTILIB])?;
    }
    if env::var_os("PROCPROBE_FULL").is_some_and(|value| value != "0") {
        packages::ensure(&FULL_TEST_NEEDS)?;
    }
    prometheus(workspace)?;
    grafana(workspace)
}

/// What `lint` needs beyond the build.
pub fn lint(toolchain: &Toolchain) -> Result<()> {
    if !toolchain.compiler.bin.join("cargo-clippy").exists() {
        if !toolchain.compiler.bin.starts_with("/usr") {
            bail!(
                "no clippy in {}: `rustup component add clippy`",
                toolchain.compiler.bin.display()
            );
        }
        let apt = Apt::find().context("no clippy for the eBPF compiler and no apt or root to install it")?;
        let web = apt.has(&["rust-web-clippy"])?;
        apt.install(&[if web { "rust-web-clippy" } else { "rust-clippy" }])?;
    }
    deny()
}

/// What `dist` needs to list what the binary is made of.
pub fn sbom() -> Result<()> {
    if !is_installed("cargo-cyclonedx") {
        say(&format!(
            "installing cargo-cyclonedx {CARGO_CYCLONEDX} (cargo; takes some minutes)"
        ));
        cargo_install(
            &["cargo-cyclonedx", "--version", CARGO_CYCLONEDX, "--locked"],
            None,
        )?;
    }
    Ok(())
}

/// What reads advisories, licences and sources.
pub fn deny() -> Result<()> {
    if !is_installed("cargo-deny") {
        say("installing cargo-deny (cargo; takes some minutes)");
        cargo_install(&["cargo-deny", "--locked"], None)?;
    }
    Ok(())
}

/// The directory of Prometheus's binaries, if `tests` had to unpack them.
///
/// Unpacked, not installed: the package would start a server on a well-known port of the user's machine.
pub fn prometheus_bin(workspace: &Workspace) -> PathBuf {
    workspace.tools().join("prometheus/usr/bin")
}

fn prometheus(workspace: &Workspace) -> Result<()> {
    let programs = ["prometheus", "promtool"];
    let here =
        |name: &&str| packages::find_program(name).is_some() || prometheus_bin(workspace).join(name).exists();
    if programs.iter().all(here) {
        return Ok(());
    }
    let apt = Apt::find().context("no prometheus and promtool, and no apt or root: install them by hand")?;
    apt.unpack("prometheus", &workspace.tools().join("prometheus"))
}

/// Where Grafana's types and their compiler are.
pub fn grafana_types(workspace: &Workspace) -> PathBuf {
    workspace.tools().join("grafana")
}

fn grafana(workspace: &Workspace) -> Result<()> {
    let directory = grafana_types(workspace);
    let here = |(name, version): &(&str, &str)| {
        let manifest = directory.join("node_modules").join(name).join("package.json");
        std::fs::read_to_string(manifest)
            .is_ok_and(|text| text.contains(&format!("\"version\": \"{version}\"")))
    };
    if GRAFANA_TYPES.iter().all(here) {
        return Ok(());
    }
    say("installing Grafana's types and typescript (npm)");
    let mut npm = Command::new("npm");
    npm.args([
        "install",
        "--no-save",
        "--no-audit",
        "--no-fund",
        "--ignore-scripts",
        "--prefix",
    ])
    .arg(&directory)
    .args(GRAFANA_TYPES.map(|(name, version)| format!("{name}@{version}")));
    process::run_quietly(&mut npm).context("installing what the dashboards are checked with")
}

/// Compilers whose bitcode some bpf-linker that can be built here would read.
fn usable_compilers() -> Result<Vec<Compiler>> {
    Ok(Compiler::find_all()?
        .into_iter()
        .filter(|compiler| compiler.llvm <= *LINKER_LLVMS.end())
        .collect())
}

fn install_compiler(apt: Option<&Apt>) -> Result<()> {
    say("no rustc that has its library's source (rust-src), which the eBPF target needs");
    if let Some(apt) = apt {
        for set in COMPILER_SETS {
            let [compiler, ..] = set;
            let recent = apt
                .candidate(compiler)?
                .is_some_and(|it| at_least(&it, env!("CARGO_PKG_RUST_VERSION")));
            if recent && apt.has(&set)? {
                return apt.install(&set);
            }
        }
    }
    install_rust_src()
}

/// The active toolchain's own source is a small download; a whole nightly is the second choice.
fn install_rust_src() -> Result<()> {
    let rustup = which::which("rustup").context(
        "no rustc with rust-src, no suitable packages and no rustup: install rustup, or a rustc and its source",
    )?;
    let attempts: [&[&str]; 2] = [
        &["component", "add", "rust-src"],
        &[
            "toolchain",
            "install",
            "nightly",
            "--profile",
            "minimal",
            "--component",
            "rust-src",
        ],
    ];
    for arguments in attempts {
        say(&format!("trying rustup {}", arguments.join(" ")));
        match process::run_within(Command::new(&rustup).args(arguments), Duration::from_secs(300)) {
            Ok(()) if !usable_compilers()?.is_empty() => return Ok(()),
            Ok(()) => say("that compiler's LLVM is newer than any bpf-linker's"),
            Err(error) => say(&format!("{error:#}")),
        }
    }
    bail!(
        "no rustc with rust-src could be installed: run `rustup component add rust-src` where the network allows it"
    )
}

fn install_linker(apt: Option<&Apt>, compilers: &[Compiler]) -> Result<()> {
    let wanted = compilers
        .iter()
        .map(|compiler| compiler.llvm)
        .min()
        .context("no usable eBPF compiler")?;
    say(&format!("no bpf-linker that reads LLVM {wanted} bitcode"));
    let Some(apt) = apt else {
        bail!(
            "bpf-linker has to be built against LLVM {wanted} or newer, and there is no apt or root to install \
             that with: install bpf-linker {BPF_LINKER} by hand"
        );
    };
    for llvm in wanted.max(*LINKER_LLVMS.start())..=*LINKER_LLVMS.end() {
        let (dev, polly) = (format!("llvm-{llvm}-dev"), format!("libpolly-{llvm}-dev"));
        if apt.has(&[&dev, &polly])? {
            apt.install(&[&dev, &polly, "libzstd-dev", "zlib1g-dev", "g++"])?;
            say(&format!(
                "installing bpf-linker {BPF_LINKER} (cargo; takes about two minutes)"
            ));
            let feature = format!("llvm-{llvm}");
            let version = ["bpf-linker", "--version", BPF_LINKER, "--locked", "--force"];
            let features = ["--no-default-features", "--features", &feature];
            return cargo_install(&[&version[..], &features].concat(), Some(llvm));
        }
    }
    bail!(
        "no llvm-dev package between {wanted} and {}: install bpf-linker {BPF_LINKER} by hand",
        LINKER_LLVMS.end()
    )
}

/// Whether cargo finds a subcommand: on the path, or where it installs them.
fn is_installed(subcommand: &str) -> bool {
    packages::find_program(subcommand).is_some()
        || cargo_home().is_some_and(|home| home.join("bin").join(subcommand).exists())
}

/// `cargo install` by the host's cargo, untouched by this workspace's configuration.
fn cargo_install(arguments: &[&str], llvm: Option<u32>) -> Result<()> {
    let mut cargo = Command::new(cargo_program());
    environment::scrub(&mut cargo)
        .args(["install", "--quiet"])
        .args(arguments)
        .current_dir("/");
    cargo
        .env_remove("CARGO_TARGET_DIR")
        .env_remove("RUSTFLAGS")
        .env_remove("CARGO_ENCODED_RUSTFLAGS");
    if let Some(llvm) = llvm {
        cargo.env("LLVM_PREFIX", format!("/usr/lib/llvm-{llvm}"));
    }
    process::run_on_stderr(&mut cargo)
}
