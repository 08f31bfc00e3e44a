//! Scenes about parents: those that do not reap, those that die first, and whoever takes their place.

use std::io::{Read, Write};
use std::time::{Duration, Instant};

use crate::{command, ready, say, sys};

fn myself() -> i64 {
    i64::from(std::process::id())
}

/// So many dead children that this process never waits for: one was killed, the others ended with 3.
pub fn hoarder(count: usize) {
    sys::set_name(b"pp-hoarder");
    let killed = sys::fork(|| sys::raise(libc::SIGKILL));
    let others: Vec<_> = (1..count).map(|_| sys::fork(|| sys::exit_now(3))).collect();
    for &child in others.iter().chain([&killed]) {
        sys::wait_for_zombie(child);
    }
    let exited = others.last().copied().unwrap_or(killed);
    ready(&[
        ("pid", myself()),
        ("killed", killed.into()),
        ("exited", exited.into()),
    ]);
}

/// On each line with a number: that many more dead children that this process never waits for.
pub fn litter() {
    sys::set_name(b"pp-litter");
    say("ready", &[("pid", myself())]);
    while let Some(line) = command() {
        let count: i64 = line.parse().expect("a number");
        for _ in 0..count {
            sys::fork(|| sys::exit_now(0));
        }
        say("done", &[("count", count)]);
    }
}

/// Children one after the other, each reaped 20 ms after its birth. A line ends it; the answer has the pids of those
/// whose turn took longer than 90 ms, because the machine was busy.
pub fn prompt() {
    sys::set_name(b"pp-prompt");
    say("ready", &[("pid", myself())]);
    let mut slow = Vec::new();
    while !sys::has_input() {
        let began = Instant::now();
        let child = sys::fork(|| sys::exit_now(0));
        std::thread::sleep(Duration::from_millis(20));
        sys::wait_for(child, 0);
        if began.elapsed() > Duration::from_millis(90) {
            slow.push(child.to_string());
        }
    }
    command();
    let facts: Vec<_> = slow.iter().map(|pid| (pid.as_str(), 1)).collect();
    say("done", &facts);
    while command().is_some() {}
}

/// A child whose first thread has ended while another lives.
pub fn headless() {
    let child = sys::fork(|| {
        sys::set_name(b"pp-headless");
        std::thread::spawn(|| sys::pause());
        sys::exit_thread(5);
    });
    await_zombie(child);
    ready(&[("pid", child.into())]);
}

/// Until the first thread of a process is a zombie, whether or not `wait` would tell.
fn await_zombie(pid: libc::pid_t) {
    let is_zombie =
        || std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| stat.contains(") Z "));
    while !is_zombie() {
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// A dead child whose tracer, another child, does not wait for it; this process does, in vain.
pub fn traced_zombie() {
    sys::set_name(b"pp-waiting");
    let victim = sys::fork(|| {
        sys::set_name(b"pp-traced");
        sys::pause();
    });
    let (mut read, mut write) = std::io::pipe().expect("a pipe");
    let tracer = sys::fork(|| {
        sys::set_name(b"pp-tracer");
        sys::seize(victim);
        write.write_all(b"x").expect("writing to the parent");
        sys::pause();
    });
    read.read_exact(&mut [0]).expect("a byte from the tracer");
    // The tracer would have to let any other signal through.
    sys::kill(victim, libc::SIGKILL);
    await_zombie(victim);
    ready(&[("pid", victim.into()), ("tracer", tracer.into())]);
}

/// On each line with a number: that many children of a parent that ignores SIGCHLD.
pub fn careless() {
    sys::set_name(b"pp-careless");
    sys::ignore_children();
    say("ready", &[("pid", myself())]);
    while let Some(line) = command() {
        let count: i64 = line.parse().expect("a number");
        let mut last = 0;
        for _ in 0..count {
            last = sys::fork(|| {
                sys::set_name(b"pp-untended");
                sys::exit_now(0);
            });
        }
        sys::wait_for_all();
        say("done", &[("last", last.into())]);
    }
}

/// A child that reports its own children's pids and does `then`; returns its pid and theirs.
fn with_children(count: usize, child: impl FnOnce(&mut std::io::PipeWriter)) -> (libc::pid_t, Vec<i64>) {
    let (mut read, mut write) = std::io::pipe().expect("a pipe");
    let pid = sys::fork(|| child(&mut write));
    let pids = (0..count).map(|_| {
        let mut bytes = [0; 4];
        read.read_exact(&mut bytes).expect("a pid from the child");
        i64::from(i32::from_ne_bytes(bytes))
    });
    (pid, pids.collect())
}

/// A pid, to whoever asked [`with_children`].
fn report(write: &mut impl Write, pid: libc::pid_t) {
    write
        .write_all(&pid.to_ne_bytes())
        .expect("writing to the parent");
}

/// On a line: a process forks twice and leads a session in between, as daemons do.
pub fn daemon() {
    sys::set_name(b"pp-launcher");
    say("ready", &[("pid", myself())]);
    while command().is_some() {
        let (middle, daemon) = with_children(1, |write| {
            sys::set_name(b"pp-middle");
            sys::lead_session();
            report(write, survivor(b"pp-daemon"));
        });
        sys::wait_for(middle, 0);
        say("done", &[("middle", middle.into()), ("daemon", daemon[0])]);
    }
}

/// A child that will outlive its parent; it is ready to when this returns.
fn survivor(name: &[u8]) -> libc::pid_t {
    let (mut read, mut write) = std::io::pipe().expect("a pipe");
    let child = sys::fork(|| {
        sys::outlive_parent();
        sys::set_name(name);
        write.write_all(b"x").expect("writing to the parent");
        sys::stay_until_abandoned();
    });
    read.read_exact(&mut [0]).expect("a byte from the child");
    child
}

/// This process, a subreaper; below it another; below that a parent; below that its child. The lines `middle` and
/// `adopter` kill that parent and that subreaper.
pub fn chain() {
    sys::set_name(b"pp-top");
    sys::adopt_orphans();
    let (adopter, pids) = with_children(2, |write| {
        sys::set_name(b"pp-adopter");
        sys::adopt_orphans();
        let (middle, child) = with_children(1, |write| {
            sys::set_name(b"pp-middle");
            report(write, survivor(b"pp-child"));
            sys::pause();
        });
        report(write, middle);
        report(write, i32::try_from(child[0]).expect("a pid"));
        loop {
            sys::wait_for_all();
        }
    });
    let (middle, child) = (pids[0], pids[1]);
    say(
        "ready",
        &[("adopter", adopter.into()), ("middle", middle), ("child", child)],
    );
    while let Some(line) = command() {
        if line == "middle" {
            sys::kill(i32::try_from(middle).expect("a pid"), libc::SIGKILL);
        } else {
            sys::kill(adopter, libc::SIGKILL);
            sys::wait_for(adopter, 0);
        }
        say("done", &[]);
    }
}

/// On a line: a pid namespace whose init never waits, with a child of it that dies and leaves one of its own.
pub fn namespace() {
    sys::set_name(b"pp-outside");
    say("ready", &[("pid", myself())]);
    while command().is_some() {
        sys::unshare_pids();
        let init = sys::fork(|| {
            sys::set_name(b"pp-nsinit");
            sys::fork(|| {
                sys::set_name(b"pp-nsmiddle");
                survivor(b"pp-nschild");
            });
            sys::pause();
        });
        say("done", &[("init", init.into())]);
    }
}
