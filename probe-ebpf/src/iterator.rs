//! What the kernel passes to the programs of `iter/task`, the same for both.

use core::ffi::c_void;

use aya_ebpf::bindings::{seq_file, task_struct};

/// `struct bpf_iter_meta` and `struct bpf_iter__task`: fixed ABI, every member in its own 8 bytes.
#[repr(C)]
struct Meta {
    seq: *mut seq_file,
}

#[repr(C)]
struct Context {
    meta: *mut Meta,
    task: *mut task_struct,
}

/// The stream to write to, and the thread; null at the end of the walk.
///
/// # Safety
/// `ctx` is the argument of a program of `iter/task`.
#[inline(always)]
pub unsafe fn arguments(ctx: *mut c_void) -> (*mut seq_file, *mut task_struct) {
    let ctx: *const Context = ctx.cast();
    // SAFETY: the caller's promise.
    unsafe { ((*(*ctx).meta).seq, (*ctx).task) }
}
