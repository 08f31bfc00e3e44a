//! What a blocked thread waits in, from its system call and arguments.

use probe_ebpf::ledger::BlockedOn;
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

/// The system call a thread is blocked in; `None` if it is in none.
pub fn syscall(blocked_on: &BlockedOn) -> Option<Sysno> {
    usize::try_from(blocked_on.syscall).ok().and_then(Sysno::new)
}

/// The name of that system call, with its number where this build does not know it.
pub fn syscall_name(blocked_on: &BlockedOn) -> Option<String> {
    if blocked_on.syscall < 0 {
        return None;
    }
    Some(syscall(blocked_on).map_or_else(
        || format!("syscall_{}", blocked_on.syscall),
        |sysno| sysno.name().to_owned(),
    ))
}

/// The futex a thread waits on; `None` if it waits in something else (or in a call that takes a list of futexes).
pub fn futex(blocked_on: &BlockedOn) -> Option<FutexWait> {
    if syscall(blocked_on)? != Sysno::futex {
        return None;
    }
    let [address, operation] = blocked_on.args;
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
}
