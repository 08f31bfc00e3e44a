//! Scenes that stand still: one thread in each state a thread can be in, odd names, very many threads.

use std::ffi::{c_int, c_void};
use std::sync::{Arc, Barrier};

use crate::{ready, sys};

/// A process asleep in `read`.
pub fn sleeper(name: Option<&str>) {
    sys::set_name(name.unwrap_or("pp-sleeper").as_bytes());
    ready(&[("pid", i64::from(std::process::id()))]);
}

/// A child stopped by a signal.
pub fn stopped() {
    let child = sys::fork(|| {
        sys::set_name(b"pp-stopped");
        sys::raise(libc::SIGSTOP);
        sys::pause();
    });
    let status = sys::wait_for(child, libc::WUNTRACED);
    assert!(libc::WIFSTOPPED(status));
    ready(&[("pid", child.into())]);
}

/// A child stopped by its tracer, which is this process.
pub fn traced() {
    let child = sys::fork(|| {
        sys::set_name(b"pp-traced");
        sys::trace_me();
        sys::raise(libc::SIGSTOP);
        sys::pause();
    });
    let status = sys::wait_for(child, 0);
    assert!(libc::WIFSTOPPED(status));
    ready(&[("pid", child.into()), ("tracer", i64::from(std::process::id()))]);
}

/// This process waits, uninterruptibly, for a child that borrows its memory and sleeps on it.
pub fn vfork() {
    extern "C" fn child(_: *mut c_void) -> c_int {
        // SAFETY: no arguments.
        let parent = unsafe { libc::getppid() };
        // Called directly rather than through `ready`: the lock of stdout belongs to the parent's memory.
        let line = format!("ready pid={parent}\n");
        // SAFETY: the buffer is as long as it says.
        unsafe { libc::write(1, line.as_ptr().cast(), line.len()) };
        sys::die_with_parent();
        sys::pause()
    }
    sys::set_name(b"pp-vfork");
    sys::clone_vfork(child);
}

/// Two children that compute on one CPU.
pub fn hogs() {
    let hog = || {
        sys::fork(|| {
            sys::set_name(b"pp-hog");
            sys::pin_to_first_cpu();
            loop {
                std::hint::spin_loop();
            }
        })
    };
    let (one, two) = (hog(), hog());
    ready(&[("one", one.into()), ("two", two.into())]);
}

/// A dead child that this process does not reap.
pub fn zombie() {
    let child = sys::fork(|| {
        sys::set_name(b"pp-zombie");
        sys::exit_now(3);
    });
    sys::wait_for_zombie(child);
    ready(&[("pid", child.into())]);
}

/// Names that could break a terminal, a table, JSON, an exposition, or whoever parses /proc/PID/stat.
const NAMES: [&[u8]; 9] = [
    b"\x1b[31mred\x1b[0m",
    b"a\nb\tc\rd",
    b"\xff\xfe\x80x",
    b"\"quo\\te\"",
    b"} 1\n# HELP x",
    b"\xe2\x80\xaertl",
    b"x) S 1 (y",
    b"\xe6\x97\xa5\xe6\x9c\xac",
    b"",
];

/// A child for each of [`NAMES`], in their order.
pub fn names() {
    const KEYS: [&str; 9] = ["0", "1", "2", "3", "4", "5", "6", "7", "8"];
    let mut facts = Vec::new();
    for (key, name) in KEYS.into_iter().zip(NAMES) {
        let (read, write) = std::io::pipe().expect("a pipe");
        let child = sys::fork(|| {
            sys::set_name(name);
            drop(write);
            sys::pause();
        });
        // `fork` has dropped our copy of the writing end; the child drops its own once it has its name.
        std::io::copy(&mut &read, &mut std::io::sink()).expect("reading from the child");
        facts.push((key, i64::from(child)));
    }
    ready(&facts);
}

/// This thread and others, `count` in all, all asleep.
pub fn threads(count: usize) {
    sys::set_name(b"pp-threads");
    let started = Arc::new(Barrier::new(count));
    for _ in 1..count {
        let started = Arc::clone(&started);
        std::thread::Builder::new()
            .stack_size(32 * 1024)
            .spawn(move || {
                started.wait();
                sys::pause();
            })
            .expect("starting a thread");
    }
    started.wait();
    ready(&[("pid", i64::from(std::process::id()))]);
}

/// So many children, each with a name of its own, all asleep.
pub fn crowd(count: usize) {
    for number in 0..count {
        let (read, write) = std::io::pipe().expect("a pipe");
        sys::fork(|| {
            sys::set_name(format!("pp-crowd-{number}").as_bytes());
            drop(write);
            sys::pause();
        });
        // Until the child has its name.
        std::io::copy(&mut &read, &mut std::io::sink()).expect("reading from the child");
    }
    ready(&[("pid", i64::from(std::process::id()))]);
}

/// What processes may have for arguments: 4 KiB of quotes; what a terminal obeys; lines; bytes that are no UTF-8.
pub fn arguments() {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;
    use std::process::{Command, Stdio};

    sys::set_name(b"pp-arguments");
    let quotes = vec![b'"'; 4000];
    let all: [&[u8]; 4] = [
        &quotes,
        b"\x1b]0;title\x07\x1b[2J\x1b[31m",
        b"a\nb\r\n# HELP x\n\xe2\x80\xaertl",
        b"\xff\xfe\xed\xa0\x80\\\"',{}",
    ];
    let mut facts = Vec::new();
    let mut children = Vec::new();
    for (key, argument) in ["0", "1", "2", "3"].into_iter().zip(all) {
        let mut child = Command::new("/proc/self/exe")
            .args([
                OsStr::new("sleeper"),
                OsStr::new("pp-argued"),
                OsStr::from_bytes(argument),
            ])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("starting a child");
        let mut line = [0; 5];
        let output = child.stdout.as_mut().expect("its output is a pipe");
        std::io::Read::read_exact(output, &mut line).expect("the child to be ready");
        facts.push((key, i64::from(child.id())));
        children.push(child);
    }
    ready(&facts);
    for mut child in children {
        drop(child.stdin.take());
        let _ = child.wait();
    }
}

/// So many processes of so many threads each, all asleep.
pub fn herd(processes: usize, threads: usize) {
    for _ in 0..processes {
        let (read, write) = std::io::pipe().expect("a pipe");
        sys::fork(|| {
            sys::set_name(b"pp-herd");
            for _ in 1..threads {
                let thread = std::thread::Builder::new().stack_size(32 * 1024);
                thread.spawn(|| sys::pause()).expect("starting a thread");
            }
            drop(write);
            sys::pause();
        });
        // Until the child has its threads.
        std::io::copy(&mut &read, &mut std::io::sink()).expect("reading from the child");
    }
    ready(&[("pid", i64::from(std::process::id()))]);
}
