//! Which functions a blocked thread came through: a copy of its stack and the files that its addresses lead
//! into, for the namer to follow.
//!
//! The stack is read some milliseconds after the registers, while the thread goes on if it can: what was read counts only
//! if the thread is then still, or again, where the registers say.

use std::collections::HashMap;
use std::path::Path;

use probe_ebpf::lock::LiveFutex;

use super::super::reader::elsewhere;
use super::image::{Image, Mapping};
use crate::namer;
use crate::namer::file::{Checked, FileId};
use crate::namer::protocol::{Answer, CodeRange, FRAMES, Question, RANGES, STACK, Walk};

/// Files that are opened for one stack at most: those of the frames, and of what is left of earlier calls.
const FILES: usize = 64;

/// A way through the code.
#[derive(Debug)]
pub struct Way {
    /// Addresses inside the calls, innermost first, without the C library's own; with the functions where a
    /// symbol covers them.
    pub frames: Vec<(u64, Option<String>)>,
    /// Whether the way could not be followed to its beginning.
    pub cut: bool,
}

/// Follows a thread's stack; `None` if the thread has gone on meanwhile, or cannot be looked at.
pub fn walk(image: &Image, tid: u32, live: &LiveFutex) -> Option<Way> {
    let stack = copy(image, live.sp);
    if !image.is_at(tid, live.sp, live.ip) {
        return None;
    }
    let (walk, files) = question(image, live, stack);
    match elsewhere(|| namer::shared().ask(Question::Walk(walk), &files)) {
        Some(Answer::Walk { mut frames, cut }) => {
            frames.truncate(FRAMES);
            Some(Way { frames, cut })
        }
        _ => None,
    }
}

/// From the stack pointer on, as far as the mapping and what is told go.
fn copy(image: &Image, sp: u64) -> Vec<u8> {
    let room = image.mapping(sp).map_or(0, |mapping| mapping.end - sp);
    let mut stack = vec![0; usize::try_from(room).map_or(STACK, |room| room.min(STACK))];
    let read = image.read_at(sp, &mut stack);
    stack.truncate(read);
    stack
}

/// The walk, with the files that the registers and the words of the stack lead into.
fn question(image: &Image, live: &LiveFutex, stack: Vec<u8>) -> (Walk, Vec<Option<Checked>>) {
    let code: Vec<&Mapping> = image.code().take(RANGES).collect();
    let mut wanted = vec![false; code.len()];
    let (words, _) = stack.as_chunks::<8>();
    let words = words.iter().map(|word| u64::from_le_bytes(*word));
    for address in [live.ip].into_iter().chain(words) {
        // In the order of their addresses.
        let behind = code.partition_point(|mapping| mapping.start <= address);
        if let Some(at) = behind.checked_sub(1)
            && code.get(at).is_some_and(|mapping| address <= mapping.end)
            && let Some(wanted) = wanted.get_mut(at)
        {
            *wanted = true;
        }
    }
    let mut numbers: HashMap<FileId, Option<u32>> = HashMap::new();
    let (mut extents, mut files) = (Vec::new(), Vec::new());
    let mut number = |mapping: &Mapping| {
        *numbers.entry(mapping.id).or_insert_with(|| {
            let module = image.module_of(mapping).filter(|_| files.len() < FILES)?;
            files.push(Some(image.open(&module)?));
            extents.push((module.start, module.end));
            u32::try_from(files.len() - 1).ok()
        })
    };
    let ranges = code.iter().zip(&wanted).map(|(mapping, wanted)| CodeRange {
        start: mapping.start,
        end: mapping.end,
        file: if *wanted { number(mapping) } else { None },
        hidden: is_library(mapping.path.as_deref()),
    });
    let walk = Walk {
        ip: live.ip,
        sp: live.sp,
        bp: live.bp,
        code: ranges.collect(),
        files: extents,
        stack,
    };
    (walk, files)
}

/// Whether it is the C library's code, which leads to every wait.
fn is_library(path: Option<&Path>) -> bool {
    let name = path.and_then(Path::file_name);
    let Some(name) = name else { return false };
    let library = ["libc.so", "libc-2", "libpthread", "ld-", "libc.musl"];
    let name = name.as_encoded_bytes();
    library.iter().any(|start| name.starts_with(start.as_bytes()))
}

