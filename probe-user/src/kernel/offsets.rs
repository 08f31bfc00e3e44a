//! Resolves every member offset the programs use from the running kernel's BTF.
//!
//! A missing mandatory member is an error that names it; an offset is never guessed and never 0 by default.

use probe_ebpf::offsets::{ABSENT, Offsets};

use super::btf::{Btf, BtfError};

/// Members of `pt_regs` that hold the system call number, its first five arguments, and the instruction, stack and frame
/// pointer; where arm64 keeps its registers in one array, with the index.
#[cfg(target_arch = "x86_64")]
const REGISTERS: [(&str, u32); 9] = [
    ("orig_ax", 0),
    ("di", 0),
    ("si", 0),
    ("dx", 0),
    ("r10", 0),
    ("r8", 0),
    ("ip", 0),
    ("sp", 0),
    ("bp", 0),
];
#[cfg(target_arch = "aarch64")]
const REGISTERS: [(&str, u32); 9] = [
    ("syscallno", 0),
    ("regs", 0),
    ("regs", 1),
    ("regs", 2),
    ("regs", 3),
    ("regs", 4),
    ("pc", 0),
    ("sp", 0),
    ("regs", 29),
];

/// The newest helpers that the programs call, oldest first: 5.11, 5.11, 5.15.
const HELPERS: [&str; 3] = ["task_storage_get", "get_current_task_btf", "task_pt_regs"];

/// Asks for the helpers, which are members of `enum bpf_func_id`: a kernel that lacks one would refuse with a bare EINVAL.
fn require_helpers(btf: &Btf<'_>) -> Result<(), BtfError> {
    for helper in HELPERS {
        if !btf.has_enumerator(&format!("BPF_FUNC_{helper}"))? {
            return Err(BtfError::NoType {
                kind: "eBPF helper",
                name: format!("bpf_{helper}"),
            });
        }
    }
    Ok(())
}

/// Where a `css_set` points to its cgroup of the pids controller.
fn pids_of_css_set(btf: &Btf<'_>) -> Result<u32, BtfError> {
    let controller = btf.enumerator("pids_cgrp_id")?.ok_or_else(|| BtfError::NoType {
        kind: "cgroup controller",
        name: "pids".to_owned(),
    })?;
    Ok(btf.offset_of("css_set", "subsys")? + controller * 8)
}

