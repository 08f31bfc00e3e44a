//! Which system calls the agent and the aide have no use for.
//!
//! A list of what is refused, not of what is allowed: what C libraries and runtimes call differs between
//! versions, and a call that was forgotten in a list of those allowed makes something fail on somebody's host
//! that worked here. Refused is what a taken-over agent would want and no runtime calls on its own.

use super::filter::{self, Applied, Rules, bits, equal, none_of};

/// Whose filter it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// The agent, once it is attached.
    Agent,
    /// The aide, and so what the namer gets in addition to its own.
    Aide,
}

/// Refused whatever the arguments.
const NEVER: &[libc::c_long] = &[
    // Other processes: their memory, registers, descriptors.
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_process_madvise,
    libc::SYS_process_mrelease,
    libc::SYS_pidfd_getfd,
    libc::SYS_kcmp,
    libc::SYS_kill,
    libc::SYS_tkill,
    libc::SYS_rt_sigqueueinfo,
    libc::SYS_rt_tgsigqueueinfo,
    // Mounts and namespaces.
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_pivot_root,
    libc::SYS_chroot,
    libc::SYS_move_mount,
    libc::SYS_open_tree,
    libc::SYS_fsopen,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fspick,
    libc::SYS_mount_setattr,
    libc::SYS_setns,
    libc::SYS_unshare,
    // The kernel and the whole host.
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_kexec_load,
    libc::SYS_kexec_file_load,
    libc::SYS_reboot,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    libc::SYS_acct,
    libc::SYS_quotactl,
    libc::SYS_quotactl_fd,
    libc::SYS_syslog,
    libc::SYS_sethostname,
    libc::SYS_setdomainname,
    libc::SYS_settimeofday,
    libc::SYS_clock_settime,
    libc::SYS_clock_adjtime,
    libc::SYS_adjtimex,
    libc::SYS_iopl,
    libc::SYS_ioperm,
    libc::SYS_vhangup,
    libc::SYS_modify_ldt,
    libc::SYS_personality,
    libc::SYS_uselib,
    libc::SYS_nfsservctl,
    libc::SYS_lookup_dcookie,
    // Large and much attacked parts of the kernel.
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_keyctl,
    libc::SYS_perf_event_open,
    libc::SYS_userfaultfd,
    libc::SYS_io_uring_setup,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    libc::SYS_fanotify_init,
    // Any file by its number, past all permissions of directories: what CAP_DAC_READ_SEARCH is feared for.
    libc::SYS_open_by_handle_at,
    // Other users.
    libc::SYS_setuid,
    libc::SYS_setgid,
    libc::SYS_setreuid,
    libc::SYS_setregid,
    libc::SYS_setresuid,
    libc::SYS_setresgid,
    libc::SYS_setgroups,
    libc::SYS_setfsuid,
    libc::SYS_setfsgid,
    // The file system: nothing is made, moved or changed.
    libc::SYS_creat,
    libc::SYS_mkdir,
    libc::SYS_mkdirat,
    libc::SYS_rmdir,
    libc::SYS_mknod,
    libc::SYS_mknodat,
    libc::SYS_link,
    libc::SYS_linkat,
    libc::SYS_symlink,
    libc::SYS_symlinkat,
    libc::SYS_rename,
    libc::SYS_renameat,
    libc::SYS_renameat2,
    libc::SYS_truncate,
    libc::SYS_ftruncate,
    libc::SYS_fallocate,
    libc::SYS_chmod,
    libc::SYS_fchmod,
    libc::SYS_fchmodat,
    libc::SYS_fchmodat2,
    libc::SYS_chown,
    libc::SYS_lchown,
    libc::SYS_fchown,
    libc::SYS_fchownat,
    libc::SYS_utime,
    libc::SYS_utimes,
    libc::SYS_futimesat,
    libc::SYS_utimensat,
    libc::SYS_setxattr,
    libc::SYS_lsetxattr,
    libc::SYS_fsetxattr,
    libc::SYS_removexattr,
    libc::SYS_lremovexattr,
    libc::SYS_fremovexattr,
    // New doors.
    libc::SYS_bind,
    libc::SYS_listen,
];

/// The agent starts nothing, runs no code but its own, and gives up no more than it has.
const NOT_THE_AGENT: &[libc::c_long] = &[
    libc::SYS_execve,
    libc::SYS_execveat,
    libc::SYS_fork,
    libc::SYS_vfork,
    libc::SYS_memfd_create,
    libc::SYS_capset,
];

/// The aide answers on the one socket that it has, and looks at no other process.
const NOT_THE_AIDE: &[libc::c_long] = &[
    libc::SYS_socket,
    libc::SYS_connect,
    libc::SYS_accept,
    libc::SYS_accept4,
    libc::SYS_openat2,
    libc::SYS_unlink,
    libc::SYS_unlinkat,
];

