//! Which functions a blocked thread came through: by the tables that say how to unwind each instruction (`.eh_frame`, which
//! exceptions need and compilers therefore emit for nearly all code), by frame pointers where there are none, as in code
//! that was made while running.
//!
//! The stack is read some milliseconds after the registers, while the thread goes on if it can: what was read counts only
//! if the thread is then still, or again, where the registers say.

use std::collections::HashSet;
use std::fs::File;
use std::path::{Path, PathBuf};

use framehop::x86_64::{CacheX86_64, UnwindRegsX86_64, UnwinderX86_64};
use framehop::{ExplicitModuleSectionInfo, FrameAddress, Module, Unwinder};
use object::read::elf::ElfFile64;
use object::{Object, ObjectSection, ObjectSegment, ReadCache};
use probe_ebpf::lock::LiveFutex;

use super::image::Image;

/// Frames that are told at most.
const FRAMES: usize = 8;
/// Frames that are followed at most, those of the C library included.
const STEPS: usize = 64;
/// Tables larger than this are not read: those of the largest browsers have 20 MB.
const LARGEST: u64 = 64 << 20;
const PAGE: u64 = 4096;

/// A way through the code.
#[derive(Debug)]
pub struct Walk {
    /// Addresses inside the calls, innermost first, without the C library's own.
    pub addresses: Vec<u64>,
    /// Whether the way could not be followed to its beginning.
    pub cut: bool,
}

/// How to unwind the code of one process, as far as it was needed yet.
#[derive(Default)]
pub struct Stacks {
    unwinder: UnwinderX86_64<Vec<u8>>,
    cache: CacheX86_64,
    known: HashSet<PathBuf>,
}

impl Stacks {
    /// Follows a thread's stack; `None` if the thread has gone on meanwhile, or cannot be looked at.
    pub fn walk(&mut self, image: &Image, tid: u32, live: &LiveFutex) -> Option<Walk> {
        let walk = self.follow(image, live);
        image.is_at(tid, live.sp, live.ip).then_some(walk)
    }

    fn follow(&mut self, image: &Image, live: &LiveFutex) -> Walk {
        let mut walk = Walk {
            addresses: Vec::new(),
            cut: true,
        };
        if cfg!(not(target_arch = "x86_64")) {
            return walk;
        }
        let mut registers = UnwindRegsX86_64::new(live.ip, live.sp, live.bp);
        let mut at = FrameAddress::from_instruction_pointer(live.ip);
        for _ in 0..STEPS {
            let address = at.address_for_lookup();
            if is_own(image, address) {
                if walk.addresses.len() == FRAMES {
                    return walk;
                }
                walk.addresses.push(address);
            }
            self.learn(image, address);
            let mut read = |address| image.word(address).ok_or(());
            let next = self
                .unwinder
                .unwind_frame(at, &mut registers, &mut self.cache, &mut read);
            match next {
                Ok(Some(back)) if is_code(image, back) => {
                    at = FrameAddress::from_return_address(back).unwrap_or(at);
                }
                Ok(None) => {
                    walk.cut = false;
                    return walk;
                }
                _ => return walk,
            }
        }
        walk
    }

    /// Reads the tables of the file that an address is in.
    fn learn(&mut self, image: &Image, address: u64) {
        let Some((path, base)) = image.module(address) else {
            return;
        };
        if self.known.contains(path) {
            return;
        }
        self.known.insert(path.to_owned());
        if let Some(module) = module(image, path, base) {
            self.unwinder.add_module(module);
        }
    }
}

fn module(image: &Image, path: &Path, base: u64) -> Option<Module<Vec<u8>>> {
    let file = ReadCache::new(File::open(image.reachable(path)).ok()?);
    let elf: ElfFile64<'_, object::Endianness, _> = ElfFile64::parse(&file).ok()?;
    let lowest = elf.segments().map(|segment| segment.address()).min()?;
    let bias = base.wrapping_sub(lowest & !(PAGE - 1));
    let range = |name| {
        let section = elf.section_by_name(name)?;
        Some(section.address()..section.address() + section.size())
    };
    let data = |name| {
        let section = elf
            .section_by_name(name)
            .filter(|section| section.size() <= LARGEST)?;
        Some(section.data().ok()?.to_vec())
    };
    let sections = ExplicitModuleSectionInfo {
        base_svma: 0,
        text_svma: range(".text"),
        got_svma: range(".got"),
        eh_frame_svma: range(".eh_frame"),
        eh_frame: data(".eh_frame"),
        eh_frame_hdr_svma: range(".eh_frame_hdr"),
        eh_frame_hdr: data(".eh_frame_hdr"),
        ..Default::default()
    };
    let name = path.to_string_lossy().into_owned();
    Some(Module::new(name, image.extent(path)?, bias, sections))
}

fn is_code(image: &Image, address: u64) -> bool {
    image.mapping(address).is_some_and(|mapping| mapping.executable)
}

/// Whether an address is in code that is not the C library's.
fn is_own(image: &Image, address: u64) -> bool {
    let Some(mapping) = image.mapping(address).filter(|mapping| mapping.executable) else {
        return false;
    };
    let name = mapping.path.as_deref().and_then(|path| path.file_name());
    let Some(name) = name.and_then(|name| name.to_str()) else {
        // Code that was made while running.
        return mapping.path.is_none();
    };
    let library = ["libc.so", "libc-2", "libpthread", "ld-", "libc.musl"];
    !library.iter().any(|start| name.starts_with(start))
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
    fn through(walk: &Walk, function: fn(&Scene) -> u32) -> Option<usize> {
        let begin = (function as *const ()).expose_provenance() as u64;
        let inside = |&address: &u64| (begin..begin + 0x400).contains(&address);
        walk.addresses.iter().position(inside)
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
        let walk = Stacks::default().walk(&image, tid, &live).expect("it stays");
        let (inner, outer) = (through(&walk, waits), through(&walk, calls_it));
        assert!(inner.is_some() && inner < outer, "{inner:?} {outer:?} {walk:x?}");
        let elsewhere = LiveFutex {
            sp: live.sp + 8,
            ..live
        };
        assert!(
            Stacks::default().walk(&image, tid, &elsewhere).is_none(),
            "a thread that has gone on"
        );
        scene.word.store(1, Ordering::Release);
        // SAFETY: as above.
        unsafe { libc::syscall(libc::SYS_futex, scene.word.as_ptr(), libc::FUTEX_WAKE, 1) };
        assert_eq!(thread.join().unwrap(), 2);
    }
}
