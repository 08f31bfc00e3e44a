//! Member offsets of kernel structures.
//!
//! rustc emits no CO-RE relocations, so the agent reads the offsets from `/sys/kernel/btf/vmlinux` and writes them into
//! the object's `.rodata` before it is loaded. `.rodata` is frozen by then, so the verifier knows every offset as a
//! constant, accepts loads through BTF-typed pointers, and does not even look at branches that a `false` here kills.

use bytemuck::{Pod, Zeroable};

/// Offset of a member this kernel does not have. Only optional members may be absent; the agent refuses to load
/// without the others.
pub const ABSENT: u32 = u32::MAX;

macro_rules! offsets {
    ($($(#[$doc:meta])* $name:ident),+ $(,)?) => {
        /// Byte offsets from the start of the structure each name begins with.
        #[derive(Clone, Copy, Debug, Pod, Zeroable)]
        #[repr(C)]
        pub struct Offsets { $($(#[$doc])* pub $name: u32),+ }

        impl Offsets {
            /// All members absent: what the object holds until the agent fills it in.
            pub const ABSENT: Self = Self { $($name: ABSENT),+ };
        }
    };
}

offsets! {
    /// `task_struct.__state` (5.14 and newer, and backports) or `state`.
    task_state,
    /// `task_struct.flags`
    task_flags,
    /// `task_struct.exit_state`
    task_exit_state,
    /// `task_struct.exit_code`
    task_exit_code,
    /// `task_struct.pid`, which is the tid.
    task_pid,
    /// `task_struct.tgid`, which is the pid.
    task_tgid,
    /// `task_struct.real_parent`
    task_real_parent,
    /// `task_struct.parent`: the tracer, of a traced thread.
    task_parent,
    /// `task_struct.group_leader`
    task_group_leader,
    /// `task_struct.thread_pid`
    task_thread_pid,
    /// `task_struct.start_time`: CLOCK_MONOTONIC.
    task_start_time,
    /// `task_struct.start_boottime`: CLOCK_BOOTTIME.
    task_start_boottime,
    /// `task_struct.comm`
    task_comm,
    /// `task_struct.signal`
    task_signal,
    /// `task_struct.cgroups`
    task_cgroups,
    /// `task_struct.ptrace`
    task_ptrace,
    /// `task_struct.real_cred`
    task_real_cred,
    /// `task_struct.static_prio`
    task_static_prio,
    /// `task_struct.policy`
    task_policy,
    /// `task_struct.nvcsw`
    task_nvcsw,
    /// `task_struct.nivcsw`
    task_nivcsw,
    /// `task_struct.on_cpu`: 0 or 1, in four bytes or in one.
    task_on_cpu,
    /// `task_struct.se.exec_start`
    task_exec_start,
    /// `task_struct.se.sum_exec_runtime`
    task_sum_exec_runtime,
    /// `task_struct.sched_info.last_arrival` (optional: `CONFIG_SCHED_INFO`)
    task_last_arrival,
    /// `task_struct.sched_info.last_queued` (optional: `CONFIG_SCHED_INFO`)
    task_last_queued,
    /// `task_struct.sched_info.run_delay` (optional: `CONFIG_SCHED_INFO`)
    task_run_delay,
    /// `signal_struct.live`
    signal_live,
    /// `signal_struct.nr_threads`
    signal_nr_threads,
    /// `signal_struct.flags`
    signal_flags,
    /// `signal_struct.group_exit_code`
    signal_group_exit_code,
    /// `signal_struct.pids`: an array of pointers by `enum pid_type`.
    signal_pids,
    /// The byte of `signal_struct` that holds the bit `is_child_subreaper`.
    signal_subreaper_byte,
    /// That bit.
    signal_subreaper_mask,
    /// `kernel_siginfo.si_code`
    siginfo_code,
    /// `cred.euid`
    cred_euid,
    /// `css_set.dfl_cgrp` (optional: no cgroups, no units)
    css_set_dfl_cgrp,
    /// `css_set.subsys[pids_cgrp_id]`, if the pids controller is on a hierarchy of version 1; else absent.
    css_set_v1,
    /// `cgroup_subsys_state.cgroup` (with the one above)
    css_cgroup,
    /// `cgroup.kn`
    cgroup_kn,
    /// `kernfs_node.id`
    kernfs_node_id,
    /// `pid.level`
    pid_level,
    /// `pid.numbers`
    pid_numbers,
    /// `sizeof(struct upid)`
    upid_size,
    /// `upid.nr`
    upid_nr,
    /// `pt_regs`: the system call number (`orig_ax`; `syscallno` on arm64).
    regs_syscall,
    /// `pt_regs`: its first argument (`di`; `regs[0]`).
    regs_arg0,
    /// `pt_regs`: its second argument (`si`; `regs[1]`).
    regs_arg1,
    /// `pt_regs`: its third argument (`dx`; `regs[2]`).
    regs_arg2,
    /// `pt_regs`: its fourth argument (`r10`; `regs[3]`).
    regs_arg3,
    /// `pt_regs`: its fifth argument (`r8`; `regs[4]`).
    regs_arg4,
    /// `pt_regs`: the first argument of a 32-bit call (`bx`; absent where it is the same).
    regs_compat_arg0,
    /// `pt_regs`: its second argument (`cx`).
    regs_compat_arg1,
    /// `pt_regs`: instruction pointer, stack pointer, frame pointer in user space.
    regs_ip,
    /// See [`Self::regs_ip`].
    regs_sp,
    /// See [`Self::regs_ip`].
    regs_bp,
    /// `pt_regs.r15`, followed by r14, r13 and r12 (absent elsewhere than on x86).
    regs_saved,
    /// `task_struct.thread_info.status` (x86: `TS_COMPAT`; absent elsewhere).
    task_thread_status,
    /// `task_struct.mm`
    task_mm,
    /// `mm_struct.context.ctx_id` (x86: a number that no address space has after another; absent elsewhere).
    mm_context_id,
    /// `task_struct.self_exec_id`
    task_self_exec_id,
    /// `task_struct.parent_exec_id`
    task_parent_exec_id,
    /// `upid.ns`
    upid_ns,
    /// `task_struct.clear_child_tid`: the word that the kernel clears and wakes when the thread ends.
    task_clear_child_tid,
    /// `task_struct.restart_block.futex.uaddr`: what `restart_syscall(2)` waits at, if it goes on with a futex wait (with the two below).
    restart_futex_address,
    /// `task_struct.restart_block.futex.val`
    restart_futex_value,
    /// `task_struct.restart_block.futex.bitset`
    restart_futex_bitset,
    /// 1 if there is `bpf_copy_from_user_task` (5.18 and newer), else 0.
    has_copy_from_user_task,
    /// 1 if `mark_victim` passes the task (6.8 and newer) and not its pid, else 0.
    victim_is_task,
    /// 1 if the programs may use `bpf_probe_read_user`. aya turns it into the old `bpf_probe_read` where the kernel
    /// refuses `bpf_probe_read_kernel`, and a kernel that is locked down for confidentiality refuses both of the latter:
    /// there the word of a futex is read another way, byte by byte.
    has_read_user,
    /// 1 if `sched_switch` passes `prev_state` as its fourth argument (5.18 and newer), else 0.
    switch_has_prev_state,
    /// The byte of `task_struct` that holds the bit `frozen` (optional: `CONFIG_CGROUPS`)
    task_frozen_byte,
    /// That bit.
    task_frozen_mask,
    /// `task_struct.jobctl` (with the one above)
    task_jobctl,
    /// `mm_struct.mmap_lock.count`: 1 a writer, 2 somebody waits, 4 is being handed over, 0x100 for each
    /// reader (optional: real-time kernels have another lock).
    mm_lock_count,
    /// `vm_area_struct.vm_start`
    vma_start,
    /// `vm_area_struct.vm_end`
    vma_end,
    /// `vm_area_struct.vm_file`
    vma_file,
    /// `file.f_inode`
    file_inode,
    /// `inode.i_sb`
    inode_sb,
    /// `super_block.s_magic`
    sb_magic,
    /// `super_block.s_bdev`
    sb_bdev,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_member_starts_absent() {
        let words: &[u32] = bytemuck::cast_slice(bytemuck::bytes_of(&Offsets::ABSENT));
        assert!(words.iter().all(|&word| word == ABSENT));
    }
}
