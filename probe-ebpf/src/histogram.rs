//! The log2 buckets of durations, shared by the ledger and everything that prints or exports them.
//!
//! Bucket 0 is below 1.024 µs, bucket `i` covers `[2^(9+i), 2^(10+i))` ns, the last one everything from 68.7 s up.
//! Shorter than a microsecond is below the cost of a context switch; longer than a minute is read from the open
//! interval, not from a histogram.

/// Number of buckets.
pub const BUCKETS: usize = 28;

/// Exponent of the upper bound of bucket 0.
const FIRST_EXPONENT: u32 = 10;

/// The bucket that a duration belongs to, always below [`BUCKETS`].
///
/// A binary search: eBPF has no instruction to count leading zeros, and LLVM's replacement for it costs more.
#[inline(always)]
pub const fn bucket_of(duration_ns: u64) -> usize {
    let mut rest = duration_ns >> FIRST_EXPONENT;
    if rest == 0 {
        return 0;
    }
    if rest >= 1 << (BUCKETS - 2) {
        return BUCKETS - 1;
    }
    let mut bucket = 1;
    if rest >= 1 << 16 {
        rest >>= 16;
        bucket += 16;
    }
    if rest >= 1 << 8 {
        rest >>= 8;
        bucket += 8;
    }
    if rest >= 1 << 4 {
        rest >>= 4;
        bucket += 4;
    }
    if rest >= 1 << 2 {
        rest >>= 2;
        bucket += 2;
    }
    if rest >= 1 << 1 {
        bucket += 1;
    }
    bucket
}

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
