//! Copying what other processes may be writing, or reading, at this moment.
//!
//! Each byte that arrives was there at some instant; aligned words of eight bytes are copied as one, so within one nothing is torn. That
//! is all that is said of it, and it is what memory shared with another process is.
//!
//! The shared side is only touched by relaxed atomic loads and stores, so that the compiler may not read twice what it thinks cannot have
//! changed. Atomics of different sizes that overlap have no meaning of their own in Rust; what a processor makes of them is what is said above.

use std::ptr;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering::Relaxed};

const WORD: usize = size_of::<u64>();

/// How many bytes of `length` are in front of the first whole word from `shared`, and in whole words from there.
fn parts(shared: *const u8, length: usize) -> (usize, usize) {
    let before = shared.align_offset(WORD).min(length);
    (before, (length - before) / WORD * WORD)
}

/// Copies out of shared memory.
///
/// # Safety
///
/// `shared` is mapped to read for `length` bytes, and `to` may be written for as many; they are apart.
pub(super) unsafe fn load(shared: *const u8, to: *mut u8, length: usize) {
    let (before, words) = parts(shared, length);
    // SAFETY: `at` is below `length`, and the caller's; others use atomics or are other processes.
    let byte = |at: usize| unsafe {
        let value = (*shared.add(at).cast::<AtomicU8>()).load(Relaxed);
        to.add(at).write(value);
    };
    (0..before).for_each(byte);
    for at in (before..before + words).step_by(WORD) {
        // SAFETY: as above; the word begins at a multiple of its size and is inside.
        unsafe {
            let value = (*shared.add(at).cast::<AtomicU64>()).load(Relaxed);
            to.add(at).cast::<u64>().write_unaligned(value);
        }
    }
    (before + words..length).for_each(byte);
}

/// Copies into shared memory.
///
/// # Safety
///
/// `shared` is mapped to write for `length` bytes, and `from` may be read for as many; they are apart.
pub(super) unsafe fn store(from: *const u8, shared: *mut u8, length: usize) {
    let (before, words) = parts(shared, length);
    // SAFETY: `at` is below `length`, and the caller's; others use atomics or are other processes.
    let byte = |at: usize| unsafe {
        let value = ptr::read(from.add(at));
        (*shared.add(at).cast::<AtomicU8>()).store(value, Relaxed);
    };
    (0..before).for_each(byte);
    for at in (before..before + words).step_by(WORD) {
        // SAFETY: as above; the word begins at a multiple of its size and is inside.
        unsafe {
            let value = from.add(at).cast::<u64>().read_unaligned();
            (*shared.add(at).cast::<AtomicU64>()).store(value, Relaxed);
        }
    }
    (before + words..length).for_each(byte);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_length_arrives_whole_and_nothing_beside_it() {
        let from: Vec<u8> = (1..100).collect();
        for length in 0..40 {
            for shift in 0..9 {
                for other in 0..3 {
                    let end = shift + length;
                    for out in [false, true] {
                        let mut to = [0xee_u8; 60];
                        // SAFETY: both have that many bytes there, and are two.
                        unsafe {
                            match out {
                                true => {
                                    load(from[other..].as_ptr(), to[shift..].as_mut_ptr(), length)
                                }
                                false => {
                                    store(from[other..].as_ptr(), to[shift..].as_mut_ptr(), length)
                                }
                            }
                        }
                        assert_eq!(to[shift..end], from[other..other + length]);
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
    }
}
