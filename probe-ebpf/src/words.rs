//! Records copied and zeroed by the word: calls of `memcpy` and `memset` would not pass the verifier.

use core::ptr;

/// Copies a record whose size is a multiple of 8.
#[inline(always)]
pub fn copy_words<T>(from: *const T, to: &mut T) {
    let from: *const u64 = from.cast();
    let to: *mut u64 = ptr::from_mut(to).cast();
    for word in 0..size_of::<T>() / 8 {
        // SAFETY: both are `size_of::<T>()` bytes long and aligned to 8.
        unsafe { ptr::write_volatile(to.add(word), ptr::read_volatile(from.add(word))) };
    }
}

/// Zeroes a record whose size is a multiple of 8.
#[inline(always)]
pub fn zero_words<T>(to: &mut T) {
    let to: *mut u64 = ptr::from_mut(to).cast();
    for word in 0..size_of::<T>() / 8 {
        // SAFETY: `to` is `size_of::<T>()` bytes long and aligned to 8.
        unsafe { ptr::write_volatile(to.add(word), 0) };
    }
}