/// What the agent does with its maps and programs. Loading, and getting at other people's by their numbers,
/// is not among it.
const AGENT_BPF: &[u64] = &[
    1,  // BPF_MAP_LOOKUP_ELEM
    2,  // BPF_MAP_UPDATE_ELEM
    3,  // BPF_MAP_DELETE_ELEM
    4,  // BPF_MAP_GET_NEXT_KEY
    15, // BPF_OBJ_GET_INFO_BY_FD
    24, // BPF_MAP_LOOKUP_BATCH
    27, // BPF_MAP_DELETE_BATCH
    28, // BPF_LINK_CREATE: of the iterators, with every look
    33, // BPF_ITER_CREATE
];
/// Turns the kernel's run-time statistics on.
const AIDE_BPF: &[u64] = &[32]; // BPF_ENABLE_STATS

/// Flags of clone(2) that make namespaces.
const NAMESPACES: libc::c_int = libc::CLONE_NEWNS
    | libc::CLONE_NEWCGROUP
    | libc::CLONE_NEWUTS
    | libc::CLONE_NEWIPC
    | libc::CLONE_NEWUSER
    | libc::CLONE_NEWPID
    | libc::CLONE_NEWNET;

/// Puts the filter on.
///
/// # Errors
/// Why there is none, in a few words.
pub fn apply(role: Role) -> Result<Applied, String> {
    let text = |error: &dyn std::fmt::Display| error.to_string();
    let program = rules(role)
        .and_then(filter::refusing)
        .map_err(|error| text(&error))?;
    filter::apply(&filter::prologue()).map_err(|error| text(&error))?;
    filter::apply_logged(&program).map_err(|error| text(&error))
}

/// How many system calls it refuses, some of them with certain arguments only.
pub fn count(role: Role) -> usize {
    rules(role).map_or(0, |rules| rules.len())
}

fn rules(role: Role) -> Result<Rules, seccompiler::Error> {
    let number = |value: libc::c_int| u64::from(value.unsigned_abs());
    let own = match role {
        Role::Agent => NOT_THE_AGENT,
        Role::Aide => NOT_THE_AIDE,
    };
    let always = NEVER.iter().chain(own);
    let mut rules: Rules = always.map(|&call| (call, Vec::new())).collect();
    let commands = match role {
        Role::Agent => AGENT_BPF,
        Role::Aide => AIDE_BPF,
    };
    rules.insert(libc::SYS_bpf, vec![none_of(0, commands)?]);
    // Words into somebody's terminal.
    let terminal = [equal(1, libc::TIOCSTI)?, equal(1, libc::TIOCLINUX)?];
    rules.insert(libc::SYS_ioctl, terminal.into());
    let namespaces = single_bits(number(NAMESPACES)).map(|bit| bits(0, bit, bit));
    let mut clone: Vec<_> = namespaces.collect::<Result<_, _>>()?;
    if role == Role::Agent {
        // How abort() ends a process: itself, and nobody else.
        let own = u64::from(std::process::id());
        rules.insert(libc::SYS_tgkill, vec![none_of(0, &[own])?]);
        clone.push(bits(0, number(libc::CLONE_THREAD), 0)?);
        let families = [libc::AF_UNIX, libc::AF_INET, libc::AF_INET6].map(number);
        rules.insert(libc::SYS_socket, vec![none_of(0, &families)?]);
        let code = number(libc::PROT_EXEC);
        for call in [libc::SYS_mmap, libc::SYS_mprotect, libc::SYS_pkey_mprotect] {
            rules.insert(call, vec![bits(2, code, code)?]);
        }
        // openat2(2) has its flags in memory, where no filter sees them.
        for (call, flags) in [(libc::SYS_open, 1), (libc::SYS_openat, 2)] {
            rules.insert(call, writing(flags)?);
        }
    }
    rules.insert(libc::SYS_clone, clone);
    Ok(rules)
}

/// Holds for flags of open(2) that change a file or make one.
fn writing(argument: u8) -> Result<Vec<seccompiler::SeccompRule>, seccompiler::Error> {
    let changing = libc::O_ACCMODE | libc::O_CREAT | libc::O_TRUNC;
    single_bits(u64::from(changing.unsigned_abs()))
        .map(|bit| bits(argument, bit, bit))
        .collect()
}

fn single_bits(mask: u64) -> impl Iterator<Item = u64> {
    (0..u64::BITS)
        .map(|bit| 1 << bit)
        .filter(move |bit| mask & bit != 0)
}

#[cfg(test)]
mod tests {
    use std::fs::{File, OpenOptions};
    use std::io::{Error, Write};
    use std::net::TcpStream;
    use std::os::fd::AsRawFd;

    use super::*;

