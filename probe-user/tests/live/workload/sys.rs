//! The few system calls the scenes are made of.

use std::ffi::{CString, c_int};
use std::{mem, ptr};

/// Dies when the thread that started it does, so that an aborted test leaves nothing behind.
pub fn die_with_parent() {
    // SAFETY: takes plain numbers.
    unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
}

/// Names the calling thread; any bytes but NUL, 15 of them at most.
pub fn set_name(name: &[u8]) {
    let name = CString::new(name).expect("a name without NUL");
    // SAFETY: the kernel reads up to the NUL or 15 bytes.
    unsafe { libc::prctl(libc::PR_SET_NAME, name.as_ptr()) };
}

/// Forks. Only while the process has one thread. The child dies with its parent and never returns.
pub fn fork(child: impl FnOnce()) -> libc::pid_t {
    // SAFETY: this process has one thread, so no lock is held by another one that the child would miss.
    let pid = unsafe { libc::fork() };
    assert!(pid >= 0, "fork: {}", std::io::Error::last_os_error());
    if pid == 0 {
        die_with_parent();
        child();
        exit_now(0);
    }
    pid
}

/// Ends the process without running anything on the way.
pub fn exit_now(code: c_int) -> ! {
    // SAFETY: never returns, touches no memory.
    unsafe { libc::_exit(code) }
}

/// Waits for a child to end or stop, as `options` say; returns its status.
pub fn wait_for(pid: libc::pid_t, options: c_int) -> c_int {
    let mut status = 0;
    // SAFETY: `status` is ours to write.
    let waited = unsafe { libc::waitpid(pid, &raw mut status, options) };
    assert_eq!(waited, pid, "waitpid: {}", std::io::Error::last_os_error());
    status
}

/// Becomes the parent of descendants that lose theirs.
pub fn adopt_orphans() {
    // SAFETY: takes plain numbers.
    unsafe { libc::prctl(libc::PR_SET_CHILD_SUBREAPER, 1) };
}

/// Reaps whoever is dead now.
pub fn reap_the_dead() {
    // SAFETY: a null pointer asks for no status.
    while unsafe { libc::waitpid(-1, ptr::null_mut(), libc::WNOHANG) } > 0 {}
}

/// Waits until a child is dead, and leaves it unreaped.
pub fn wait_for_zombie(pid: libc::pid_t) {
    let pid = libc::id_t::try_from(pid).expect("a pid is positive");
    // SAFETY: all zeros is a valid siginfo_t, and it is ours to write.
    let outcome = unsafe {
        let mut info: libc::siginfo_t = mem::zeroed();
        libc::waitid(libc::P_PID, pid, &raw mut info, libc::WEXITED | libc::WNOWAIT)
    };
    assert_eq!(outcome, 0, "waitid: {}", std::io::Error::last_os_error());
}

/// Sends the calling process a signal.
pub fn raise(signal: c_int) {
    // SAFETY: takes a plain number.
    unsafe { libc::raise(signal) };
}

/// Asks to be traced by the parent.
pub fn trace_me() {
    // SAFETY: PTRACE_TRACEME ignores its pointers.
    let outcome = unsafe {
        libc::ptrace(
            libc::PTRACE_TRACEME,
            0,
            ptr::null_mut::<()>(),
            ptr::null_mut::<()>(),
        )
    };
    assert_eq!(outcome, 0, "ptrace: {}", std::io::Error::last_os_error());
}

/// Sleeps until killed.
pub fn pause() -> ! {
    loop {
        // SAFETY: no arguments.
        unsafe { libc::pause() };
    }
}

/// Confines the calling process to the first CPU it may use.
pub fn pin_to_first_cpu() {
    // SAFETY: all zeros is an empty set; the kernel reads and writes no more than the size given.
    unsafe {
        let mut allowed: libc::cpu_set_t = mem::zeroed();
        let size = mem::size_of::<libc::cpu_set_t>();
        assert_eq!(libc::sched_getaffinity(0, size, &raw mut allowed), 0);
        let first = (0..1024)
            .find(|&cpu| libc::CPU_ISSET(cpu, &allowed))
            .expect("a CPU");
        let mut only: libc::cpu_set_t = mem::zeroed();
        libc::CPU_SET(first, &mut only);
        assert_eq!(libc::sched_setaffinity(0, size, &raw const only), 0);
    }
}

/// Starts a child that borrows this process's memory until it execs or ends: the caller is in uninterruptible sleep
/// meanwhile, as after `vfork`.
pub fn clone_vfork(child: extern "C" fn(*mut libc::c_void) -> c_int) -> libc::pid_t {
    let mut stack = vec![0_u128; 4096];
    let flags = libc::CLONE_VM | libc::CLONE_VFORK | libc::SIGCHLD;
    // SAFETY: the child runs on `stack`, from its upper end, and is gone when the call returns.
    unsafe { libc::clone(child, stack.as_mut_ptr_range().end.cast(), flags, ptr::null_mut()) }
}

/// CPU time of all children that were reaped, microseconds.
pub fn children_cpu_us() -> i64 {
    // SAFETY: all zeros is a valid rusage, and it is ours to write.
    let usage = unsafe {
        let mut usage: libc::rusage = mem::zeroed();
        libc::getrusage(libc::RUSAGE_CHILDREN, &raw mut usage);
        usage
    };
    let us = |time: libc::timeval| time.tv_sec * 1_000_000 + time.tv_usec;
    us(usage.ru_utime) + us(usage.ru_stime)
}

/// The calling thread's id.
pub fn gettid() -> libc::pid_t {
    // SAFETY: no arguments, cannot fail.
    unsafe { libc::gettid() }
}
