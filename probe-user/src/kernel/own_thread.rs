//! What a thread of our own is at: whoever waits for one tells by it whether it hangs, or has not got a CPU.

use std::fs;
use std::path::{Path, PathBuf};

/// A thread of this process.
#[derive(Clone, Debug)]
pub struct OwnThread(PathBuf);

impl OwnThread {
    /// The calling one, by its number in this /proc, which may be that of another pid namespace.
    pub fn current() -> Option<Self> {
        let task = fs::read_link("/proc/thread-self").ok()?;
        Some(Self(Path::new("/proc").join(task)))
    }

    /// Whether it sleeps, as opposed to waiting for a CPU, or being stopped by a tracer. `stat` of a thread
    /// of ours takes no lock that others hold.
    pub fn sleeps(&self) -> bool {
        let stat = fs::read(self.0.join("stat")).unwrap_or_default();
        let state = stat
            .iter()
            .rposition(|&byte| byte == b')')
            .and_then(|at| stat.get(at + 2));
        state.is_some_and(|state| b"SD".contains(state))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use super::*;

    #[test]
    fn who_sleeps_is_told_from_who_works() {
        let (sender, receiver) = channel();
        let (wake, woken) = channel::<()>();
        let sleeper = std::thread::spawn(move || {
            sender.send(OwnThread::current().unwrap()).unwrap();
            let _ = woken.recv();
        });
        let thread = receiver.recv().unwrap();
        while !thread.sleeps() {
            std::thread::yield_now();
        }
        assert!(!OwnThread::current().unwrap().sleeps(), "this one runs");
        drop(wake);
        sleeper.join().unwrap();
        assert!(!thread.sleeps(), "it has ended");
    }
}
