//! The page that the two ends of a pipe share.

use crate::shm::atomic::{AtomicU32, AtomicU64};
use crate::shm::lane::{Apart, Growth, HasLane, LaneWords, MOST_FRAMES};
use crate::shm::memory::PageOfWords;

/// A lane, and who waits for what.
#[repr(C)]
#[derive(Debug, Default)]
pub(super) struct PipeWords {
    lane: LaneWords,
    pub(super) reader: Apart<ReaderSays>,
    pub(super) writer: Apart<WriterSays>,
}

/// What the writer looks at after each frame.
#[repr(C)]
#[derive(Debug, Default)]
pub(super) struct ReaderSays {
    /// Whether it wants to be rung: see [`inlet`](super::inlet).
    pub(super) awaits: AtomicU32,
    /// Not 0: it was closed. One that is killed does not come to say so, but its line hangs up.
    pub(super) closed: AtomicU32,
    /// The [core](crate::sync::core) on which it last slept.
    pub(super) core: AtomicU32,
}

/// The reader does not want to be rung.
pub(super) const UNASKED: u32 = 0;
/// The writer has seen the asking: its ring is on its way, or has not been heard.
pub(super) const RINGING: u32 = 1 << 30;
/// The writer is to ring; below, which frame is to be announced.
pub(super) const ASKED: u32 = 1 << 31;

/// Ring for the frame of this number.
#[inline]
pub(super) fn asked_for(frame: u32) -> u32 {
    ASKED | frame & MOST_FRAMES
}

const _: () = assert!(MOST_FRAMES < RINGING);

/// What the reader looks at after each frame.
#[repr(C)]
#[derive(Debug, Default)]
pub(super) struct WriterSays {
    /// Not 0: it waits for so many bytes of room. Set by the writer, taken by the reader.
    pub(super) wants_room: AtomicU64,
    /// Not 0: it was closed. One that is killed does not come to say so, but the bell hangs up.
    pub(super) closed: AtomicU32,
    /// The [core](crate::sync::core) on which it last slept or rang.
    pub(super) core: AtomicU32,
    /// How many crates of descriptors were begun.
    pub(super) crates: AtomicU64,
}

// SAFETY: atomics only; any bytes are valid ones.
unsafe impl PageOfWords for PipeWords {}

impl HasLane for PipeWords {
    #[inline]
    fn lane(&self) -> &LaneWords {
        &self.lane
    }
}

/// 16 KiB at first, which is what a pipe costs that carries little; two megabytes when it is in use: a message of one goes in while the one before it
/// goes out (bench `channels`; with one megabyte it is a fifth slower, with four the cache is left).
///
/// In a model, a page, which is soon full.
pub(super) const GROWTH: Growth = Growth {
    first: if cfg!(mproc_model) { 1 } else { 4 },
    largest: if cfg!(mproc_model) { 1 } else { 512 },
    unbounded: false,
};

/// 256 KiB: longer messages go through the ring in parts of this size, so that both ends work at once.
pub(super) const PART: usize = if cfg!(mproc_model) { 1024 } else { 256 * 1024 };

/// What the frames of a pipe are.
pub(super) mod kind {
    /// A whole message: an encoded value.
    pub(crate) const VALUE: u8 = 1;
    /// A whole message: bytes.
    pub(crate) const BYTES: u8 = 2;
    /// The beginning of a long value or of long bytes: its length in 8 bytes.
    pub(crate) const LONG_VALUE: u8 = 3;
    pub(crate) const LONG_BYTES: u8 = 4;
    /// What comes next of a long message.
    pub(crate) const PART: u8 = 5;
    /// The long message is taken back.
    pub(crate) const RETRACTED: u8 = 6;
}
