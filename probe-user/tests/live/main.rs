//! Black-box tests: the binary against small workloads whose truth is known, in the kernel that runs.
//!
//! They run the binary that `PROCPROBE_BIN` names, as root. Where that cannot be, each prints one line and passes,
//! unless `PROCPROBE_LIVE=required` (see `cargo xtask test`). One test program, and one test at a time: they all
//! measure the same machine. `PROCPROBE_FULL=1` asks for the long version: 30,000 threads, 20,000 processes, 600,000
//! forks at once, 120 kills, half a minute stopped, a minute of Prometheus, ten minutes of scripts.
#![expect(clippy::expect_used, clippy::panic, reason = "helpers of tests fail the test")]
#![expect(
    clippy::cast_possible_truncation,
    clippy::format_push_string,
    clippy::similar_names,
    reason = "durations of tests fit; `live` and `line`, `least` and `last` are far enough apart"
)]

mod attribution;
mod browser;
mod cgroups;
mod churn;
mod clocks;
mod common;
mod crowd;
mod dashboards;
mod deadlocks;
mod deaths;
mod doors;
mod errors;
mod events;
mod exact;
#[expect(
    dead_code,
    reason = "read whole, for what the tests of the files themselves ask as well"
)]
#[path = "../dashboards/expressions.rs"]
mod expressions;
mod faults;
mod frozen;
mod futex_doors;
mod graphs;
mod held;
mod holders;
mod hostile;
mod http;
mod idle;
mod leftovers;
mod load;
mod lock_limits;
mod lock_metrics;
mod many;
mod metric_graphs;
mod namer;
mod names;
mod namespaces;
mod orphans;
mod privilege;
mod prometheus;
mod refused;
mod reuse;
mod service;
mod sick;
mod states;
mod storm;
mod tree;
mod trial;
mod unit_limits;
mod units;
mod web;
mod zombies;
