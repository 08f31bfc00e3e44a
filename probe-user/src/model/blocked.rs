//! What a blocked thread waits in, from its system call and arguments.

use probe_ebpf::ledger::BlockedOn;
use probe_ebpf::waiting::{COMPAT, Class, EXIT, RESTART, SyscallTable, TABLE_SPAN, op};
use syscalls::Sysno;

/// A futex wait: the address, what it asked for, and whether other processes can share it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FutexWait {
    /// User address of the futex word.
    pub address: u64,
    /// The operation's name as in `man 2 futex`, lower case, without the prefix.
    pub op: &'static str,
    /// Whether `FUTEX_PRIVATE_FLAG` is missing.
    pub shared: bool,
}

const FUTEX_PRIVATE_FLAG: u64 = 128;
const FUTEX_CMD_MASK: u64 = 0x7f;

/// The system call a thread is blocked in; `None` if it is in none, or in one of a 32-bit program.
pub fn syscall(blocked_on: &BlockedOn) -> Option<Sysno> {
    usize::try_from(blocked_on.syscall).ok().and_then(Sysno::new)
}

/// The name of that system call, with its number where this build does not know it.
pub fn syscall_name(blocked_on: &BlockedOn) -> Option<String> {
    if blocked_on.syscall < 0 {
        return None;
    }
    if let Some(number) = compat(blocked_on) {
        let known = compat_call(number).map(|sysno| sysno.name().to_owned());
        return Some(known.unwrap_or_else(|| format!("i386_syscall_{number}")));
    }
    Some(syscall(blocked_on).map_or_else(
        || format!("syscall_{}", blocked_on.syscall),
        |sysno| sysno.name().to_owned(),
    ))
}

/// The number of a system call made the 32-bit way.
fn compat(blocked_on: &BlockedOn) -> Option<i64> {
    (blocked_on.syscall >= 0 && blocked_on.syscall & COMPAT != 0).then_some(blocked_on.syscall & !COMPAT)
}

/// The futex a thread waits on, by its system call alone; `None` if it waits in something else (or in a call that takes a
/// list of futexes, which a snapshot may know better).
pub fn futex(blocked_on: &BlockedOn) -> Option<FutexWait> {
    let [address, operation] = blocked_on.args;
    match syscall_name(blocked_on)?.as_str() {
        "futex" | "futex_time64" => {}
        "futex_wait" => {
            return Some(FutexWait {
                address,
                op: "wait",
                // Which it is stands in an argument that is not kept; a snapshot knows.
                shared: false,
            });
        }
        _ => return None,
    }
    let op = match operation & FUTEX_CMD_MASK {
        0 => "wait",
        6 => "lock_pi",
        9 => "wait_bitset",
        11 => "wait_requeue_pi",
        13 => "lock_pi2",
        _ => return None,
    };
    Some(FutexWait {
        address,
        op,
        shared: operation & FUTEX_PRIVATE_FLAG == 0,
    })
}

/// The name of a futex operation as the kernel side tells it (see [`probe_ebpf::waiting::op`]).
pub const fn op_name(operation: u8) -> &'static str {
    match operation {
        op::WAIT | op::WAIT2 => "wait",
        op::WAIT_BITSET => "wait_bitset",
        op::LOCK_PI => "lock_pi",
        op::WAIT_REQUEUE_PI => "wait_requeue_pi",
        op::WAITV => "waitv",
        _ => "unknown",
    }
}

/// What the kernel side shall take each system call for.
pub fn syscall_table() -> SyscallTable {
    let mut table = [Class::Other as u8; 2 * TABLE_SPAN];
    let (native, compat) = table.split_at_mut(TABLE_SPAN);
    for sysno in Sysno::iter() {
        if let Some(entry) = native.get_mut(sysno.id().unsigned_abs() as usize) {
            *entry = class_of(sysno.name());
        }
    }
    for sysno in syscalls::x86::Sysno::iter() {
        if let Some(entry) = compat.get_mut(sysno.id().unsigned_abs() as usize) {
            *entry = class_of(sysno.name());
        }
    }
    table
}

