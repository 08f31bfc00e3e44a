//! Threads that wait in futexes and for no lock: idle pools, consumers, joins, semaphores, barriers, timed polls.

use std::cell::UnsafeCell;
use std::collections::VecDeque;
use std::mem;
use std::sync::atomic::{AtomicI32, Ordering::SeqCst};
use std::sync::{Condvar, Mutex, PoisonError};

use crate::arena::{self, Flavour, PthreadMutex, address, in_futex, nap, nap_until};
use crate::{ready, sys};

/// Something of C's that threads share by its address, made of zeros.
struct Raw<T>(UnsafeCell<T>);

// SAFETY: condition variables, semaphores and barriers are made for many threads.
unsafe impl<T> Sync for Raw<T> {}

impl<T> Raw<T> {
    fn leak() -> &'static Self {
        // SAFETY: zeros are what these types are before they are initialised; a condition variable is ready then.
        Box::leak(Box::new(Self(UnsafeCell::new(unsafe { mem::zeroed() }))))
    }

    fn as_ptr(&self) -> *mut T {
        self.0.get()
    }
}

type PthreadCondvar = Raw<libc::pthread_cond_t>;

/// Threads that do the same, and are asleep in a futex once [`Crew::settle`] returns.
struct Crew(Vec<&'static AtomicI32>);

impl Crew {
    fn new() -> Self {
        Self(Vec::new())
    }

    fn add(&mut self, name: &str, body: impl FnOnce() + Send + 'static) -> &'static AtomicI32 {
        let tid: &'static AtomicI32 = Box::leak(Box::new(AtomicI32::new(0)));
        arena::thread(name, move || {
            tid.store(sys::gettid(), SeqCst);
            body();
        });
        self.0.push(tid);
        tid
    }

    /// Waits until all have gone to sleep, and says that the scene stands.
    fn settle(&self, of: i64) {
        nap_until(|| self.0.iter().all(|tid| in_futex(tid.load(SeqCst))));
        self.stand(of);
    }

    fn stand(&self, of: i64) {
        nap_until(|| self.0.iter().all(|tid| tid.load(SeqCst) > 0));
        ready(&[("pid", std::process::id().into()), ("address", of)]);
    }
}

/// The scene with a name.
pub fn scene(name: &str) {
    match name {
        "pool" => pool(),
        "std-pool" => std_pool(),
        "consumers" => consumers(),
        "pthread-consumers" => pthread_consumers(),
        "join" => join(),
        "semaphore" => semaphore(),
        "barrier" => barrier(),
        "timed" => timed(),
        other => panic!("no idle scene called {other:?}"),
    }
}

fn size<T>(_: &Raw<T>) -> i64 {
    i64::try_from(mem::size_of::<T>()).expect("it is small")
}

/// Sixteen workers of a pool with nothing to do, on glibc's condition variable.
fn pool() {
    sys::set_name(b"pp-pool");
    let (mutex, condvar) = (PthreadMutex::leak(Flavour::Plain), PthreadCondvar::leak());
    let mut crew = Crew::new();
    for _ in 0..16 {
        crew.add("pp-worker", || {
            mutex.lock();
            loop {
                // SAFETY: both live for ever, and this thread has the mutex.
                unsafe { libc::pthread_cond_wait(condvar.as_ptr(), mutex.as_ptr()) };
            }
        });
    }
    assert_eq!(size(condvar), 48, "what the test knows of its size");
    crew.settle(address(condvar));
}

/// The same on Rust's.
fn std_pool() {
    static WORK: (Mutex<bool>, Condvar) = (Mutex::new(false), Condvar::new());
    sys::set_name(b"pp-pool");
    let mut crew = Crew::new();
    for _ in 0..16 {
        crew.add("pp-worker", || {
            let mut work = WORK.0.lock().unwrap_or_else(PoisonError::into_inner);
            while !*work {
                work = WORK.1.wait(work).unwrap_or_else(PoisonError::into_inner);
            }
        });
    }
    crew.settle(address(&WORK.1));
}

/// A producer that puts something into a queue every five milliseconds, and four consumers that sleep most of the time.
fn consumers() {
    static QUEUE: (Mutex<VecDeque<u64>>, Condvar) = (Mutex::new(VecDeque::new()), Condvar::new());
    sys::set_name(b"pp-consumers");
    let mut crew = Crew::new();
    for _ in 0..4 {
        crew.add("pp-consumer", || {
            loop {
                let queue = QUEUE.0.lock().unwrap_or_else(PoisonError::into_inner);
                let taken = QUEUE.1.wait_while(queue, |queue| queue.is_empty());
                taken.unwrap_or_else(PoisonError::into_inner).pop_front();
            }
        });
    }
    crew.add("pp-producer", || {
        for number in 0.. {
            let mut queue = QUEUE.0.lock().unwrap_or_else(PoisonError::into_inner);
            queue.push_back(number);
            // Woken after it is unlocked: no consumer finds the mutex taken.
            drop(queue);
            QUEUE.1.notify_one();
            nap(5_000);
        }
    });
    crew.stand(address(&QUEUE.1));
}

/// The same on glibc's mutex and condition variable, each item signalled once the mutex is given up.
fn pthread_consumers() {
    static ITEMS: AtomicI32 = AtomicI32::new(0);
    sys::set_name(b"pp-consumers");
    let (mutex, condvar) = (PthreadMutex::leak(Flavour::Plain), PthreadCondvar::leak());
    let mut crew = Crew::new();
    for _ in 0..4 {
        crew.add("pp-consumer", || {
            loop {
                mutex.lock();
                while ITEMS.load(SeqCst) == 0 {
                    // SAFETY: both live for ever, and this thread has the mutex.
                    unsafe { libc::pthread_cond_wait(condvar.as_ptr(), mutex.as_ptr()) };
                }
                ITEMS.fetch_sub(1, SeqCst);
                mutex.unlock();
            }
        });
    }
    crew.add("pp-producer", || {
        loop {
            mutex.lock();
            ITEMS.fetch_add(1, SeqCst);
            mutex.unlock();
            // SAFETY: it lives for ever.
            unsafe { libc::pthread_cond_signal(condvar.as_ptr()) };
            nap(5_000);
        }
    });
    crew.stand(address(condvar));
}

/// A thread that waits for the end of another one, which sleeps.
fn join() {
    sys::set_name(b"pp-join");
    let mut crew = Crew::new();
    crew.add("pp-joiner", || {
        let sleeper = std::thread::spawn(|| sys::pause());
        // Never: it sleeps until killed.
        drop(sleeper.join());
    });
    crew.settle(0);
}

/// Four threads at a semaphore that nobody posts.
fn semaphore() {
    sys::set_name(b"pp-semaphore");
    let semaphore = Raw::<libc::sem_t>::leak();
    // SAFETY: memory for one that nobody uses yet.
    assert_eq!(unsafe { libc::sem_init(semaphore.as_ptr(), 0, 0) }, 0, "sem_init");
    let mut crew = Crew::new();
    for _ in 0..4 {
        crew.add("pp-waiter", || {
            // SAFETY: it was initialised, and lives for ever.
            unsafe { libc::sem_wait(semaphore.as_ptr()) };
        });
    }
    crew.settle(address(semaphore));
}

/// Three threads at a barrier for four.
fn barrier() {
    sys::set_name(b"pp-barrier");
    let barrier = Raw::<libc::pthread_barrier_t>::leak();
    // SAFETY: memory for one that nobody uses yet.
    let outcome = unsafe { libc::pthread_barrier_init(barrier.as_ptr(), std::ptr::null(), 4) };
    assert_eq!(outcome, 0, "pthread_barrier_init");
    let mut crew = Crew::new();
    for _ in 0..3 {
        crew.add("pp-waiter", || {
            // SAFETY: it was initialised, and lives for ever.
            unsafe { libc::pthread_barrier_wait(barrier.as_ptr()) };
        });
    }
    crew.settle(address(barrier));
}

/// Five milliseconds from now, on a clock.
fn soon(clock: libc::clockid_t) -> libc::timespec {
    // SAFETY: zeros are a valid time, and it is ours to write.
    let mut time = unsafe {
        let mut time: libc::timespec = mem::zeroed();
        libc::clock_gettime(clock, &raw mut time);
        time
    };
    time.tv_nsec += 5_000_000;
    time.tv_sec += time.tv_nsec / 1_000_000_000;
    time.tv_nsec %= 1_000_000_000;
    time
}

/// Threads that look every five milliseconds whether there is something: two by `pthread_cond_timedwait`, two by
/// `sem_timedwait`, two on a condition variable of Rust's.
fn timed() {
    sys::set_name(b"pp-timed");
    let mut crew = Crew::new();
    for _ in 0..2 {
        let (mutex, condvar) = (PthreadMutex::leak(Flavour::Plain), PthreadCondvar::leak());
        crew.add("pp-poller", || {
            mutex.lock();
            loop {
                let until = soon(libc::CLOCK_REALTIME);
                // SAFETY: both live for ever, and this thread has the mutex.
                unsafe {
                    libc::pthread_cond_timedwait(condvar.as_ptr(), mutex.as_ptr(), &raw const until);
                }
            }
        });
        let semaphore = Raw::<libc::sem_t>::leak();
        crew.add("pp-poller", || {
            loop {
                let until = soon(libc::CLOCK_REALTIME);
                // SAFETY: zeros are a semaphore at zero, and it lives for ever.
                unsafe { libc::sem_timedwait(semaphore.as_ptr(), &raw const until) };
            }
        });
        crew.add("pp-poller", || {
            let (mutex, condvar) = (Mutex::new(()), Condvar::new());
            let mut guard = mutex.lock().unwrap_or_else(PoisonError::into_inner);
            loop {
                let waited = condvar.wait_timeout(guard, std::time::Duration::from_millis(5));
                guard = waited.unwrap_or_else(PoisonError::into_inner).0;
            }
        });
    }
    crew.stand(0);
}