#[cfg(all(test, target_arch = "x86_64"))]
mod tests {
    use std::arch::asm;
    use std::fs;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
    use std::time::{Duration, Instant};

    use super::*;

    /// What a thread of ours says of itself, and what it waits for.
    #[derive(Default)]
    struct Scene {
        tid: AtomicU32,
        frame: AtomicU64,
        word: AtomicU32,
    }

    #[inline(never)]
    fn waits(scene: &Scene) -> u32 {
        // SAFETY: no arguments, no failure.
        scene
            .tid
            .store(unsafe { libc::gettid() }.cast_unsigned(), Ordering::Release);
        while scene.word.load(Ordering::Acquire) == 0 {
            let frame: u64;
            // SAFETY: reads a register.
            unsafe { asm!("mov {}, rbp", out(reg) frame) };
            scene.frame.store(frame, Ordering::Release);
            let word = scene.word.as_ptr();
            // SAFETY: a valid word; no timeout.
            unsafe { libc::syscall(libc::SYS_futex, word, libc::FUTEX_WAIT, 0, 0) };
        }
        scene.word.load(Ordering::Acquire)
    }

    #[inline(never)]
    fn calls_it(scene: &Scene) -> u32 {
        std::hint::black_box(waits(scene)) + 1
    }

    /// Registers of the thread, once it is blocked.
    fn registers(scene: &Scene) -> Option<LiveFutex> {
        let tid = scene.tid.load(Ordering::Acquire);
        let text = fs::read_to_string(format!("/proc/self/task/{tid}/syscall")).ok()?;
        let mut words = text
            .strip_prefix(&format!("{} ", libc::SYS_futex))?
            .split_whitespace()
            .rev();
        let mut next = || u64::from_str_radix(words.next()?.strip_prefix("0x")?, 16).ok();
        let (ip, sp) = (next()?, next()?);
        Some(LiveFutex {
            ip,
            sp,
            bp: scene.frame.load(Ordering::Acquire),
            ..bytemuck::Zeroable::zeroed()
        })
    }

    /// Where the way leads through a function: behind its beginning, not far.
    fn through(way: &Way, function: fn(&Scene) -> u32) -> Option<usize> {
        let begin = (function as *const ()).expose_provenance() as u64;
        let inside = |(address, _): &(u64, _)| (begin..begin + 0x400).contains(address);
        way.frames.iter().position(inside)
    }

    #[test]
    fn a_blocked_thread_came_through_the_functions_that_called_each_other() {
        let scene = Arc::new(Scene::default());
        let thread = std::thread::spawn({
            let scene = Arc::clone(&scene);
            move || calls_it(&scene)
        });
        let deadline = Instant::now() + Duration::from_secs(10);
        let live = loop {
            if let Some(live) = registers(&scene) {
                break live;
            }
            assert!(Instant::now() < deadline, "never blocked");
            std::thread::sleep(Duration::from_millis(1));
        };
        let image = Image::read(Path::new("/proc"), std::process::id()).unwrap();
        let tid = scene.tid.load(Ordering::Acquire);
        let way = walk(&image, tid, &live).expect("it stays");
        let (inner, outer) = (through(&way, waits), through(&way, calls_it));
        assert!(inner.is_some() && inner < outer, "{inner:?} {outer:?} {way:x?}");
        let name = inner
            .and_then(|inner| way.frames[inner].1.as_deref())
            .unwrap_or("");
        assert!(name.ends_with("::waits"), "{name}");
        let elsewhere = LiveFutex {
            sp: live.sp + 8,
            ..live
        };
        assert!(
            walk(&image, tid, &elsewhere).is_none(),
            "a thread that has gone on"
        );
        scene.word.store(1, Ordering::Release);
        // SAFETY: as above.
        unsafe { libc::syscall(libc::SYS_futex, scene.word.as_ptr(), libc::FUTEX_WAKE, 1) };
        assert_eq!(thread.join().unwrap(), 2);
    }
}
