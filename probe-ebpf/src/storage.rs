//! `BPF_MAP_TYPE_TASK_STORAGE`, for which aya-ebpf has no wrapper yet (its pull request #1485 is open).
//!
//! The definition is what aya-ebpf's `btf_map_def!` would expand to; the agent loads it with
//! `EbpfLoader::allow_unsupported_maps()`.

use core::ffi::c_void;
use core::marker::PhantomData;
use core::ptr;

use aya_ebpf::bindings::{BPF_F_NO_PREALLOC, BPF_LOCAL_STORAGE_GET_F_CREATE, bpf_map_type};
use aya_ebpf::helpers::generated::bpf_task_storage_get;

use crate::task::Task;

/// A value of `T` for every thread, freed by the kernel with the thread.
#[repr(C)]
pub struct TaskStorage<T> {
    r#type: *const [i32; bpf_map_type::BPF_MAP_TYPE_TASK_STORAGE as usize],
    key: *const i32,
    value: *const T,
    max_entries: *const [i32; 0],
    map_flags: *const [i32; BPF_F_NO_PREALLOC as usize],
    marker: PhantomData<T>,
}

// SAFETY: the members are placeholders whose types tell the loader what to create; nothing dereferences them.
unsafe impl<T> Sync for TaskStorage<T> {}

impl<T> TaskStorage<T> {
    /// A map definition, for a static under `#[btf_map]`.
    pub const fn new() -> Self {
        Self {
            r#type: ptr::null(),
            key: ptr::null(),
            value: ptr::null(),
            max_entries: ptr::null(),
            map_flags: ptr::null(),
            marker: PhantomData,
        }
    }

    /// The thread's value, null if it has none.
    #[inline(always)]
    pub fn get(&self, task: Task) -> *mut T {
        self.lookup(task, 0)
    }

    /// The thread's value, made of zeros if it had none; null if there is no memory for it.
    ///
    /// Another CPU may create the same value at the same moment; the loser gets `-EEXIST` inside the kernel and null
    /// here (`bpf_local_storage_update` with `BPF_NOEXIST`), so it looks again.
    #[inline(always)]
    pub fn get_or_create(&self, task: Task) -> *mut T {
        let value = self.lookup(task, 0);
        if !value.is_null() {
            return value;
        }
        let value = self.lookup(task, u64::from(BPF_LOCAL_STORAGE_GET_F_CREATE));
        if !value.is_null() {
            return value;
        }
        self.lookup(task, 0)
    }

    /// The thread's value, made a copy of `first` if it had none; null if there is no memory, or if another CPU made it at
    /// the same moment. Exactly one caller finds its own `first` there.
    #[inline(always)]
    pub fn claim(&self, task: Task, first: &T) -> *mut T {
        let flags = u64::from(BPF_LOCAL_STORAGE_GET_F_CREATE);
        let map = ptr::from_ref(self).cast::<c_void>().cast_mut();
        // SAFETY: as in `lookup`; the kernel copies `first` before it publishes the value.
        unsafe {
            bpf_task_storage_get(map, task.as_ptr(), ptr::from_ref(first).cast_mut().cast(), flags).cast()
        }
    }

    #[inline(always)]
    fn lookup(&self, task: Task, flags: u64) -> *mut T {
        // SAFETY: `self` is a map (the loader replaces the address by its fd) and `task` a trusted BTF pointer; the
        // verifier checks both.
        unsafe {
            bpf_task_storage_get(
                ptr::from_ref(self).cast::<c_void>().cast_mut(),
                task.as_ptr(),
                ptr::null_mut(),
                flags,
            )
            .cast()
        }
    }
}
