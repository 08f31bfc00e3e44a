//! What a user without any privilege may do to whoever looks at the processes of a host: memory, arguments,
//! files and requests that are made to be in the way. Each scene is one of them; the trial runs them all at
//! once, over and over.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::ptr;
use std::time::Duration;

use crate::arena::{Flavour, PthreadMutex, nap, thread};
use crate::ready;
use crate::sys;

const PAGE: usize = 4096;

/// Sets one of the scenes; the arguments are the scene's own.
pub fn scene(kind: &str, arguments: &[String]) {
    let argument = |at: usize| arguments.get(at).map(String::as_str).expect("an argument");
    match kind {
        "arguments" => endless_arguments(),
        "zeros" => lock_in_zeros(),
        "inflated" => inflated(argument(0), argument(1)),
        "contended" => contended(argument(0)),
        "shrinking" => shrinking(argument(0)),
        "swapped" => swapped(argument(0), arguments.get(1).map(String::as_str)),
        "accusing" => accusing(),
        "squatting" => squatting(argument(0)),
        "requests" => requests(argument(0)),
        other => panic!("no hostile scene called {other:?}"),
    }
}

/// `struct prctl_mm_map` of `linux/prctl.h`.
#[repr(C)]
struct MemoryMap {
    start_code: u64,
    end_code: u64,
    start_data: u64,
    end_data: u64,
    start_brk: u64,
    brk: u64,
    start_stack: u64,
    arg_start: u64,
    arg_end: u64,
    env_start: u64,
    env_end: u64,
    auxv: *const u64,
    auxv_size: u32,
    exe_fd: u32,
}

/// "Arguments" of 64 GiB: where they lie is for the process to say, and takes no memory.
fn endless_arguments() {
    const LENGTH: usize = 64 << 30;
    sys::set_name(b"pp-endless");
    let access = libc::PROT_READ | libc::PROT_WRITE;
    let kind = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
    // SAFETY: a new mapping.
    let at = unsafe { libc::mmap(ptr::null_mut(), LENGTH, access, kind, -1, 0) };
    assert_ne!(at, libc::MAP_FAILED, "{}", std::io::Error::last_os_error());
    let stat = fs::read_to_string("/proc/self/stat").expect("its own stat");
    let fields: Vec<u64> = stat
        .rsplit_once(')')
        .expect("a name")
        .1
        .split_whitespace()
        .map(|field| field.parse().unwrap_or(0))
        .collect();
    // As proc(5) numbers them; the first behind the name is 3.
    let field = |number: usize| fields.get(number - 3).copied().expect("a field");
    let start = at.expose_provenance() as u64;
    // SAFETY: reads the end of the heap.
    let heap = unsafe { libc::sbrk(0) };
    let map = MemoryMap {
        start_code: field(26),
        end_code: field(27),
        start_data: field(45),
        end_data: field(46),
        start_brk: field(47),
        brk: heap.expose_provenance() as u64,
        start_stack: field(28),
        arg_start: start,
        arg_end: start + LENGTH as u64 - 1,
        env_start: field(50),
        env_end: field(51),
        auxv: ptr::null(),
        auxv_size: 0,
        exe_fd: u32::MAX,
    };
    // SAFETY: the kernel reads the structure, and checks what is in it.
    let done = unsafe {
        libc::prctl(
            libc::PR_SET_MM,
            libc::PR_SET_MM_MAP,
            &raw const map,
            size_of_val(&map),
            0,
        )
    };
    assert_eq!(done, 0, "{}", std::io::Error::last_os_error());
    ready(&[("pid", i64::from(std::process::id()))]);
}

/// A mutex at an address that two threads wait at, and one holds for good.
fn contend(at: usize) {
    // SAFETY: mapped for good and for writing, and large enough; nobody else knows of it.
    let mutex: &'static PthreadMutex = unsafe { &*ptr::with_exposed_provenance(at) };
    mutex.init(Flavour::Plain);
    thread("pp-holds", move || {
        mutex.lock();
        sys::pause();
    });
    nap(100_000);
    for _ in 0..2 {
        thread("pp-waits", move || {
            mutex.lock();
        });
    }
    nap(50_000);
}

