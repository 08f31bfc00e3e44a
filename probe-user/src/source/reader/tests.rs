//! A /proc of FIFOs: opening one that nobody writes to never comes back.

use std::fs;
use std::path::Path;
use std::time::Instant;

use rustix::fs::{CWD, FileType, Mode, mknodat};

use super::files::{CMDLINE, Directory};
use super::*;

/// A /proc whose processes answer, those that hang excepted.
fn root(pids: std::ops::Range<u32>, hang: &[u32]) -> tempfile::TempDir {
    let root = tempfile::tempdir().unwrap();
    for pid in pids {
        let directory = Directory::of(root.path(), pid);
        fs::create_dir(directory.path()).unwrap();
        let file = directory.path().join("cmdline");
        if hang.contains(&pid) {
            mknodat(CWD, &file, FileType::Fifo, Mode::RWXU, 0).unwrap();
        } else {
            fs::write(file, pid.to_string()).unwrap();
        }
    }
    root
}

fn ask(
    reader: &Reader,
    root: &Path,
    subjects: impl IntoIterator<Item = Subject>,
    limit: Duration,
) -> Asked<(u32, Vec<u8>)> {
    let mut budget = Budget::new(limit);
    let root = root.to_owned();
    let questions = subjects.into_iter().map(|subject| (subject, ()));
    reader.ask(&mut budget, questions, move |_, (): &mut (), subject, ()| {
        let read = Directory::of(&root, subject.pid).read("cmdline", CMDLINE);
        vec![(subject.pid, read.unwrap())]
    })
}

fn all(pids: std::ops::Range<u32>) -> impl Iterator<Item = Subject> {
    pids.map(|pid| Subject::of(pid, 1))
}

const LONG: Duration = Duration::from_secs(30);

#[test]
fn who_hangs_costs_itself_alone() {
    let root = root(0..100, &[10, 20, 99]);
    let reader = Reader::default();
    let asked = ask(&reader, root.path(), all(0..100), LONG);
    assert_eq!(asked.answers.len(), 97);
    assert_eq!(asked.lost, 3);
    let hang = BTreeMap::from([10, 20, 99].map(|pid| (pid, MemoryGap::Hangs)));
    assert_eq!(asked.gaps, hang);
    // For a minute it is not asked again, and the answer is as fast as ever.
    let began = Instant::now();
    let asked = ask(&reader, root.path(), all(0..100), LONG);
    assert_eq!((asked.answers.len(), asked.lost, asked.gaps), (97, 3, hang));
    assert!(began.elapsed() < PATIENCE, "{:?}", began.elapsed());
    // Another process of that pid is another process.
    fs::remove_file(root.path().join("10/cmdline")).unwrap();
    fs::write(root.path().join("10/cmdline"), "new").unwrap();
    let asked = ask(&reader, root.path(), [Subject::of(10, 2)], LONG);
    assert_eq!(asked.answers, [(10, b"new".to_vec())]);
}

#[test]
fn an_answer_that_comes_after_all_is_not_taken_and_its_thread_ends() {
    let root = root(0..2, &[0]);
    let reader = Reader::default();
    let asked = ask(&reader, root.path(), all(0..2), LONG);
    assert_eq!(asked.answers, [(1, b"1".to_vec())]);
    assert_eq!(reader.pool.alive(), 2);
    // Lets it go.
    fs::OpenOptions::new()
        .write(true)
        .open(root.path().join("0/cmdline"))
        .unwrap();
    let deadline = Instant::now() + LONG;
    while reader.pool.alive() > 1 {
        assert!(Instant::now() < deadline, "it never ends");
        std::thread::sleep(TICK);
    }
}

#[test]
fn threads_that_hang_are_bounded_and_so_is_the_time() {
    let pids: Vec<u32> = (0..40).collect();
    let root = root(0..41, &pids);
    let reader = Reader::default();
    let asked = ask(&reader, root.path(), all(0..41), Duration::from_millis(450));
    assert!(asked.gaps.len() <= 5, "{:?}", asked.gaps);
    assert_eq!(asked.lost, 41, "and what was not reached is counted");
    let of_a_user = all(0..41).map(|subject| Subject {
        uid: Some(1000),
        ..subject
    });
    let reader = Reader::default();
    for _ in 0..4 {
        let _ = ask(&reader, root.path(), all(0..41), LONG);
    }
    assert!(reader.pool.alive() <= 16, "{}", reader.pool.alive());
    let reader = Reader::default();
    let subjects: Vec<Subject> = of_a_user.collect();
    for subject in &subjects {
        let _ = ask(&reader, root.path(), [*subject], LONG);
    }
    assert!(reader.pool.alive() <= 5, "one user's: {}", reader.pool.alive());
    let asked = ask(&reader, root.path(), [subjects[40]], LONG);
    assert_eq!(asked.gaps, BTreeMap::from([(40, MemoryGap::UserHangs)]));
    let asked = ask(&reader, root.path(), [Subject::of(40, 1)], LONG);
    assert_eq!(asked.answers.len(), 1, "others are asked as ever");
}

#[test]
fn much_to_do_is_no_hang_and_neither_is_the_namer() {
    let reader = Reader::default();
    let ask = |limit, work: fn()| {
        let questions = all(0..3).map(|subject| (subject, ()));
        let mut budget = Budget::new(limit);
        let asked = reader.ask(&mut budget, questions, move |_, (): &mut (), subject, ()| {
            work();
            vec![subject.pid]
        });
        (asked, budget)
    };
    let busy = || {
        let end = Instant::now() + PATIENCE * 2;
        while Instant::now() < end {
            std::hint::spin_loop();
        }
    };
    let (asked, budget) = ask(LONG, busy);
    assert_eq!(asked.answers, [0, 1, 2], "{:?}", asked.gaps);
    assert!(budget.left() < LONG, "it has cost time");
    let at_the_namer = || elsewhere(|| std::thread::sleep(PATIENCE * 2));
    let (asked, _) = ask(LONG, at_the_namer);
    assert_eq!(asked.answers, [0, 1, 2], "{:?}", asked.gaps);
    // Late, and no process is to blame.
    let (asked, budget) = ask(PATIENCE, at_the_namer);
    assert!(asked.gaps.is_empty() && asked.answers.is_empty());
    assert_eq!(asked.lost, 3);
    assert!(budget.left().is_zero());
}
