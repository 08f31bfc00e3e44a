//! One child for each line, which dies as the line says; the answer has its pid and the status that `wait` has of it.

use std::ffi::{c_int, c_void};
use std::io::{Read, Write};

use crate::{command, say, sys};

/// See the module.
pub fn deaths() {
    sys::set_name(b"pp-deaths");
    sys::no_core();
    say("ready", &[("pid", i64::from(std::process::id()))]);
    while let Some(line) = command() {
        let (what, argument) = line.split_once(' ').unwrap_or((&line, ""));
        let mut facts = Vec::new();
        let pid = match what {
            "success" => child(b"pp-success", || sys::exit_now(0)),
            "failure" => child(b"pp-failure", || sys::exit_now(3)),
            "segv" => child(b"pp-segv", sys::fault),
            "abort" => child(b"pp-abort", || std::process::abort()),
            "kill" => {
                let victim = victim();
                sys::kill(victim, libc::SIGKILL);
                victim
            }
            "stranger" => {
                let (victim, killer) = by_a_stranger();
                facts.push(("killer", i64::from(killer)));
                victim
            }
            "pending" | "pending-twice" => {
                let second = if what == "pending" {
                    libc::SIGHUP
                } else {
                    libc::SIGTERM
                };
                let (victim, killer) = by_the_first(second);
                facts.push(("killer", i64::from(killer)));
                victim
            }
            "last-thread" => child(b"pp-last", || {
                std::thread::spawn(|| {
                    std::thread::sleep(std::time::Duration::from_millis(50));
                    sys::exit_thread(0);
                });
                sys::exit_thread(5);
            }),
            "thread-ends-all" => child(b"pp-all", || {
                std::thread::spawn(|| sys::exit_now(6));
                sys::pause();
            }),
            "vfork" => sys::clone_vfork(exec_short),
            "sibling" => sibling(),
            "oom" => child(b"pp-hungry", || devour(argument)),
            other => {
                eprintln!("deaths: {other:?}?");
                return;
            }
        };
        facts.extend([("pid", i64::from(pid)), ("status", sys::wait_for(pid, 0).into())]);
        say("done", &facts);
    }
}

fn child(name: &[u8], dies: impl FnOnce()) -> libc::pid_t {
    sys::fork(|| {
        sys::set_name(name);
        dies();
    })
}

/// A child that waits for its end; it has its name when this returns.
fn victim() -> libc::pid_t {
    let (mut read, mut write) = std::io::pipe().expect("a pipe");
    let victim = child(b"pp-killed", || {
        write.write_all(b"x").expect("writing to the parent");
        sys::pause();
    });
    read.read_exact(&mut [0]).expect("a byte from the child");
    victim
}

/// A child killed by another one, which is dead and reaped before anybody asks who it was.
fn by_a_stranger() -> (libc::pid_t, libc::pid_t) {
    let victim = victim();
    let killer = child(b"pp-killer", || sys::kill(victim, libc::SIGKILL));
    sys::wait_for(killer, 0);
    (victim, killer)
}

/// A child that blocks SIGTERM, is sent it, then `second` by another, and takes SIGTERM after that: it dies
/// of the first.
fn by_the_first(second: c_int) -> (libc::pid_t, libc::pid_t) {
    let (mut read, mut write) = std::io::pipe().expect("a pipe");
    let (mut go, mut start) = std::io::pipe().expect("a pipe");
    let victim = child(b"pp-pending", || {
        sys::block(libc::SIGTERM);
        sys::shrug_off(libc::SIGHUP);
        write.write_all(b"x").expect("writing to the parent");
        go.read_exact(&mut [0]).expect("a byte from the parent");
        sys::unblock(libc::SIGTERM);
        sys::pause();
    });
    read.read_exact(&mut [0]).expect("a byte from the child");
    let killer = child(b"pp-first", || sys::kill(victim, libc::SIGTERM));
    sys::wait_for(killer, 0);
    let other = child(b"pp-second", || sys::kill(victim, second));
    sys::wait_for(other, 0);
    start.write_all(b"x").expect("writing to the child");
    (victim, killer)
}

/// A child that a child of ours made for us.
fn sibling() -> libc::pid_t {
    let (mut read, mut write) = std::io::pipe().expect("a pipe");
    let middle = child(b"pp-middle", || {
        let sibling = sys::fork_sibling(|| {
            sys::set_name(b"pp-sibling");
            sys::exit_now(4);
        });
        write
            .write_all(&sibling.to_ne_bytes())
            .expect("writing to the parent");
    });
    let mut bytes = [0; 4];
    read.read_exact(&mut bytes).expect("a pid");
    sys::wait_for(middle, 0);
    i32::from_ne_bytes(bytes)
}

extern "C" fn exec_short(_: *mut c_void) -> c_int {
    sys::exec_scene(c"short")
}

/// Joins a memory cgroup and takes what it can get, up to far more than the test gave it.
fn devour(cgroup: &str) {
    std::fs::write(format!("{cgroup}/cgroup.procs"), "0").expect("joining the cgroup");
    let all: Vec<Vec<u8>> = (0..256).map(|_| vec![1; 1 << 20]).collect();
    drop(std::hint::black_box(all));
    sys::exit_now(9);
}
