//! Several calls of one entry, served in one loop: what a worker of a pool does.

use std::ops::Range;

use super::arguments::Incoming;
use crate::shm::stretch::Stretch;
use crate::wire::{Outgoing, handles};

/// Calls whose arguments lie one behind the other, and where their values go.
///
/// The loop over them ([`work`](super::registry::Registration)) is compiled for each entry, so that decoding, the function and encoding are one
/// piece of code. What is out of the ordinary is left to whoever called it, which then goes on with the next call.
pub(crate) struct Batch<'m> {
    pub(super) arguments: Incoming,
    lengths: Lengths,
    /// Where the next call's arguments begin.
    at: usize,
    /// How many calls are left, and how many of them are to be served now.
    left: usize,
    now: usize,
    /// The value of the last call.
    pub(crate) value: Outgoing,
    /// Whether it is still there, although the call has returned.
    is_unplaced: bool,
    pub(crate) places: Option<Stretch<'m>>,
}

/// Calls of a [`Batch`] that are alike, being served. What happens goes back to the batch when this is dropped, also when a call panics.
pub(super) struct Alike<'b, 'm> {
    /// The arguments of all of them.
    arguments: &'b [u8],
    length: usize,
    served: usize,
    most: usize,
    places: Stretch<'m>,
    batch: Counts<'b>,
    back: &'b mut Option<Stretch<'m>>,
}

/// Where a batch counts.
struct Counts<'b> {
    at: &'b mut usize,
    left: &'b mut usize,
    now: &'b mut usize,
}

/// How long the arguments of each call are.
enum Lengths {
    Same(usize),
    /// Each has a number of four bytes; where the next one is.
    At(usize),
}

impl<'m> Batch<'m> {
    /// Of `count` calls, whose arguments are in `range` of the bytes, behind their lengths if `same` is `None`. `None`: they are not.
    pub(crate) fn new(
        bytes: Vec<u8>,
        range: Range<usize>,
        count: usize,
        same: Option<usize>,
        value: Outgoing,
    ) -> Option<Self> {
        let (lengths, size) = match same {
            Some(length) => (Lengths::Same(length), 0),
            None => (Lengths::At(range.start), 4 * count),
        };
        let at = range.start + size;
        let least = same.unwrap_or_default().checked_mul(count)?;
        (range.end <= bytes.len() && least <= range.end.checked_sub(at)?).then(|| Self {
            arguments: Incoming::over(bytes),
            lengths,
            at,
            left: count,
            now: 0,
            value,
            is_unplaced: false,
            places: None,
        })
    }

    /// How many calls have not been served.
    pub(crate) fn left(&self) -> usize {
        self.left
    }

    /// Has so many calls served next.
    pub(crate) fn serve(&mut self, most: usize) {
        self.now = most.min(self.left);
    }

    /// Moves on to the next call.
    #[inline]
    pub(super) fn next(&mut self) -> bool {
        if self.now == 0 {
            return false;
        }
        self.now -= 1;
        self.left -= 1;
        let length = match &mut self.lengths {
            Lengths::Same(length) => *length,
            Lengths::At(at) => {
                let length = self.arguments.word_at(*at) as usize;
                *at += 4;
                length
            }
        };
        self.arguments.go_to(self.at..self.at + length);
        self.at += length;
        true
    }

    /// The next calls, if they are alike.
    #[inline]
    pub(super) fn alike(&mut self) -> Option<Alike<'_, 'm>> {
        let Lengths::Same(length) = self.lengths else {
            return None;
        };
        let each = self.places.as_ref()?.each() as usize;
        if !(1..=Alike::LONGEST).contains(&each) || self.now == 0 || !handles::is_outside() {
            return None;
        }
        let arguments = self.arguments.plain_bytes()?;
        let arguments = arguments.get(self.at..self.at + self.now * length)?;
        let places = self.places.take()?;
        Some(Alike {
            arguments,
            length,
            served: 0,
            most: self.now,
            places,
            batch: Counts {
                at: &mut self.at,
                left: &mut self.left,
                now: &mut self.now,
            },
            back: &mut self.places,
        })
    }

    /// The call's value is complete. False: somebody else has to look at what happened.
    #[inline]
    pub(super) fn place(&mut self) -> bool {
        if self.value.is_plain_from(0)
            && let Some(places) = &mut self.places
        {
            let bytes = self.value.gathered();
            if places.put(bytes) {
                bytes.clear();
                return !places.is_awaited();
            }
        }
        self.is_unplaced = true;
        false
    }

    /// Whether the last call's value found no place. Once.
    pub(crate) fn take_unplaced(&mut self) -> bool {
        std::mem::take(&mut self.is_unplaced)
    }

    /// What it was made of.
    pub(crate) fn into_parts(self) -> (Vec<u8>, Outgoing) {
        (self.arguments.into_bytes(), self.value)
    }
}

impl<'b> Alike<'b, '_> {
    /// As long as a value can be.
    pub(super) const LONGEST: usize = 32;

    /// How long a value has to be.
    #[inline(always)]
    pub(super) fn each(&self) -> usize {
        self.places.each() as usize
    }

    /// The arguments of the next call.
    #[inline(always)]
    pub(super) fn next(&mut self) -> Option<&'b [u8]> {
        if self.served == self.most {
            return None;
        }
        let from = self.served * self.length;
        self.served += 1;
        Some(&self.arguments[from..from + self.length])
    }

    /// The call's value. False: there is no room.
    #[inline(always)]
    pub(super) fn put(&mut self, value: &[u8]) -> bool {
        self.places.put(value)
    }

    /// Whether somebody has to look before the next call.
    #[inline(always)]
    pub(super) fn is_awaited(&self) -> bool {
        self.places.is_awaited()
    }
}

impl Drop for Alike<'_, '_> {
    #[inline(always)]
    fn drop(&mut self) {
        *self.batch.at += self.served * self.length;
        *self.batch.left -= self.served;
        *self.batch.now -= self.served;
        *self.back = Some(self.places.copied());
    }
}
