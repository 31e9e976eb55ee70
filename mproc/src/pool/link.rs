//! How a driver reaches its worker, whatever lies in between.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::entry::call::{Bundle, Parcel};
use crate::error::{Error, Panic};
use crate::process::record::Refusal;

/// Tasks for a worker, to be executed in order.
#[derive(Serialize, Deserialize)]
pub(super) struct Frame(pub(super) Vec<Bundle>);

/// What a worker says.
#[derive(Serialize, Deserialize)]
pub(super) enum Said {
    /// It has started, and its initializer has run.
    Ready,
    /// Its initializer has failed, and it ends.
    Unfit(Outcome),
    /// The first task of a frame is about to run.
    Begun,
    /// The task that ran has ended; if there is another one in the frame, that is about to run.
    Done(Outcome),
    /// The frame could not be decoded, and nothing of it has run.
    Unreadable(String),
}

/// What became of a call.
#[derive(Serialize, Deserialize)]
pub(super) enum Outcome {
    Value(Parcel),
    Panic(Panic),
    Refusal(Refusal),
}

/// Why a link did not do what it was to do.
pub(super) enum Trouble {
    /// The worker is gone, or makes no sense.
    Lost,
    TimedOut,
    /// The frame cannot be encoded or carried; nothing of it was sent.
    Refused(Error),
}

/// A worker, as its driver sees it.
pub(super) trait Link {
    /// Sends a frame whole or not at all.
    fn send(&mut self, frame: Frame) -> Result<(), Trouble>;
    /// What the worker says next.
    fn receive(&mut self, limit: Option<Duration>) -> Result<Said, Trouble>;
    /// Ends the worker, if it has not ended, and tells how it did.
    fn lost(self) -> Error;
}
