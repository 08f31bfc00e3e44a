//! Scenes that move: threads that switch all the time, processes that are born and die.

use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::{command, ready, say, sys};

/// Two processes that hand a byte back and forth as fast as they can.
pub fn pingpong() {
    sys::set_name(b"pp-pingpong");
    let (mut here, mut there) = (std::io::pipe().expect("a pipe"), std::io::pipe().expect("a pipe"));
    let play = |read: &mut std::io::PipeReader, write: &mut std::io::PipeWriter| {
        let mut ball = [0];
        while read.read_exact(&mut ball).is_ok() && write.write_all(&ball).is_ok() {}
    };
    let one = sys::fork(|| play(&mut here.0, &mut there.1));
    let two = sys::fork(|| {
        here.1.write_all(b"o").expect("serving");
        play(&mut there.0, &mut here.1);
    });
    ready(&[("one", one.into()), ("two", two.into())]);
}

/// Threads that take naps of 1, 2, 3 … milliseconds.
pub fn nappers(count: u64) {
    sys::set_name(b"pp-nappers");
    for number in 1..=count {
        std::thread::spawn(move || {
            loop {
                std::thread::sleep(Duration::from_millis(number));
            }
        });
    }
    ready(&[("pid", i64::from(std::process::id()))]);
}

/// What [`spawner`] starts: computes for a moment and ends.
pub fn short() {
    let began = Instant::now();
    while began.elapsed() < Duration::from_micros(200) {
        std::hint::spin_loop();
    }
    sys::exit_now(0);
}

fn myself(scene: &str) -> Command {
    let mut command = Command::new("/proc/self/exe");
    command.arg(scene);
    command
}

/// On each line with a number: that many children one after the other, each forked, execed, dead and reaped. `program`
/// is another name of this one, which is what the children are called.
pub fn spawner(program: &str) {
    sys::set_name(b"pp-spawner");
    say("ready", &[("pid", i64::from(std::process::id()))]);
    while let Some(line) = command() {
        let count: i64 = line.parse().expect("a number");
        let before = sys::children_cpu_us();
        for _ in 0..count {
            let status = Command::new(program)
                .arg("short")
                .status()
                .expect("starting a child");
            assert!(status.success());
        }
        say(
            "done",
            &[("count", count), ("cpu_us", sys::children_cpu_us() - before)],
        );
    }
}

/// On a line: a child that ends with 7, and one that runs another program and is killed.
pub fn family() {
    sys::set_name(b"pp-family");
    say("ready", &[("pid", i64::from(std::process::id()))]);
    while command().is_some() {
        let exited = sys::fork(|| sys::exit_now(7));
        sys::wait_for(exited, 0);
        let mut killed = myself("sleeper")
            .arg("pp-victim")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("starting a child");
        let mut line = [0; 5];
        let output = killed.stdout.as_mut().expect("its output is a pipe");
        output.read_exact(&mut line).expect("the child to be ready");
        killed.kill().expect("killing a child");
        killed.wait().expect("reaping a child");
        say(
            "done",
            &[("exited", exited.into()), ("killed", killed.id().into())],
        );
    }
}

/// No storm outlasts this, whatever becomes of its test.
const LONGEST_STORM: Duration = Duration::from_secs(600);

/// Children that die at once, some as orphans, some with a thread.
pub fn storm() {
    sys::set_name(b"pp-storm");
    sys::adopt_orphans();
    say("ready", &[]);
    let began = Instant::now();
    while began.elapsed() < LONGEST_STORM {
        let child = sys::fork(|| {
            sys::fork(|| sys::exit_now(0));
            let thread = std::thread::spawn(|| {});
            thread.join().expect("joining a thread");
        });
        sys::wait_for(child, 0);
        sys::reap_the_dead();
    }
}

