//! Futex waits that go through other doors than the system call `futex` of this architecture.

use std::ptr;
use std::sync::atomic::{AtomicI32, AtomicU32, Ordering::SeqCst};

use crate::arena::{self, address, asleep_in, futex, nap_until};
use crate::{ready, sys};

const FUTEX2_SIZE_U32: u32 = 2;
const FUTEX2_PRIVATE: u32 = 128;
/// `futex` as 32-bit programs call it.
const FUTEX_OF_I386: i32 = 240;

/// An entry of the list that `futex_waitv` takes.
#[repr(C)]
struct Waiter {
    value: u64,
    address: u64,
    flags: u32,
    reserved: u32,
}

/// A thread that ends up asleep in a system call, or not if the kernel has no such call.
struct Door {
    tid: &'static AtomicI32,
    /// What the call returned, if it did: minus the error.
    outcome: &'static AtomicI32,
}

impl Door {
    fn open(name: &str, call: impl FnOnce() -> i64 + Send + 'static) -> Self {
        let leak = || -> &'static AtomicI32 { Box::leak(Box::new(AtomicI32::new(0))) };
        let (tid, outcome) = (leak(), leak());
        arena::thread(name, move || {
            tid.store(sys::gettid(), SeqCst);
            let returned = call();
            outcome.store(i32::try_from(returned).unwrap_or(1), SeqCst);
            // Stays, so that there is a thread to look at.
            sys::pause();
        });
        Self { tid, outcome }
    }

    /// The thread, once it sleeps in the call by its number here; 0 if the kernel does not have it.
    fn settle(&self, numbers: &[i64]) -> i64 {
        let tid = || self.tid.load(SeqCst);
        let refused = || self.outcome.load(SeqCst) != 0;
        let asleep = || tid() > 0 && asleep_in(tid()).is_some_and(|number| numbers.contains(&number));
        nap_until(|| refused() || asleep());
        let outcome = self.outcome.load(SeqCst);
        assert!(
            outcome == 0 || outcome == -libc::ENOSYS,
            "the call returned {outcome}"
        );
        if outcome == 0 { tid().into() } else { 0 }
    }
}

/// The result of a system call made through libc, errors as the kernel returns them.
fn returned(outcome: i64) -> i64 {
    if outcome < 0 {
        -i64::from(std::io::Error::last_os_error().raw_os_error().unwrap_or(1))
    } else {
        outcome
    }
}

fn waitv(word: &'static AtomicU32, other: &'static AtomicU32) -> i64 {
    let entry = |word: &AtomicU32| Waiter {
        value: 0,
        address: word.as_ptr().addr() as u64,
        flags: FUTEX2_SIZE_U32 | FUTEX2_PRIVATE,
        reserved: 0,
    };
    let list = [entry(word), entry(other)];
    // SAFETY: the list lives until the call returns; no timeout.
    returned(unsafe {
        libc::syscall(
            libc::SYS_futex_waitv,
            list.as_ptr(),
            2,
            0,
            ptr::null::<libc::timespec>(),
            0,
        )
    })
}

fn wait(word: &'static AtomicU32) -> i64 {
    let flags = FUTEX2_SIZE_U32 | FUTEX2_PRIVATE;
    // SAFETY: the word lives for ever; no timeout.
    returned(unsafe {
        libc::syscall(
            455,
            word.as_ptr(),
            0_u64,
            u64::from(u32::MAX),
            flags,
            ptr::null::<libc::timespec>(),
            0,
        )
    })
}

/// A word where 32-bit programs could see it.
fn low_word() -> &'static AtomicU32 {
    // SAFETY: a new page, never unmapped; zeros are a valid word.
    unsafe {
        let page = libc::mmap(
            ptr::null_mut(),
            4096,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_32BIT,
            -1,
            0,
        );
        assert_ne!(
            page,
            libc::MAP_FAILED,
            "mmap: {}",
            std::io::Error::last_os_error()
        );
        &*page.cast::<AtomicU32>().add(5)
    }
}

#[cfg(target_arch = "x86_64")]
fn wait_as_i386(word: &'static AtomicU32) -> i64 {
    let operation = libc::FUTEX_WAIT | libc::FUTEX_PRIVATE_FLAG;
    let outcome: i32;
    // SAFETY: the word lives for ever, below 4 GiB; no timeout. rbx is not ours to name, so it changes places meanwhile;
    // the kernel may clear r8 to r11.
    unsafe {
        std::arch::asm!(
            "xchg rbx, {word}",
            "int 0x80",
            "xchg rbx, {word}",
            word = inout(reg) word.as_ptr().addr() => _,
            inlateout("eax") FUTEX_OF_I386 => outcome,
            in("rcx") i64::from(operation),
            in("rdx") 0_i64,
            in("rsi") 0_i64,
            in("rdi") 0_i64,
            out("r8") _,
            out("r9") _,
            out("r10") _,
            out("r11") _,
        );
    }
    outcome.into()
}

/// A thread in each: `futex_waitv`, `futex_wait`, `futex` as 32-bit programs call it, and a `futex` with a timeout.
/// What a kernel does not have is told as thread 0.
pub fn doors() {
    static WORDS: [AtomicU32; 4] = [const { AtomicU32::new(0) }; 4];
    sys::set_name(b"pp-doors");
    let low = low_word();
    let by_waitv = Door::open("pp-waitv", || waitv(&WORDS[0], &WORDS[1]));
    let by_wait = Door::open("pp-wait", || wait(&WORDS[2]));
    let by_i386 = Door::open("pp-i386", || wait_as_i386(low));
    let timed = Door::open("pp-timeout", || {
        let hour = libc::timespec {
            tv_sec: 3600,
            tv_nsec: 0,
        };
        let operation = libc::FUTEX_WAIT | libc::FUTEX_PRIVATE_FLAG;
        returned(futex(WORDS[3].as_ptr(), operation, 0, &raw const hour))
    });
    ready(&[
        ("pid", std::process::id().into()),
        ("waitv", by_waitv.settle(&[libc::SYS_futex_waitv])),
        ("waitv_address", address(&WORDS[0])),
        ("wait", by_wait.settle(&[455])),
        ("wait_address", address(&WORDS[2])),
        ("i386", by_i386.settle(&[FUTEX_OF_I386.into()])),
        ("i386_address", address(low)),
        ("timeout", timed.settle(&[libc::SYS_futex])),
        ("timeout_address", address(&WORDS[3])),
    ]);
}
