//! Copying into and out of memory that another core reads or writes at the same time.
//!
//! What is fast is a matter of the processor, by factors. The C library copies what is longer than some kilobytes with one
//! instruction, `rep movsb`. On Intel (Sapphire Rapids) that passes 64 MiB through a pipe at 9.0 GiB/s, a loop at 5.6. On AMD (Zen 3, Zen 4)
//! it is fifteen times *slower* than a loop, 3 against 46 GiB/s, where the target lies a few bytes behind the source within a
//! page, as it does between a ring and what `malloc` gives ([glibc 30994](https://sourceware.org/bugzilla/show_bug.cgi?id=30994)), and from one
//! run to the next it passes the same 1 MiB between the same two cores at 37 GiB/s or at 12, which a loop passes at 34 each time. So on AMD long
//! copies are made in a loop: ours, since the C library's for what is shorter takes a tenth longer, beginning anew each time.

use std::ptr;

/// Copies any number of bytes.
///
/// # Safety
///
/// Both are valid for `length` bytes and do not overlap.
#[inline]
pub(crate) unsafe fn copy(from: *const u8, to: *mut u8, length: usize) {
    // SAFETY: the caller's.
    unsafe {
        if length == 8 {
            // The most frequent length, and a call costs more than it does.
            to.cast::<u64>()
                .write_unaligned(from.cast::<u64>().read_unaligned());
        } else if length <= SHORT {
            ptr::copy_nonoverlapping(from, to, length);
        } else {
            copy_long(from, to, length);
        }
    }
}

/// As much as the C library copies in a loop on every processor.
const SHORT: usize = 2048;

unsafe fn copy_long(from: *const u8, to: *mut u8, length: usize) {
    #[cfg(target_arch = "x86_64")]
    if prefers_loops() {
        // SAFETY: the caller's, and the processor has AVX.
        return unsafe { copy_in_loop(from, to, length) };
    }
    // SAFETY: the caller's.
    unsafe { ptr::copy_nonoverlapping(from, to, length) }
}

/// Whether `rep movsb` is to be kept away from, and can be.
#[cfg(target_arch = "x86_64")]
fn prefers_loops() -> bool {
    use std::sync::OnceLock;

    static PREFERS: OnceLock<bool> = OnceLock::new();
    *PREFERS.get_or_init(|| {
        let vendor = std::arch::x86_64::__cpuid(0);
        // "GenuineIntel", in the order in which the processor says it.
        let words = [vendor.ebx, vendor.edx, vendor.ecx].map(u32::to_le_bytes);
        words.as_flattened() != b"GenuineIntel" && is_x86_feature_detected!("avx")
    })
}

/// Copies two lines a turn, whole lines of the target.
///
/// # Safety
///
/// Both are valid for `length` bytes and do not overlap.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx")]
unsafe fn copy_in_loop(from: *const u8, to: *mut u8, length: usize) {
    use std::arch::x86_64::{__m256i, _mm256_loadu_si256, _mm256_store_si256};
    const TURN: usize = 4 * size_of::<__m256i>();

    let mut done = to.align_offset(64).min(length);
    // SAFETY: the caller's: all that is read and written lies in front of `length`. The places that are written a vector at a time are a
    // multiple of one from the first that is aligned.
    unsafe {
        ptr::copy_nonoverlapping(from, to, done);
        while length - done >= TURN {
            let source = from.add(done).cast::<__m256i>();
            let target = to.add(done).cast::<__m256i>();
            let vectors = [0, 1, 2, 3].map(|index| _mm256_loadu_si256(source.add(index)));
            for (index, vector) in vectors.into_iter().enumerate() {
                _mm256_store_si256(target.add(index), vector);
            }
            done += TURN;
        }
        ptr::copy_nonoverlapping(from.add(done), to.add(done), length - done);
    }
}

/// How far behind a frame the cache is asked for what will be written there: two lines. The reader's core has them, and a store that is
/// followed by a fence waits until they are here. With it, a queue between two cores passes 25 messages in the time of 16, and a
/// pipe 54 in that of 24 (bench `channels`); one line is too late, and four are no better.
pub(crate) const AHEAD: usize = 256;

/// Asks the cache for a line that will be written soon. Only a hint: any address will do.
#[inline(always)]
pub(crate) fn expect_write(address: *mut u8) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a prefetch changes nothing that a program can see, and faults nowhere; on processors that do not know it, it does nothing.
    unsafe {
        std::arch::asm!("prefetchw [{}]", in(reg) address, options(nostack, preserves_flags, readonly));
    }
    #[cfg(target_arch = "aarch64")]
    // SAFETY: as above.
    unsafe {
        std::arch::asm!("prfm pstl1keep, [{}]", in(reg) address, options(nostack, preserves_flags, readonly));
    }
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    let _ = address;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_length_arrives_whole_and_nothing_beside_it() {
        let from: Vec<u8> = (0..3 * SHORT + 70).map(|index| index as u8).collect();
        let lengths = (0..70)
            .chain(SHORT - 3..SHORT + 3)
            .chain(3 * SHORT - 3..3 * SHORT + 3);
        for length in lengths {
            for shift in [0, 1, 7, 8] {
                let mut to = vec![0xee; from.len()];
                // SAFETY: both have that many bytes there, and are two.
                unsafe { copy(from[shift..].as_ptr(), to[shift..].as_mut_ptr(), length) };
                let end = shift + length;
                assert_eq!(to[shift..end], from[shift..end]);
                assert!(
                    to[..shift]
                        .iter()
                        .chain(&to[end..])
                        .all(|&byte| byte == 0xee)
                );
            }
        }
    }
}
