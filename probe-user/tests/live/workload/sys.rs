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

/// Takes [`die_with_parent`] back: the calling process is to become an orphan.
pub fn outlive_parent() {
    // SAFETY: takes plain numbers.
    unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, 0) };
}

/// Stays until the test lets go of the scene's input, and ends: for orphans, so that none is left behind.
pub fn stay_until_abandoned() -> ! {
    let mut input = libc::pollfd {
        fd: 0,
        events: 0,
        revents: 0,
    };
    // SAFETY: one entry, ours to write. Asked for nothing, it tells of the writer's end alone.
    while unsafe { libc::poll(&raw mut input, 1, -1) } < 1 {}
    exit_now(0)
}

/// Whether the test has sent something, or is gone.
pub fn has_input() -> bool {
    let mut input = libc::pollfd {
        fd: 0,
        events: libc::POLLIN,
        revents: 0,
    };
    // SAFETY: one entry, ours to write.
    unsafe { libc::poll(&raw mut input, 1, 0) > 0 }
}

/// Ends the calling thread alone.
pub fn exit_thread(code: c_int) -> ! {
    // SAFETY: never returns; whatever is on this thread's stack stays as it is.
    unsafe { libc::syscall(libc::SYS_exit, code) };
    exit_now(code)
}

/// Sends a process a signal.
pub fn kill(pid: libc::pid_t, signal: c_int) {
    // SAFETY: takes plain numbers.
    let outcome = unsafe { libc::kill(pid, signal) };
    assert_eq!(outcome, 0, "kill: {}", std::io::Error::last_os_error());
}

/// Becomes the tracer of a process without stopping it.
pub fn seize(pid: libc::pid_t) {
    // SAFETY: PTRACE_SEIZE takes no address, and options in place of data: none.
    let outcome = unsafe {
        libc::ptrace(
            libc::PTRACE_SEIZE,
            pid,
            ptr::null_mut::<()>(),
            ptr::null_mut::<()>(),
        )
    };
    assert_eq!(outcome, 0, "ptrace: {}", std::io::Error::last_os_error());
}

/// Children are no zombies from now on: the kernel reaps them.
pub fn ignore_children() {
    // SAFETY: no handler is installed.
    unsafe { libc::signal(libc::SIGCHLD, libc::SIG_IGN) };
}

/// Waits until there are no children any more.
pub fn wait_for_all() {
    // SAFETY: a null pointer asks for no status.
    while unsafe { libc::wait(ptr::null_mut()) } > 0 {}
}

/// The next child is pid 1 of a pid namespace of its own.
pub fn unshare_pids() {
    // SAFETY: takes plain numbers.
    let outcome = unsafe { libc::unshare(libc::CLONE_NEWPID) };
    assert_eq!(outcome, 0, "unshare: {}", std::io::Error::last_os_error());
}

/// Leads a session of its own.
pub fn lead_session() {
    // SAFETY: no arguments.
    assert!(unsafe { libc::setsid() } > 0, "setsid");
}

/// Forks a child of the caller's parent. Only while the process has one thread.
pub fn fork_sibling(child: impl FnOnce()) -> libc::pid_t {
    let flags = libc::c_long::from(libc::CLONE_PARENT | libc::SIGCHLD);
    // SAFETY: without a stack and shared memory this is fork, and this process has one thread (see `fork`).
    let pid = unsafe { libc::syscall(libc::SYS_clone, flags, 0_usize, 0_usize, 0_usize, 0_usize) };
    assert!(pid >= 0, "clone: {}", std::io::Error::last_os_error());
    if pid == 0 {
        die_with_parent();
        child();
        exit_now(0);
    }
    libc::pid_t::try_from(pid).expect("a pid fits")
}

/// Leaves no core behind, whatever this host does with them.
pub fn no_core() {
    let none = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: the kernel reads the limit.
    unsafe { libc::setrlimit(libc::RLIMIT_CORE, &raw const none) };
}

/// Reads where nothing is.
pub fn fault() {
    // SAFETY: none of it is: the page at the end of address 0 is never mapped, and the fault is the purpose.
    unsafe { ptr::with_exposed_provenance::<u8>(8).read_volatile() };
}

/// Becomes another program: this one, with a scene. Safe in a child that borrows its parent's memory.
pub fn exec_scene(scene: &std::ffi::CStr) -> c_int {
    let arguments = [c"pp-execed".as_ptr(), scene.as_ptr(), ptr::null()];
    // SAFETY: strings that live on, and a list that ends.
    unsafe { libc::execv(c"/proc/self/exe".as_ptr(), arguments.as_ptr()) };
    127
}

/// Blocks a signal.
pub fn block(signal: c_int) {
    mask(libc::SIG_BLOCK, signal);
}

/// Unblocks a signal.
pub fn unblock(signal: c_int) {
    mask(libc::SIG_UNBLOCK, signal);
}

fn mask(how: c_int, signal: c_int) {
    // SAFETY: all zeros is a valid set, and it is ours to write.
    let outcome = unsafe {
        let mut set: libc::sigset_t = mem::zeroed();
        libc::sigaddset(&raw mut set, signal);
        libc::sigprocmask(how, &raw const set, ptr::null_mut())
    };
    assert_eq!(outcome, 0, "sigprocmask: {}", std::io::Error::last_os_error());
}

/// Takes a signal with a handler that does nothing.
pub fn shrug_off(signal: c_int) {
    extern "C" fn nothing(_: c_int) {}
    // SAFETY: the handler does nothing.
    unsafe { libc::signal(signal, nothing as *const () as libc::sighandler_t) };
}

/// Makes a FIFO.
pub fn fifo(path: &std::path::Path) {
    let name = CString::new(path.as_os_str().as_encoded_bytes()).expect("a path without NUL");
    // SAFETY: a string that ends.
    let outcome = unsafe { libc::mkfifo(name.as_ptr(), 0o600) };
    assert_eq!(outcome, 0, "mkfifo: {}", std::io::Error::last_os_error());
}
