//! What a local worker and its parent share: a ring of bytes each way, and what tells who has begun what.
//!
//! A ring is as small as it can be: records one after the other in 64 KiB that are there from the beginning, committed by one store. It
//! does not grow, holds no descriptors, and its reader takes whatever is there at once. A [lane](crate::shm::lane) can do all that a ring does
//! not, and costs a pool, whose records are short and many, half of its speed.
//!
//! # State
//!
//! | word         | meaning                                           | changed by            | if that process dies here                  |
//! |--------------|---------------------------------------------------|-----------------------|--------------------------------------------|
//! | `tail`       | records before it are complete                    | writer, last of all   | what it had written behind it is not there |
//! | `head`       | bytes before it have been taken                   | reader                | –                                          |
//! | `awaits`     | 1: ring at the next record; 2: when it is time    | reader sets, writer takes | –                                      |
//! | `wants_room` | 1: ring when there is room                        | writer sets, reader takes | –                                      |
//! | `claimed`    | how many pieces have begun, or were taken back    | both, by exchange     | the parent reads from it what had begun    |
//! | `since`      | when the task that runs began                     | worker, before it claims | the parent has its end to look at       |
//!
//! # Ordering
//!
//! *record there*: `tail` is stored with Release after the record, and loaded with Acquire before it is read. *room there*: the same of
//! `head`. *anybody waiting*: `awaits` (or `wants_room`) is stored, then there is a fence, then the reader looks; the writer stores `tail`, then
//! there is a fence, then it looks for `awaits`. Between tasks of one piece the worker leaves that fence out, see [`Ring::wake_reader`].
//!
//! # Invariants
//!
//! 1. Records are multiples of 8 bytes, and so is the ring: a header is never torn at its end.
//! 2. Nothing that the other side wrote is believed: distances are compared with the ring, lengths with what was taken.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use crate::shm::atomic::full_fence;
use crate::shm::copy::copy;
use crate::shm::lane::Apart;
use crate::sys::{self, PAGE, SharedMapping};

/// As much as the caches next to a core hold, and two of the largest records.
pub(super) const ROOM: usize = 64 * 1024;

#[repr(C)]
#[derive(Debug)]
pub(super) struct RingWords {
    writer: Apart<WriterWords>,
    reader: Apart<ReaderWords>,
}

#[repr(C)]
#[derive(Debug)]
struct WriterWords {
    tail: AtomicU64,
    wants_room: AtomicU32,
    /// The [core](crate::sync::core) on which it was last.
    core: AtomicU32,
}

#[repr(C)]
#[derive(Debug)]
struct ReaderWords {
    head: AtomicU64,
    awaits: AtomicU32,
    core: AtomicU32,
}

/// The first page.
#[repr(C)]
#[derive(Debug)]
struct Words {
    tasks: RingWords,
    outcomes: RingWords,
    claimed: Apart<AtomicU64>,
    since: Apart<AtomicU64>,
}

/// The memory of one worker.
pub(super) struct Memory(SharedMapping);

const LENGTH: usize = PAGE + 2 * ROOM;

impl Memory {
    /// New memory, and the descriptor that the worker [opens](Self::open).
    pub(super) fn create() -> io::Result<(Self, OwnedFd)> {
        let file = sys::shared_file(LENGTH as u64)?;
        let mapping = SharedMapping::new(file.as_fd(), 0, LENGTH, true, true)?;
        Ok((Self(mapping), file))
    }

    /// Maps what the parent made.
    pub(super) fn open(file: BorrowedFd<'_>) -> io::Result<Self> {
        if sys::shared_file_size(file)? < LENGTH as u64 {
            return Err(io::ErrorKind::InvalidData.into());
        }
        SharedMapping::new(file, 0, LENGTH, true, true).map(Self)
    }

    fn words(&self) -> &Words {
        const { assert!(size_of::<Words>() <= PAGE) };
        // SAFETY:
        // - mapped: for as long as `self`, which is borrowed.
        // - inside: the first page, which is aligned for anything.
        // - bytes:  atomics only, for which any bytes are valid.
        // - others: use the same atomics.
        unsafe { self.0.address().cast::<Words>().as_ref() }
    }

    fn ring<'a>(&self, words: &'a RingWords, offset: usize) -> Ring<'a> {
        // SAFETY: inside the mapping, whose length is `LENGTH`.
        let bytes = unsafe { self.0.address().add(offset) };
        Ring { words, bytes }
    }

    pub(super) fn tasks(&self) -> Ring<'_> {
        self.ring(&self.words().tasks, PAGE)
    }

    pub(super) fn outcomes(&self) -> Ring<'_> {
        self.ring(&self.words().outcomes, PAGE + ROOM)
    }

    pub(super) fn claimed(&self) -> &AtomicU64 {
        &self.words().claimed.0
    }

    pub(super) fn since(&self) -> &AtomicU64 {
        &self.words().since.0
    }
}

