//! The load: programs that begin when they are told, work for a while, say that they are done, and then keep their threads
//! until they are let go, so that the kernel's counts can be read.

use std::{
    collections::HashSet,
    io::{BufRead, BufReader, Write},
    path::PathBuf,
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    time::Instant,
};

use anyhow::{Context, Result, ensure};

use crate::{
    bench::pair::{self, Placement},
    programs::{Directory, need, source},
};

/// Threads that compute, with and without the interpreter's lock, and nap.
const PYTHON: &str = r#"
import hashlib, os, sys, threading, time
print("ready", flush=True); sys.stdin.readline()
end = time.monotonic() + float(sys.argv[1])
done, over = threading.Barrier(5), threading.Event()
def work(number):
    data = b"x" * 4096
    while time.monotonic() < end:
        for _ in range(50 * (number + 1)): hashlib.sha256(data).digest()
        sum(range(2000))
        if number % 2: time.sleep(0.001 * number)
    done.wait(); over.wait()
for number in range(4): threading.Thread(target=work, args=(number,), daemon=True).start()
done.wait(); time.sleep(0.2)
print("done", flush=True); sys.stdin.read(); os._exit(0)
"#;

/// Compiles one file again and again, two at a time; says how much CPU time its children took.
const COMPILES: &str = r#"
import os, resource, subprocess, sys, time
print("ready", flush=True); sys.stdin.readline()
end = time.monotonic() + float(sys.argv[1])
count = 0
while time.monotonic() < end:
    both = [subprocess.Popen(["gcc", "-O2", "-c", "-o", "/dev/null", sys.argv[2]]) for _ in range(2)]
    for one in both: assert one.wait() == 0
    count += 2
usage = resource.getrusage(resource.RUSAGE_CHILDREN)
print("done", int((usage.ru_utime + usage.ru_stime) * 1e6), count, flush=True); sys.stdin.read(); os._exit(0)
"#;

/// Threads that fight for a mutex, sleep with it, wait for a condition, and yield.
const PTHREADS: &str = r#"
#define _GNU_SOURCE
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>
static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t condition = PTHREAD_COND_INITIALIZER;
static pthread_barrier_t done;
static volatile unsigned long work;
static double now(void) { struct timespec t; clock_gettime(CLOCK_MONOTONIC, &t); return t.tv_sec + t.tv_nsec / 1e9; }
static double end;
static void *run(void *argument) {
    long number = (long)argument;
    while (now() < end) {
        pthread_mutex_lock(&mutex);
        for (int i = 0; i < 2000 * (number + 1); i++) work++;
        if (number == 0) usleep(300);
        if (number == 1) pthread_cond_broadcast(&condition);
        if (number == 2) {
            struct timespec t; clock_gettime(CLOCK_REALTIME, &t); t.tv_nsec += 2000000;
            if (t.tv_nsec >= 1000000000) { t.tv_sec++; t.tv_nsec -= 1000000000; }
            pthread_cond_timedwait(&condition, &mutex, &t);
        }
        pthread_mutex_unlock(&mutex);
        if (number % 2) sched_yield(); else usleep(100 * number);
    }
    pthread_barrier_wait(&done);
    for (;;) pause();
}
int main(int count, char **values) {
    char line[16];
    (void)count;
    puts("ready"); fflush(stdout);
    if (!fgets(line, sizeof line, stdin)) return 1;
    end = now() + atof(values[1]);
    pthread_barrier_init(&done, NULL, 9);
    for (long i = 0; i < 8; i++) { pthread_t thread; pthread_create(&thread, NULL, run, (void *)i); }
    pthread_barrier_wait(&done);
    usleep(200000);
    puts("done"); fflush(stdout);
    return fgets(line, sizeof line, stdin) != NULL;
}
"#;

/// A program of the load.
struct Subject {
    child: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
}

impl Subject {
    fn start(command: &mut Command) -> Result<Self> {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("starting {command:?}"))?;
        let output = BufReader::new(child.stdout.take().context("a program without output")?);
        let input = child.stdin.take();
        let mut subject = Self { child, input, output };
        subject.expect("ready")?;
        Ok(subject)
    }

    fn go(&mut self) -> Result<()> {
        let input = self.input.as_mut().context("a program without input")?;
        writeln!(input, "go").context("telling a program to begin")
    }

    /// Waits for a line that begins with a word; returns the numbers in it.
    fn expect(&mut self, word: &str) -> Result<Vec<u64>> {
        let mut line = String::new();
        self.output
            .read_line(&mut line)
            .context("reading from a program of the load")?;
        ensure!(
            line.starts_with(word),
            "a program of the load said {line:?} instead of {word}"
        );
        Ok(line
            .split_ascii_whitespace()
            .filter_map(|part| part.parse().ok())
            .collect())
    }
}

impl Drop for Subject {
    fn drop(&mut self) {
        // They end with their input; who does not begin to work does so too.
        drop(self.input.take());
        drop(self.child.wait());
    }
}

/// All of the load.
pub struct Subjects {
    python: Subject,
    pthreads: Subject,
    compiles: Subject,
    perf: PathBuf,
    seconds: u32,
    _directory: Directory,
}

/// What there is to know of the load when it is over.
pub struct Done {
    pub began: Instant,
    /// What the compilations took, and how many they were.
    pub compiled_us: u64,
    pub compilations: u64,
    /// The pairs that pass a byte to and fro: where, and who.
    pub pairs: Vec<(Placement, HashSet<u32>)>,
}

impl Subjects {
    pub fn start(seconds: u32) -> Result<Self> {
        let (python, perf) = (need("python3")?, need("perf")?);
        let directory = Directory::new("truth")?;
        let program = directory.compile("pthreads", PTHREADS)?;
        let file = directory.write("compiled.c", &source())?;
        let length = seconds.to_string();
        let scripted = |script: &str| {
            let mut command = Command::new(&python);
            command.args(["-c", script, &length]);
            command
        };
        Ok(Self {
            python: Subject::start(&mut scripted(PYTHON))?,
            pthreads: Subject::start(Command::new(&program).arg(&length))?,
            compiles: Subject::start(scripted(COMPILES).arg(&file))?,
            perf,
            seconds,
            _directory: directory,
        })
    }

    /// Those whose counts can be read before and after: Python's and the one with pthreads.
    pub fn pids(&self) -> [u32; 2] {
        [self.python.child.id(), self.pthreads.child.id()]
    }

    /// Lets them work, and waits until all of them are done.
    pub fn run(&mut self) -> Result<Done> {
        let began = Instant::now();
        let all = [&mut self.python, &mut self.pthreads, &mut self.compiles];
        all.into_iter().try_for_each(Subject::go)?;
        let pairs = self.play()?;
        self.python.expect("done")?;
        self.pthreads.expect("done")?;
        match self.compiles.expect("done")?.as_slice() {
            &[compiled_us, compilations] => Ok(Done {
                began,
                compiled_us,
                compilations,
                pairs,
            }),
            other => anyhow::bail!("the compilations say {other:?}"),
        }
    }

    /// One pair after the other: about half of the time on a quiet machine.
    fn play(&self) -> Result<Vec<(Placement, HashSet<u32>)>> {
        let loops = u64::from(self.seconds) * 5_000;
        let pair = |placement| {
            let played = pair::play(&self.perf, loops, placement)?;
            Ok((placement, HashSet::from(played.pids)))
        };
        Placement::possible()?.into_iter().map(pair).collect()
    }
}
