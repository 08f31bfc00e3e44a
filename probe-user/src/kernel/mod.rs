//! Everything that talks to the kernel's eBPF side.
//!
//! ```text
//! preflight ─▶ btf ─▶ offsets ─▶ load (programs, maps) ─▶ attach ─▶ live
//!                                  │
//!                                  ├─▶ snapshot   every thread, through the iterator
//!                                  ├─▶ memory     futexes of those that wait, through an iterator that may hang
//!                                  ├─▶ events     births and deaths, through the ring
//!                                  ├─▶ tables     waits by lock, by waiter and holder
//!                                  └─▶ cost       what our programs cost
//! ```
//!
//! What comes out are the plain records of [`probe_ebpf`]; making sense of them is [`crate::source`]'s job.

pub mod btf;
pub mod clock;
pub mod cost;
pub mod events;
pub mod hierarchy;
pub mod load;
pub mod load_error;
pub mod log;
pub mod memory;
pub mod offsets;
pub mod own_thread;
pub mod preflight;
pub mod privileges;
pub mod snapshot;
pub mod tables;

pub use load::Probe;
pub use load_error::LoadError;
