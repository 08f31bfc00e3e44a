//! The log2 buckets of durations, shared by the ledger and everything that prints or exports them.
//!
//! Bucket 0 is below 1.024 µs, bucket `i` covers `[2^(9+i), 2^(10+i))` ns, the last one everything from 68.7 s up.
//! Shorter than a microsecond is below the cost of a context switch; longer than a minute is read from the open
//! interval, not from a histogram.

use core::ptr;

/// Number of buckets.
pub const BUCKETS: usize = 28;

/// Exponent of the upper bound of bucket 0.
const FIRST_EXPONENT: u32 = 10;

/// The bucket that a duration belongs to, always below [`BUCKETS`].
///
/// eBPF can neither count leading zeros nor move on a condition. A binary search is ten branches here, which real durations
/// mispredict, three times a switch; so it is a multiplication (a de Bruijn sequence, as in "Bit Twiddling Hacks" by Sean
/// Eron Anderson): bits below the highest one are set, which leaves 32 values, each with other top bits in the product.
#[inline(always)]
pub fn bucket_of(duration_ns: u64) -> usize {
    let rest = duration_ns >> (FIRST_EXPONENT - 1);
    let rest = if rest >= 1 << (BUCKETS - 1) {
        1 << (BUCKETS - 1)
    } else {
        rest
    };
    #[expect(clippy::cast_possible_truncation, reason = "has 27 bits at most")]
    let mut bits = rest as u32 | 1;
    bits |= bits >> 1;
    bits |= bits >> 2;
    bits |= bits >> 4;
    bits |= bits >> 8;
    bits |= bits >> 16;
    let top = bits.wrapping_mul(DE_BRUIJN) >> 27;
    // SAFETY: `top` has 5 bits. Volatile: knowing the table, LLVM would turn the callers' checks of the result, which the
    // verifier needs, into checks of `top`.
    usize::from(unsafe { ptr::read_volatile(LOG2.as_ptr().add(top as usize)) })
}

const DE_BRUIJN: u32 = 0x07c4_acdd;

/// The position of the highest bit, by the top five bits of the product.
static LOG2: [u8; 32] = {
    let mut table = [0; 32];
    let mut position: u8 = 0;
    while position < 32 {
        let bits = u32::MAX >> (31 - position);
        table[(bits.wrapping_mul(DE_BRUIJN) >> 27) as usize] = position;
        position += 1;
    }
    table
};

/// The exclusive upper bound of a bucket in nanoseconds; `None` for the last, which has none.
pub const fn upper_bound_ns(bucket: usize) -> Option<u64> {
    if bucket + 1 < BUCKETS {
        Some(1 << (FIRST_EXPONENT as usize + bucket))
    } else {
        None
    }
}

/// The inclusive lower bound of a bucket in nanoseconds.
pub const fn lower_bound_ns(bucket: usize) -> u64 {
    if bucket == 0 {
        0
    } else {
        1 << (FIRST_EXPONENT as usize + bucket - 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_bound_lies_in_the_next_bucket() {
        for bucket in 0..BUCKETS {
            assert_eq!(bucket_of(lower_bound_ns(bucket)), bucket);
            if let Some(bound) = upper_bound_ns(bucket) {
                assert_eq!(bucket_of(bound - 1), bucket);
                assert_eq!(bucket_of(bound), bucket + 1);
            }
        }
        assert_eq!(bucket_of(u64::MAX), BUCKETS - 1);
    }

    #[test]
    fn agrees_with_leading_zeros_everywhere_it_matters() {
        let mut value: u64 = 1;
        for step in 0..200_000_u64 {
            value = value.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(step);
            let duration = value >> (step % 64);
            let rest = duration >> FIRST_EXPONENT;
            let expected = ((64 - rest.leading_zeros()) as usize).min(BUCKETS - 1);
            assert_eq!(bucket_of(duration), expected, "{duration}");
        }
    }
}
