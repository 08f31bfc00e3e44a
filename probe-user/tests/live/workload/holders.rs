//! One who holds a mutex that three others want, and why he does not give it up: he sleeps, he gets no CPU, or he waits
//! for the disk.

use std::fs::File;
use std::io::Write;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering::SeqCst};
use std::time::{Duration, Instant};

use crate::arena::{self, Flavour, PthreadMutex, address, in_futex, nap, nap_until};
use crate::{ready, sys};

static HOLDER: AtomicI32 = AtomicI32::new(0);
/// All who want the mutex wait for it: the holder can do what he is about to.
static QUEUED: AtomicBool = AtomicBool::new(false);
/// The longest that any of these loads the machine.
const LIMIT: Duration = Duration::from_secs(40);

/// Someone who holds the mutex and then does something for ever, and three who want it; tells once `stands` is so.
fn scene(keep: impl FnOnce() + Send + 'static, stands: impl FnOnce(i32)) {
    static WAITERS: [AtomicI32; 3] = [const { AtomicI32::new(0) }; 3];
    sys::set_name(b"pp-holder");
    let mutex = PthreadMutex::leak(Flavour::Plain);
    arena::thread("pp-keeper", || {
        mutex.lock();
        HOLDER.store(sys::gettid(), SeqCst);
        nap_until(|| QUEUED.load(SeqCst));
        keep();
    });
    nap_until(|| HOLDER.load(SeqCst) > 0);
    for waiter in &WAITERS {
        arena::thread("pp-waiter", || {
            waiter.store(sys::gettid(), SeqCst);
            mutex.lock();
            // Gone on as soon as the holder gave up.
            mutex.unlock();
        });
    }
    nap_until(|| {
        WAITERS
            .iter()
            .all(|tid| tid.load(SeqCst) > 0 && in_futex(tid.load(SeqCst)))
    });
    QUEUED.store(true, SeqCst);
    let holder = HOLDER.load(SeqCst);
    stands(holder);
    ready(&[
        ("pid", std::process::id().into()),
        ("holder", holder.into()),
        ("address", address(mutex)),
    ]);
}

/// The holder sleeps.
pub fn asleep() {
    let asleep = |tid| nap_until(|| arena::asleep_in(tid) == Some(libc::SYS_clock_nanosleep));
    scene(|| std::thread::sleep(Duration::from_secs(3600)), asleep);
}

/// Sets the niceness of a thread.
fn nice(tid: i32, value: i32) {
    let tid = libc::id_t::try_from(tid).expect("a tid is positive");
    // SAFETY: takes plain numbers.
    let outcome = unsafe { libc::setpriority(libc::PRIO_PROCESS, tid, value) };
    assert_eq!(outcome, 0, "setpriority: {}", std::io::Error::last_os_error());
}

/// Nanoseconds that a thread has been on a CPU.
fn ran_ns(tid: i32) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{tid}/schedstat")).expect("a live thread");
    let first = text.split(' ').next();
    first
        .and_then(|field| field.parse().ok())
        .expect("a time on a CPU")
}

/// The holder computes at the lowest priority, on a CPU where somebody else computes at the highest.
pub fn starved() {
    let began = Instant::now();
    let compute = move || {
        while began.elapsed() < LIMIT {
            std::hint::spin_loop();
        }
    };
    let keep = move || {
        sys::pin_to_first_cpu();
        nice(sys::gettid(), 19);
        compute();
    };
    scene(keep, move |holder| {
        arena::thread("pp-hog", move || {
            sys::pin_to_first_cpu();
            nice(sys::gettid(), -20);
            compute();
        });
        // Not a microsecond in a fifth of a second.
        nap_until(|| {
            let before = ran_ns(holder);
            nap(200_000);
            ran_ns(holder) == before
        });
    });
}

/// The holder appends to a file in a directory, a byte at a time, and waits for the disk after each.
pub fn on_disk(directory: &str) {
    let began = Instant::now();
    let path = PathBuf::from(directory).join("journal");
    let keep = move || {
        // Gets a CPU at once, so that the disk is what it waits for.
        nice(sys::gettid(), -20);
        let mut file = File::create(path).expect("a file");
        while began.elapsed() < LIMIT {
            file.write_all(b"x").expect("writing to it");
            file.sync_all().expect("syncing it");
        }
    };
    scene(keep, |_| ());
}
