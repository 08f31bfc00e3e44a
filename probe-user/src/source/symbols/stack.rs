//! Which functions a blocked thread came through: by frame pointers, and where the C library has none, by looking for the
//! return address into its caller.
//!
//! A thread that waits for a lock is in a system call inside the C library, which is mostly built without frame pointers: the
//! frame pointer is still its caller's, and the address that caller will go on at lies between the stack pointer and that
//! frame. It is the first word there that points right behind a call, outside of the library.

use probe_ebpf::lock::LiveFutex;

use super::image::Image;

/// Frames that are told at most.
const FRAMES: usize = 8;
/// Bytes of stack that are searched for the caller of the C library.
const SEARCHED: usize = 4096;
/// A frame larger than this is none.
const LARGEST_FRAME: u64 = 1 << 20;

/// A way through the code.
pub struct Walk {
    /// Addresses inside the calls, innermost first, without the C library's own.
    pub addresses: Vec<u64>,
    /// Whether the way could not be followed to its beginning.
    pub cut: bool,
}

/// Follows a thread's stack.
pub fn walk(image: &Image, live: &LiveFutex) -> Walk {
    let mut addresses = Vec::new();
    if is_own(image, live.ip) {
        addresses.push(live.ip);
    } else if let Some(caller) = caller(image, live) {
        addresses.push(caller - 1);
    }
    let (mut frame, mut lowest) = (live.bp, live.sp);
    let mut cut = true;
    while addresses.len() < FRAMES {
        let sound = frame > lowest && frame - lowest < LARGEST_FRAME && frame.is_multiple_of(8);
        let (true, Some(next), Some(back)) = (sound, image.word(frame), image.word(frame.wrapping_add(8)))
        else {
            break;
        };
        if !is_return(image, back) {
            break;
        }
        if is_own(image, back) {
            addresses.push(back - 1);
        } else if !addresses.is_empty() {
            // Back in the C library: where threads and main are started from.
            cut = false;
            break;
        }
        (lowest, frame) = (frame, next);
    }
    addresses.dedup();
    Walk { addresses, cut }
}

/// The first return address on the stack that leads out of the C library.
fn caller(image: &Image, live: &LiveFutex) -> Option<u64> {
    let mut bytes = [0; SEARCHED];
    let read = image.read_at(live.sp, &mut bytes);
    let words = bytes[..read].chunks_exact(8);
    words
        .filter_map(|word| Some(u64::from_le_bytes(word.try_into().ok()?)))
        .find(|&word| is_own(image, word) && is_return(image, word))
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

/// Whether code is called from right before an address (x86-64: the forms of `call`).
fn is_return(image: &Image, address: u64) -> bool {
    let executable = |address| image.mapping(address).is_some_and(|mapping| mapping.executable);
    if address < 8 || !executable(address - 1) {
        return false;
    }
    if cfg!(not(target_arch = "x86_64")) {
        return true;
    }
    let mut code = [0; 8];
    if image.read_at(address - 8, &mut code) != 8 {
        return false;
    }
    let indirect = |at: usize| code[at] == 0xff && code[at + 1] >> 3 & 7 == 2;
    // call rel32; call *%reg; call *disp8(%reg); call *disp32(%reg) or disp32(%rip); call *disp32(base,index)
    code[3] == 0xe8 || indirect(6) || indirect(5) || indirect(2) || indirect(1) || indirect(4)
}
