//! `cargo xtask vm test`: the agent on other kernels than this host's.
//!
//! Real Debian kernels boot in QEMU with a static init and the static agent in their initramfs; the init
//! (`src/bin/guest-init`) runs its checks, then the live tests of this host (`plan.rs` says which), and tells on the
//! console how they went. No modules but what tests need, no disk, no network.

mod accel;
mod archive;
mod initramfs;
mod kernels;
mod live;
mod plan;
mod qemu;
mod results;
mod userland;
mod verdict;

use std::path::PathBuf;

use anyhow::{Context, Result, bail, ensure};
use clap::{Args, Subcommand};

use crate::{
    packages::{self, Need},
    process::say,
    record,
    workspace::Workspace,
};
use kernels::Kernel;
pub use kernels::mirror;
use live::Live;
use plan::{Plan, Tests};
use verdict::Report;

#[derive(Subcommand)]
pub enum Vm {
    /// Boot Debian kernels in QEMU, run the checks and the live tests there, and print a table of how they went
    Test(Options),
}

#[derive(Args)]
pub struct Options {
    /// A version such as 6.1, or "latest"; may be given more than once
    #[arg(long = "kernel", value_name = "VERSION", default_values = ["5.10", "6.1", "6.12", "6.16", "latest"])]
    kernels: Vec<String>,
    /// Boot with lockdown=confidentiality
    #[arg(long)]
    lockdown: bool,
    /// How many of the live tests
    #[arg(long, value_name = "HOW_MANY", default_value = "all")]
    live: Tests,
    /// Only live tests whose name has this in it; may be given more than once
    #[arg(long = "test", value_name = "NAME")]
    only: Vec<String>,
    /// Write these kernels' rows into docs/verification.md
    #[arg(long, conflicts_with_all = ["only", "live"])]
    record: bool,
}

const NEEDS: [Need; 3] = [
    Need::program("qemu-system-x86", "qemu-system-x86_64"),
    Need::program("gzip", "gzip"),
    Need::program("dpkg", "dpkg-deb"),
];

/// The verb.
pub fn run(workspace: &Workspace, Vm::Test(options): Vm) -> Result<()> {
    let (rows, paths) = boot_all(workspace, &options)?;
    print!("{}", verdict::table(&rows).text());
    if options.live != Tests::None {
        print!("\n{}", plan::left_out().text());
    }
    if options.record {
        write_down(workspace, &rows, options.lockdown)?;
    }
    judge(&rows, &paths)
}

/// Puts the table into the documentation; kernels that were not booted this time keep their rows.
fn write_down(workspace: &Workspace, rows: &[Row], lockdown: bool) -> Result<()> {
    let (place, flag) = if lockdown {
        ("vm-lockdown", " --lockdown")
    } else {
        ("vm", "")
    };
    let mut table = verdict::table(rows);
    let standing = record::standing(workspace, record::VERIFICATION, place)?;
    table.keep(&standing, kernels::line);
    let command = format!("cargo xtask vm test{flag}");
    record::put(
        workspace,
        record::VERIFICATION,
        place,
        &command,
        &table.markdown(),
    )?;
    if lockdown {
        return Ok(());
    }
    let left_out = plan::left_out().markdown();
    record::put(
        workspace,
        record::VERIFICATION,
        "vm-left-out",
        &command,
        &left_out,
    )
}

/// The checks and the core of the live tests on these kernels, as part of all tests.
pub fn test(workspace: &Workspace, kernels: &[&str]) -> Result<()> {
    let options = Options {
        kernels: kernels.iter().map(|&kernel| kernel.to_owned()).collect(),
        lockdown: false,
        live: Tests::Core,
        only: Vec::new(),
        record: false,
    };
    let (rows, paths) = boot_all(workspace, &options)?;
    eprint!("{}", verdict::table(&rows).text());
    judge(&rows, &paths)
}

/// Boots each kernel in turn; also says where their transcripts are.
fn boot_all(workspace: &Workspace, options: &Options) -> Result<(Vec<Row>, Paths)> {
    ensure!(
        cfg!(target_arch = "x86_64"),
        "the guests are x86-64, and so has to be this host"
    );
    packages::ensure(&NEEDS)?;
    if options.live != Tests::None {
        packages::ensure(&userland::NEEDS)?;
    }
    let paths = Paths::of(workspace);
    let kernels = kernels::fetch(&paths, &options.kernels)?;
    let base = initramfs::build(workspace, &paths)?;
    let newest = kernels.last().context("no kernel was asked for")?;
    let accelerator = accel::choose(newest, &base, &paths);
    let live = Live::prepare(workspace, options.live, &options.only, accelerator)?;
    let initramfs = match &live {
        Some(live) => initramfs::with_live(&base, live, &paths)?,
        None => base,
    };
    let machine = qemu::Machine {
        initramfs,
        accelerator,
        logs: paths.logs.clone(),
    };
    let plan = live.map(|live| live.plan).unwrap_or_default();
    let mut rows = Vec::new();
    for kernel in &kernels {
        let own = qemu::Machine {
            initramfs: initramfs::with_modules(&machine.initramfs, kernel, &paths)?,
            ..machine.clone()
        };
        rows.push(boot(&own, kernel, &plan, options.lockdown));
    }
    Ok((rows, paths))
}

fn judge(rows: &[Row], paths: &Paths) -> Result<()> {
    let failed: Vec<&str> = rows
        .iter()
        .filter(|row| !row.report.passed())
        .map(|row| row.kernel.as_str())
        .collect();
    if !failed.is_empty() {
        bail!(
            "failed on {}; the consoles' transcripts are in {}",
            failed.join(", "),
            paths.logs.display()
        );
    }
    Ok(())
}

/// What came of one kernel.
pub struct Row {
    kernel: String,
    report: Report,
}

/// Boots one kernel. Whatever goes wrong is this kernel's row; the others have their turn.
fn boot(machine: &qemu::Machine, kernel: &Kernel, plan: &Plan, lockdown: bool) -> Row {
    let mut words = Vec::new();
    let mut plan = plan.clone();
    if !kernel.supported() {
        words.push("procprobe.refused");
        plan = Plan::default();
    }
    if lockdown {
        words.push("lockdown=confidentiality");
    }
    let name = if lockdown {
        format!("{} locked down", kernel.release)
    } else {
        kernel.release.clone()
    };
    say(&format!("booting {name} for {} live tests", plan.run.len()));
    let report = machine
        .boot(kernel, &name, &words, &plan)
        .unwrap_or_else(|error| Report::broken(&plan, &error));
    for line in report.remarks().into_iter().chain(report.complaints()) {
        say(&format!("{name}: {line}"));
    }
    Row { kernel: name, report }
}

/// Where things are kept between runs.
struct Paths {
    /// Unpacked kernels.
    kernels: PathBuf,
    /// apt's view of the suites they come from.
    apt: PathBuf,
    /// What the guests boot.
    initramfs: PathBuf,
    /// The same with the live tests.
    live: PathBuf,
    /// Programs for the guests.
    stripped: PathBuf,
    /// What their consoles said.
    logs: PathBuf,
}

impl Paths {
    fn of(workspace: &Workspace) -> Self {
        let root = workspace.target.join("vm");
        Self {
            kernels: root.join("kernels"),
            apt: root.join("apt"),
            initramfs: root.join("initramfs.gz"),
            live: root.join("initramfs-live"),
            stripped: root.join("stripped"),
            logs: root.join("logs"),
        }
    }
}
