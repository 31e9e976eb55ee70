//! The page that all holders of a queue share.

use crate::shm::atomic::{AtomicU32, AtomicU64};
use crate::shm::lane::{Apart, Growth, HasLane, LaneWords};
use crate::shm::memory::PageOfWords;
use crate::sync::{Bell, Robust};

/// A lane, a turn at each of its sides, and who sleeps.
#[repr(C)]
#[derive(Debug)]
#[cfg_attr(mproc_model, derive(Default))]
pub(crate) struct QueueWords {
    lane: LaneWords,
    producers: Apart<AtomicU32>,
    consumers: Apart<AtomicU32>,
    pub(crate) state: Apart<State>,
    pub(crate) courier: Apart<CourierWords>,
    pub(crate) tasks: Apart<TaskWords>,
}

impl QueueWords {
    /// The producers' turn.
    #[inline]
    pub(crate) fn producers(&self) -> Robust<'_> {
        Robust {
            state: &self.producers.0,
            bell: &self.state.0.producers,
        }
    }

    /// The consumers' turn.
    #[inline]
    pub(crate) fn consumers(&self) -> Robust<'_> {
        Robust {
            state: &self.consumers.0,
            bell: &self.state.0.consumers,
        }
    }
}

/// What is looked at in each operation and changed rarely.
#[repr(C)]
#[derive(Debug, Default)]
pub(crate) struct State {
    /// Consumers that sleep until there is an item, or the end.
    pub(crate) items: Bell,
    /// Producers that sleep until there is room, or the end.
    pub(crate) room: Bell,
    /// Those who sleep until they have a turn. Here, and not beside the turns, because both sides look at all bells after each turn.
    producers: Bell,
    consumers: Bell,
    /// How many items at most; 0: any number.
    pub(crate) capacity: AtomicU32,
    /// Not 0: nothing more will be put. Changed by whoever has the producers' turn.
    pub(crate) closed: AtomicU32,
    /// Not 0: the doorbell is kept readable while there is an item, or the end.
    pub(crate) watched: AtomicU32,
    /// Whether the doorbell is readable: [`SILENT`], [`RUNG`], or [`CHANGING`] while whoever has the producers' turn changes it, or
    /// since one died who did.
    pub(crate) rung: AtomicU32,
    /// Not 0: it has been sent to another process at least once.
    pub(crate) shared: AtomicU32,
}

/// The doorbell is not readable.
pub(crate) const SILENT: u32 = 0;
/// It is readable.
pub(crate) const RUNG: u32 = 1;
/// It may be either.
pub(crate) const CHANGING: u32 = 2;

/// See [`office`](super::office).
#[repr(C)]
#[derive(Debug, Default)]
pub(crate) struct CourierWords {
    /// How many crates were made.
    pub(crate) made: AtomicU64,
    /// How many were emptied and thrown away, or came to nothing.
    pub(crate) gone: AtomicU64,
    /// How many items were packed.
    pub(crate) packed: AtomicU64,
    /// How many of their packets were thrown away.
    pub(crate) thrown_away: AtomicU64,
}

/// See [`JoinableQueue`](crate::JoinableQueue).
#[repr(C)]
#[derive(Debug)]
#[cfg_attr(mproc_model, derive(Default))]
pub(crate) struct TaskWords {
    /// How many are in `join`. One that is killed there stays counted, which costs a system call when all is done.
    pub(crate) joiners: AtomicU32,
    /// How many items were done, modulo 2³⁰ as the lane counts, and, above, how many went down with who had taken them.
    pub(crate) settled: AtomicU64,
    /// In a queue that puts back: the hand that took an item last, plus one, in the upper half, and that item's number. Written in the
    /// consumers' turn, before the item is kept and gone.
    pub(crate) taking: AtomicU64,
    /// How many items were put back and have yet to be counted as done where they were taken. Changed by the executor only.
    pub(crate) credit: AtomicU32,
    /// How often an item is put back at most that went down with who had taken it; 0: such items are counted. Set before anybody
    /// else has the queue.
    pub(crate) put_back: AtomicU32,
    /// Who has taken how many.
    pub(crate) hands: [Hand; HANDS],
}

/// How many processes can take items of one joinable queue at a time.
pub(crate) const HANDS: usize = if cfg!(mproc_model) { 2 } else { 320 };

/// A process that takes items: its id in the upper half, in the lower how many it has taken and not done.
#[repr(transparent)]
#[derive(Debug, Default)]
pub(crate) struct Hand(pub(crate) AtomicU64);

// SAFETY: atomics only; any bytes are valid ones.
unsafe impl PageOfWords for QueueWords {}

impl HasLane for QueueWords {
    #[inline]
    fn lane(&self) -> &LaneWords {
        &self.lane
    }
}

/// A page at first, and as much as there is memory.
pub(crate) const GROWTH: Growth = Growth {
    first: 1,
    largest: 1024,
    unbounded: true,
};

/// The kind of a frame: this, and how often the item was put back.
pub(crate) const ITEM: u8 = 1;

/// As often as an item can be put back.
pub(crate) const MOST_PUT_BACK: u8 = 200;