/// One direction.
#[derive(Clone, Copy)]
pub(super) struct Ring<'a> {
    words: &'a RingWords,
    bytes: NonNull<u8>,
}

/// What a side keeps to itself of its place.
#[derive(Debug, Default)]
pub(super) struct Place {
    own: u64,
    /// The other side's, as last seen.
    other: u64,
}

/// The other side's words make no sense.
#[derive(Debug)]
pub(super) struct Broken;

const HEADER: usize = 8;

/// What a reader awaits.
const SOON: u32 = 1;
const LATER: u32 = 2;

/// How much room a record takes.
pub(super) fn size_of_record(length: usize) -> usize {
    HEADER + length.next_multiple_of(8)
}

impl Ring<'_> {
    /// Writes a record of several parts. False: there is no room.
    #[inline]
    pub(super) fn push(
        self,
        place: &mut Place,
        kind: u32,
        parts: &[&[u8]],
    ) -> Result<bool, Broken> {
        let length = parts.iter().map(|part| part.len()).sum::<usize>();
        let size = size_of_record(length) as u64;
        if place.own + size - place.other > ROOM as u64 {
            place.other = self.words.reader.0.head.load(Ordering::Acquire); // pairs with "room there"
            if place.own.wrapping_sub(place.other) > ROOM as u64 {
                return Err(Broken);
            }
            if place.own + size - place.other > ROOM as u64 {
                return Ok(false);
            }
        }
        let header = length as u64 | u64::from(kind) << 32;
        let mut at = place.own;
        self.put(at, &header.to_ne_bytes());
        at += HEADER as u64;
        for part in parts {
            self.put(at, part);
            at += part.len() as u64;
        }
        place.own += size;
        self.words.writer.0.tail.store(place.own, Ordering::Release); // pairs with "record there"
        Ok(true)
    }

    /// Copies into the ring, around its end.
    #[inline]
    fn put(self, at: u64, bytes: &[u8]) {
        let offset = at as usize % ROOM;
        let first = bytes.len().min(ROOM - offset);
        // SAFETY:
        // - mapped: `bytes` points into the mapping that the words are borrowed from.
        // - inside: `offset + first` is no more than the ring, and the rest, no longer than a ring, begins at its beginning.
        // - others: the reader leaves alone what lies between `tail` and `head`; one that does not gets other bytes, and nothing here
        //   depends on them.
        unsafe {
            copy(bytes.as_ptr(), self.bytes.as_ptr().add(offset), first);
            if first < bytes.len() {
                copy(
                    bytes.as_ptr().add(first),
                    self.bytes.as_ptr(),
                    bytes.len() - first,
                );
            }
        }
    }

    /// Whether there is anything to take.
    #[inline]
    pub(super) fn has_more(self, place: &Place) -> bool {
        self.words.writer.0.tail.load(Ordering::Acquire) != place.own
    }

    /// Moves everything that is there to the end of `to`. False: there is nothing.
    #[inline]
    pub(super) fn take(self, place: &mut Place, to: &mut Vec<u8>) -> Result<bool, Broken> {
        let tail = self.words.writer.0.tail.load(Ordering::Acquire); // pairs with "record there"
        let length = tail.wrapping_sub(place.own) as usize;
        if length == 0 {
            return Ok(false);
        }
        if length > ROOM {
            return Err(Broken);
        }
        let offset = place.own as usize % ROOM;
        let first = length.min(ROOM - offset);
        to.reserve(length);
        // SAFETY: as in `put`, the other way round; room was reserved for `length` bytes, which are then set. A writer that changes
        // what it has committed changes what bytes we get, and nothing else.
        unsafe {
            let end = to.as_mut_ptr().add(to.len());
            copy(self.bytes.as_ptr().add(offset), end, first);
            copy(self.bytes.as_ptr(), end.add(first), length - first);
            to.set_len(to.len() + length);
        }
        place.own = tail;
        self.words.reader.0.head.store(tail, Ordering::Release); // pairs with "room there"
        Ok(true)
    }

    /// How many bytes the reader has not taken.
    pub(super) fn unread(self, place: &Place) -> u64 {
        let head = self.words.reader.0.head.load(Ordering::Relaxed);
        place.own.wrapping_sub(head)
    }

    /// After taking: wakes a writer that waits for room.
    #[inline]
    pub(super) fn wake_writer(self, line: BorrowedFd<'_>) {
        full_fence(); // "anybody waiting"
        let wants = &self.words.writer.0.wants_room;
        if wants.load(Ordering::Relaxed) != 0 && wants.swap(0, Ordering::SeqCst) != 0 {
            sys::ring_line(line);
        }
    }

    /// After writing: wakes a reader that asked for it.
    ///
    /// Not `surely`: without a fence, which would cost more than a short task does. Then a reader that asks in the very moment of
    /// the store, before either core has heard of the other, may be missed; so one that sleeps while there may be such a writer looks
    /// again once after a while, when every store of that moment is long visible.
    /// It is not `due` to a reader that wants to be woken when it is time only: when half the ring is full, or more is to be done soon.
    #[inline]
    pub(super) fn wake_reader(self, place: &Place, line: BorrowedFd<'_>, surely: bool, due: bool) {
        if surely {
            full_fence(); // "anybody waiting"
        }
        let awaits = &self.words.reader.0.awaits;
        let awaited = awaits.load(Ordering::Relaxed);
        if awaited == 0 {
            return;
        }
        if awaited == LATER && !due {
            let head = self.words.reader.0.head.load(Ordering::Relaxed);
            if place.own.wrapping_sub(head) < ROOM as u64 / 2 {
                return;
            }
        }
        if awaits.swap(0, Ordering::SeqCst) != 0 {
            self.words
                .writer
                .0
                .core
                .store(crate::sync::core(), Ordering::Relaxed);
            sys::ring_line(line);
        }
    }

    /// Asks to be woken by the next record, or when it is time. Look AFTER this.
    pub(super) fn await_record(self, soon: bool) {
        let reader = &self.words.reader.0;
        reader.core.store(crate::sync::core(), Ordering::Relaxed);
        reader
            .awaits
            .store(if soon { SOON } else { LATER }, Ordering::SeqCst);
        full_fence(); // "anybody waiting"
    }

    pub(super) fn await_no_record(self) {
        self.words.reader.0.awaits.store(0, Ordering::Relaxed);
    }

    /// Asks to be woken when something has been taken. Look AFTER this.
    pub(super) fn await_room(self) {
        self.words.writer.0.wants_room.store(1, Ordering::SeqCst);
        full_fence(); // "anybody waiting"
    }

    /// Where the writer was when it last woke somebody.
    pub(super) fn writer_core(self) -> u32 {
        self.words.writer.0.core.load(Ordering::Relaxed)
    }

    /// Where the reader was when it last slept.
    pub(super) fn reader_core(self) -> u32 {
        self.words.reader.0.core.load(Ordering::Relaxed)
    }
}

