//! Why the programs are not running, on one line.

use std::io;

use aya::EbpfError;
use aya::maps::MapError;
use aya::programs::ProgramError;
use thiserror::Error;

use super::btf::BtfError;
use super::load::BTF_PATH;

/// Why the programs are not running. Each message says what, why and what to do.
#[derive(Debug, Error)]
pub enum LoadError {
    /// Built by a plain `cargo build`.
    #[error(
        "this procprobe was built without its eBPF programs (build it with `cargo xtask build`; --source proc works without)"
    )]
    NoObject,
    /// The kernel has no type information.
    #[error(
        "cannot read {BTF_PATH}: {0} (the kernel needs CONFIG_DEBUG_INFO_BTF; --source proc works without)"
    )]
    NoBtf(io::Error),
    /// The kernel lacks something the programs use.
    #[error(
        "cannot use this kernel: {0} (procprobe needs 5.15 or newer with BTF; --source proc works without)"
    )]
    Kernel(#[from] BtfError),
    /// Preflight found a missing privilege.
    #[error(
        "cannot load eBPF programs: {0} (run it with sudo; `procprobe doctor` lists all; --source proc works without)"
    )]
    Privilege(String),
    /// The object was refused as a whole: maps, BTF.
    #[error("cannot load eBPF programs: {} (`procprobe doctor` lists what this host allows; --source proc works without)", chain(.0))]
    Object(#[from] EbpfError),
    /// One program was refused, or could not be attached.
    #[error("cannot {action} the eBPF program {program}: {} (nothing stays loaded; `procprobe doctor` lists what this host allows, -v shows the verifier's log; --source proc works without)", chain(.answer))]
    Program {
        /// "load" or "attach".
        action: &'static str,
        /// Which.
        program: &'static str,
        /// The kernel's answer. Not called `source`: the verifier's log, all of it, would then end the one line.
        answer: Box<ProgramError>,
    },
    /// A map the object should have cannot be used.
    #[error("cannot use the eBPF map {map}: {} (this is a defect of procprobe: please report it)", chain(.source))]
    Map {
        /// Which.
        map: &'static str,
        /// What aya says.
        source: Box<MapError>,
    },
    /// The object lacks a program or map of ours.
    #[error("the eBPF object has no {0} (this is a defect of procprobe: please report it)")]
    Missing(&'static str),
}

/// An error and what caused it, on one line.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = String::new();
    let mut next = Some(error);
    while let Some(error) = next {
        let message = error.to_string();
        if !text.contains(&message) {
            if !text.is_empty() {
                text.push_str(": ");
            }
            text.push_str(&one_line(&message));
        }
        next = error.source();
    }
    text
}

/// What newer verifiers explain at length follows this line; what is wrong is right before it.
const EXPLANATION: &str = "Verification failed";
/// What the verifier ends its log with, whatever was wrong.
const STATISTICS: [&str; 4] = ["verification time ", "stack depth ", "insns_", "processed "];

/// The verifier's log has many lines: the last one before its statistics says what is wrong.
fn one_line(message: &str) -> String {
    let lines: Vec<&str> = message
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty())
        .take_while(|line| !line.starts_with(EXPLANATION))
        .collect();
    let telling = |line: &&&str| !STATISTICS.iter().any(|start| line.starts_with(start));
    match (lines.as_slice(), lines.iter().rev().find(telling)) {
        ([first, ..], Some(last)) if lines.len() > 4 => format!("{first} … {last}"),
        (all, _) => all.join("; "),
    }
}

/// A map that aya could not use.
pub(super) fn map_error(map: &'static str, source: MapError) -> LoadError {
    LoadError::Map {
        map,
        source: Box::new(source),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_verifier_log_becomes_one_line() {
        let log = "the BPF_PROG_LOAD syscall failed\nlog:\n0: R1=ctx()\n1: (79) r6\n2: foo\nR6 invalid mem access\nverification time 3 usec\nstack depth 8\nprocessed 3 insns";
        assert_eq!(
            one_line(log),
            "the BPF_PROG_LOAD syscall failed … R6 invalid mem access"
        );
        let explained = log.replace(
            "verification time",
            "\nVerification failed: Type\n\nReason:\nverification time",
        );
        assert_eq!(one_line(&explained), one_line(log));
        assert_eq!(one_line("a\n b"), "a; b");
    }
}
