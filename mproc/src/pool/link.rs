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
pub(super) enum Said<'m, 'b> {
    /// It has started, and its initializer has run.
    Ready,
    /// Its initializer has failed, and it ends.
    Unfit(Outcome),
    /// What came of the next tasks: values, encoded. Whoever hears it takes all of them.
    Values(&'m mut dyn Iterator<Item = &'b [u8]>),
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
    /// Hands over everything that the worker has said since. Never waits. False: nothing.
    fn receive(&mut self, hear: &mut dyn FnMut(Said<'_, '_>)) -> Result<bool, Trouble>;
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
