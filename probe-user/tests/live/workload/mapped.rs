//! A contended mutex in a file of its own, and what stands where `/proc/PID/maps` says that the file is: not
//! that file.

use std::ffi::CString;
use std::fs::{self, File, OpenOptions};
use std::os::fd::{AsRawFd, FromRawFd};
use std::sync::atomic::{AtomicI32, Ordering::SeqCst};

use crate::arena::{self, Flavour, PthreadMutex, address, in_futex, nap_until};
use crate::{ready, sys};

const LENGTH: usize = 64 << 10;

/// Maps a file at `path`, has a thread hold a mutex in it that another one wants, and does `what` with its
/// name: `fifo` and `link` put those at the path that `maps` shows from then on, `swapped` puts another file
/// at its own; `memfd` and `device` map something that never had one.
pub fn lock_in_file(what: &str, path: &str) {
    static HOLDER: AtomicI32 = AtomicI32::new(0);
    static WAITER: AtomicI32 = AtomicI32::new(0);
    sys::set_name(b"pp-mapped");
    let file = open(what, path);
    file.set_len(LENGTH as u64).ok();
    let flags = if what == "device" {
        libc::MAP_PRIVATE
    } else {
        libc::MAP_SHARED
    };
    // SAFETY: a new mapping, wherever the kernel likes.
    let memory = unsafe {
        libc::mmap(
            std::ptr::null_mut(),
            LENGTH,
            libc::PROT_READ | libc::PROT_WRITE,
            flags,
            file.as_raw_fd(),
            0,
        )
    };
    assert_ne!(
        memory,
        libc::MAP_FAILED,
        "mmap: {}",
        std::io::Error::last_os_error()
    );
    // SAFETY: the mapping stays, is large enough, aligned, zeroed, and nobody else's.
    let mutex: &'static PthreadMutex = unsafe { &*memory.cast::<PthreadMutex>() };
    mutex.init(Flavour::Plain);
    replace(what, path);
    arena::thread("pp-mapped", || {
        mutex.lock();
        HOLDER.store(sys::gettid(), SeqCst);
        loop {
            std::thread::sleep(std::time::Duration::from_secs(3600));
        }
    });
    nap_until(|| HOLDER.load(SeqCst) > 0);
    arena::thread("pp-mapped", || {
        WAITER.store(sys::gettid(), SeqCst);
        mutex.lock();
    });
    nap_until(|| WAITER.load(SeqCst) > 0 && in_futex(WAITER.load(SeqCst)));
    ready(&[("pid", std::process::id().into()), ("address", address(mutex))]);
}

fn open(what: &str, path: &str) -> File {
    match what {
        // SAFETY: a valid name; the descriptor is nobody else's.
        "memfd" => unsafe { File::from_raw_fd(libc::memfd_create(c"pp-memfd".as_ptr(), libc::MFD_CLOEXEC)) },
        "device" => OpenOptions::new()
            .read(true)
            .write(true)
            .open("/dev/zero")
            .expect("a device"),
        _ => OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .open(path)
            .expect("a file of its own"),
    }
}

fn replace(what: &str, path: &str) {
    let deleted = format!("{path} (deleted)");
    match what {
        "fifo" => {
            fs::remove_file(path).expect("removing it");
            let name = CString::new(deleted).expect("a path");
            // SAFETY: a valid path.
            assert_eq!(unsafe { libc::mkfifo(name.as_ptr(), 0o600) }, 0);
        }
        "link" => {
            fs::remove_file(path).expect("removing it");
            std::os::unix::fs::symlink(std::env::current_exe().expect("this program"), deleted)
                .expect("a link");
        }
        "swapped" => {
            // Its own name stays in `maps`: the file is moved over, not removed.
            let other = format!("{path}-other");
            fs::copy("/proc/self/exe", &other).expect("another file");
            fs::rename(other, path).expect("moving it over");
        }
        _ => {}
    }
}
