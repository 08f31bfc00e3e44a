//! One frame further up, where the instruction that waits does not say whose protocol it follows: in the
//! exported `syscall()`, and in the kernel's own code for 32-bit system calls.
//!
//! Neither needs unwinding. glibc's `syscall()` has nothing on the stack, musl's a fixed frame without calls;
//! the vDSO's `__kernel_vsyscall` pushes three registers (`arch/x86/entry/vdso/vdso32/system_call.S`).

use std::collections::HashMap;
use std::sync::Arc;

use probe_ebpf::lock::LockKey;
use procfs::process::{MMPermissions, MMapPath, MemoryMap};

use super::address_space::{Answer, Frame, mapping};
use super::code::{CodeCache, NotNow};
use super::program::{inside, site};
use super::reader::files::{Directory, Memory};
use crate::model::locks::site::{Caller, Library, Site};
use crate::namer::id_of as file_of;

/// Words that are read of a stack: musl's `syscall()` has 11 on x86-64.
const WORDS: usize = 16;
/// Registers that `__kernel_vsyscall` pushes before it enters the kernel.
const PUSHED_BY_VDSO: usize = 3;
/// Words between the return address of `__kernel_vsyscall` and that of glibc's 32-bit `syscall()`, which
/// pushes four registers.
const PUSHED_BY_SYSCALL: usize = 5;

/// What is called where, for each lock that is asked for.
pub fn callers(
    directory: &Directory,
    code: &CodeCache,
    maps: &[MemoryMap],
    frames: &HashMap<LockKey, Frame>,
) -> Vec<Answer> {
    if frames.is_empty() || cfg!(not(target_arch = "x86_64")) {
        return Vec::new();
    }
    let Ok(memory) = directory.memory() else {
        return Vec::new();
    };
    let place = Place {
        directory,
        code,
        maps,
        memory: &memory,
    };
    let frames = frames.iter();
    frames
        .filter_map(|(key, frame)| Some(Answer::Caller(*key, Arc::new(place.site(*frame)?))))
        .collect()
}

/// A process, as far as its stacks ask for it.
struct Place<'a> {
    directory: &'a Directory,
    code: &'a CodeCache,
    maps: &'a [MemoryMap],
    memory: &'a Memory,
}

