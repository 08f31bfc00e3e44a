//! A process whose memory does not come: it maps a file of a file system whose server has stopped answering.
//!
//! `page`: one thread waits at a futex in such a page. `locked`: one waits at an ordinary mutex, while
//! another reads such a page through `/proc/self/mem`, which holds the memory map's lock, and a third maps
//! something, which queues for it.

use std::ffi::OsStr;
use std::fs::File;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU32, Ordering::SeqCst};
use std::time::{Duration, UNIX_EPOCH};

use fuser::{
    Config, Errno, FileAttr, FileHandle, FileType, Filesystem, INodeNo, LockOwner, OpenFlags, ReplyAttr,
    ReplyData, ReplyEntry, Request,
};

use crate::arena::{nap_until, thread};
use crate::{ready, sys};

const PAGE: usize = 4096;
/// How many pages the file has: the first is answered, the others never.
const PAGES: usize = 64;
const FILE: &str = "words";
const INODE: u64 = 2;
const TTL: Duration = Duration::from_secs(3600);

fn attributes(inode: u64) -> FileAttr {
    let is_file = inode == INODE;
    FileAttr {
        ino: INodeNo(inode),
        size: if is_file { (PAGES * PAGE) as u64 } else { 0 },
        blocks: 1,
        atime: UNIX_EPOCH,
        mtime: UNIX_EPOCH,
        ctime: UNIX_EPOCH,
        crtime: UNIX_EPOCH,
        kind: if is_file {
            FileType::RegularFile
        } else {
            FileType::Directory
        },
        perm: 0o777,
        nlink: 1,
        uid: 0,
        gid: 0,
        rdev: 0,
        flags: 0,
        blksize: 4096,
    }
}

/// A server that answers until it is told to stop; what comes then it keeps to itself.
struct Server {
    kept: Mutex<Vec<ReplyData>>,
}

/// Whether the server has stopped answering.
static SILENT: AtomicBool = AtomicBool::new(false);

impl Filesystem for Server {
    fn lookup(&self, _: &Request, _: INodeNo, name: &OsStr, reply: ReplyEntry) {
        if name == FILE {
            reply.entry(&TTL, &attributes(INODE), fuser::Generation(0));
        } else {
            reply.error(Errno::ENOENT);
        }
    }

    fn getattr(&self, _: &Request, inode: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        reply.attr(&TTL, &attributes(inode.0));
    }

    fn read(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        _: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        if SILENT.load(SeqCst) {
            self.kept.lock().expect("one at a time").push(reply);
        } else {
            reply.data(&vec![0; size as usize]);
        }
    }
}

/// Serves the file to a process of its own, and says when that is sick.
pub fn scene(mode: &str) {
    sys::set_name(b"pp-server");
    // Of these processes alone: however they end, no mount is left.
    keep_mounts();
    let directory = std::env::temp_dir().join(format!("pp-sick-{}", std::process::id()));
    std::fs::create_dir(&directory).expect("a directory");
    let server = Server {
        kept: Mutex::default(),
    };
    let session = fuser::spawn_mount(server, &directory, &Config::default()).expect("mounting");
    let own = std::env::current_exe().expect("a program");
    let mut client = Command::new(own)
        .arg("sick-client")
        .arg(mode)
        .arg(directory.join(FILE))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .expect("a client");
    let out = client.stdout.take().expect("piped");
    let mut lines = std::io::BufRead::lines(std::io::BufReader::new(out));
    let mapped = lines.next().expect("a line").expect("a line");
    assert_eq!(mapped, "mapped");
    SILENT.store(true, SeqCst);
    let pid = i64::from(client.id());
    let state = || std::fs::read_to_string(format!("/proc/{pid}/comm"));
    // Its threads go on by themselves; the last thing that they do is to take its last name.
    nap_until(|| state().is_ok_and(|comm| comm == "pp-sick\n"));
    ready(&[("pid", pid), ("server", i64::from(std::process::id()))]);
    sys::kill(i32::try_from(pid).expect("a pid"), libc::SIGKILL);
    // What hangs in the kernel ends with the file system.
    drop(session);
    let _ = client.wait();
    let _ = std::fs::remove_dir(&directory);
}

/// A mount namespace of its own.
fn keep_mounts() {
    let nothing = std::ptr::null::<libc::c_char>();
    // SAFETY: the paths are C strings; the other pointers may be null.
    let done = unsafe {
        libc::unshare(libc::CLONE_NEWNS) == 0
            && libc::mount(
                nothing,
                c"/".as_ptr(),
                nothing,
                libc::MS_REC | libc::MS_PRIVATE,
                nothing.cast(),
            ) == 0
    };
    assert!(done, "{}", std::io::Error::last_os_error());
}

