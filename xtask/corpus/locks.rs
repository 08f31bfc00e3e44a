//! Scenes at what Rust's standard library waits at: `locks PROTOCOL SCENE [crowd]`. What it says, and how its
//! threads are named, is as in locks.c.

use std::{
    env, hint, process,
    sync::{Arc, Barrier, Condvar, Mutex, Once, RwLock, mpsc},
    thread::{self, JoinHandle, Thread},
    time::{Duration, Instant},
};

const LIFE_S: u32 = 100;
const SIGALRM: i32 = 14;

unsafe extern "C" {
    fn alarm(seconds: u32) -> u32;
    fn signal(number: i32, handler: extern "C" fn(i32)) -> usize;
    fn _exit(code: i32) -> !;
}

/// A handler, because the first process of a namespace does not die of a signal that it does not handle.
extern "C" fn end(_: i32) {
    // SAFETY: may be called from a handler, and does not return.
    unsafe { _exit(0) }
}

fn ms(count: u64) {
    thread::sleep(Duration::from_millis(count));
}

fn stay() -> ! {
    loop {
        ms(100_000);
    }
}

fn start(name: &str, run: impl FnOnce() + Send + 'static) -> JoinHandle<()> {
    let thread = thread::Builder::new().name(name.to_owned()).spawn(run);
    thread.unwrap_or_else(|error| {
        println!("without threads: {error}");
        process::exit(0)
    })
}

fn object<T>(kind: &str, at: &T, contended: &str) {
    let address = std::ptr::from_ref(at) as usize;
    println!("object {kind} {address:#x} {} {contended}", size_of::<T>());
}

fn anywhere(kind: &str, contended: &str) {
    println!("object {kind} 0 0 {contended}");
}

/// As long as the scene wants the lock held.
fn hold(scene: &str) {
    match scene {
        "long" => ms(5),
        "brief" => {
            let begun = Instant::now();
            while begun.elapsed() < Duration::from_micros(50) {}
        }
        _ => (0..20).for_each(|number| {
            hint::black_box(number);
        }),
    }
}

/// What is done without the lock.
fn pause(scene: &str) {
    if scene != "long" {
        hold(scene);
    }
}

fn mutex(scene: &'static str) {
    let lock: &'static Mutex<u64> = Box::leak(Box::new(Mutex::new(0)));
    object("mutex", lock, "contended");
    println!("expect none");
    for _ in 0..6 {
        start("hfighter", move || {
            loop {
                let held = lock.lock();
                hold(scene);
                drop(held);
                pause(scene);
            }
        });
    }
}

fn rwlock(scene: &'static str) {
    let lock: &'static RwLock<u64> = Box::leak(Box::new(RwLock::new(0)));
    object("rwlock", lock, "contended");
    println!("expect none");
    for number in 0..5 {
        let reads = scene == "readers" && number > 0;
        start(if reads { "hreader" } else { "hwriter" }, move || {
            loop {
                if reads {
                    let held = lock.read();
                    ms(1);
                    drop(held);
                } else {
                    let held = lock.write();
                    ms(if scene == "readers" { 20 } else { 5 });
                    drop(held);
                    ms(u64::from(scene == "readers"));
                }
            }
        });
    }
}

/// Two threads, each with what the other one waits for. Main waits for them, or goes on: then it might be the
/// one that holds both, for all that can be known, and so might any other thread.
fn cross(known: bool) -> [JoinHandle<()>; 2] {
    let locks: &'static [Mutex<u64>; 2] = Box::leak(Box::new([Mutex::new(0), Mutex::new(0)]));
    object("mutex", locks, "either");
    anywhere("join", "either");
    println!("expect {}", if known { "stall" } else { "maybe" });
    [0, 1].map(|mine| {
        start("dcross", move || {
            let first = locks[mine].lock();
            ms(100);
            let second = locks[1 - mine].lock();
            drop((first, second));
        })
    })
}

fn conditions() {
    let pair: &'static (Mutex<bool>, Condvar) = Box::leak(Box::new((Mutex::new(false), Condvar::new())));
    object("mutex", &pair.0, "either");
    object("condvar", &pair.1, "idle");
    println!("expect none");
    for _ in 0..6 {
        start("hworker", || {
            let mut held = pair.0.lock();
            while let Ok(guard) = held {
                held = pair.1.wait(guard);
            }
        });
    }
    start("xproducer", || {
        loop {
            ms(50);
            pair.1.notify_one();
        }
    });
}

fn barrier() {
    let all = Arc::new(Barrier::new(4));
    // It is made of a mutex and a condition.
    anywhere("barrier|condvar|mutex", "either");
    println!("expect none");
    for number in 0..4 {
        let all = Arc::clone(&all);
        start("hworker", move || {
            loop {
                ms(if number == 0 { 60 } else { 5 });
                all.wait();
            }
        });
    }
}

fn channel() {
    let (sender, receiver) = mpsc::channel::<u64>();
    // Whoever is woken takes a mutex of the channel, which the one that sends holds while it wakes.
    anywhere("parker|mutex", "either");
    println!("expect none");
    start("hworker", move || while receiver.recv().is_ok() {});
    start("hproducer", move || {
        loop {
            ms(50);
            if sender.send(1).is_err() {
                return;
            }
        }
    });
}

fn parked() {
    anywhere("parker", "idle");
    println!("expect none");
    let unpark = |threads: Vec<Thread>| {
        start("xproducer", move || {
            loop {
                ms(50);
                threads.iter().for_each(Thread::unpark);
            }
        })
    };
    let workers = (0..4).map(|_| {
        start("worker", || {
            loop {
                thread::park()
            }
        })
    });
    unpark(workers.map(|worker| worker.thread().clone()).collect());
}

fn once(scene: &str) -> Option<JoinHandle<()>> {
    let once: &'static Once = Box::leak(Box::new(Once::new()));
    if scene == "self" {
        object("mutex", once, "either");
        println!("expect stall");
        return Some(start("dself", || once.call_once(|| once.call_once(|| ()))));
    }
    object("mutex", once, "contended");
    println!("expect none");
    start("hinit", || once.call_once(|| stay()));
    ms(50);
    for _ in 0..3 {
        start("waiter", || once.call_once(|| ()));
    }
    None
}

fn main() {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let [protocol, scene, crowd @ ..] = arguments.as_slice() else {
        process::exit(2)
    };
    let scene: &'static str = scene.clone().leak();
    // SAFETY: the handler calls nothing but what a handler may call.
    unsafe {
        signal(SIGALRM, end);
        alarm(LIFE_S);
    }
    for _ in crowd.iter().flat_map(|_| 0..34) {
        start("xsleeper", || stay());
    }
    let mut joined = Vec::new();
    match (protocol.as_str(), scene) {
        ("mutex", "abba" | "ticks") => joined.extend(cross(scene == "abba" && crowd.is_empty())),
        ("mutex", _) => mutex(scene),
        ("rwlock", _) => rwlock(scene),
        ("cond", _) => conditions(),
        ("barrier", _) => barrier(),
        ("channel", _) => channel(),
        ("park", _) => parked(),
        ("once", _) => joined.extend(once(scene)),
        _ => println!("without such a scene"),
    }
    ms(300);
    println!("ready");
    if scene == "ticks" {
        stay();
    }
    joined.into_iter().for_each(|thread| drop(thread.join()));
    stay();
}
