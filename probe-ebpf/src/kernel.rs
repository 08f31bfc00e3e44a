//! Where members of the kernel's structures lie on this kernel, and what else differs between kernels.
//!
//! All loads are direct, through BTF-typed pointers at offsets the verifier knows (see [`probe_ebpf::offsets`]). A bad
//! pointer on the way reads as zero (the kernel's fault handler sees to that), it does not fault.

use core::ffi::c_void;
use core::ptr;

use probe_ebpf::offsets::Offsets;

/// Filled in by the agent before loading; frozen afterwards.
#[unsafe(no_mangle)]
pub static OFFSETS: Offsets = Offsets::ABSENT;

/// The offset of a member, read so that the compiler cannot assume the value in this file.
macro_rules! offset {
    ($name:ident) => {
        // SAFETY: a static of plain integers.
        unsafe { ::core::ptr::read_volatile(&raw const $crate::kernel::OFFSETS.$name) }
    };
}
pub(crate) use offset;

/// A member of a structure.
#[inline(always)]
pub fn load<T: Copy>(base: *const c_void, offset: u32) -> T {
    // SAFETY: a load through a BTF pointer at a constant offset; the verifier checks that it lies inside a member.
    unsafe { ptr::read_volatile(base.cast::<u8>().add(offset as usize).cast()) }
}

/// Whether user memory may be read by `bpf_probe_read_user`. A constant to the verifier, which skips the other branch.
#[inline(always)]
pub fn has_read_user() -> bool {
    offset!(has_read_user) == 1
}

/// Whether `sched_switch` has its fourth argument. A constant to the verifier, which skips the other branch.
#[inline(always)]
pub fn switch_has_prev_state() -> bool {
    offset!(switch_has_prev_state) == 1
}

/// Whether `mark_victim` passes the task. A constant to the verifier, which skips the other branch.
#[inline(always)]
pub fn victim_is_task() -> bool {
    offset!(victim_is_task) == 1
}

/// Whether memory of other processes can be read. A constant to the verifier.
#[inline(always)]
pub fn has_copy_from_user_task() -> bool {
    offset!(has_copy_from_user_task) == 1
}
