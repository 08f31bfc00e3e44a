//! Scenes of processes that neither run freely nor are dead: what holds them is the question.

use std::io::PipeWriter;
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicI32, Ordering::SeqCst};
use std::time::Duration;

use crate::arena::{self, Shareable, nap_until};
use crate::{ready, sys};

/// Computes, with a short nap now and then for whoever shares the CPU.
fn spin() -> ! {
    loop {
        for _ in 0..2_000_000 {
            std::hint::spin_loop();
        }
        std::thread::sleep(Duration::from_micros(50));
    }
}

/// A first thread asleep in `read`, and one that computes: to be frozen by the test, the one inside a system
/// call and the other outside.
pub fn napper_and_spinner() {
    sys::set_name(b"pp-frozen");
    std::thread::spawn(|| {
        sys::set_name(b"pp-spinner");
        loop {
            std::hint::spin_loop();
        }
    });
    ready(&[("pid", i64::from(std::process::id()))]);
}

/// A child whose first thread has ended while another computes.
pub fn headless_and_busy() {
    let child = sys::fork(|| {
        sys::set_name(b"pp-headbusy");
        std::thread::spawn(|| {
            sys::set_name(b"pp-burner");
            spin()
        });
        sys::exit_thread(5);
    });
    while !std::fs::read_to_string(format!("/proc/{child}/stat")).is_ok_and(|stat| stat.contains(") Z ")) {
        std::thread::sleep(Duration::from_millis(1));
    }
    ready(&[("pid", child.into())]);
}

/// The first process of a pid namespace, killed, which cannot end: another process in there is dead, but this
/// one, its parent, is outside and does not reap it.
pub fn init_that_cannot_end() {
    sys::unshare_pids();
    let init = sys::fork(|| {
        sys::set_name(b"pp-init");
        sys::pause();
    });
    let other = sys::fork(|| {
        sys::set_name(b"pp-left");
        sys::pause();
    });
    for (pid, name) in [(init, "pp-init\n"), (other, "pp-left\n")] {
        let comm = || std::fs::read_to_string(format!("/proc/{pid}/comm"));
        nap_until(|| comm().is_ok_and(|comm| comm == name));
    }
    sys::kill(init, libc::SIGKILL);
    sys::wait_for_zombie(other);
    ready(&[("init", init.into()), ("left", other.into())]);
}

/// `ioctl(2)` requests of userfaultfd, and what they take (`linux/userfaultfd.h`).
const UFFDIO_API: libc::c_ulong = 0xc018_aa3f;
const UFFDIO_REGISTER: libc::c_ulong = 0xc020_aa00;
const UFFD_API: u64 = 0xaa;
const REGISTER_MISSING: u64 = 1;
const PAGE: usize = 4096;

/// A page that never comes; `None` if the kernel has no userfaultfd.
fn page_that_never_comes() -> Option<*const u8> {
    // SAFETY: a new page, never unmapped; the structures are as large as the requests say, and live until the
    // calls return.
    unsafe {
        let page = libc::mmap(
            std::ptr::null_mut(),
            PAGE,
            libc::PROT_READ,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
            -1,
            0,
        );
        let descriptor = libc::syscall(libc::SYS_userfaultfd, libc::O_CLOEXEC);
        let descriptor = i32::try_from(descriptor)
            .ok()
            .filter(|&descriptor| descriptor >= 0)?;
        let mut api = [UFFD_API, 0, 0];
        let mut register = [page.addr() as u64, PAGE as u64, REGISTER_MISSING, 0];
        let is_ready = libc::ioctl(descriptor, UFFDIO_API, api.as_mut_ptr()) == 0
            && libc::ioctl(descriptor, UFFDIO_REGISTER, register.as_mut_ptr()) == 0;
        is_ready.then(|| page.cast::<u8>().cast_const())
    }
}

/// Threads of two processes that write to one pipe, by the numbers they have everywhere.
#[repr(C)]
struct Writers {
    holder: AtomicI32,
    doomed: AtomicI32,
}

// SAFETY: atomics, for which zero is a value.
unsafe impl Shareable for Writers {}

/// Writes a byte that lies in this page.
fn write_from(pipe: &PipeWriter, page: usize) {
    // SAFETY: the page is mapped for ever; the kernel only reads it.
    unsafe { libc::write(pipe.as_raw_fd(), std::ptr::with_exposed_provenance(page), 1) };
}

/// A process that was killed, of which one thread is in uninterruptible sleep: it wants a pipe's lock, and a
/// thread of this process sleeps on that, in a write of a page that never comes (`pipe_write()` copies under
/// `pipe->mutex`). Tells pid 0 where there is no userfaultfd.
pub fn killed_in_uninterruptible_sleep() {
    sys::set_name(b"pp-clutch");
    let writers: &Writers = arena::map(&arena::memory::<Writers>());
    let (_reader, pipe) = std::io::pipe().expect("a pipe");
    let child = sys::fork(|| {
        sys::set_name(b"pp-doomed");
        let pipe = pipe.try_clone().expect("a descriptor");
        arena::thread("pp-stuck", move || {
            nap_until(|| writers.holder.load(SeqCst) != 0);
            writers.doomed.store(sys::gettid(), SeqCst);
            let byte = 0_u8;
            write_from(&pipe, (&raw const byte).expose_provenance());
        });
        sys::pause();
    });
    let Some(page) = page_that_never_comes().map(<*const u8>::expose_provenance) else {
        return ready(&[("pid", 0)]);
    };
    let tid: &'static AtomicI32 = Box::leak(Box::new(AtomicI32::new(0)));
    arena::thread("pp-holder", move || {
        tid.store(sys::gettid(), SeqCst);
        write_from(&pipe, page);
    });
    nap_until(|| tid.load(SeqCst) != 0 && waits(tid.load(SeqCst)));
    writers.holder.store(tid.load(SeqCst), SeqCst);
    let stuck = || writers.doomed.load(SeqCst);
    let state = |tid: i32, state: &str| {
        let stat = std::fs::read_to_string(format!("/proc/{child}/task/{tid}/stat"));
        stat.is_ok_and(|stat| stat.contains(state))
    };
    nap_until(|| stuck() != 0 && state(stuck(), ") D "));
    sys::kill(child, libc::SIGKILL);
    nap_until(|| state(child, ") Z "));
    ready(&[("pid", child.into()), ("tid", stuck().into())]);
}

/// A thread that waits for a page. Tells thread 0 where there is no userfaultfd.
pub fn faulting() {
    static TID: AtomicI32 = AtomicI32::new(0);
    sys::set_name(b"pp-faulting");
    if let Some(page) = page_that_never_comes() {
        let address = page.addr();
        arena::thread("pp-fault", move || {
            TID.store(sys::gettid(), SeqCst);
            // SAFETY: mapped for ever; reading it never ends.
            unsafe { std::ptr::read_volatile(std::ptr::with_exposed_provenance::<u8>(address)) };
        });
        page.expose_provenance();
        nap_until(|| TID.load(SeqCst) != 0 && waits(TID.load(SeqCst)));
    }
    ready(&[
        ("pid", i64::from(std::process::id())),
        ("tid", TID.load(SeqCst).into()),
    ]);
}

/// Whether a thread of this process is asleep.
fn waits(tid: i32) -> bool {
    std::fs::read_to_string(format!("/proc/self/task/{tid}/stat"))
        .is_ok_and(|stat| stat.contains(") S ") || stat.contains(") D "))
}
