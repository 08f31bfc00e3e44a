//! The contract between the eBPF programs and the agent: every type, constant and rule that both sides must agree on.
//!
//! The programs (this crate's binary target, `src/main.rs`) write these records, the agent reads them. Nothing here
//! touches the kernel, so it is compiled and unit-tested on the host as well.
//!
//! | module | holds |
//! |---|---|
//! | [`state`] | the states of a thread and how the kernel's state bits map to them |
//! | [`histogram`] | the log2 buckets of durations |
//! | [`ledger`] | the account kept for every thread, in task storage |
//! | [`waiting`] | classes of what threads wait in, and the futex calls |
//! | [`lock`] | futex waits, and the tables they are added up in |
//! | [`record`] | what the snapshot iterator and the event ring carry |
//! | [`totals`] | per-CPU totals that survive a full ring |
//! | [`offsets`] | member offsets of kernel structures, filled in by the agent before loading |
#![no_std]

pub mod histogram;
pub mod ledger;
pub mod lock;
pub mod offsets;
pub mod record;
pub mod state;
pub mod totals;
pub mod waiting;
