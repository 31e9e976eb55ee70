//! Places for values one behind the other in shared memory, of which each is there as soon as it has been put.
//!
//! A [ring](crate::pool)'s writer reserves a stretch and hands it to the loop that makes the values, so that one is two stores: itself, and how far the
//! reader may read. Whoever dies between two values leaves all those before.

use std::ptr::NonNull;

use super::atomic::{AtomicU32, AtomicU64, Ordering};
use super::copy::copy;

/// In place of a length: each value has its own in front of it, in four bytes.
pub(crate) const EACH: u32 = u32::MAX;

/// Room for values, of which some have been put.
pub(crate) struct Stretch<'m> {
    next: NonNull<u8>,
    /// How many bytes are left.
    room: usize,
    /// How long each value is, or [`EACH`].
    each: u32,
    /// How far its reader may read, and where in the reader's counting `next` is.
    tail: &'m AtomicU64,
    position: u64,
    /// Asks the writer to look up, while it is `urgent`.
    calls: &'m AtomicU32,
    urgent: u32,
}

impl<'m> Stretch<'m> {
    /// # Safety
    ///
    /// `bytes` is shared memory that is mapped for `'m`, `room` bytes long, and no other stretch.
    #[inline]
    pub(crate) unsafe fn new(
        (bytes, room): (NonNull<u8>, usize),
        each: u32,
        (tail, position): (&'m AtomicU64, u64),
        (calls, urgent): (&'m AtomicU32, u32),
    ) -> Self {
        Self {
            next: bytes,
            room,
            each,
            tail,
            position,
            calls,
            urgent,
        }
    }

    /// Puts the next value. False: it does not fit.
    #[inline]
    pub(crate) fn put(&mut self, value: &[u8]) -> bool {
        let in_front = if self.each == EACH { 4 } else { 0 };
        let size = in_front + value.len();
        if size > self.room || (in_front == 0 && value.len() != self.each as usize) {
            return false;
        }
        // SAFETY:
        // - mapped: for `'m`, says `new`.
        // - inside: `size` is no more than the room that is left.
        // - others: the reader leaves alone what lies behind `tail`; one that does not gets other bytes, and nothing here depends on
        //   them.
        unsafe {
            let to = self.next.as_ptr();
            if in_front > 0 {
                to.cast::<u32>().write_unaligned(value.len() as u32);
            }
            copy(value.as_ptr(), to.add(in_front), value.len());
            self.next = self.next.add(size);
        }
        self.room -= size;
        self.position += size as u64;
        self.tail.store(self.position, Ordering::Release); // pairs with "record there" in `pool::ring`
        true
    }

    /// How long each value is, or [`EACH`].
    #[inline]
    pub(crate) fn each(&self) -> u32 {
        self.each
    }

    /// The same, for who takes it out of something that is dropped and puts no more there.
    #[inline(always)]
    pub(crate) fn copied(&self) -> Self {
        Self { ..*self }
    }

    /// Whether the reader wants to be woken by what has been put.
    #[inline]
    pub(crate) fn is_awaited(&self) -> bool {
        self.calls.load(Ordering::Relaxed) == self.urgent
    }

    /// How far values have been put.
    pub(crate) fn position(&self) -> u64 {
        self.position
    }
}