/// Maps a file, private or shared, for good.
fn map(file: &File, length: usize, kind: i32) -> usize {
    let access = libc::PROT_READ | libc::PROT_WRITE;
    // SAFETY: a new mapping.
    let at = unsafe { libc::mmap(ptr::null_mut(), length, access, kind, file.as_raw_fd(), 0) };
    assert_ne!(at, libc::MAP_FAILED, "{}", std::io::Error::last_os_error());
    at.expose_provenance()
}

fn stay() {
    ready(&[("pid", i64::from(std::process::id()))]);
}

/// A lock in a file without end.
fn lock_in_zeros() {
    sys::set_name(b"pp-zeros");
    let zeros = File::options()
        .read(true)
        .write(true)
        .open("/dev/zero")
        .expect("zeros");
    contend(map(&zeros, 16 * PAGE, libc::MAP_PRIVATE));
    stay();
}

/// Becomes a copy of this program whose symbol tables are so many bytes of nothing.
fn inflated(directory: &str, size: &str) {
    let size: u64 = size.parse().expect("a number");
    let path = Path::new(directory).join(format!("inflated-{}", std::process::id()));
    let mut bytes = fs::read("/proc/self/exe").expect("its own program");
    let word =
        |bytes: &[u8], at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"));
    let (table, count) = (
        usize::try_from(word(&bytes, 0x28)).expect("an offset"),
        usize::from(bytes[0x3c]) | usize::from(bytes[0x3d]) << 8,
    );
    let offset = (bytes.len() as u64 + 0xffff) & !0xffff;
    for number in 0..count {
        let header = table + 64 * number;
        // SHT_SYMTAB, SHT_DYNSYM
        if [2, 11].contains(&(word(&bytes, header) >> 32)) {
            bytes[header + 0x18..header + 0x20].copy_from_slice(&offset.to_le_bytes());
            bytes[header + 0x20..header + 0x28].copy_from_slice(&size.to_le_bytes());
        }
    }
    fs::write(&path, &bytes).expect("writing a program");
    let file = OpenOptions::new().write(true).open(&path).expect("opening it");
    // Where a file system has no room for it, the table ends behind the file, which is no better.
    let _ = file.set_len(offset.saturating_add(size));
    drop(file);
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("making it a program");
    let error = Command::new(&path)
        .args(["hostile", "contended"])
        .arg(&path)
        .exec();
    panic!("{}: {error}", path.display());
}

/// A lock among the variables of the program, and its file away.
fn contended(path: &str) {
    static mut LOCK: [u64; 8] = [0; 8];
    sys::set_name(b"pp-inflated");
    contend((&raw mut LOCK).expose_provenance());
    ready(&[("pid", i64::from(std::process::id()))]);
    let _ = fs::remove_file(path);
}

/// A lock in a mapped program whose file shrinks and grows all the time.
fn shrinking(directory: &str) {
    sys::set_name(b"pp-shrinking");
    let path = Path::new(directory).join(format!("shrinking-{}", std::process::id()));
    let bytes = fs::read("/proc/self/exe").expect("its own program");
    fs::write(&path, &bytes).expect("a copy");
    let file = File::options()
        .read(true)
        .write(true)
        .open(&path)
        .expect("the copy");
    let at = map(&file, bytes.len(), libc::MAP_PRIVATE);
    // Its own copy of the page by now, which stays when the file goes.
    contend(at + ((bytes.len() / 2) & !(PAGE - 1)));
    thread("pp-shrinker", move || {
        loop {
            let _ = file.set_len(PAGE as u64);
            nap(1_000);
            let _ = std::os::unix::fs::FileExt::write_all_at(&file, &bytes, 0);
            nap(20_000);
        }
    });
    stay();
    let _ = fs::remove_file(path);
}