impl Place<'_> {
    fn site(&self, frame: Frame) -> Option<Site> {
        let innermost = site(self.directory, self.code, self.maps, frame.ip).ok()?;
        match innermost.library {
            Library::Vdso => self.above_vdso(frame.sp),
            Library::Syscall => {
                let caller = self.caller(self.return_address(frame.sp)?).ok()?;
                Some(Site {
                    caller,
                    ..(*innermost).clone()
                })
            }
            _ => None,
        }
    }

    /// The code that called `__kernel_vsyscall`: that is the site.
    fn above_vdso(&self, sp: u64) -> Option<Site> {
        let stack: [u32; WORDS] = self.words(sp, u32::from_le_bytes)?;
        let at = |word: usize| stack.get(word).map(|&address| u64::from(address));
        let real = at(PUSHED_BY_VDSO).filter(|&address| self.is_behind_call(address))?;
        let found = site(self.directory, self.code, self.maps, real).ok()?;
        let caller = at(PUSHED_BY_VDSO + PUSHED_BY_SYSCALL)
            .filter(|&address| found.library == Library::Syscall && self.is_behind_call(address))
            .map(|address| self.caller(address));
        let caller = caller.transpose().ok()?.flatten();
        Some(Site {
            caller,
            ..(*found).clone()
        })
    }

    /// Where `syscall()` returns to: on top of the stack in glibc; in musl the only such address near it. A
    /// frame holds what earlier calls left behind, too: of two that could be it neither is taken.
    fn return_address(&self, sp: u64) -> Option<u64> {
        let stack: [u64; WORDS] = self.words(sp, u64::from_le_bytes)?;
        let mut found = stack
            .into_iter()
            .enumerate()
            .filter(|(_, address)| self.is_behind_call(*address));
        let (word, first) = found.next()?;
        (word == 0 || found.next().is_none()).then_some(first)
    }

    fn words<const SIZE: usize, W: Copy + Default>(
        &self,
        sp: u64,
        from: impl Fn([u8; SIZE]) -> W,
    ) -> Option<[W; WORDS]> {
        let mut bytes = vec![0; SIZE * WORDS];
        self.memory.read_exact_at(&mut bytes, sp).ok()?;
        let mut words = [W::default(); WORDS];
        for (word, bytes) in words.iter_mut().zip(bytes.as_chunks::<SIZE>().0) {
            *word = from(*bytes);
        }
        Some(words)
    }

    /// Whether an address is in code, behind an instruction that calls.
    fn is_behind_call(&self, address: u64) -> bool {
        let before = address.wrapping_sub(7);
        let is_code = |map: &MemoryMap| map.perms.contains(MMPermissions::EXECUTE);
        if !mapping(self.maps, before).is_some_and(is_code) {
            return false;
        }
        let mut bytes = [0; 7];
        if self.memory.read_exact_at(&mut bytes, before).is_err() {
            return false;
        }
        let [mem32, rip, rel, _, mem8, register, operand] = bytes;
        // call *disp32(%reg), call *disp32(%rip) or with a segment, call rel32, call *disp8(%reg), call
        // *%reg.
        let indirect = |code: u8, operand: u8| code == 0xff && operand & 0x38 == 0x10;
        rel == 0xe8
            || indirect(mem32, rip)
            || indirect(rip, rel)
            || indirect(mem8, register)
            || indirect(register, operand)
    }

    fn caller(&self, address: u64) -> Result<Option<Caller>, NotNow> {
        let at = address.wrapping_sub(1);
        let Some(map) = mapping(self.maps, at) else {
            return Ok(None);
        };
        let MMapPath::Path(path) = &map.pathname else {
            return Ok(None);
        };
        let path = inside(self.directory, path);
        let offset = at - map.address.0 + map.offset;
        self.code.caller(file_of(map), offset, &path)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;
    use std::sync::Mutex;
    use std::time::{Duration, Instant};

    use super::*;
    use crate::source::address_space::{AddressSpaces, Request};
    use crate::source::reader::Subject;

    /// Instruction and stack pointer of a thread that sleeps in a futex wait, as /proc shows them.
    fn frame_of(comm: &str) -> Option<Frame> {
        let mut tasks = fs::read_dir("/proc/self/task").unwrap().flatten();
        let task = tasks.find(|task| {
            fs::read_to_string(task.path().join("comm")).is_ok_and(|name| name.trim_end() == comm)
        })?;
        let call = fs::read_to_string(task.path().join("syscall")).ok()?;
        let fields: Vec<&str> = call.split_whitespace().collect();
        let number = |at: usize| u64::from_str_radix(fields.get(at)?.strip_prefix("0x")?, 16).ok();
        let waits = fields.first()? == &libc::SYS_futex.to_string();
        // "running" is a single field.
        let sp = fields.len().checked_sub(2)?;
        Some(Frame {
            sp: number(sp)?,
            ip: number(sp + 1)?,
        })
        .filter(|_| waits)
    }

    /// This test's own thread waits for a mutex of the standard library.
    #[test]
    fn a_mutex_of_rust_is_known_by_its_caller() {
        let mutex = Mutex::new(());
        let held = mutex.lock().unwrap();
        let site = std::thread::scope(|scope| {
            let waiter = std::thread::Builder::new().name("pp-waits".to_owned());
            waiter.spawn_scoped(scope, || drop(mutex.lock())).unwrap();
            let deadline = Instant::now() + Duration::from_secs(20);
            let frame = loop {
                if let Some(frame) = frame_of("pp-waits") {
                    break frame;
                }
                assert!(Instant::now() < deadline, "it never waits");
                std::thread::yield_now();
            };
            let mut spaces = AddressSpaces::new(Path::new("/proc"));
            spaces.patience = Duration::from_secs(20);
            spaces.begin_look();
            let key = LockKey { space: 7, address: 8 };
            let request = Request {
                callers: HashMap::from([(key, frame)]),
                ..Request::default()
            };
            spaces.ask(vec![(Subject::of(std::process::id(), 0), request)]);
            drop(held);
            spaces.site_at(&key, frame.ip)
        });
        let site = site.unwrap();
        assert_eq!(site.library, Library::Syscall);
        assert!(
            site.calling_function().unwrap().contains("lock_contended"),
            "{site:?}"
        );
    }
}
