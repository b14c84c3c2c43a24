//! Asking the CPU for memory before it is needed.
//!
//! Between two packets for a subscriber the kernel copies megabytes, so what is known of each
//! subscriber is far away when its turn comes: some 100 ns for every cache line. Asked for a few
//! subscribers ahead, all lines come at once, while others are served.
//!
//! Not here: which lines are worth it.

use std::ops::Range;

const CACHE_LINE: usize = 64;

/// Asks for these bytes, counted from `start`. Any address will do: nothing is read.
#[inline]
pub(crate) fn prefetch(start: *const u8, bytes: Range<usize>) {
    for at in bytes.step_by(CACHE_LINE) {
        line(start.wrapping_add(at));
    }
}

#[cfg(target_arch = "x86_64")]
#[inline]
fn line(at: *const u8) {
    use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
    // SAFETY: a prefetch reads nothing and cannot fault; SSE is part of x86_64.
    unsafe { _mm_prefetch::<_MM_HINT_T0>(at.cast()) };
}

#[cfg(not(target_arch = "x86_64"))]
#[inline]
fn line(_: *const u8) {}
