//! Stopping one thread of a process, which the kernel lets whoever traces it do.

use std::fs;
use std::io::Error;
use std::ptr;

/// A thread that stands still, until dropped by the thread that stopped it.
pub struct Stopped(libc::pid_t);

impl Stopped {
    /// Stops the thread with a name.
    ///
    /// # Panics
    /// If there is none, or it cannot be stopped.
    pub fn thread(pid: u32, name: &str) -> Self {
        let tasks = fs::read_dir(format!("/proc/{pid}/task")).expect("its threads");
        let is_called = |task: &fs::DirEntry| {
            fs::read_to_string(task.path().join("comm")).is_ok_and(|comm| comm.trim_end() == name)
        };
        let task = tasks
            .flatten()
            .find(is_called)
            .unwrap_or_else(|| panic!("no thread {name}"));
        let tid = task
            .file_name()
            .to_str()
            .and_then(|tid| tid.parse().ok())
            .expect("a tid");
        trace(libc::PTRACE_SEIZE, tid);
        trace(libc::PTRACE_INTERRUPT, tid);
        // SAFETY: a null pointer asks for no status.
        let stopped = unsafe { libc::waitpid(tid, ptr::null_mut(), libc::__WALL) };
        assert_eq!(stopped, tid, "{}", Error::last_os_error());
        Self(tid)
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        trace(libc::PTRACE_DETACH, self.0);
    }
}

fn trace(request: libc::c_uint, tid: libc::pid_t) {
    // SAFETY: none of these reads or writes memory of ours.
    let outcome = unsafe { libc::ptrace(request, tid, ptr::null_mut::<()>(), ptr::null_mut::<()>()) };
    assert_eq!(outcome, 0, "ptrace {request}: {}", Error::last_os_error());
}
