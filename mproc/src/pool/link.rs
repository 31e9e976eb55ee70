//! How the dispatcher reaches a worker, whatever lies in between.
//!
//! A link carries *errands* (a call of an entry, or several with plain arguments) to its worker, in order, and what the worker *says* back, in the same
//! order: one [`Said::Outcome`] for each task. It knows how many errands have begun, and can take back those that have not. The local
//! process ([`Local`](super::local::Local)) does all of it in shared memory; one that is reached otherwise would ask the other side, and
//! may refuse to take anything back.

use std::sync::Arc;
use std::time::Duration;

use crate::entry::registry::Registration;
use crate::error::{Error, Panic};
use crate::process::record::Refusal;
pub(super) use crate::shm::stretch::EACH;
use crate::wire::Message;

/// Something for a worker to do.
#[derive(Clone, Copy)]
pub(super) struct Errand<'a> {
    pub(super) entry: &'static Registration,
    pub(super) load: ErrandLoad<'a>,
    /// Whether the worker is to note when it begins.
    pub(super) is_timed: bool,
    /// Whether other workers are at work, too.
    pub(super) is_crowd: bool,
    /// Whether somebody listens to what its tasks report.
    pub(super) is_heard: bool,
}

#[derive(Clone, Copy)]
pub(super) enum ErrandLoad<'a> {
    /// The arguments of several calls, one after the other, and how long those of each are.
    Plain(&'a [u8], Lengths<'a>),
    /// Of one call, perhaps with handles, perhaps long.
    Message(&'a Message),
}

/// How long each of several encodings is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lengths<'a> {
    /// So many, all as long.
    Same(u32, u32),
    Each(&'a [u32]),
}

/// What a worker says.
pub(super) enum Said<'b> {
    /// It has started, and its initializer has run.
    Ready,
    /// Its initializer has failed, and it ends.
    Unfit(Outcome),
    /// What came of the next tasks.
    Values(Values<'b>),
    /// What came of the next task.
    Outcome(Outcome),
    /// It begins the next task, or has ended it, at this time; of those that are to [say so](super::worker::Orders::is_traced).
    Began(u64),
    Ended(u64),
    /// The task that runs says something of itself.
    Report(&'b [u8]),
    /// It ends, having begun no more than it has told of: it has done its share.
    Retires,
}

/// The values of some tasks in a row, encoded, one behind the other.
#[derive(Debug, Clone, Copy)]
pub(super) struct Values<'b> {
    pub(super) bytes: &'b [u8],
    pub(super) count: usize,
    /// How long each is, or [`EACH`].
    pub(super) each: u32,
}

impl<'b> Values<'b> {
    pub(super) fn one(bytes: &'b [u8]) -> Self {
        let each = bytes.len() as u32;
        Self {
            bytes,
            count: 1,
            each,
        }
    }

    /// All that there are in these bytes. `None`: the last one is not complete.
    pub(super) fn all(bytes: &'b [u8], each: u32) -> Option<Self> {
        let mut count = 0;
        match each {
            0 => return None,
            EACH => {
                let mut rest = bytes;
                while !rest.is_empty() {
                    (_, rest) = next(rest)?;
                    count += 1;
                }
            }
            each => {
                count = bytes.len() / each as usize;
                if !bytes.len().is_multiple_of(each as usize) {
                    return None;
                }
            }
        }
        Some(Self { bytes, count, each })
    }

    /// The first ones, no more than `count`, and the others.
    pub(super) fn split_at(self, count: usize) -> (Self, Self) {
        if count >= self.count {
            let none = Self {
                bytes: &[],
                count: 0,
                ..self
            };
            return (self, none);
        }
        let length = if self.each == EACH {
            let mut values = self.iter();
            values.by_ref().take(count).for_each(drop);
            self.bytes.len() - values.rest.len()
        } else {
            count * self.each as usize
        };
        let (some, others) = self.bytes.split_at(length);
        (
            Self {
                bytes: some,
                count,
                ..self
            },
            Self {
                bytes: others,
                count: self.count - count,
                ..self
            },
        )
    }

    #[inline]
    pub(super) fn iter(self) -> Each<'b> {
        Each {
            rest: self.bytes,
            left: self.count,
            each: self.each,
        }
    }
}