/// Reads all offsets.
///
/// # Errors
/// [`BtfError`] naming the first mandatory helper, structure, member or tracepoint this kernel lacks.
pub fn resolve(btf: &Btf<'_>) -> Result<Offsets, BtfError> {
    require_helpers(btf)?;
    let task = |member: &str| btf.offset_of("task_struct", member);
    let optional = |offset: Result<u32, BtfError>| offset.unwrap_or(ABSENT);
    let register = |index: usize| {
        let (member, shift) = REGISTERS[index];
        Ok::<u32, BtfError>(btf.offset_of("pt_regs", member)? + shift * 8)
    };
    let frozen_bit = btf.bit_of("task_struct", "frozen").ok();
    let subreaper_bit = btf.bit_of("signal_struct", "is_child_subreaper")?;
    Ok(Offsets {
        // 2f064a59a11f renamed state to __state in 5.14; distributions backported it, so ask for both.
        task_state: task("__state").or_else(|_| task("state"))?,
        task_flags: task("flags")?,
        task_exit_state: task("exit_state")?,
        task_exit_code: task("exit_code")?,
        task_pid: task("pid")?,
        task_tgid: task("tgid")?,
        task_real_parent: task("real_parent")?,
        task_parent: task("parent")?,
        task_group_leader: task("group_leader")?,
        task_thread_pid: task("thread_pid")?,
        task_start_time: task("start_time")?,
        task_start_boottime: task("start_boottime").or_else(|_| task("real_start_time"))?,
        task_comm: task("comm")?,
        task_signal: task("signal")?,
        task_cgroups: task("cgroups")?,
        task_ptrace: task("ptrace")?,
        task_real_cred: task("real_cred")?,
        task_static_prio: task("static_prio")?,
        task_policy: task("policy")?,
        task_nvcsw: task("nvcsw")?,
        task_nivcsw: task("nivcsw")?,
        task_on_cpu: task("on_cpu")?,
        task_exec_start: task("se.exec_start")?,
        task_sum_exec_runtime: task("se.sum_exec_runtime")?,
        task_last_arrival: optional(task("sched_info.last_arrival")),
        task_last_queued: optional(task("sched_info.last_queued")),
        task_run_delay: optional(task("sched_info.run_delay")),
        signal_live: btf.offset_of("signal_struct", "live")?,
        signal_nr_threads: btf.offset_of("signal_struct", "nr_threads")?,
        signal_flags: btf.offset_of("signal_struct", "flags")?,
        signal_group_exit_code: btf.offset_of("signal_struct", "group_exit_code")?,
        signal_pids: btf.offset_of("signal_struct", "pids")?,
        signal_subreaper_byte: subreaper_bit / 8,
        signal_subreaper_mask: 1 << (subreaper_bit % 8),
        siginfo_code: btf.offset_of("kernel_siginfo", "si_code")?,
        cred_euid: btf.offset_of("cred", "euid")?,
        css_set_dfl_cgrp: optional(btf.offset_of("css_set", "dfl_cgrp")),
        css_set_v1: optional(pids_of_css_set(btf)),
        css_cgroup: optional(btf.offset_of("cgroup_subsys_state", "cgroup")),
        cgroup_kn: optional(btf.offset_of("cgroup", "kn")),
        kernfs_node_id: optional(btf.offset_of("kernfs_node", "id")),
        pid_level: btf.offset_of("pid", "level")?,
        pid_numbers: btf.offset_of("pid", "numbers")?,
        upid_size: btf.size_of("upid")?,
        upid_nr: btf.offset_of("upid", "nr")?,
        regs_syscall: register(0)?,
        regs_arg0: register(1)?,
        regs_arg1: register(2)?,
        regs_arg2: register(3)?,
        regs_arg3: register(4)?,
        regs_arg4: register(5)?,
        regs_ip: register(6)?,
        regs_sp: register(7)?,
        regs_bp: register(8)?,
        regs_compat_arg0: optional(btf.offset_of("pt_regs", "bx")),
        regs_compat_arg1: optional(btf.offset_of("pt_regs", "cx")),
        regs_saved: optional(btf.offset_of("pt_regs", "r15")),
        task_thread_status: optional(task("thread_info.status")),
        task_mm: task("mm")?,
        mm_context_id: optional(btf.offset_of("mm_struct", "context.ctx_id")),
        task_self_exec_id: task("self_exec_id")?,
        task_parent_exec_id: task("parent_exec_id")?,
        upid_ns: btf.offset_of("upid", "ns")?,
        task_clear_child_tid: task("clear_child_tid")?,
        restart_futex_address: optional(task("restart_block.futex.uaddr")),
        restart_futex_value: optional(task("restart_block.futex.val")),
        restart_futex_bitset: optional(task("restart_block.futex.bitset")),
        has_copy_from_user_task: u32::from(btf.has_enumerator("BPF_FUNC_copy_from_user_task")?),
        has_read_user: u32::from(aya::features().bpf_probe_read_kernel()),
        // 72ba14deb40a (6.8) replaced the pid by the task.
        victim_is_task: u32::from(
            btf.tracepoint_arguments("mark_victim")
                .is_ok_and(|(count, _)| count == 2),
        ),
        switch_has_prev_state: u32::from(matches!(btf.tracepoint_arguments("sched_switch")?, (4, true))),
        task_frozen_byte: frozen_bit.map_or(ABSENT, |bit| bit / 8),
        task_frozen_mask: frozen_bit.map_or(0, |bit| 1 << (bit % 8)),
        task_jobctl: optional(task("jobctl")),
        mm_lock_count: optional(btf.offset_of("mm_struct", "mmap_lock.count")),
        vma_start: btf.offset_of("vm_area_struct", "vm_start")?,
        vma_end: btf.offset_of("vm_area_struct", "vm_end")?,
        vma_file: btf.offset_of("vm_area_struct", "vm_file")?,
        file_inode: btf.offset_of("file", "f_inode")?,
        inode_sb: btf.offset_of("inode", "i_sb")?,
        sb_magic: btf.offset_of("super_block", "s_magic")?,
        sb_bdev: btf.offset_of("super_block", "s_bdev")?,
    })
}
