//! `cargo xtask vm test`: the agent on other kernels than this host's.
//!
//! Real Debian kernels boot in QEMU with nothing but a static init and the static agent in their initramfs; the init
//! (`src/bin/guest-init`) runs the checks and says on the console how they went. No modules, no disk, no network.

mod accel;
mod initramfs;
mod kernels;
mod qemu;
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
use verdict::Report;

#[derive(Subcommand)]
pub enum Vm {
    /// Boot Debian kernels in QEMU, run the checks there, and print a table of how they went
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
    /// Write the table into docs/verification.md
    #[arg(long)]
    record: bool,
}

const NEEDS: [Need; 3] = [
    Need::program("qemu-system-x86", "qemu-system-x86_64"),
    Need::program("gzip", "gzip"),
    Need::program("dpkg", "dpkg-deb"),
];

/// The verb.
pub fn run(workspace: &Workspace, Vm::Test(options): Vm) -> Result<()> {
    let (rows, logs) = boot_all(workspace, &options.kernels, options.lockdown)?;
    let table = verdict::table(&rows);
    print!("{}", table.text());
    if options.record {
        let (place, flag) = if options.lockdown {
            ("vm-lockdown", " --lockdown")
        } else {
            ("vm", "")
        };
        let command = format!("cargo xtask vm test{flag}");
        record::put(
            workspace,
            record::VERIFICATION,
            place,
            &command,
            &table.markdown(),
        )?;
    }
    judge(&rows, &logs)
}

/// The checks on these kernels, as part of all tests.
pub fn test(workspace: &Workspace, kernels: &[&str]) -> Result<()> {
    let kernels: Vec<String> = kernels.iter().map(|&kernel| kernel.to_owned()).collect();
    let (rows, logs) = boot_all(workspace, &kernels, false)?;
    eprint!("{}", verdict::table(&rows).text());
    judge(&rows, &logs)
}

/// Boots each kernel in turn; also says where their transcripts are.
fn boot_all(workspace: &Workspace, wanted: &[String], lockdown: bool) -> Result<(Vec<Row>, PathBuf)> {
    ensure!(
        cfg!(target_arch = "x86_64"),
        "the guests are x86-64, and so has to be this host"
    );
    packages::ensure(&NEEDS)?;
    let kernels = kernels::fetch(&Paths::of(workspace), wanted)?;
    let initramfs = initramfs::build(workspace, &Paths::of(workspace))?;
    let newest = kernels.last().context("no kernel was asked for")?;
    let accelerator = accel::choose(newest, &initramfs, &Paths::of(workspace));
    let machine = qemu::Machine {
        initramfs,
        accelerator,
        logs: Paths::of(workspace).logs,
    };
    let rows = kernels.iter().map(|kernel| boot(&machine, kernel, lockdown));
    Ok((rows.collect(), machine.logs.clone()))
}

fn judge(rows: &[Row], logs: &std::path::Path) -> Result<()> {
    let failed: Vec<&str> = rows
        .iter()
        .filter(|row| !row.report.passed())
        .map(|row| row.kernel.as_str())
        .collect();
    if !failed.is_empty() {
        bail!(
            "failed on {}; the consoles' transcripts are in {}",
            failed.join(", "),
            logs.display()
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
fn boot(machine: &qemu::Machine, kernel: &Kernel, lockdown: bool) -> Row {
    let mut words = Vec::new();
    if !kernel.supported() {
        words.push("procprobe.refused");
    }
    if lockdown {
        words.push("lockdown=confidentiality");
    }
    let name = if lockdown {
        format!("{} locked down", kernel.release)
    } else {
        kernel.release.clone()
    };
    say(&format!("booting {name}"));
    let report = machine.boot(kernel, &name, &words).unwrap_or_else(Report::broken);
    for line in report.complaints() {
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
            logs: root.join("logs"),
        }
    }
}
