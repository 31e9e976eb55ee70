//! What a process has taken from a queue that puts back, kept where others find it when the process is dead.
//!
//! Each process that takes items has a *drawer*, a [lane](crate::shm::lane) of its own in a part of the queue's file, in the place that belongs
//! to its hand. It writes each item there before the item is gone from the queue, and reads it out again when the item is done. Whoever
//! finds out that the process is dead puts back what is still in the drawer.
//!
//! # If a process dies here
//!
//! An item is kept *before* it is gone from the queue. So the last one that is kept may still be in the queue; whoever takes it after
//! that says so in the drawer of the dead (`void`), and as long as nobody has, the queue's `taking` does.
//!
//! An item is taken out *after* it was counted as done, and by who puts it back after it was put: who dies in between leaves an item that comes
//! once more. So of what a dead process had taken and not done, nothing is lost but what has descriptors, and something may come twice.

use std::collections::VecDeque;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use super::core::Taking;
use super::words::QueueWords;
use crate::shm::atomic::{AtomicU32, AtomicU64, Ordering};
use crate::shm::lane::{Frame, Growth, HasLane, LaneWords, Reader, SPAN, Writer};
use crate::shm::memory::{Memory, PageOfWords, Segment};

/// The page that a drawer begins with.
#[repr(C)]
#[derive(Debug, Default)]
struct DrawerWords {
    /// Not 0: the number of an item, plus one, that the owner died over before it had taken it. First, for others write it by its place
    /// in the file.
    void: AtomicU64,
    lane: LaneWords,
    /// Not 0: the lane is in order.
    ready: AtomicU32,
    /// How many were put back.
    put_back: AtomicU32,
}

// SAFETY: atomics only; any bytes are valid ones.
unsafe impl PageOfWords for DrawerWords {}

impl HasLane for DrawerWords {
    fn lane(&self) -> &LaneWords {
        &self.lane
    }
}

const GROWTH: Growth = Growth {
    first: 1,
    largest: 1024,
    unbounded: true,
};

/// The kind of the frames.
const ITEM: u8 = 1;

/// The state of an item: held, or done before an older one was.
const HELD: u64 = 0;
const DONE: u64 = 1;

/// What an item begins with in its drawer: its state, its number, and how often it was put back.
const PREFIX: usize = 24;

/// Where the drawer of a hand is in the file. The queue itself is in front of them.
fn base_of(hand: usize) -> u64 {
    SPAN * (1 + hand as u64)
}

/// A process's own.
pub(super) struct Drawer {
    memory: Memory<DrawerWords>,
    writer: Writer,
    reader: Reader,
    /// What is in it, in order.
    held: VecDeque<Held>,
}

struct Held {
    number: u32,
    /// Where its state is.
    position: u64,
    /// Whether a job of this process stands for it.
    is_job: bool,
    is_settled: bool,
}

impl Drawer {
    /// An empty drawer for a hand that nobody else has.
    pub(super) fn new(file: &Arc<OwnedFd>, hand: usize) -> io::Result<Self> {
        let segment = Segment {
            first: 1,
            pages: GROWTH.first,
        };
        let memory = Memory::<DrawerWords>::create_at(Arc::clone(file), base_of(hand), segment)?;
        memory.words().lane.begin_in(segment);
        memory.words().ready.store(1, Ordering::SeqCst);
        Ok(Self {
            memory,
            writer: Writer::default(),
            reader: Reader::default(),
            held: VecDeque::new(),
        })
    }

    /// Puts in what is about to be taken. What has descriptors cannot be put back, and is not kept.
    pub(super) fn keep(&mut self, taking: &Taking<'_>, is_job: bool) -> io::Result<()> {
        // It is not void if it is taken after all.
        self.memory.words().void.store(0, Ordering::SeqCst);
        let Some(payload) = taking.payload else {
            return Ok(());
        };
        let length = (PREFIX + payload.len()) as u64;
        let room = self.writer.reserve(&self.memory, GROWTH, length)?;
        let room = room.ok_or(io::ErrorKind::StorageFull)?;
        let held = Held {
            number: taking.number,
            position: room.position(),
            is_job,
            is_settled: false,
        };
        let words = [HELD, u64::from(taking.number), u64::from(taking.put_back)];
        let prefix = words.map(u64::to_ne_bytes);
        let parts = [prefix.as_flattened(), payload];
        self.writer.commit(&self.memory, room, ITEM, 0, &parts);
        self.held.push_back(held);
        Ok(())
    }

    /// Whether something is in it that no job stands for.
    pub(super) fn has_any(&self) -> bool {
        self.held
            .iter()
            .any(|held| !held.is_settled && !held.is_job)
    }

