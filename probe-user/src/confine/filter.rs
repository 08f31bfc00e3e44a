//! Filters of system calls: how ours are built and put on.

use std::collections::BTreeMap;
use std::io;

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
    sock_filter,
};

/// For each system call when the rule holds: always, if there is none, else if one of them does.
pub type Rules = BTreeMap<i64, Vec<SeccompRule>>;

/// How a filter was put on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Applied {
    /// Whether the kernel's log (audit) tells of calls that it refused.
    pub is_logged: bool,
}

/// What EPERM is to whoever calls: an error and no death, since C libraries try this and that, and do
/// without.
const REFUSED: SeccompAction = SeccompAction::Errno(libc::EPERM as u32);

/// Lets through what is in the rules, and refuses the rest.
///
/// # Errors
/// If the rules make no filter.
pub fn allowing(rules: Rules) -> Result<BpfProgram, seccompiler::Error> {
    build(rules, REFUSED, SeccompAction::Allow)
}

/// Refuses what is in the rules, and lets the rest through.
///
/// # Errors
/// If the rules make no filter.
pub fn refusing(rules: Rules) -> Result<BpfProgram, seccompiler::Error> {
    build(rules, SeccompAction::Allow, REFUSED)
}

fn build(
    rules: Rules,
    otherwise: SeccompAction,
    matching: SeccompAction,
) -> Result<BpfProgram, seccompiler::Error> {
    let architecture = std::env::consts::ARCH.try_into()?;
    Ok(SeccompFilter::new(rules, otherwise, matching, architecture)?.try_into()?)
}

/// Holds if the bits of an argument in `mask` are these.
///
/// # Errors
/// None, for the arguments there are.
pub fn bits(argument: u8, mask: u64, value: u64) -> Result<SeccompRule, seccompiler::Error> {
    let condition = condition(argument, SeccompCmpOp::MaskedEq(mask), value)?;
    Ok(SeccompRule::new(vec![condition])?)
}

/// Holds if an argument is none of these.
///
/// # Errors
/// None, for the arguments there are.
pub fn none_of(argument: u8, values: &[u64]) -> Result<SeccompRule, seccompiler::Error> {
    let conditions: Result<_, _> = values
        .iter()
        .map(|&value| condition(argument, SeccompCmpOp::Ne, value))
        .collect();
    Ok(SeccompRule::new(conditions?)?)
}

/// Holds if an argument is this.
///
/// # Errors
/// None, for the arguments there are.
pub fn equal(argument: u8, value: u64) -> Result<SeccompRule, seccompiler::Error> {
    Ok(SeccompRule::new(vec![condition(
        argument,
        SeccompCmpOp::Eq,
        value,
    )?])?)
}

fn condition(
    argument: u8,
    operator: SeccompCmpOp,
    value: u64,
) -> Result<SeccompCondition, seccompiler::Error> {
    Ok(SeccompCondition::new(
        argument,
        SeccompCmpArgLen::Dword,
        operator,
        value,
    )?)
}

/// Numbers from here on are those of x32, the same calls once more, on `x86_64`.
const X32: u32 = 0x4000_0000;
#[expect(
    clippy::cast_possible_truncation,
    reason = "the kernel compares 32 bits, and there are some hundred calls"
)]
const CLONE3: u32 = libc::SYS_clone3 as u32;

/// In front of a filter that lets the rest through: the same calls by their other numbers are refused, and
/// `clone3`, whose flags lie in memory where no filter sees them, is not there. C libraries then take
/// `clone`. A filter of its own, so that the kernel's log stays free of it.
pub fn prologue() -> BpfProgram {
    let instruction = |code, jt, jf, k| sock_filter { code, jt, jf, k };
    let answer = |errno: i32| {
        let action = libc::SECCOMP_RET_ERRNO | errno.unsigned_abs();
        instruction(RETURN, 0, 0, action)
    };
    vec![
        // The number: the first field of `struct seccomp_data`.
        instruction(LOAD, 0, 0, 0),
        instruction(JUMP_GE, 0, 1, X32),
        answer(libc::EPERM),
        instruction(JUMP_EQ, 0, 1, CLONE3),
        answer(libc::ENOSYS),
        instruction(RETURN, 0, 0, libc::SECCOMP_RET_ALLOW),
    ]
}

const LOAD: u16 = code(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS);
const JUMP_EQ: u16 = code(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K);
const JUMP_GE: u16 = code(libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K);
const RETURN: u16 = code(libc::BPF_RET | libc::BPF_K);

#[expect(
    clippy::cast_possible_truncation,
    reason = "an instruction's code has 16 bits"
)]
const fn code(bits: u32) -> u16 {
    bits as u16
}

/// Puts a filter on this thread and those that it makes from here on. By prctl(2): seccomp(2) is among the
/// calls that systemd's `@system-service` does not have.
///
/// # Errors
/// The system's.
pub fn apply(filter: &BpfProgram) -> io::Result<()> {
    rustix::thread::set_no_new_privs(true)?;
    with_program(filter, |program| {
        // SAFETY: `program` points to instructions that outlive the call; the kernel copies and checks them,
        // and writes nothing.
        let outcome = unsafe { libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, program) };
        i64::from(outcome)
    })
}

/// The same, and the kernel notes in its log what the filter refuses, where seccomp(2) can be called.
///
/// # Errors
/// The system's.
pub fn apply_logged(filter: &BpfProgram) -> io::Result<Applied> {
    rustix::thread::set_no_new_privs(true)?;
    let logged = with_program(filter, |program| {
        let (operation, flags) = (libc::SECCOMP_SET_MODE_FILTER, libc::SECCOMP_FILTER_FLAG_LOG);
        // SAFETY: as in `apply`.
        unsafe { libc::syscall(libc::SYS_seccomp, operation, flags, program) }
    });
    if logged.is_err() {
        apply(filter)?;
    }
    Ok(Applied {
        is_logged: logged.is_ok(),
    })
}

fn with_program(filter: &BpfProgram, put_on: impl FnOnce(*const libc::sock_fprog) -> i64) -> io::Result<()> {
    let program = libc::sock_fprog {
        len: u16::try_from(filter.len()).map_err(io::Error::other)?,
        filter: filter.as_ptr().cast::<libc::sock_filter>().cast_mut(),
    };
    match put_on(&raw const program) {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
