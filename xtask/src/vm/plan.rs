//! Which of the live tests run in a guest, and why the others do not.

use anyhow::{Result, bail, ensure};
use clap::ValueEnum;

use crate::record::Table;

/// How many of them.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Tests {
    /// All that can run in a guest
    All,
    /// What depends on the kernel most, in minutes
    Core,
    /// None, only the checks of the guest's init
    None,
}

/// Tests that no guest runs. Each has to exist.
const LEFT_OUT: [(&str, &str); 8] = [
    (
        "browser::a_page_reads_nothing_whatever_its_name_leads_to",
        "needs a browser (300 MB), and judges what that lets through",
    ),
    (
        "dashboards::every_expression_returns_what_the_load_provokes",
        "needs Prometheus (120 MB), and judges its queries",
    ),
    (
        "prometheus::a_real_prometheus_scrapes_counters_that_only_grow",
        "needs Prometheus (120 MB), and judges its scrapes",
    ),
    (
        "graphs::graphviz_renders_who_waits_on_whom",
        "needs graphviz and its plugins, and judges a drawing",
    ),
    (
        "cgroups::no_memory_for_ledgers_is_counted",
        "needs memory cgroups of version 1; a guest has version 2, as Debian has",
    ),
    (
        "holders::a_holder_that_waits_for_the_disk_is_said_to",
        "needs a disk, which Debian's kernels have drivers for in modules",
    ),
    (
        "namer::functions_have_names_in_a_mount_namespace_with_layers",
        "needs overlayfs, which Debian's kernels have in a module, and programs with their symbols",
    ),
    (
        "common::exposition::samples_are_read_with_whatever_their_labels_hold",
        "a unit test of the tests, which no kernel changes",
    ),
];

/// Programs that judge a text at the end of a test which runs without them.
pub const WITHOUT: [&str; 2] = ["promtool", "dot"];

/// What a test may say that it leaves out: the test, and what the line has to hold.
const MAY_SKIP: [(&str, &str); 6] = [
    (
        "graphs::mermaid_of_who_waits_on_whom_is_well_formed",
        "no dot on the path",
    ),
    ("graphs::a_drawing_of_nothing_is_one_too", "no dot on the path"),
    ("lock_metrics::", "no promtool on the path"),
    ("names::", "no promtool on the path"),
    ("prometheus::every_metric", "no promtool on the path"),
    // futex_wait(2) came with 6.7.
    ("futex_doors::", "the kernel has no such system call"),
];

/// What [`Tests::Core`] is, by name: what reads the structures of the kernel and of threads. The init's own checks have the
/// tree, zombies, exact switches and times already.
const CORE: [&str; 9] = [
    "attribution::waits_for_a_pthread_mutex_are_put_down_to_its_owner",
    "attribution::waits_for_a_mutex_that_lends_priority_are_put_down_to_its_owner",
    "deadlocks::a_cycle_across_processes_is_found",
    "deaths::a_death_comes_with_its_reason_and_its_killer",
    "futex_doors::futexes_are_seen_behind_every_system_call",
    "idle::sleeping_consumers_of_glibc_are_not_contention",
    "orphans::a_daemon_has_lost_the_parent_that_forked_it",
    "privilege::as_that_user_it_does_what_it_did_as_root",
    "units::the_unit_of_a_process_is_that_of_its_cgroup",
];

/// Whether a test may say this about what it left out.
pub fn may_skip(test: &str, why: &str) -> bool {
    MAY_SKIP
        .iter()
        .any(|(name, line)| test.starts_with(name) && why.contains(line))
}

/// What no guest runs, for the page.
pub fn left_out() -> Table {
    let mut table = Table::new(&["LEFT OUT IN EVERY GUEST", "BECAUSE IT"]);
    for (test, why) in LEFT_OUT {
        table.row(vec![format!("`{test}`"), why.to_owned()]);
    }
    table
}

/// What runs, and what does not.
#[derive(Clone, Default)]
pub struct Plan {
    pub run: Vec<String>,
    /// How many do not.
    pub left_out: usize,
}

impl Plan {
    pub fn make(all: &[String], tests: Tests, only: &[String]) -> Result<Self> {
        let known = |name: &str| all.iter().any(|test| test.starts_with(name));
        let mentioned = LEFT_OUT.iter().chain(&MAY_SKIP).map(|(name, _)| *name);
        if let Some(gone) = mentioned.chain(CORE).find(|name| !known(name)) {
            bail!("there is no test {gone} any more: xtask/src/vm/plan.rs names it");
        }
        let is_left_out = |test: &str| LEFT_OUT.iter().any(|(name, _)| *name == test);
        let is_wanted = |test: &str| {
            let of_suite = tests == Tests::All || CORE.iter().any(|name| test.starts_with(name));
            of_suite && (only.is_empty() || only.iter().any(|part| test.contains(part.as_str())))
        };
        let run: Vec<String> = all
            .iter()
            .filter(|test| !is_left_out(test) && is_wanted(test))
            .cloned()
            .collect();
        ensure!(
            !run.is_empty(),
            "no live test is called that, or none that can run in a guest"
        );
        Ok(Self {
            left_out: all.len() - run.len(),
            run,
        })
    }

    /// A name per line.
    pub fn text(&self) -> String {
        self.run.join("\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn everything() -> Vec<String> {
        let named = LEFT_OUT.iter().chain(&MAY_SKIP).map(|(name, _)| *name);
        let more = ["deaths::another"];
        let all = named.chain(CORE).chain(more);
        all.map(str::to_owned).collect()
    }

    #[test]
    fn what_is_left_out_has_to_exist() {
        let all = everything();
        let plan = Plan::make(&all, Tests::All, &[]).unwrap();
        assert!(plan.run.len() == all.len() - LEFT_OUT.len());
        assert!(
            plan.run
                .iter()
                .all(|test| LEFT_OUT.iter().all(|(name, _)| name != test))
        );
        let without_one = &all[1..];
        let error = Plan::make(without_one, Tests::All, &[])
            .err()
            .unwrap()
            .to_string();
        assert!(error.contains(LEFT_OUT[0].0), "{error}");
    }

    #[test]
    fn the_core_is_a_part_and_a_name_chooses_among_it() {
        let all = everything();
        let core = Plan::make(&all, Tests::Core, &[]).unwrap();
        assert_eq!(core.run.len(), CORE.len());
        let one = Plan::make(&all, Tests::All, &["another".to_owned()]).unwrap();
        assert_eq!(one.run, ["deaths::another"]);
        assert!(Plan::make(&all, Tests::Core, &["another".to_owned()]).is_err());
    }

    #[test]
    fn only_what_is_listed_may_be_skipped() {
        assert!(may_skip(
            "names::x",
            "promtool check: no promtool on the path (…)"
        ));
        assert!(!may_skip("names::x", "no cgroup hierarchy is mounted"));
        assert!(!may_skip("units::x", "no promtool on the path"));
    }
}