/// The record at `at` of what was [taken](Ring::take): its kind, its payload, and where the next one is.
#[inline]
pub(super) fn record(
    taken: &[u8],
    at: usize,
) -> Result<(u32, std::ops::Range<usize>, usize), Broken> {
    let header = taken.get(at..).and_then(|rest| rest.first_chunk());
    let header = u64::from_ne_bytes(*header.ok_or(Broken)?);
    let length = header as u32 as usize;
    let start = at + HEADER;
    let next = at + size_of_record(length);
    if next > taken.len() {
        return Err(Broken);
    }
    Ok(((header >> 32) as u32, start..start + length, next))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_come_out_as_they_went_in_around_the_end() {
        let (memory, file) = Memory::create().unwrap();
        let other = Memory::open(file.as_fd()).unwrap();
        let (mut writer, mut reader) = (Place::default(), Place::default());
        let mut bytes = Vec::new();
        for round in 0..200_usize {
            let payload: Vec<u8> = (0..round * 97 % 30_000)
                .map(|n| (n * round) as u8)
                .collect();
            let (one, two) = payload.split_at(payload.len() / 3);
            assert!(
                memory
                    .tasks()
                    .push(&mut writer, round as u32, &[one, two])
                    .unwrap()
            );
            bytes.clear();
            assert!(other.tasks().take(&mut reader, &mut bytes).unwrap());
            let (kind, range, next) = record(&bytes, 0).unwrap();
            assert_eq!(
                (kind, &bytes[range], next),
                (round as u32, &payload[..], bytes.len())
            );
        }
        assert!(!other.tasks().take(&mut reader, &mut bytes).unwrap());
    }

    #[test]
    fn a_full_ring_says_so_and_nonsense_is_told() {
        let (memory, _file) = Memory::create().unwrap();
        let mut place = Place::default();
        let half = vec![1; ROOM / 2 - 8];
        assert!(memory.outcomes().push(&mut place, 1, &[&half]).unwrap());
        assert!(memory.outcomes().push(&mut place, 1, &[&half]).unwrap());
        assert!(!memory.outcomes().push(&mut place, 1, &[]).unwrap());
        let words = &memory.words().outcomes;
        words.writer.0.tail.store(u64::MAX, Ordering::Relaxed);
        assert!(
            memory
                .outcomes()
                .take(&mut Place::default(), &mut Vec::new())
                .is_err()
        );
        words.reader.0.head.store(u64::MAX / 2, Ordering::Relaxed);
        assert!(memory.outcomes().push(&mut place, 1, &[]).is_err());
        assert!(record(&[0xff; 24], 0).is_err());
        assert!(record(&[0; 4], 0).is_err());
    }
}