/// The first of values that have their lengths in front of them.
#[inline]
fn next(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bytes.split_first_chunk()?;
    rest.split_at_checked(u32::from_ne_bytes(*length) as usize)
}

/// One value after the other.
pub(super) struct Each<'b> {
    rest: &'b [u8],
    left: usize,
    each: u32,
}

impl<'b> Iterator for Each<'b> {
    type Item = &'b [u8];

    #[inline]
    fn next(&mut self) -> Option<&'b [u8]> {
        self.left = self.left.checked_sub(1)?;
        let (value, rest) = match self.each {
            EACH => next(self.rest)?,
            each => self.rest.split_at_checked(each as usize)?,
        };
        self.rest = rest;
        Some(value)
    }
}

/// What became of a call.
pub(super) enum Outcome {
    Message(Message),
    Panic(Panic),
    Refusal(Refusal),
    /// Its value got lost on the way.
    Unreadable(Error),
}

/// Why a link did not do what it was to do.
#[derive(Debug)]
pub(super) enum Trouble {
    /// No more now.
    Full,
    /// The worker is gone, or makes no sense.
    Lost,
    /// The errand cannot be carried; nothing of it was sent.
    Refused(Error),
}

/// A worker, as the dispatcher sees it.
pub(super) trait Link {
    /// Sends an errand whole or not at all. Never waits. The worker need not hear of it before [`flush`](Self::flush).
    fn send(&mut self, errand: Errand<'_>) -> Result<(), Trouble>;
    /// Sees to it that the worker hears of what was sent.
    fn flush(&mut self);
    /// It was [full](Trouble::Full) of errands that have been taken back, so that nothing is to be heard of the worker: has it wake whoever sleeps on it when it
    /// takes more. Try again AFTER this.
    fn ask_for_room(&mut self);
    /// Hands over everything that the worker has said since. Never waits. False: nothing.
    fn receive(&mut self, hear: &mut dyn FnMut(Said<'_>)) -> Result<bool, Trouble>;
    /// How many errands have begun.
    fn begun(&self) -> u64;
    /// How long the task that runs has been running, if it is timed.
    fn running_for(&self) -> Duration;
    /// Takes back what has not begun; gives the number of errands that have.
    fn recall(&mut self) -> u64;
    /// Whether the worker has ended, asked of the system.
    fn has_ended(&self) -> bool;
    /// Kills the worker; `lost` is to follow.
    fn kill(&self);
    /// Ends the worker, if it has not ended, and tells how it did.
    fn lost(self) -> Error;
}

/// A message that may be sent by several.
pub(super) type SharedMessage = Arc<Message>;

/// How often others are given the core before a side sleeps, where there is no core to look from: as often as that helped last time.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Yields(u32);

impl Yields {
    const MOST: u32 = 16;
    /// A sleep that was shorter would have been saved.
    const SHORT: Duration = Duration::from_micros(50);

    /// Gives the core away until `found`.
    pub(super) fn until(self, mut found: impl FnMut() -> bool) -> bool {
        (0..self.0).any(|_| {
            std::thread::yield_now();
            found()
        })
    }

    pub(super) fn slept(&mut self, time: Duration) {
        // One short sleep between long ones says nothing.
        self.0 = if time < Self::SHORT {
            (2 * self.0).clamp(1, Self::MOST)
        } else {
            0
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_cut_where_one_begins() {
        let alike = [1, 1, 2, 2, 3, 3];
        let different = [1, 0, 0, 0, 7, 0, 0, 0, 0, 2, 0, 0, 0, 8, 8];
        for (bytes, each, all) in [
            (&alike[..], 2, [&[1, 1][..], &[2, 2], &[3, 3]]),
            (&different, EACH, [&[7], &[], &[8, 8]]),
        ] {
            let values = Values::all(bytes, each).unwrap();
            assert_eq!(values.count, 3);
            for cut in 0..4 {
                let (some, others) = values.split_at(cut);
                assert_eq!((some.count, others.count), (cut, 3 - cut));
                assert!(some.iter().chain(others.iter()).eq(all));
            }
            assert_eq!(values.split_at(9).1.iter().next(), None);
            assert!(Values::all(&bytes[..bytes.len() - 1], each).is_none());
        }
        assert!(Values::all(&[], 0).is_none());
        assert_eq!(Values::one(&[]).iter().next(), Some(&[][..]));
    }
}
