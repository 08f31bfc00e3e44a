//! `CPython`'s global interpreter lock: a flag with a mutex and two condition variables of the C library
//! (`Python/ceval_gil.h`, `struct _gil_runtime_state`). They lie in the static `_PyRuntime`, which every
//! build exports; there are no other condition variables in it. Run against 3.11.
//!
//! Who waits there waits for another thread to let the interpreter go, or, having let it go, for another to
//! take it (`switch_cond`): both are contention, however few of the waits fall into a window.

use probe_ebpf::waiting::op;

use super::{Protocol, Role, Wait, glibc, unowned};
use crate::model::locks::Kind;

/// What people call it.
pub const GIL: &str = "the GIL";

/// What a wait inside `_PyRuntime` is for.
pub fn identify(wait: Wait<'_>) -> Protocol {
    if wait.call.op == op::WAIT_BITSET {
        return unowned(GIL, Kind::Mutex, Role::Lock);
    }
    glibc::identify(wait)
}