static TIDS: [AtomicI32; 4] = [const { AtomicI32::new(0) }; 4];
/// Whether the reader has had time to lock the memory map, and whether a new mapping was made all the same.
static LOCKED: AtomicBool = AtomicBool::new(false);
static MAPPED: AtomicBool = AtomicBool::new(false);
/// What the waiter of `locked` waits at: a mutex of nobody.
static WORD: AtomicU32 = AtomicU32::new(2);

/// Runs one of the threads, and notes it.
fn member(number: usize, name: &'static str, work: impl FnOnce() + Send + 'static) {
    thread(name, move || {
        TIDS[number].store(sys::gettid(), SeqCst);
        work();
    });
}

/// Whether a thread is in a system call (or waits for a page) for good, by what /proc says.
fn sleeps(number: usize) -> bool {
    let tid = TIDS[number].load(SeqCst);
    tid != 0
        && std::fs::read_to_string(format!("/proc/self/task/{tid}/stat"))
            .is_ok_and(|stat| stat.contains(") S ") || stat.contains(") D "))
}

fn wait_at(address: usize, value: u32, private: bool) {
    let operation = if private {
        libc::FUTEX_WAIT | libc::FUTEX_PRIVATE_FLAG
    } else {
        libc::FUTEX_WAIT
    };
    // SAFETY: the word stays mapped.
    unsafe { libc::syscall(libc::SYS_futex, address, operation, value, 0_usize) };
}

/// The process whose memory does not come.
pub fn client(mode: &str, file: &str) {
    sys::set_name(b"pp-getssick");
    let file = File::options()
        .read(true)
        .write(true)
        .open(Path::new(file))
        .expect("a file");
    let length = PAGES * PAGE;
    // SAFETY: a new mapping, for ever.
    let map = unsafe {
        let access = libc::PROT_READ | libc::PROT_WRITE;
        libc::mmap(
            std::ptr::null_mut(),
            length,
            access,
            libc::MAP_SHARED,
            file.as_raw_fd(),
            0,
        )
    };
    assert_ne!(map, libc::MAP_FAILED);
    let far = map.expose_provenance() + length - PAGE;
    if mode == "page" {
        member(0, "pp-waiter", move || wait_at(far, 0, false));
        nap_until(|| sleeps(0));
        // It sleeps by the page's place in the file now: the page itself can go. It stays while the kernel
        // has it in hand elsewhere, as on a CPU's list of pages that were used lately.
        nap_until(|| {
            let mut resident = [0; PAGES];
            // SAFETY: the process's own mapping, and a byte for each of its pages.
            unsafe {
                libc::madvise(map, length, libc::MADV_DONTNEED);
                libc::posix_fadvise(file.as_raw_fd(), 0, 0, libc::POSIX_FADV_DONTNEED);
                assert_eq!(libc::mincore(map, length, resident.as_mut_ptr()), 0);
            }
            resident[PAGES - 1] & 1 == 0
        });
        println!("mapped");
    } else {
        let word = (&raw const WORD).expose_provenance();
        member(0, "pp-waiter", move || wait_at(word, 2, true));
        nap_until(|| sleeps(0));
        println!("mapped");
        std::thread::sleep(Duration::from_millis(100));
        // A thread's stack is mapped: all threads have to be there before the map is locked.
        member(2, "pp-mapper", || {
            while !LOCKED.load(SeqCst) {
                std::thread::sleep(Duration::from_millis(1));
            }
            // SAFETY: a new mapping.
            unsafe {
                let kind = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
                libc::mmap(std::ptr::null_mut(), PAGE, libc::PROT_READ, kind, -1, 0);
            }
            MAPPED.store(true, SeqCst);
        });
        nap_until(|| TIDS[2].load(SeqCst) != 0);
        member(1, "pp-reader", move || {
            let memory = File::open("/proc/self/mem").expect("own memory");
            let mut byte = [0];
            TIDS[3].store(1, SeqCst);
            let _ = memory.read_exact_at(&mut byte, far as u64);
        });
        while TIDS[3].load(SeqCst) == 0 {
            std::thread::sleep(Duration::from_millis(1));
        }
        std::thread::sleep(Duration::from_millis(200));
        LOCKED.store(true, SeqCst);
        std::thread::sleep(Duration::from_millis(200));
        assert!(!MAPPED.load(SeqCst), "the reader holds the map's lock");
    }
    sys::set_name(b"pp-sick");
    sys::pause();
}
