//! Which functions a blocked thread came through: by the tables that say how to unwind each instruction
//! (`.eh_frame`, which exceptions need and compilers therefore emit for nearly all code), by frame pointers
//! where there are none, as in code that was made while running. The stack is a copy.

use std::sync::Arc;

use framehop::x86_64::{CacheX86_64, UnwindRegsX86_64, UnwinderX86_64};
use framehop::{ExplicitModuleSectionInfo, FrameAddress, Module, Unwinder};

use super::elf::Elf;
use super::names;
use super::protocol::{Answer, CodeRange, FRAMES, Walk};

/// Frames that are followed at most, those of the C library included.
const STEPS: usize = 64;

/// A way under way.
struct Walker<'a> {
    walk: &'a Walk,
    unwinder: UnwinderX86_64<Arc<[u8]>>,
    /// Files whose tables the unwinder has, or that have none.
    known: Vec<u32>,
    /// Gives the file of a number.
    file: &'a mut dyn FnMut(u32) -> Option<Arc<Elf>>,
}

/// Follows a stack; `file` gives the file of a number.
pub fn walk(walk: &Walk, file: &mut dyn FnMut(u32) -> Option<Arc<Elf>>) -> Answer {
    let mut walker = Walker {
        walk,
        unwinder: UnwinderX86_64::new(),
        known: Vec::new(),
        file,
    };
    let (addresses, cut) = walker.follow();
    let frames = addresses
        .into_iter()
        .map(|address| (address, walker.name(address)));
    Answer::Walk {
        frames: frames.collect(),
        cut,
    }
}

impl Walker<'_> {
    /// Addresses inside the calls, and whether the way ended before its beginning.
    fn follow(&mut self) -> (Vec<u64>, bool) {
        let mut addresses = Vec::new();
        if cfg!(not(target_arch = "x86_64")) {
            return (addresses, true);
        }
        let walk = self.walk;
        let mut registers = UnwindRegsX86_64::new(walk.ip, walk.sp, walk.bp);
        let mut cache = CacheX86_64::new();
        let mut at = FrameAddress::from_instruction_pointer(walk.ip);
        for _ in 0..STEPS {
            let address = at.address_for_lookup();
            if self.range(address).is_some_and(|range| !range.hidden) {
                if addresses.len() == FRAMES {
                    return (addresses, true);
                }
                addresses.push(address);
            }
            self.learn(address);
            let mut read = |address| word(walk, address).ok_or(());
            let next = self
                .unwinder
                .unwind_frame(at, &mut registers, &mut cache, &mut read);
            match next {
                Ok(Some(back)) if self.range(back).is_some() => {
                    at = FrameAddress::from_return_address(back).unwrap_or(at);
                }
                Ok(None) => return (addresses, false),
                _ => return (addresses, true),
            }
        }
        (addresses, true)
    }

    fn range(&self, address: u64) -> Option<&CodeRange> {
        let mut ranges = self.walk.code.iter();
        ranges.find(|range| (range.start..range.end).contains(&address))
    }

    /// Reads the tables of the file that an address is in.
    fn learn(&mut self, address: u64) {
        let Some(number) = self.range(address).and_then(|range| range.file) else {
            return;
        };
        if self.known.contains(&number) {
            return;
        }
        self.known.push(number);
        let Some(&(start, end)) = self.walk.files.get(number as usize) else {
            return;
        };
        let module = (self.file)(number).and_then(|elf| module(&elf, number, start..end));
        if let Some(module) = module {
            self.unwinder.add_module(module);
        }
    }

    fn name(&mut self, address: u64) -> Option<String> {
        let number = self.range(address)?.file?;
        let (start, _) = *self.walk.files.get(number as usize)?;
        let elf = (self.file)(number)?;
        names::function(&elf, address.wrapping_sub(elf.bias(start)?))
    }
}

fn module(elf: &Elf, number: u32, extent: std::ops::Range<u64>) -> Option<Module<Arc<[u8]>>> {
    let bias = elf.bias(extent.start)?;
    let unwind = elf.unwind();
    let of = |section: &Option<(std::ops::Range<u64>, Arc<[u8]>)>| match section {
        Some((range, data)) => (Some(range.clone()), Some(Arc::clone(data))),
        None => (None, None),
    };
    let (eh_frame_svma, eh_frame) = of(&unwind.frames);
    let (eh_frame_hdr_svma, eh_frame_hdr) = of(&unwind.index);
    let sections = ExplicitModuleSectionInfo {
        base_svma: 0,
        text_svma: unwind.text.clone(),
        got_svma: unwind.got.clone(),
        eh_frame_svma,
        eh_frame,
        eh_frame_hdr_svma,
        eh_frame_hdr,
        ..Default::default()
    };
    Some(Module::new(number.to_string(), extent, bias, sections))
}

/// A word of the copy.
fn word(walk: &Walk, address: u64) -> Option<u64> {
    let at = usize::try_from(address.checked_sub(walk.sp)?).ok()?;
    let bytes = walk.stack.get(at..)?.first_chunk()?;
    Some(u64::from_le_bytes(*bytes))
}
