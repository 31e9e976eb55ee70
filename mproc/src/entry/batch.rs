//! Several calls of one entry, served in one loop: what a worker of a pool does.

use std::ops::Range;

use super::arguments::Incoming;
use crate::shm::stretch::Stretch;
use crate::wire::Outgoing;

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

/// How long the arguments of each call are.
enum Lengths {
    Same(usize),
    /// Each has a number of four bytes; where the next one is.
    At(usize),
}

impl Batch<'_> {
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
