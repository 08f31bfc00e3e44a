//! Scenes of processes that neither run freely nor are dead: what holds them is the question.

use std::time::Duration;

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
        crate::arena::nap_until(|| comm().is_ok_and(|comm| comm == name));
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

/// A thread that waits for a page. Tells thread 0 where there is no userfaultfd.
pub fn faulting() {
    static TID: std::sync::atomic::AtomicI32 = std::sync::atomic::AtomicI32::new(0);
    let order = std::sync::atomic::Ordering::SeqCst;
    sys::set_name(b"pp-faulting");
    if let Some(page) = page_that_never_comes() {
        let address = page.addr();
        crate::arena::thread("pp-fault", move || {
            TID.store(sys::gettid(), order);
            // SAFETY: mapped for ever; reading it never ends.
            unsafe { std::ptr::read_volatile(std::ptr::with_exposed_provenance::<u8>(address)) };
        });
        page.expose_provenance();
        crate::arena::nap_until(|| TID.load(order) != 0 && waits(TID.load(order)));
    }
    ready(&[
        ("pid", i64::from(std::process::id())),
        ("tid", TID.load(order).into()),
    ]);
}

/// Whether a thread of this process is asleep.
fn waits(tid: i32) -> bool {
    std::fs::read_to_string(format!("/proc/self/task/{tid}/stat"))
        .is_ok_and(|stat| stat.contains(") S ") || stat.contains(") D "))
}
