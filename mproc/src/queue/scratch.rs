//! Where items are encoded into and copied out into: a buffer of each thread.
//!
//! Lent by pointer, because moving a vector in and out of its place costs more than a short item does.

use std::cell::{Cell, UnsafeCell};
use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;

struct Place {
    is_lent: Cell<bool>,
    bytes: UnsafeCell<Vec<u8>>,
}

thread_local! {
    static PLACE: Place = const {
        Place { is_lent: Cell::new(false), bytes: UnsafeCell::new(Vec::new()) }
    };
}

/// As much as is kept from one item to the next.
const KEPT: usize = 64 * 1024;

/// The thread's buffer, empty; or one made for this, where that one is in use further out (decoding may use queues itself), or
/// where the thread is ending.
pub(super) struct Scratch {
    bytes: NonNull<Vec<u8>>,
    place: Option<NonNull<Place>>,
    /// It belongs to this thread.
    thread: PhantomData<*mut ()>,
}

impl Scratch {
    #[inline]
    pub(super) fn lend() -> Self {
        let place =
            PLACE.try_with(|place| (!place.is_lent.replace(true)).then(|| NonNull::from(place)));
        let Ok(Some(place)) = place else {
            return Self::own();
        };
        // SAFETY: the thread's place outlives whatever is on its stack but the destructors of its locals, to which `try_with` gives an
        // error once the place is gone; and a value that is neither sent nor kept does not outlive the stack. Nobody else
        // has the bytes, because they were not lent.
        let bytes = unsafe { NonNull::from(&mut *place.as_ref().bytes.get()) };
        let mut lent = Self {
            bytes,
            place: Some(place),
            thread: PhantomData,
        };
        lent.clear();
        lent
    }

    #[cold]
    fn own() -> Self {
        Self {
            bytes: NonNull::from(Box::leak(Box::default())),
            place: None,
            thread: PhantomData,
        }
    }
}

impl Deref for Scratch {
    type Target = Vec<u8>;

    #[inline]
    fn deref(&self) -> &Vec<u8> {
        // SAFETY: lent to us alone, or ours.
        unsafe { self.bytes.as_ref() }
    }
}

impl DerefMut for Scratch {
    #[inline]
    fn deref_mut(&mut self) -> &mut Vec<u8> {
        // SAFETY: as above.
        unsafe { self.bytes.as_mut() }
    }
}

impl Drop for Scratch {
    #[inline]
    fn drop(&mut self) {
        match self.place {
            Some(place) => {
                if self.capacity() > KEPT {
                    **self = Vec::new();
                }
                // SAFETY: as in `lend`.
                unsafe { place.as_ref() }.is_lent.set(false);
            }
            // SAFETY: made by `own`, from a box, and dropped once.
            None => drop(unsafe { Box::from_raw(self.bytes.as_ptr()) }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_borrows_further_in_gets_another() {
        let mut outer = Scratch::lend();
        outer.push(1);
        let mut inner = Scratch::lend();
        inner.push(2);
        assert_eq!((&outer[..], &inner[..]), (&[1][..], &[2][..]));
        drop(inner);
        drop(outer);
        assert!(Scratch::lend().is_empty());
    }

    #[test]
    fn what_is_large_is_not_kept() {
        Scratch::lend().reserve(KEPT + 1);
        assert!(Scratch::lend().capacity() <= KEPT);
    }

    #[test]
    fn a_panic_gives_it_back() {
        let unwound = std::panic::catch_unwind(|| {
            let _lent = Scratch::lend();
            panic!("in a test");
        });
        assert!(unwound.is_err());
        assert!(Scratch::lend().place.is_some());
    }
}
