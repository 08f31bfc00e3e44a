//! Runtimes of others: tokio, rayon and Python, at rest and at work.

use std::os::unix::process::CommandExt;
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

use crate::arena::nap_until;
use crate::{command, say, sys};

/// Pieces of work in a burst.
const BURST: u64 = 20_000;

/// Says that the scene stands; each line is a burst of work.
fn obey(mut burst: impl FnMut()) {
    say("ready", &[("pid", std::process::id().into())]);
    while command().is_some() {
        burst();
        say("done", &[]);
    }
}

/// A multi-thread runtime with a few tasks that wait.
pub fn tokio() {
    sys::set_name(b"pp-tokio");
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(4)
        .enable_all()
        .build()
        .expect("a runtime");
    for _ in 0..10 {
        runtime.spawn(std::future::pending::<()>());
    }
    obey(|| {
        static DONE: AtomicU64 = AtomicU64::new(0);
        DONE.store(0, SeqCst);
        for _ in 0..BURST {
            runtime.spawn(async {
                tokio::task::yield_now().await;
                DONE.fetch_add(1, SeqCst);
            });
        }
        nap_until(|| DONE.load(SeqCst) == BURST);
    });
}

/// A pool of four.
pub fn rayon() {
    sys::set_name(b"pp-rayon");
    let pool = rayon::ThreadPoolBuilder::new()
        .num_threads(4)
        .build()
        .expect("a pool");
    obey(|| {
        static DONE: AtomicU64 = AtomicU64::new(0);
        DONE.store(0, SeqCst);
        for _ in 0..BURST {
            pool.spawn(|| {
                DONE.fetch_add(1, SeqCst);
            });
        }
        nap_until(|| DONE.load(SeqCst) == BURST);
    });
}

/// Threads that wait for a queue, for ever.
const QUEUE_GET: &str = "
import os, queue, sys, threading
waiting = queue.Queue()
for _ in range(4):
    threading.Thread(target=waiting.get, daemon=True).start()
print(f'ready pid={os.getpid()}', flush=True)
sys.stdin.read()
";

/// Threads that compute, all of which need the interpreter.
const COMPUTE: &str = "
import os, sys, threading
def compute():
    number = 0
    while True:
        number += 1
for _ in range(4):
    threading.Thread(target=compute, daemon=True).start()
print(f'ready pid={os.getpid()}', flush=True)
sys.stdin.read()
os._exit(0)
";

/// Becomes Python, with one of its programs.
pub fn python(program: &str) {
    let text = if program == "queue" { QUEUE_GET } else { COMPUTE };
    let error = Command::new("python3").args(["-c", text]).exec();
    eprintln!("python3: {error}");
    sys::exit_now(1);
}