    /// Takes out what is done: the item with this number, or that which was got first without a job. False: it is not there.
    pub(super) fn settle(&mut self, number: Option<u32>) -> bool {
        let index = self.held.iter().position(|held| {
            !held.is_settled
                && match number {
                    Some(number) => held.number == number,
                    None => !held.is_job,
                }
        });
        let Some(index) = index else { return false };
        let held = &mut self.held[index];
        held.is_settled = true;
        if index > 0 {
            // OK to ignore: it may be put back after all, if we die, as what is done in the moment of death may be, too.
            let _ = self.memory.store(held.position, DONE);
        }
        while self.held.front().is_some_and(|held| held.is_settled) {
            // OK to leave it there: it is taken with the next one that is done. If we die before that, it may be put back, as above.
            let Ok(Some(frame)) = self.reader.peek(&self.memory) else {
                break;
            };
            self.reader.take(&self.memory, frame);
            self.held.pop_front();
        }
        if self.held.is_empty() && self.reader.is_large(GROWTH) {
            // OK to ignore: the memory is used again, or goes with the drawer. The look follows the jump, and gives back the rest.
            let _ = self.writer.shrink(&self.memory, GROWTH);
            let _ = self.reader.peek(&self.memory);
        }
        true
    }
}

/// Says in the drawer of a dead process that it had not taken the item of this number, over which it died.
pub(super) fn make_void(memory: &Memory<QueueWords>, hand: usize, number: u32) -> io::Result<()> {
    memory.store(base_of(hand), u64::from(number) + 1)
}

/// The drawer of a dead process, for the only one who empties it.
pub(super) struct Estate {
    memory: Memory<DrawerWords>,
    reader: Reader,
    void: [Option<u32>; 2],
}

/// An item that a dead process had taken and not done.
pub(super) struct Left {
    frame: Frame,
    /// How often it was put back.
    pub(super) times: u8,
    pub(super) payload: Vec<u8>,
}

impl Estate {
    /// `void`: the item over which it died, if nobody has taken it since. `None`: it has no drawer.
    pub(super) fn find(file: &Arc<OwnedFd>, hand: usize, void: Option<u32>) -> Option<Self> {
        let memory = Memory::<DrawerWords>::open_at(Arc::clone(file), base_of(hand)).ok()?;
        let words = memory.words();
        if words.ready.load(Ordering::SeqCst) == 0 {
            return None;
        }
        let made_void = words.void.load(Ordering::SeqCst).checked_sub(1);
        Some(Self {
            void: [void, made_void.map(|number| number as u32)],
            memory,
            reader: Reader::default(),
        })
    }

    /// The next item, which stays until it is [passed](Self::pass).
    pub(super) fn next(&mut self) -> io::Result<Option<Left>> {
        let mut bytes = Vec::new();
        while let Some(frame) = self.reader.peek(&self.memory)? {
            bytes.clear();
            self.reader.copy(&frame, &mut bytes);
            let (state, number, times) = match bytes.split_first_chunk::<PREFIX>() {
                Some((prefix, _)) => {
                    let (words, _) = prefix.as_chunks::<8>();
                    let [state, number, times] = [0, 1, 2].map(|at| u64::from_ne_bytes(words[at]));
                    (state, number as u32, times as u8)
                }
                None => (DONE, 0, 0),
            };
            if state == HELD && !self.void.contains(&Some(number)) {
                return Ok(Some(Left {
                    frame,
                    times,
                    payload: bytes.split_off(PREFIX),
                }));
            }
            self.reader.take(&self.memory, frame);
        }
        Ok(None)
    }

    /// Goes on behind an item, which was put back or is given up.
    pub(super) fn pass(&mut self, left: Left, was_put_back: bool) {
        if was_put_back {
            let words = self.memory.words();
            words.put_back.fetch_add(1, Ordering::SeqCst);
        }
        self.reader.take(&self.memory, left.frame);
    }

    /// How many were put back, also by those who died at it.
    pub(super) fn put_back(&self) -> u32 {
        self.memory.words().put_back.load(Ordering::SeqCst)
    }

    /// It is settled: its memory can go.
    pub(super) fn give_back(self) {
        self.memory.give_back();
    }
}

#[cfg(all(test, not(mproc_model)))]
mod tests {
    use super::*;

    #[test]
    fn a_drawer_that_held_much_gives_it_back() {
        let file = Arc::new(crate::sys::shared_file(4096).unwrap());
        let mut drawer = Drawer::new(&file, 0).unwrap();
        for (number, length) in [(0, 64 << 20), (1, 8)] {
            let payload = vec![1; length];
            let taking = Taking {
                number,
                put_back: 0,
                payload: Some(&payload),
            };
            drawer.keep(&taking, true).unwrap();
            assert!(drawer.settle(Some(number)));
            assert!(!drawer.memory.holds(2 << 20));
        }
    }
}
