//! The kernel's own account of each eBPF program: how often it ran and for how long.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
    process::Command,
};

use anyhow::{Context, Result};
use serde::Deserialize;

use crate::{packages::find_program, process};

const STATS_ENABLED: &str = "/proc/sys/kernel/bpf_stats_enabled";

/// One program as `bpftool -j prog show` tells it. The counters are absent until statistics are on and it has run.
#[derive(Debug, Clone, Deserialize, PartialEq, Eq)]
pub struct Program {
    pub id: u32,
    #[serde(default)]
    pub name: String,
    #[serde(default)]
    pub run_time_ns: u64,
    #[serde(default)]
    pub run_cnt: u64,
}

/// What a program did between two looks.
#[derive(Debug, Clone, PartialEq)]
pub struct Cost {
    pub name: String,
    pub runs: u64,
    pub ns: u64,
}

impl Cost {
    /// Nanoseconds per run; none if it did not run.
    pub fn ns_per_run(&self) -> Option<f64> {
        (self.runs > 0).then(|| self.ns as f64 / self.runs as f64)
    }
}

/// Turns run-time statistics on, and back to what they were when dropped.
pub struct StatsOn {
    before: String,
}

impl StatsOn {
    pub fn new() -> Result<Self> {
        let before = fs::read_to_string(STATS_ENABLED).with_context(|| format!("reading {STATS_ENABLED}"))?;
        fs::write(STATS_ENABLED, "1").with_context(|| format!("writing 1 to {STATS_ENABLED}"))?;
        Ok(Self { before })
    }
}

impl Drop for StatsOn {
    fn drop(&mut self) {
        if let Err(error) = fs::write(STATS_ENABLED, &self.before) {
            process::say(&format!(
                "{STATS_ENABLED} stays at 1: {error}; it was {}",
                self.before.trim()
            ));
        }
    }
}

/// Every program in the kernel.
pub fn programs() -> Result<Vec<Program>> {
    let bpftool = find_program("bpftool").context("no bpftool: run `cargo xtask setup --tests`")?;
    parse(&process::output(
        Command::new(bpftool).args(["-j", "prog", "show"]),
    )?)
}

fn parse(json: &str) -> Result<Vec<Program>> {
    serde_json::from_str(json).context("reading `bpftool -j prog show`")
}

/// The programs that a process holds open, by id. Names do not tell: ours and a peer's are both `sched_switch`.
pub fn owned_by(pid: u32) -> Result<Vec<Program>> {
    let ids = owned_ids(Path::new("/proc"), pid)?;
    Ok(programs()?
        .into_iter()
        .filter(|program| ids.contains(&program.id))
        .collect())
}

fn owned_ids(proc: &Path, pid: u32) -> Result<BTreeSet<u32>> {
    let dir = proc.join(pid.to_string()).join("fdinfo");
    let entries = fs::read_dir(&dir).with_context(|| format!("reading {}", dir.display()))?;
    // A descriptor may be closed between the listing and the look; it then holds no program.
    let texts = entries
        .flatten()
        .filter_map(|entry| fs::read_to_string(entry.path()).ok());
    Ok(texts.filter_map(|text| prog_id(&text)).collect())
}

fn prog_id(fdinfo: &str) -> Option<u32> {
    fdinfo
        .lines()
        .find_map(|line| line.strip_prefix("prog_id:"))?
        .trim()
        .parse()
        .ok()
}

/// What each program did between the two looks, by name; programs that came or went in between are left out.
pub fn delta(before: &[Program], after: &[Program]) -> Vec<Cost> {
    let before: BTreeMap<u32, &Program> = before.iter().map(|program| (program.id, program)).collect();
    let costs = after.iter().filter_map(|now| {
        let then = before.get(&now.id)?;
        Some(Cost {
            name: now.name.clone(),
            runs: now.run_cnt.saturating_sub(then.run_cnt),
            ns: now.run_time_ns.saturating_sub(then.run_time_ns),
        })
    });
    costs.collect()
}

/// Adds the costs of another run, by name.
pub fn add(sums: &mut Vec<Cost>, more: Vec<Cost>) {
    for cost in more {
        match sums.iter_mut().find(|sum| sum.name == cost.name) {
            Some(sum) => {
                sum.runs += cost.runs;
                sum.ns += cost.ns;
            }
            None => sums.push(cost),
        }
    }
}

/// The sum of the named programs' nanoseconds per run; none unless every one of them ran.
pub fn sum_per_run(costs: &[Cost], names: &[&str]) -> Option<f64> {
    names
        .iter()
        .map(|name| costs.iter().find(|cost| cost.name == *name)?.ns_per_run())
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Captured from bpftool 7.1 while runqlat ran, cut to two programs, the second without statistics.
    const SHOW: &str = r#"[
        {"id":104,"type":"tracing","name":"sched_wakeup","tag":"d2546295a7eba15f","gpl_compatible":true,
         "run_time_ns":929216,"run_cnt":1484,"loaded_at":1795187378,"uid":0,"bytes_xlated":184,"jited":true,
         "bytes_jited":121,"bytes_memlock":4096,"map_ids":[30,26,27],"btf_id":24},
        {"id":107,"type":"tracing","name":"sched_switch","tag":"9a651ad7de8c19e8","gpl_compatible":true,
         "loaded_at":1795187378,"uid":0,"bytes_xlated":1688,"jited":true,"bytes_jited":958,"bytes_memlock":4096,
         "map_ids":[30,26,27,28,31],"btf_id":24}]"#;

    fn program(id: u32, name: &str, run_time_ns: u64, run_cnt: u64) -> Program {
        Program {
            id,
            name: name.to_owned(),
            run_time_ns,
            run_cnt,
        }
    }

    #[test]
    fn reads_programs_with_and_without_statistics() {
        let expected = [
            program(104, "sched_wakeup", 929_216, 1484),
            program(107, "sched_switch", 0, 0),
        ];
        assert_eq!(parse(SHOW).unwrap(), expected);
        assert_eq!(parse("[]").unwrap(), []);
    }

    #[test]
    fn delta_goes_by_id_not_name() {
        let before = [
            program(1, "sched_switch", 100, 1),
            program(2, "sched_switch", 1000, 10),
        ];
        let after = [
            program(2, "sched_switch", 3000, 20),
            program(3, "sched_switch", 7, 7),
        ];
        let costs = delta(&before, &after);
        assert_eq!(
            costs,
            [Cost {
                name: "sched_switch".into(),
                runs: 10,
                ns: 2000
            }]
        );
        assert_eq!(costs[0].ns_per_run(), Some(200.0));
    }

    #[test]
    fn a_program_that_did_not_run_has_no_cost_and_no_sum() {
        let idle = Cost {
            name: "sched_waking".into(),
            runs: 0,
            ns: 0,
        };
        let busy = Cost {
            name: "sched_switch".into(),
            runs: 2,
            ns: 300,
        };
        assert_eq!(idle.ns_per_run(), None);
        assert_eq!(
            sum_per_run(&[idle, busy.clone()], &["sched_switch", "sched_waking"]),
            None
        );
        assert_eq!(sum_per_run(&[busy], &["sched_switch"]), Some(150.0));
    }

    #[test]
    fn program_and_link_descriptors_both_name_the_program() {
        let link = "pos:\t0\nflags:\t02000002\nlink_type:\traw_tracepoint\nlink_id:\t9\nprog_id:\t107\n";
        assert_eq!(prog_id(link), Some(107));
        assert_eq!(prog_id("pos:\t0\nflags:\t0100000\nmnt_id:\t14\n"), None);
    }
}
