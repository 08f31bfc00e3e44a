//! KVM where it works. A device that can be opened proves nothing (nested and confined machines have one whose guests
//! hang), so a guest that does nothing is booted first.

use std::{path::Path, time::Duration};

use super::{Paths, kernels::Kernel, plan::Plan, qemu::Machine};
use crate::process::say;

/// How the guest's CPUs are made.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Accelerator {
    Kvm,
    /// QEMU's own translator: slow, and time is distorted in it.
    Tcg,
}

impl Accelerator {
    /// QEMU's arguments.
    ///
    /// Without cmpxchg16b where that is possible: under QEMU 7.2's translator, 6.12 was seen to double-fault right behind
    /// one in its allocator, with a pointer in the flags, and not since it does without. 7.3 needs it: without, some of
    /// its task storage could not be allocated (`kmalloc_nolock()`, of 6.18, seems to be the reason).
    /// What it does to tracepoints that are switched on and off is in `guest-init/hold.rs`.
    pub fn arguments(self, kernel: &Kernel) -> [&'static str; 4] {
        let model = match self {
            Self::Kvm => return ["-accel", "kvm", "-cpu", "host"],
            Self::Tcg if kernel.is_at_least([6, 18]) => "Nehalem",
            Self::Tcg => "Nehalem,-cx16",
        };
        ["-accel", "tcg,thread=multi", "-cpu", model]
    }
}

/// With KVM a guest that does nothing is through in two seconds.
const TRIAL: Duration = Duration::from_secs(5);

/// Boots a trial guest if there is a chance.
pub fn choose(kernel: &Kernel, initramfs: &Path, paths: &Paths) -> Accelerator {
    if !Path::new("/dev/kvm").exists() {
        say("no /dev/kvm: the guests run under TCG");
        return Accelerator::Tcg;
    }
    let machine = Machine {
        initramfs: initramfs.to_owned(),
        accelerator: Accelerator::Kvm,
        logs: paths.logs.clone(),
    };
    match machine.boot_once(kernel, "trial", &["procprobe.trial"], &Plan::default(), TRIAL) {
        Ok(report) if report.passed() => Accelerator::Kvm,
        _ => {
            say("KVM boots no guest here: the guests run under TCG");
            Accelerator::Tcg
        }
    }
}
