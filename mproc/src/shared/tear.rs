//! Copying what other processes may be writing, or reading, at this moment.
//!
//! Each byte that arrives was there at some instant; a number of up to eight bytes that lies where its alignment wants it is copied as one, so within one
//! nothing is torn. That is all that is said of it, and it is what memory shared with another process is.
//!
//! The shared side is only touched by relaxed atomic loads and stores, so that the compiler may not read twice what it thinks cannot have
//! changed.
//!
//! Untriaged: atomics of different sizes that overlap and are used by several *threads* without an order among them are given no meaning by
//! Rust (`std::sync::atomic`, "Memory model for atomic accesses"). What x86-64 and aarch64 make of them is what is said above.

use std::sync::atomic::{AtomicU8, AtomicU16, AtomicU32, AtomicU64, Ordering::Relaxed};

/// Calls `copy` with place and size for each aligned piece of 8, 4, 2 or 1 bytes of which `length` bytes from `shared` consist: as large as
/// alignment and length allow, so that no number that lies where its alignment wants it is copied in parts.
#[inline]
fn pieces(shared: *const u8, length: usize, mut copy: impl FnMut(usize, usize)) {
    let mut at = 0;
    while at < length {
        // The address's lowest bit that is set, at most 8.
        let aligned = 1 << (shared.addr() + at).trailing_zeros().min(3);
        let mut size = aligned;
        while size > length - at {
            size /= 2;
        }
        copy(at, size);
        at += size;
    }
}

/// Copies out of shared memory.
///
/// # Safety
///
/// `shared` is mapped to read for `length` bytes, and `to` may be written for as many; they are apart.
pub(super) unsafe fn load(shared: *const u8, to: *mut u8, length: usize) {
    // SAFETY: each piece is inside and aligned, by `pieces`, and the caller's; others use atomics or are other processes.
    pieces(shared, length, |at, size| unsafe {
        let (shared, to) = (shared.add(at), to.add(at));
        match size {
            8 => to
                .cast::<u64>()
                .write_unaligned((*shared.cast::<AtomicU64>()).load(Relaxed)),
            4 => to
                .cast::<u32>()
                .write_unaligned((*shared.cast::<AtomicU32>()).load(Relaxed)),
            2 => to
                .cast::<u16>()
                .write_unaligned((*shared.cast::<AtomicU16>()).load(Relaxed)),
            _ => to.write((*shared.cast::<AtomicU8>()).load(Relaxed)),
        }
    });
}

/// Copies into shared memory.
///
/// # Safety
///
/// `shared` is mapped to write for `length` bytes, and `from` may be read for as many; they are apart.
pub(super) unsafe fn store(from: *const u8, shared: *mut u8, length: usize) {
    // SAFETY: as in `load`.
    pieces(shared, length, |at, size| unsafe {
        let (shared, from) = (shared.add(at), from.add(at));
        match size {
            8 => (*shared.cast::<AtomicU64>()).store(from.cast::<u64>().read_unaligned(), Relaxed),
            4 => (*shared.cast::<AtomicU32>()).store(from.cast::<u32>().read_unaligned(), Relaxed),
            2 => (*shared.cast::<AtomicU16>()).store(from.cast::<u16>().read_unaligned(), Relaxed),
            _ => (*shared.cast::<AtomicU8>()).store(from.read(), Relaxed),
        }
    });
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