/// Orphans that die at once: work for pid 1, whose switches some kernels hide from eBPF.
pub fn orphans_of_init() {
    sys::set_name(b"pp-orphans");
    say("ready", &[]);
    let began = Instant::now();
    while began.elapsed() < LONGEST_STORM {
        for _ in 0..8 {
            let child = sys::fork(|| {
                sys::fork(short);
            });
            sys::wait_for(child, 0);
        }
        // So that the CPUs are idle in between, and pid 1 is woken anew.
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// On a line: a thread other than the first runs another program, which takes over the process.
pub fn exec_from_thread() {
    sys::set_name(b"pp-before");
    let thread = std::thread::spawn(|| {
        say(
            "ready",
            &[
                ("pid", i64::from(std::process::id())),
                ("tid", sys::gettid().into()),
            ],
        );
        let mut line = [0; 1];
        // Not through the buffer of stdin, which the next program would not see.
        let mut input = File::open("/proc/self/fd/0").expect("opening our input");
        input.read_exact(&mut line).expect("a line from the test");
        let error = myself("sleeper").arg("pp-after").exec();
        eprintln!("exec: {error}");
    });
    thread.join().expect("joining the thread");
}

/// On each line with a number: that many children as fast as can be, dead at once and reaped in passing.
pub fn births() {
    sys::set_name(b"pp-births");
    say("ready", &[("pid", i64::from(std::process::id()))]);
    while let Some(line) = command() {
        let count: i64 = line.parse().expect("a number");
        let before = sys::children_cpu_us();
        for _ in 0..count {
            sys::fork(|| sys::exit_now(0));
            sys::reap_the_dead();
        }
        sys::wait_for_all();
        let cpu_us = sys::children_cpu_us() - before;
        say("done", &[("count", count), ("cpu_us", cpu_us)]);
    }
}

/// Families without end: parents that have a few children, see them die, and die themselves. Who was born when to whom
/// is appended to a file, 16 bytes each: pid, parent, start in clock ticks.
pub fn generations(log: &str) {
    sys::set_name(b"pp-generations");
    let mut log = File::options().append(true).open(log).expect("the log");
    for _ in 0..4 {
        sys::fork(|| {
            loop {
                let parent = sys::fork(|| family_in(&mut log));
                sys::wait_for(parent, 0);
            }
        });
    }
    ready(&[("pid", i64::from(std::process::id()))]);
}

fn family_in(log: &mut File) {
    sys::set_name(b"pp-parent");
    let children: Vec<_> = (0..8)
        .map(|number| {
            sys::fork(|| {
                sys::set_name(b"pp-fleeting");
                std::thread::sleep(Duration::from_millis(number * 4));
            })
        })
        .collect();
    for child in children {
        sys::wait_for_zombie(child);
        let stat =
            std::fs::read_to_string(format!("/proc/{child}/stat")).expect("a child that is not reaped");
        let (_, fields) = stat.rsplit_once(") ").expect("a name");
        let start: u64 = fields
            .split(' ')
            .nth(19)
            .and_then(|field| field.parse().ok())
            .expect("a start");
        let mut record = [0; 16];
        record[..4].copy_from_slice(&child.to_ne_bytes());
        record[4..8].copy_from_slice(&std::process::id().to_ne_bytes());
        record[8..].copy_from_slice(&start.to_ne_bytes());
        log.write_all(&record).expect("writing to the log");
        sys::wait_for(child, 0);
    }
}

/// A thread that gives itself a new name a thousand times a second, and never the same; a line ends it, and the answer has
/// how many there were.
pub fn names_without_end() {
    sys::set_name(b"pp-renames");
    say("ready", &[("pid", i64::from(std::process::id()))]);
    let mut count = 0;
    while !sys::has_input() {
        let began = Instant::now();
        for _ in 0..10 {
            count += 1;
            sys::set_name(format!("pp-{count}").as_bytes());
        }
        std::thread::sleep(Duration::from_millis(10).saturating_sub(began.elapsed()));
    }
    command();
    say("done", &[("count", count)]);
    while command().is_some() {}
}