/// The class of a system call by name. Calls that never block for long have none.
fn class_of(name: &str) -> u8 {
    // 32-bit programs have some calls a second time, for times after 2038.
    let class =
        match name.strip_suffix("_time64").unwrap_or(name) {
            "exit" | "exit_group" => return EXIT,
            "restart_syscall" => return RESTART,
            "futex" | "futex_wait" | "futex_waitv" | "futex_wake" | "futex_requeue" => Class::Futex,
            "poll" | "ppoll" | "select" | "pselect6" | "_newselect" | "epoll_wait" | "epoll_pwait"
            | "epoll_pwait2" | "epoll_wait_old" | "io_uring_enter" | "io_getevents" | "io_pgetevents" => {
                Class::Poll
            }
            "read" | "readv" | "pread64" | "preadv" | "preadv2" | "getrandom" | "msgrcv"
            | "mq_timedreceive" => Class::Read,
            "write" | "writev" | "pwrite64" | "pwritev" | "pwritev2" | "splice" | "tee" | "vmsplice"
            | "sendfile" | "sendfile64" | "msgsnd" | "mq_timedsend" => Class::Write,
            "open" | "openat" | "openat2" | "creat" | "close" | "stat" | "fstat" | "lstat" | "newfstatat"
            | "statx" | "statfs" | "fstatfs" | "access" | "faccessat" | "faccessat2" | "getdents"
            | "getdents64" | "unlink" | "unlinkat" | "rename" | "renameat" | "renameat2" | "mkdir"
            | "mkdirat" | "rmdir" | "link" | "linkat" | "symlink" | "symlinkat" | "readlink"
            | "readlinkat" | "chmod" | "fchmod" | "fchmodat" | "chown" | "fchown" | "fchownat"
            | "truncate" | "ftruncate" | "fallocate" | "copy_file_range" | "readahead" | "mount"
            | "umount2" | "execve" | "execveat" | "getxattr" | "setxattr" | "utimensat" | "flock"
            | "fcntl" | "ioctl" | "stat64" | "lstat64" | "fstat64" | "fstatat64" | "statfs64"
            | "fstatfs64" | "truncate64" | "ftruncate64" | "fcntl64" => Class::File,
            "fsync" | "fdatasync" | "sync" | "syncfs" | "sync_file_range" | "msync" => Class::Sync,
            "nanosleep" | "clock_nanosleep" | "pause" | "rt_sigsuspend" | "rt_sigtimedwait"
            | "sigsuspend" => Class::Sleep,
            "wait4" | "waitid" | "waitpid" | "vfork" | "clone" | "clone3" => Class::Wait,
            "recvfrom" | "recvmsg" | "recvmmsg" | "sendto" | "sendmsg" | "sendmmsg" | "accept"
            | "accept4" | "connect" | "socketcall" | "shutdown" => Class::Socket,
            _ => Class::Other,
        };
    class as u8
}

/// A call of 32-bit x86 programs.
fn compat_call(number: i64) -> Option<syscalls::x86::Sysno> {
    usize::try_from(number).ok().and_then(syscalls::x86::Sysno::new)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn blocked(syscall: Sysno, args: [u64; 2]) -> BlockedOn {
        BlockedOn {
            syscall: i64::from(syscall.id()),
            args,
        }
    }

    #[test]
    fn futex_waits_are_told_apart() {
        let wait = futex(&blocked(Sysno::futex, [0x1000, 137])).unwrap();
        assert_eq!(
            wait,
            FutexWait {
                address: 0x1000,
                op: "wait_bitset",
                shared: false
            }
        );
        assert!(futex(&blocked(Sysno::futex, [0x1000, 0])).unwrap().shared);
        assert_eq!(futex(&blocked(Sysno::futex, [0x1000, 1])), None);
        assert_eq!(futex(&blocked(Sysno::read, [3, 137])), None);
    }

    #[test]
    fn unknown_calls_keep_their_number() {
        assert_eq!(
            syscall_name(&BlockedOn {
                syscall: 9999,
                args: [0; 2]
            })
            .unwrap(),
            "syscall_9999"
        );
        assert_eq!(
            syscall_name(&BlockedOn {
                syscall: -1,
                args: [0; 2]
            }),
            None
        );
    }

    #[test]
    fn calls_of_32_bit_programs_have_names_of_their_own() {
        let blocked_on = BlockedOn {
            syscall: COMPAT | 0xf0,
            args: [0x1000, 128],
        };
        assert_eq!(syscall_name(&blocked_on).unwrap(), "futex");
        assert_eq!(futex(&blocked_on).unwrap().address, 0x1000);
        let lock = BlockedOn {
            syscall: COMPAT | 0x8f,
            args: [3, 2],
        };
        assert_eq!(syscall_name(&lock).unwrap(), "flock");
        let unknown = BlockedOn {
            syscall: COMPAT | 0x1f4,
            args: [0; 2],
        };
        assert_eq!(syscall_name(&unknown).unwrap(), "i386_syscall_500");
    }

    #[test]
    fn the_table_knows_both_numberings() {
        let table = syscall_table();
        assert_eq!(
            table[usize::try_from(Sysno::futex.id()).unwrap()],
            Class::Futex as u8
        );
        assert_eq!(
            table[usize::try_from(Sysno::read.id()).unwrap()],
            Class::Read as u8
        );
        assert_eq!(table[TABLE_SPAN + 240], Class::Futex as u8);
        assert_eq!(table[TABLE_SPAN + 3], Class::Read as u8);
        // flock, ppoll_time64, futex_time64
        assert_eq!(table[TABLE_SPAN + 143], Class::File as u8);
        assert_eq!(table[TABLE_SPAN + 414], Class::Poll as u8);
        assert_eq!(table[TABLE_SPAN + 422], Class::Futex as u8);
        assert_eq!(table[usize::try_from(Sysno::exit.id()).unwrap()], EXIT);
    }
}