    /// Runs on a separate thread, the only one that the filter holds for.
    fn confined<T: Send + 'static>(role: Role, work: impl FnOnce() -> T + Send + 'static) -> T {
        let thread = std::thread::spawn(move || {
            apply(role).unwrap();
            work()
        });
        thread.join().unwrap()
    }

    /// Those of the calls that do not fail with EPERM, and how they end.
    fn not_refused(calls: Vec<(libc::c_long, [u64; 4])>) -> Vec<(libc::c_long, i32)> {
        let ends = calls
            .into_iter()
            .map(|(call, arguments)| (call, errno(call, arguments)));
        ends.filter(|(_, error)| *error != libc::EPERM).collect()
    }

    /// What a system call with these arguments says.
    fn errno(call: libc::c_long, arguments: [u64; 4]) -> i32 {
        let [a, b, c, d] = arguments;
        // SAFETY: with these arguments the calls fail whether a filter holds or not: null pointers, no
        // descriptors, no processes.
        let outcome = unsafe { libc::syscall(call, a, b, c, d) };
        if outcome == -1 {
            Error::last_os_error().raw_os_error().unwrap()
        } else {
            0
        }
    }

    const NOWHERE: u64 = u64::MAX;

    #[test]
    fn what_neither_has_use_for_is_refused_to_both() {
        for role in [Role::Agent, Role::Aide] {
            let errors = confined(role, || {
                let mut calls: Vec<_> = NEVER.iter().map(|&call| (call, [0; 4])).collect();
                calls.push((libc::SYS_ioctl, [NOWHERE, libc::TIOCSTI, 0, 0]));
                // Loading; getting at others' maps by their numbers.
                calls.push((libc::SYS_bpf, [5, 0, 0, 0]));
                calls.push((libc::SYS_bpf, [14, 0, 0, 0]));
                calls.push((libc::SYS_clone, [libc::CLONE_NEWUSER as u64, NOWHERE, 0, 0]));
                // By its number for x32.
                calls.push((0x4000_0000 | libc::SYS_ptrace, [0; 4]));
                not_refused(calls)
            });
            assert!(errors.is_empty(), "{role:?}: not EPERM: {errors:?}");
            assert_eq!(confined(role, || errno(libc::SYS_clone3, [0; 4])), libc::ENOSYS);
        }
    }

    #[test]
    fn the_agent_starts_nothing_writes_nothing_and_runs_no_new_code() {
        let errors = confined(Role::Agent, || {
            let mut calls: Vec<_> = NOT_THE_AGENT.iter().map(|&call| (call, [0; 4])).collect();
            calls.push((libc::SYS_clone, [libc::SIGCHLD as u64, NOWHERE, 0, 0]));
            for flags in [libc::O_WRONLY, libc::O_RDWR, libc::O_CREAT, libc::O_TRUNC].map(i32::unsigned_abs) {
                let flags = u64::from(flags);
                calls.push((libc::SYS_open, [0, flags, 0, 0]));
                calls.push((libc::SYS_openat, [NOWHERE, 0, flags, 0]));
            }
            calls.push((libc::SYS_socket, [libc::AF_NETLINK as u64, NOWHERE, 0, 0]));
            calls.push((libc::SYS_mprotect, [0, 0, libc::PROT_EXEC as u64, 0]));
            calls.push((libc::SYS_mmap, [0, 0, libc::PROT_EXEC as u64, 0]));
            calls.push((libc::SYS_tgkill, [1, 1, 0, 0]));
            calls.push((libc::SYS_bpf, [32, 0, 0, 0]));
            not_refused(calls)
        });
        assert!(errors.is_empty(), "not EPERM: {errors:?}");
        let started = confined(Role::Agent, || {
            std::process::Command::new("/bin/true").status().is_ok()
        });
        assert!(!started);
        let written = confined(Role::Agent, || {
            OpenOptions::new().write(true).open("/dev/null").is_ok()
        });
        assert!(!written);
    }

    #[test]
    fn the_agent_reads_talks_and_makes_threads() {
        let door = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = door.local_addr().unwrap();
        confined(Role::Agent, move || {
            File::open("/proc/self/status").unwrap();
            let mut there = TcpStream::connect(address).unwrap();
            let (here, _) = door.accept().unwrap();
            assert!(here.as_raw_fd() > 0);
            there.write_all(b"a word").unwrap();
            assert_eq!(std::thread::spawn(|| 7).join().unwrap(), 7);
            crate::confine::own::line().unwrap();
            // Let through, and refused for their arguments alone.
            for command in AGENT_BPF {
                assert_ne!(errno(libc::SYS_bpf, [*command, 0, 0, 0]), 0);
            }
        });
    }

    #[test]
    fn the_aide_starts_processes_and_opens_no_door() {
        confined(Role::Aide, || {
            assert!(
                std::process::Command::new("/bin/true")
                    .status()
                    .unwrap()
                    .success()
            );
            assert_eq!(
                errno(libc::SYS_socket, [libc::AF_INET as u64, 1, 0, 0]),
                libc::EPERM
            );
        });
    }
}
