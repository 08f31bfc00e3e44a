//! The registers with which a thread entered the kernel: what it asked for, and where.

use core::ffi::c_void;

use aya_ebpf::helpers::generated::bpf_task_pt_regs;
use probe_ebpf::ledger::{BlockedOn, NO_SYSCALL};
use probe_ebpf::offsets::ABSENT;
use probe_ebpf::state::{PF_IO_WORKER, PF_KTHREAD};
use probe_ebpf::waiting::COMPAT;

use crate::kernel::{load, offset};
use crate::task::Task;

/// Whether a thread with these flags entered the kernel from user space.
#[inline(always)]
pub fn has_registers(flags: u32) -> bool {
    flags & (PF_KTHREAD | PF_IO_WORKER) == 0
}

impl Task {
    /// What the thread waits in, from the registers it entered the kernel with.
    ///
    /// Only meaningful for a thread that is blocked. `orig_ax` is -1 or a negated vector when it entered by exception
    /// or interrupt, so anything negative is no system call. Kernel threads have no user registers at all.
    #[inline(always)]
    pub fn blocked_on(self, flags: u32) -> BlockedOn {
        let mut blocked_on = BlockedOn {
            syscall: NO_SYSCALL,
            args: [0; 2],
        };
        if !has_registers(flags) {
            return blocked_on;
        }
        let regs = self.registers();
        let syscall = regs.syscall();
        if syscall >= 0 {
            blocked_on.syscall = syscall;
            blocked_on.args = [regs.arg0(), regs.arg1()];
        }
        blocked_on
    }

    /// The registers it entered the kernel with. Kernel threads have none: see [`has_registers`].
    #[inline(always)]
    pub fn registers(self) -> Registers {
        // SAFETY: a trusted task; the helper returns a BTF pointer to its pt_regs, which live on its kernel stack.
        let regs = unsafe { bpf_task_pt_regs(self.as_ptr()) } as *const c_void;
        Registers {
            regs,
            compat: self.is_compat(),
        }
    }

    /// Whether its system call was made the 32-bit way (`TS_COMPAT` in `arch/x86/include/asm/thread_info.h`).
    #[inline(always)]
    fn is_compat(self) -> bool {
        const TS_COMPAT: u32 = 2;
        if offset!(task_thread_status) == ABSENT {
            return false;
        }
        load::<u32>(self.as_ptr().cast(), offset!(task_thread_status)) & TS_COMPAT != 0
    }
}

/// Saved user registers, read as the arguments of a system call.
#[derive(Clone, Copy)]
pub struct Registers {
    regs: *const c_void,
    compat: bool,
}

impl Registers {
    /// The system call's number, with [`COMPAT`]; negative if it is none.
    #[inline(always)]
    pub fn syscall(self) -> i64 {
        let number: i64 = load(self.regs, offset!(regs_syscall));
        if self.compat && number >= 0 {
            number | COMPAT
        } else {
            number
        }
    }

    /// First argument: an address, in futex calls.
    #[inline(always)]
    pub fn arg0(self) -> u64 {
        if self.compat {
            self.half(offset!(regs_compat_arg0))
        } else {
            load(self.regs, offset!(regs_arg0))
        }
    }

    /// Second argument.
    #[inline(always)]
    pub fn arg1(self) -> u64 {
        if self.compat {
            self.half(offset!(regs_compat_arg1))
        } else {
            load(self.regs, offset!(regs_arg1))
        }
    }

    /// Third argument; the same register in 32-bit calls.
    #[inline(always)]
    pub fn arg2(self) -> u64 {
        load(self.regs, offset!(regs_arg2))
    }

    /// Fourth argument.
    #[inline(always)]
    pub fn arg3(self) -> u64 {
        if self.compat {
            self.half(offset!(regs_arg1))
        } else {
            load(self.regs, offset!(regs_arg3))
        }
    }

    /// Fifth argument.
    #[inline(always)]
    pub fn arg4(self) -> u64 {
        if self.compat {
            self.half(offset!(regs_arg0))
        } else {
            load(self.regs, offset!(regs_arg4))
        }
    }

    /// Instruction pointer in user space: behind the system call.
    #[inline(always)]
    pub fn ip(self) -> u64 {
        load(self.regs, offset!(regs_ip))
    }

    /// Stack pointer in user space.
    #[inline(always)]
    pub fn sp(self) -> u64 {
        load(self.regs, offset!(regs_sp))
    }

    /// Instruction, stack and frame pointer.
    #[inline(always)]
    pub fn code(self) -> [u64; 3] {
        [
            load(self.regs, offset!(regs_ip)),
            load(self.regs, offset!(regs_sp)),
            load(self.regs, offset!(regs_bp)),
        ]
    }

    /// `r15` to `r12` and `rbx`; zero where there are none.
    #[inline(always)]
    pub fn saved(self) -> [u64; 5] {
        if offset!(regs_saved) == ABSENT || offset!(regs_compat_arg0) == ABSENT {
            return [0; 5];
        }
        [
            load(self.regs, offset!(regs_saved)),
            load(self.regs, offset!(regs_saved) + 8),
            load(self.regs, offset!(regs_saved) + 16),
            load(self.regs, offset!(regs_saved) + 24),
            load(self.regs, offset!(regs_compat_arg0)),
        ]
    }

    /// The lower half of a register. Not there where there are no 32-bit calls: nobody gets here then.
    #[inline(always)]
    fn half(self, offset: u32) -> u64 {
        if offset == ABSENT {
            return 0;
        }
        load::<u64>(self.regs, offset) & 0xffff_ffff
    }
}