/// A lock in a file that is gone, and at the place where `maps` says it was a link to somebody else's, or a
/// FIFO; and once more where the file was replaced and not removed.
fn swapped(directory: &str, target: Option<&str>) {
    sys::set_name(b"pp-swapped");
    let put = |at: &Path| match target {
        Some(target) => std::os::unix::fs::symlink(target, at).expect("a link"),
        None => sys::fifo(at),
    };
    let of = |name: &str| -> (PathBuf, usize) {
        let path = Path::new(directory).join(format!("{name}-{}", std::process::id()));
        let mut options = File::options();
        options.read(true).write(true).create_new(true);
        let file = options.open(&path).expect("a file of its own");
        file.set_len(256 * PAGE as u64).expect("room");
        let at = map(&file, 256 * PAGE, libc::MAP_SHARED);
        (path, at)
    };
    let (removed, at) = of("removed");
    fs::remove_file(&removed).expect("removing it");
    let mut called = removed.into_os_string();
    called.push(" (deleted)");
    put(Path::new(&called));
    contend(at + PAGE);
    let (replaced, at) = of("replaced");
    let other = replaced.with_extension("other");
    put(&other);
    fs::rename(&other, &replaced).expect("replacing it");
    contend(at + 5 * PAGE);
    stay();
    let _ = (fs::remove_file(called), fs::remove_file(replaced));
}

/// Words that say that the first process of the host, and every process of root's before this one, holds a
/// lock.
fn accusing() {
    sys::set_name(b"pp-accusing");
    let parent = std::os::unix::process::parent_id();
    for (number, tid) in [1, 2, parent, parent.saturating_sub(1)].into_iter().enumerate() {
        // lock, count, owner, users, kind: as glibc has it, and as the kernel's PI futexes do.
        let words = Box::leak(Box::new([0x8000_0000 | tid, 0, tid, 1, 0, 0, 0, 0]));
        let at = (&raw const words[0]).expose_provenance();
        thread("pp-accuser", move || {
            let private = if number % 2 == 0 {
                libc::FUTEX_PRIVATE_FLAG
            } else {
                0
            };
            loop {
                let value = 0x8000_0000 | tid;
                // SAFETY: the word stays.
                unsafe { libc::syscall(libc::SYS_futex, at, libc::FUTEX_WAIT | private, value, 0_usize) };
            }
        });
    }
    nap(50_000);
    stay();
}

/// Tries to have the port that somebody else serves at.
fn squatting(address: &str) {
    sys::set_name(b"pp-squatting");
    let address = address.to_owned();
    thread("pp-squatter", move || {
        loop {
            if let Ok(listener) = std::net::TcpListener::bind(&address) {
                for mut client in listener.incoming().flatten() {
                    let _ = client.write_all(b"HTTP/1.1 200 OK\r\n\r\n\x1b]0;squatted\x07");
                }
            }
            nap(5_000);
        }
    });
    stay();
}

/// Requests that follow no rule, connections that ask nothing, answers that nobody takes.
fn requests(address: &str) {
    sys::set_name(b"pp-requests");
    let odd: [&[u8]; 12] = [
        b"GET /healthz\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0",
        b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03aaaaaaaaaaaaaaaa",
        b"GET /metrics HTTP/1.1\r\nHost: evil.example\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000000000\r\n\r\n",
        b"POST /metrics HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"GET /api/v1/tree?pid=%1b%5b HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
        b"GET /api/v1/locks?for=60s HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET /api/v1/states?for=59s&by=thread HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET /heal\0thz HTTP/1.1\r\nHost: \xff\xfe\r\n\r\n",
        b"GET /../../etc/shadow HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"",
    ];
    for number in 0..8 {
        let address = address.to_owned();
        thread("pp-requester", move || {
            let mut kept = Vec::new();
            for round in number.. {
                let Ok(mut stream) = TcpStream::connect(&address) else {
                    nap(10_000);
                    continue;
                };
                let request = odd[round % odd.len()];
                let pipelined = if round % 5 == 0 { 100 } else { 1 };
                let _ = stream.write_all(&request.repeat(pipelined));
                if round % 3 == 0 {
                    // Says nothing more, and takes no answer.
                    kept.push(stream);
                    kept.drain(..kept.len().saturating_sub(20));
                } else {
                    let _ = stream.set_read_timeout(Some(Duration::from_millis(20)));
                    let _ = stream.read(&mut [0; 4096]);
                }
                nap(5_000);
            }
        });
    }
    stay();
}
