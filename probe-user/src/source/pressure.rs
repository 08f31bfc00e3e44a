//! Pressure stall information: how long work stood still for want of CPU, memory or disk, as the kernel
//! counts it for the whole host (Documentation/accounting/psi.rst, from 4.20 on, with `CONFIG_PSI`).

use std::fs;
use std::path::Path;
use std::time::Duration;

/// What there may be too little of, as the kernel names the files. `irq` has no `some` line.
pub const RESOURCES: [&str; 4] = ["cpu", "memory", "io", "irq"];

/// How the kernel names the lines of such a file.
pub const KINDS: [&str; 2] = ["some", "full"];

/// How long threads stood still for want of one thing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pressure {
    /// `cpu`, `memory`, `io` or `irq`.
    pub resource: &'static str,
    /// `some`: at least one thread; `full`: all that were not idle.
    pub kind: &'static str,
    /// Since the host started.
    pub total: Duration,
}

/// All that the kernel tells; nothing where it counts nothing, or was told not to (`psi=0`).
pub fn read(proc_root: &Path) -> Vec<Pressure> {
    let read = |&resource: &&'static str| {
        let text = fs::read_to_string(proc_root.join("pressure").join(resource)).unwrap_or_default();
        parse(resource, &text)
    };
    RESOURCES.iter().flat_map(read).collect()
}

fn parse(resource: &'static str, text: &str) -> Vec<Pressure> {
    let line = |line: &str| {
        let mut words = line.split(' ');
        let kind = words.next()?;
        let kind = KINDS.into_iter().find(|&known| known == kind)?;
        let total = words.find_map(|word| word.strip_prefix("total="))?;
        Some(Pressure {
            resource,
            kind,
            total: Duration::from_micros(total.parse().ok()?),
        })
    };
    text.lines().filter_map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn totals_are_microseconds() {
        let text = "some avg10=0.00 avg60=0.12 avg300=0.05 total=1500000\n\
                    full avg10=0.00 avg60=0.00 avg300=0.00 total=250\nnew total=1\n";
        let told = |kind, micros| Pressure {
            resource: "io",
            kind,
            total: Duration::from_micros(micros),
        };
        assert_eq!(parse("io", text), [told("some", 1_500_000), told("full", 250)]);
        assert!(parse("cpu", "").is_empty() && parse("cpu", "some total=x").is_empty());
    }
}
