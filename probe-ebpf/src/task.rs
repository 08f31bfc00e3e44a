//! Reading `task_struct` and what it points to.

use core::ffi::c_void;

use aya_ebpf::bindings::task_struct;
use aya_ebpf::helpers::generated::bpf_get_current_task_btf;
use probe_ebpf::offsets::ABSENT;
use probe_ebpf::record::{COMM_LEN, Facts, NS_LEVELS};
use probe_ebpf::state::{JOBCTL_TRAP_FREEZE, PF_FROZEN, PF_KTHREAD, TASK_FROZEN};

use crate::kernel::{load, offset};

/// `enum pid_type`, unchanged since 4.19.
const PIDTYPE_PGID: u32 = 2;
const PIDTYPE_SID: u32 = 3;
/// In `signal_struct.flags`.
const SIGNAL_GROUP_EXIT: u32 = 4;

/// A `task_struct` the verifier trusts.
#[derive(Clone, Copy)]
pub struct Task(*mut task_struct);

macro_rules! members {
    ($($name:ident: $type:ty = $offset:ident),+ $(,)?) => {
        $(#[inline(always)] pub fn $name(self) -> $type { load(self.0.cast(), offset!($offset)) })+
    };
}

impl Task {
    /// Wraps a tracepoint or iterator argument.
    #[inline(always)]
    pub fn new(task: *mut task_struct) -> Self {
        Self(task)
    }

    /// The thread on this CPU.
    #[inline(always)]
    pub fn current() -> Self {
        // SAFETY: no arguments, always a valid task.
        Self(unsafe { bpf_get_current_task_btf() })
    }

    /// The pointer, for helpers.
    #[inline(always)]
    pub fn as_ptr(self) -> *mut task_struct {
        self.0
    }

    members! {
        tid: u32 = task_pid,
        pid: u32 = task_tgid,
        start_ns: u64 = task_start_boottime,
        monotonic_start_ns: u64 = task_start_time,
        flags: u32 = task_flags,
        state_bits: u32 = task_state,
        // An int, from 7.3 on one byte; the low byte of either, which little-endian machines have first.
        on_cpu: u8 = task_on_cpu,
        voluntary: u64 = task_nvcsw,
        involuntary: u64 = task_nivcsw,
        exec_start_ns: u64 = task_exec_start,
        lifetime_running_ns: u64 = task_sum_exec_runtime,
        clear_child_tid: u64 = task_clear_child_tid,
    }

    /// Threads of the process that have not begun to exit; final at a thread's last switch.
    #[inline(always)]
    pub fn live_threads(self) -> u32 {
        let signal: *const c_void = load(self.0.cast(), offset!(task_signal));
        load(signal, offset!(signal_live))
    }

    /// `sched_info.last_arrival`, 0 without `CONFIG_SCHED_INFO`.
    #[inline(always)]
    pub fn last_arrival_ns(self) -> u64 {
        if offset!(task_last_arrival) == ABSENT {
            0
        } else {
            load(self.0.cast(), offset!(task_last_arrival))
        }
    }

    /// `sched_info.last_queued`: not 0 while the thread waits for a CPU; 0 without `CONFIG_SCHED_INFO`.
    #[inline(always)]
    pub fn last_queued_ns(self) -> u64 {
        if offset!(task_last_queued) == ABSENT {
            0
        } else {
            load(self.0.cast(), offset!(task_last_queued))
        }
    }

    /// `sched_info.run_delay`, `u64::MAX` without `CONFIG_SCHED_INFO`.
    #[inline(always)]
    pub fn lifetime_runnable_ns(self) -> u64 {
        if offset!(task_run_delay) == ABSENT {
            u64::MAX
        } else {
            load(self.0.cast(), offset!(task_run_delay))
        }
    }

    /// Whether its process has executed a program since it was forked: `exec` counts up the one number, and
    /// `fork` notes the parent's as the other (`copy_process()`). Threads have those of their process.
    #[inline(always)]
    pub fn has_executed(self) -> bool {
        let task: *const c_void = self.0.cast();
        let own: u64 = load(task, offset!(task_self_exec_id));
        let of_parent: u64 = load(task, offset!(task_parent_exec_id));
        own != of_parent
    }

    /// Whether the freezer of its cgroup holds it.
    ///
    /// Version 2 sets `frozen` on every thread that stops, is traced or calls `vfork`, so that its cgroup
    /// need not wait for it; `jobctl` says whether the cgroup is frozen at all. Version 1 has a state of its
    /// own, before 6.1 a flag.
    #[inline(always)]
    pub fn is_frozen(self) -> bool {
        let task: *const c_void = self.0.cast();
        if offset!(task_frozen_byte) != ABSENT && offset!(task_jobctl) != ABSENT {
            let bits: u8 = load(task, offset!(task_frozen_byte));
            let jobctl: u64 = load(task, offset!(task_jobctl));
            if u32::from(bits) & offset!(task_frozen_mask) != 0 && jobctl & JOBCTL_TRAP_FREEZE != 0 {
                return true;
            }
        }
        self.state_bits() & TASK_FROZEN != 0 || self.flags() & (PF_FROZEN | PF_KTHREAD) == PF_FROZEN
    }

    /// Its address space, by a number that no other has or will have; 0 for a kernel thread.
    ///
    /// x86 counts address spaces (`mm_context_t.ctx_id`). Elsewhere when the process began and how often it called exec
    /// since has to do.
    #[inline(always)]
    pub fn space(self) -> u64 {
        if offset!(mm_context_id) != ABSENT {
            let mm: *const c_void = load(self.0.cast(), offset!(task_mm));
            return load(mm, offset!(mm_context_id));
        }
        let execs: u32 = load(self.0.cast(), offset!(task_self_exec_id));
        self.leader().start_ns().wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ u64::from(execs)
    }

    /// Whether the next one can be told.
    #[inline(always)]
    pub fn knows_map_lock(self) -> bool {
        offset!(mm_lock_count) != ABSENT
    }

    /// Whether a reader of the memory map would have to wait: a writer has its lock, waits for it, or gets it
    /// next.
    #[inline(always)]
    pub fn is_map_locked(self) -> bool {
        const WRITER_WAITERS_HANDOFF: u64 = 0b111;
        if !self.knows_map_lock() {
            return false;
        }
        let mm: *const c_void = load(self.0.cast(), offset!(task_mm));
        load::<u64>(mm, offset!(mm_lock_count)) & WRITER_WAITERS_HANDOFF != 0
    }

    /// The thread's name.
    #[inline(always)]
    pub fn comm(self) -> [u8; COMM_LEN] {
        load::<[u64; 2]>(self.0.cast(), offset!(task_comm))
            .map(u64::to_ne_bytes)
            .concat_pair()
    }

    /// The first thread of the process, which carries what belongs to the process.
    #[inline(always)]
    pub fn leader(self) -> Self {
        Self(load(self.0.cast(), offset!(task_group_leader)))
    }

    /// Fills in everything that identifies and describes the thread.
    #[inline(always)]
    pub fn read_facts(self, facts: &mut Facts) {
        let task: *const c_void = self.0.cast();
        facts.start_ns = self.start_ns();
        facts.voluntary = self.voluntary();
        facts.involuntary = self.involuntary();
        facts.tid = self.tid();
        facts.pid = self.pid();
        facts.task_flags = self.flags();
        facts.ptrace = load(task, offset!(task_ptrace));
        facts.state_bits = self.state_bits();
        facts.exit_state = load(task, offset!(task_exit_state));
        facts.exit_code = load(task, offset!(task_exit_code));
        facts.static_prio = load(task, offset!(task_static_prio));
        facts.policy = load(task, offset!(task_policy));
        facts.comm = self.comm();
        Self::read_parents(task, facts);
        Self::read_group(task, facts);
        Self::read_namespace(task, facts);
        facts.cgroup_id = Self::cgroup_id(task);
    }

    #[inline(always)]
    fn read_parents(task: *const c_void, facts: &mut Facts) {
        let parent: *const c_void = load(task, offset!(task_real_parent));
        let leader: *const c_void = load(parent, offset!(task_group_leader));
        let tracer: *const c_void = load(task, offset!(task_parent));
        facts.ppid = load(parent, offset!(task_tgid));
        facts.parent_start_ns = load(leader, offset!(task_start_boottime));
        facts.tracer = load(tracer, offset!(task_tgid));
    }

    #[inline(always)]
    fn read_group(task: *const c_void, facts: &mut Facts) {
        let signal: *const c_void = load(task, offset!(task_signal));
        let cred: *const c_void = load(task, offset!(task_real_cred));
        facts.live_threads = load(signal, offset!(signal_live));
        facts.threads = load(signal, offset!(signal_nr_threads));
        facts.group_exit_code = load(signal, offset!(signal_group_exit_code));
        facts.euid = load(cred, offset!(cred_euid));
        facts.pgid = Self::group_id(signal, PIDTYPE_PGID);
        facts.sid = Self::group_id(signal, PIDTYPE_SID);
        let bits: u8 = load(signal, offset!(signal_subreaper_byte));
        facts.subreaper = u32::from(bits) & offset!(signal_subreaper_mask);
        facts.group_exit = load::<u32>(signal, offset!(signal_flags)) & SIGNAL_GROUP_EXIT;
    }

    /// The id of a process group or session, in the initial namespace; 0 once the process is released.
    #[inline(always)]
    fn group_id(signal: *const c_void, kind: u32) -> u32 {
        let pid: *const c_void = load(signal, offset!(signal_pids) + kind * 8);
        load(pid, offset!(pid_numbers) + offset!(upid_nr))
    }

    /// Tids inside pid namespaces. `thread_pid` is null once a thread is unhashed: the level then reads as 0.
    #[inline(always)]
    fn read_namespace(task: *const c_void, facts: &mut Facts) {
        let pid: *const c_void = load(task, offset!(task_thread_pid));
        let base = offset!(pid_numbers) + offset!(upid_nr);
        let size = offset!(upid_size);
        let namespace = offset!(pid_numbers) + offset!(upid_ns);
        facts.ns_level = load(pid, offset!(pid_level));
        facts.ns_tids = [0; NS_LEVELS];
        // The address of the namespace, which tells it from others.
        facts.pid_namespace = load(pid, namespace);
        if facts.ns_level >= 1 {
            facts.ns_tids[0] = load(pid, base + size);
            facts.pid_namespace = load(pid, namespace + size);
        }
        if facts.ns_level >= 2 {
            facts.ns_tids[1] = load(pid, base + 2 * size);
            facts.pid_namespace = load(pid, namespace + 2 * size);
        }
        if facts.ns_level >= 3 {
            facts.ns_tids[2] = load(pid, base + 3 * size);
            facts.pid_namespace = load(pid, namespace + 3 * size);
        }
        if facts.ns_level >= 4 {
            facts.ns_tids[3] = load(pid, base + 4 * size);
            facts.pid_namespace = load(pid, namespace + 4 * size);
        }
    }

    #[inline(always)]
    fn cgroup_id(task: *const c_void) -> u64 {
        if offset!(css_set_dfl_cgrp) == ABSENT {
            return 0;
        }
        let css_set: *const c_void = load(task, offset!(task_cgroups));
        // Where controllers are on version 1, containers and services are known there alone.
        let cgroup: *const c_void = if offset!(css_set_v1) == ABSENT {
            load(css_set, offset!(css_set_dfl_cgrp))
        } else {
            let css: *const c_void = load(css_set, offset!(css_set_v1));
            load(css, offset!(css_cgroup))
        };
        let node: *const c_void = load(cgroup, offset!(cgroup_kn));
        load(node, offset!(kernfs_node_id))
    }
}

trait ConcatPair {
    fn concat_pair(self) -> [u8; COMM_LEN];
}

impl ConcatPair for [[u8; 8]; 2] {
    /// Two words of a name as its bytes, without a loop.
    #[inline(always)]
    fn concat_pair(self) -> [u8; COMM_LEN] {
        // SAFETY: both are 16 bytes without padding.
        unsafe { core::mem::transmute(self) }
    }
}
