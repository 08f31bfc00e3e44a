//! What the scenes about locks stand on: memory that processes share, raw locks in it, and a way to see that a thread
//! has fallen asleep in a futex.

use std::cell::UnsafeCell;
use std::ffi::{c_int, c_void};
use std::fs::File;
use std::os::fd::{AsRawFd, FromRawFd};
use std::time::{Duration, Instant};
use std::{mem, ptr};

/// What a page of zeros is a valid value of, whoever maps it.
///
/// # Safety
/// All zeros have to be valid, and every field has to bear being used by several threads and processes at once.
pub unsafe trait Shareable {}

/// Memory of a file of its own, to be mapped by [`map`] in one process or several.
pub fn memory<T: Shareable>() -> File {
    // SAFETY: the name is a string; the descriptor is nobody else's.
    let file = unsafe {
        let fd = libc::memfd_create(c"pp-shared".as_ptr(), libc::MFD_CLOEXEC);
        assert!(fd >= 0, "memfd_create: {}", std::io::Error::last_os_error());
        File::from_raw_fd(fd)
    };
    file.set_len(mem::size_of::<T>() as u64).expect("room in memory");
    file
}

/// Maps such memory, at an address that is not the one of an earlier mapping.
pub fn map<T: Shareable>(file: &File) -> &'static T {
    let (size, access) = (mem::size_of::<T>(), libc::PROT_READ | libc::PROT_WRITE);
    // SAFETY: a new mapping as large as the file, never unmapped; zeros are a valid `T`, and sharing it is what `T` is for.
    unsafe {
        let address = libc::mmap(
            ptr::null_mut(),
            size,
            access,
            libc::MAP_SHARED,
            file.as_raw_fd(),
            0,
        );
        assert_ne!(
            address,
            libc::MAP_FAILED,
            "mmap: {}",
            std::io::Error::last_os_error()
        );
        &*address.cast::<T>()
    }
}

/// The address of something, as the scenes tell it.
pub fn address<T>(of: &T) -> i64 {
    i64::try_from(ptr::from_ref(of).addr()).expect("an address of user space")
}

/// Which `pthread_mutex_t` it is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Flavour {
    Plain,
    Inheriting,
    Shared,
    Robust,
}

/// A `pthread_mutex_t` as C programs use it.
#[repr(transparent)]
pub struct PthreadMutex(UnsafeCell<libc::pthread_mutex_t>);

// SAFETY: being used by many threads is what it is for.
unsafe impl Sync for PthreadMutex {}

impl PthreadMutex {
    /// One that lives as long as the process.
    pub fn leak(flavour: Flavour) -> &'static Self {
        let mutex = Box::leak(Box::new(Self(UnsafeCell::new(libc::PTHREAD_MUTEX_INITIALIZER))));
        mutex.init(flavour);
        mutex
    }

    /// Makes a mutex of memory that nobody uses yet.
    pub fn init(&self, flavour: Flavour) {
        let outcome = initialise(self.0.get(), flavour);
        assert_eq!(outcome, 0, "pthread_mutex_init");
    }

    /// Returns what `pthread_mutex_lock` does.
    pub fn lock(&self) -> c_int {
        // SAFETY: it was initialised.
        unsafe { libc::pthread_mutex_lock(self.0.get()) }
    }

    /// Gives it back.
    pub fn unlock(&self) {
        // SAFETY: it was initialised, and the caller holds it.
        let outcome = unsafe { libc::pthread_mutex_unlock(self.0.get()) };
        assert_eq!(outcome, 0, "pthread_mutex_unlock");
    }

    /// After its owner died: it can be used again.
    pub fn recover(&self) {
        // SAFETY: it was initialised, and the caller holds it.
        let outcome = unsafe { libc::pthread_mutex_consistent(self.0.get()) };
        assert_eq!(outcome, 0, "pthread_mutex_consistent");
    }

    /// For the functions of C that want one.
    pub fn as_ptr(&self) -> *mut libc::pthread_mutex_t {
        self.0.get()
    }
}

fn initialise(mutex: *mut libc::pthread_mutex_t, flavour: Flavour) -> c_int {
    // SAFETY: zeros are a valid attribute to initialise, and `mutex` is memory for one that nobody uses yet.
    unsafe {
        let mut attributes: libc::pthread_mutexattr_t = mem::zeroed();
        let attributes = &raw mut attributes;
        libc::pthread_mutexattr_init(attributes);
        match flavour {
            Flavour::Plain => 0,
            Flavour::Inheriting => {
                libc::pthread_mutexattr_setprotocol(attributes, libc::PTHREAD_PRIO_INHERIT)
            }
            Flavour::Shared => libc::pthread_mutexattr_setpshared(attributes, libc::PTHREAD_PROCESS_SHARED),
            Flavour::Robust => libc::pthread_mutexattr_setrobust(attributes, libc::PTHREAD_MUTEX_ROBUST),
        };
        libc::pthread_mutex_init(mutex, attributes)
    }
}

/// Sleeps in `clock_nanosleep`: the scenes signal by atomics and naps, so that the only futex is the one they are about.
pub fn nap(us: u64) {
    std::thread::sleep(Duration::from_micros(us));
}

/// Naps until something is so.
pub fn nap_until(mut so: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(100);
    while !so() {
        assert!(Instant::now() < deadline, "a scene got stuck");
        nap(100);
    }
}

/// The number of the system call a thread sleeps in; `None` while it is awake, or gone.
pub fn asleep_in(tid: i32) -> Option<i64> {
    let text = std::fs::read_to_string(format!("/proc/{tid}/syscall")).ok()?;
    text.split(' ').next()?.trim().parse().ok()
}

/// Whether a thread sleeps in `futex`.
pub fn in_futex(tid: i32) -> bool {
    asleep_in(tid) == Some(libc::SYS_futex)
}

/// The `futex` system call with the operands that all operations share.
pub fn futex(word: *const u32, operation: c_int, value: u32, timeout: *const libc::timespec) -> i64 {
    // SAFETY: the kernel checks both addresses, and writes to neither.
    unsafe {
        libc::syscall(
            libc::SYS_futex,
            word,
            operation,
            value,
            timeout,
            ptr::null::<c_void>(),
            0,
        )
    }
}

/// A thread with a name and little stack, which nobody joins.
pub fn thread(name: &str, body: impl FnOnce() + Send + 'static) {
    std::thread::Builder::new()
        .name(name.to_owned())
        .stack_size(128 * 1024)
        .spawn(body)
        .expect("starting a thread");
}
