//! Tests against a /proc laid out in a temporary directory, and against the real one.

use super::*;

fn lay_out(root: &Path, pid: u32, tid: u32, comm: &[u8], state: char) {
    let stat = format!(
        "{tid} ({}) {state} 1 1 1 0 -1 4194560 0 0 0 0 5 2 0 0 20 3 1 0 700 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 17 0 0 0 0 0 0 0 0 0 0 0 0 0 768",
        String::from_utf8_lossy(comm)
    );
    // As the kernel writes it: a line end in the name is escaped, bytes that are no UTF-8 are not.
    let name = comm
        .split(|&byte| byte == b'\n')
        .collect::<Vec<_>>()
        .join(&b"\\n"[..]);
    let status = format!(
        "State:\t{state}\nTgid:\t{pid}\nNgid:\t0\nPid:\t{tid}\nPPid:\t1\nTracerPid:\t0\nUid:\t0\t7\t0\t0\nGid:\t0\t0\t0\t0\n\
         FDSize:\t64\nGroups:\t\nNStgid:\t{pid}\t4\nNSpid:\t{tid}\t5\nThreads:\t1\nSigQ:\t0/1\nSigPnd:\t0\nShdPnd:\t0\nSigBlk:\t0\nSigIgn:\t0\nSigCgt:\t0\n\
         CapInh:\t0\nCapPrm:\t0\nCapEff:\t0\nvoluntary_ctxt_switches:\t12\nnonvoluntary_ctxt_switches:\t3\n"
    );
    let status = [&b"Name:\t"[..], &name, b"\n", status.as_bytes()].concat();
    for directory in [root.join(pid.to_string()), root.join(format!("{pid}/task/{tid}"))] {
        fs::create_dir_all(&directory).unwrap();
        fs::write(directory.join("stat"), &stat).unwrap();
        fs::write(directory.join("status"), &status).unwrap();
        fs::write(directory.join("comm"), [comm, b"\n"].concat()).unwrap();
    }
}

#[test]
fn reads_what_the_files_say_whatever_the_name() {
    let root = tempfile::tempdir().unwrap();
    lay_out(root.path(), 40, 40, b"a) Z\n\xff", 'D');
    let snapshot = ProcSource::new(root.path()).snapshot().unwrap();
    assert!(snapshot.losses.is_empty());
    let [thread] = snapshot.threads.as_slice() else {
        panic!("{:?}", snapshot.threads)
    };
    assert_eq!(thread.comm.to_string(), "a) Z\\n\\xff");
    assert_eq!(thread.condition, Condition::Alive(State::Uninterruptible));
    assert_eq!(
        (thread.pid, thread.ppid, thread.nice, thread.uid),
        (40, 1, 3, Some(7))
    );
    assert_eq!(thread.ns_tids[..], [5]);
    assert_eq!(
        thread.switches,
        Switches {
            voluntary: 12,
            involuntary: 3
        }
    );
    assert_eq!(thread.condition_ns, None);
}

#[test]
fn a_process_that_cannot_be_read_is_counted() {
    let root = tempfile::tempdir().unwrap();
    lay_out(root.path(), 40, 40, b"ok", 'S');
    lay_out(root.path(), 41, 41, b"bad", 'S');
    fs::write(root.path().join("41/status"), "nonsense").unwrap();
    let snapshot = ProcSource::new(root.path()).snapshot().unwrap();
    assert_eq!(snapshot.threads.len(), 1);
    assert!(snapshot.losses.iter().any(|loss| loss == ("unread", 1)));
}

#[test]
fn a_missing_proc_is_an_error_with_a_remedy() {
    let root = tempfile::tempdir().unwrap();
    let error = ProcSource::new(root.path()).snapshot().unwrap_err();
    assert!(error.to_string().contains("mount -t proc"), "{error}");
    let error = ProcSource::new(root.path().join("none")).snapshot().unwrap_err();
    assert!(error.to_string().contains("mount -t proc"), "{error}");
}

#[test]
fn finds_itself_in_the_real_one() {
    let snapshot = ProcSource::new("/proc").snapshot().unwrap();
    let own = snapshot
        .threads
        .iter()
        .find(|thread| thread.id.tid == std::process::id())
        .unwrap();
    assert_eq!(own.pid, std::process::id());
    assert!(own.id.start_ns > 0);
}

#[test]
fn a_name_that_closes_before_it_opens_is_an_error() {
    let root = tempfile::tempdir().unwrap();
    lay_out(root.path(), 40, 40, b"ok", 'S');
    for text in [
        "1 ) S 1 (",
        "1 )(",
        "(",
        ")",
        "",
        "1 (x)",
        "1 (x) \n",
        "1 (x)\u{e9}",
        "1 (x) \u{e9}",
    ] {
        fs::write(root.path().join("40/task/40/stat"), text).unwrap();
        assert!(
            ProcSource::new(root.path())
                .snapshot()
                .unwrap()
                .threads
                .is_empty()
        );
    }
}
