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
//! | `tail`       | what is before it is there                        | writer, last of all   | what it had written behind it is not there |
//! | `head`       | bytes before it have been taken                   | reader                | –                                          |
//! | `awaits`     | 1: ring at the next record; 2: when it is time    | reader sets, writer takes | –                                      |
//! | `wants_room` | 1: ring when there is room                        | writer sets, reader takes | –                                      |
//! | `claimed`    | how many pieces have begun, or were taken back    | both, by exchange     | the parent reads from it what had begun    |
//! | `since`      | when the task that runs began                     | worker, before it claims | the parent has its end to look at       |
//!
//! # Open records
//!
//! The values of a chunk are one record, of which each value is there as soon as it is: `tail` moves through it. Its header says how long it is going
//! to be. If it turns out shorter, because a value is of another length or none at all, its header is changed BEFORE `tail` moves on, so whoever
//! reads `tail` first and the header then knows how much of the record is there, and where the next one begins. `head` stays in front
//! of an open record, and with it the header. Whatever the writer's end, the values before it are there.
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
use crate::shm::stretch::{EACH, Stretch};
use crate::sys::{self, PAGE, SharedMapping};

/// As much as the caches next to a core hold, and two of the largest records.
pub(super) const ROOM: usize = 64 * 1024;

/// What changes with each record lies apart from what seldom does: the other side looks at the latter each time, too, and then has it in its cache.
#[repr(C)]
#[derive(Debug)]
pub(super) struct RingWords {
    tail: Apart<AtomicU64>,
    head: Apart<AtomicU64>,
    writer: Apart<WriterWords>,
    reader: Apart<ReaderWords>,
}

#[repr(C)]
#[derive(Debug)]
struct WriterWords {
    wants_room: AtomicU32,
    /// The [core](crate::sync::core) on which it was last.
    core: AtomicU32,
}

#[repr(C)]
#[derive(Debug)]
struct ReaderWords {
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
    /// Of a writer: the other side's, as last seen. Of a reader: how far it has read, which is beyond `own` in an open record.
    other: u64,
}

/// The other side's words make no sense.
#[derive(Debug)]
pub(super) struct Broken;

const HEADER: usize = 8;

/// What an open record begins with: the header, how long each value is, and nothing.
pub(super) const OPENING: usize = 16;

/// 16 KiB, so that there is room behind an open record.
const LONGEST_OPEN: usize = ROOM / 4;

/// What a reader awaits.
const SOON: u32 = 1;
const LATER: u32 = 2;

fn header(kind: u32, length: usize) -> [u8; HEADER] {
    (length as u64 | u64::from(kind) << 32).to_ne_bytes()
}

/// How much room a record takes.
#[inline]
pub(super) fn size_of_record(length: usize) -> usize {
    HEADER + length.next_multiple_of(8)
}

impl<'a> Ring<'a> {
    /// Writes a record of several parts. False: there is no room.
    #[inline]
    pub(super) fn push(
        self,
        place: &mut Place,
        kind: u32,
        parts: &[&[u8]],
    ) -> Result<bool, Broken> {
        let length = parts.iter().map(|part| part.len()).sum::<usize>();
        let size = size_of_record(length);
        if self.room(place, size)? < size {
            return Ok(false);
        }
        self.put(place.own, &header(kind, length));
        let mut at = place.own + HEADER as u64;
        for part in parts {
            self.put(at, part);
            at += part.len() as u64;
        }
        place.own += size as u64;
        self.words.tail.0.store(place.own, Ordering::Release); // pairs with "record there"
        Ok(true)
    }

    /// Whether there is room for a record of so many bytes. It stays until the writer takes it.
    pub(super) fn has_room(self, place: &mut Place, length: usize) -> Result<bool, Broken> {
        let size = size_of_record(length);
        Ok(self.room(place, size)? >= size)
    }

    /// How much room there is, having looked if that seems to be less than is needed.
    #[inline]
    fn room(self, place: &mut Place, needed: usize) -> Result<usize, Broken> {
        if place.own + needed as u64 - place.other > ROOM as u64 {
            place.other = self.words.head.0.load(Ordering::Acquire); // pairs with "room there"
            if place.own.wrapping_sub(place.other) > ROOM as u64 {
                return Err(Broken);
            }
        }
        Ok(ROOM - (place.own - place.other) as usize)
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

    /// Begins a record of about so many values, each as long as said, or [`EACH`]. To be [closed](Self::close) before anything else is written.
    /// `None`: there is no room for two in one piece.
    pub(super) fn open(
        self,
        place: &mut Place,
        kind: u32,
        each: u32,
        count: usize,
    ) -> Result<Option<Stretch<'a>>, Broken> {
        let mut wanted = LONGEST_OPEN - OPENING;
        let mut least = wanted / 4;
        if each != EACH {
            least = 2 * each as usize;
            wanted = wanted.min(count.saturating_mul(each as usize));
        }
        let mut room = self.room(place, OPENING + wanted)?;
        // What is around the ring's end is not in one piece.
        room = room.min(ROOM - place.own as usize % ROOM);
        wanted = wanted.min(room.saturating_sub(OPENING));
        if each != EACH && each != 0 {
            wanted -= wanted % each as usize;
        }
        if each == 0 || wanted < least {
            return Ok(None);
        }
        self.put(place.own, &header(kind, OPENING - HEADER + wanted));
        self.put(place.own + HEADER as u64, &u64::from(each).to_ne_bytes());
        let at = place.own + OPENING as u64;
        // SAFETY:
        // - mapped: `bytes` points into the mapping that the words are borrowed from.
        // - inside: it was made sure that there is that much up to the ring's end.
        // - others: it is room, so the reader leaves it alone; the writer writes nothing before it has closed this one.
        Ok(Some(unsafe {
            let bytes = self.bytes.add(at as usize % ROOM);
            Stretch::new(
                (bytes, wanted),
                each,
                (&self.words.tail.0, at),
                (&self.words.reader.0.awaits, SOON),
            )
        }))
    }

    /// Ends an open record, with as many values as there are.
    pub(super) fn close(self, place: &mut Place, stretch: Stretch<'_>) {
        let length = (stretch.position() - place.own) as usize - HEADER;
        if length == OPENING - HEADER {
            // As if it had not been.
            return;
        }
        // SAFETY:
        // - mapped and inside: this is the header that `open` has written; headers are aligned and whole by invariant 1.
        // - others: the reader only reads it, and finds either length right, see "Open records".
        let head = unsafe {
            self.bytes
                .add(place.own as usize % ROOM)
                .cast::<AtomicU64>()
                .as_ref()
        };
        let kind = (head.load(Ordering::Relaxed) >> 32) as u32;
        head.store(u64::from_ne_bytes(header(kind, length)), Ordering::Relaxed);
        place.own += size_of_record(length) as u64;
        self.words.tail.0.store(place.own, Ordering::Release); // pairs with "record there"
    }

    /// Whether there is anything to take.
    #[inline]
    pub(super) fn has_more(self, place: &Place) -> bool {
        self.words.tail.0.load(Ordering::Acquire) != place.other
    }

    /// Adds everything that is new to the end of `to`, which is to be [finished](Self::finish). Of a record that was open, its opening comes again in front of what
    /// is new; gives how many bytes in between were taken before. `None`: there is nothing new.
    #[inline]
    pub(super) fn take(self, place: &mut Place, to: &mut Vec<u8>) -> Result<Option<usize>, Broken> {
        let tail = self.words.tail.0.load(Ordering::Acquire); // pairs with "record there"
        if tail == place.other {
            return Ok(None);
        }
        if tail.wrapping_sub(place.own) > ROOM as u64 || tail < place.other {
            return Err(Broken);
        }
        let open = place.other > place.own;
        if open {
            self.get(place.own, OPENING, to);
        }
        self.get(place.other, (tail - place.other) as usize, to);
        let before = if open {
            (place.other - place.own) as usize - OPENING
        } else {
            0
        };
        place.other = tail;
        Ok(Some(before))
    }

    /// Copies out of the ring, around its end.
    #[inline]
    fn get(self, at: u64, length: usize, to: &mut Vec<u8>) {
        let offset = at as usize % ROOM;
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
    }

    /// Gives the room back of what was taken and read. `open`: that is all but this many bytes at the end of it, which belong to an open record;
    /// `None`: the one that was open before still is.
    #[inline]
    pub(super) fn finish(self, place: &mut Place, open: Option<usize>) {
        let Some(open) = open else { return };
        place.own = place.other - open as u64;
        self.words.head.0.store(place.own, Ordering::Release); // pairs with "room there"
    }

    /// How many bytes the reader has not taken.
    pub(super) fn unread(self, place: &Place) -> u64 {
        let head = self.words.head.0.load(Ordering::Relaxed);
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
            let head = self.words.head.0.load(Ordering::Relaxed);
            if place.own.wrapping_sub(head) < ROOM as u64 / 2 {
                return;
            }
        }
        if awaits.swap(0, Ordering::SeqCst) != 0 {
            self.writer_is_here();
            sys::ring_line(line);
        }
    }

    /// Asks to be woken by the next record, or when it is time. Look AFTER this.
    pub(super) fn await_record(self, soon: bool) {
        self.reader_is_here();
        let awaits = &self.words.reader.0.awaits;
        awaits.store(if soon { SOON } else { LATER }, Ordering::SeqCst);
        full_fence(); // "anybody waiting"
    }

    pub(super) fn await_no_record(self) {
        note(&self.words.reader.0.awaits, 0);
    }

    /// Asks to be woken when something has been taken. Look AFTER this.
    pub(super) fn await_room(self) {
        self.words.writer.0.wants_room.store(1, Ordering::SeqCst);
        full_fence(); // "anybody waiting"
    }

    /// Says on which core the writer is. Whoever looks does so as long as the other side is elsewhere, so that is to be right also after the kernel has moved it.
    pub(super) fn writer_is_here(self) {
        note(&self.words.writer.0.core, crate::sync::core());
    }

    /// Says on which core the reader is.
    pub(super) fn reader_is_here(self) {
        note(&self.words.reader.0.core, crate::sync::core());
    }

    /// Where the writer was when it last woke somebody, or waited.
    pub(super) fn writer_core(self) -> u32 {
        self.words.writer.0.core.load(Ordering::Relaxed)
    }

    /// Where the reader was when it last slept, or waited.
    pub(super) fn reader_core(self) -> u32 {
        self.words.reader.0.core.load(Ordering::Relaxed)
    }
}

/// Stores what is hardly ever new, and then leaves the line where it is.
fn note(word: &AtomicU32, value: u32) {
    if word.load(Ordering::Relaxed) != value {
        word.store(value, Ordering::Relaxed);
    }
}

/// The header at `at` of what was [taken](Ring::take): a record's kind and length.
#[inline]
pub(super) fn header_at(taken: &[u8], at: usize) -> Result<(u32, usize), Broken> {
    let header = taken.get(at..).and_then(|rest| rest.first_chunk());
    let header = u64::from_ne_bytes(*header.ok_or(Broken)?);
    Ok(((header >> 32) as u32, header as u32 as usize))
}

/// The record at `at`, all of which is there: its kind, its payload, and where the next one is.
#[inline]
pub(super) fn record(
    taken: &[u8],
    at: usize,
) -> Result<(u32, std::ops::Range<usize>, usize), Broken> {
    let (kind, length) = header_at(taken, at)?;
    let start = at + HEADER;
    let next = at + size_of_record(length);
    if next > taken.len() {
        return Err(Broken);
    }
    Ok((kind, start..start + length, next))
}

/// What there is of a record of values.
pub(super) struct Part<'a> {
    /// How long each is, or [`EACH`].
    pub(super) each: u32,
    pub(super) values: &'a [u8],
    /// Where the next record is, if this one is not open any more.
    pub(super) next: Option<usize>,
}

/// The record of values at `at`, of which so many bytes of values have been taken `before`.
#[inline]
pub(super) fn part(taken: &[u8], at: usize, before: usize) -> Result<Part<'_>, Broken> {
    let (_, length) = header_at(taken, at)?;
    let each = taken.get(at + HEADER..).and_then(|rest| rest.first_chunk());
    let each = u64::from_ne_bytes(*each.ok_or(Broken)?) as u32;
    let start = at + OPENING;
    let end = (start + length)
        .checked_sub(OPENING - HEADER + before)
        .ok_or(Broken)?;
    let next = (at + size_of_record(length))
        .checked_sub(before)
        .ok_or(Broken)?;
    let values = taken.get(start..end.min(taken.len())).ok_or(Broken)?;
    let next = (next <= taken.len()).then_some(next);
    Ok(Part { each, values, next })
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
            assert_eq!(
                other.tasks().take(&mut reader, &mut bytes).unwrap(),
                Some(0)
            );
            other.tasks().finish(&mut reader, Some(0));
            let (kind, range, next) = record(&bytes, 0).unwrap();
            assert_eq!(
                (kind, &bytes[range], next),
                (round as u32, &payload[..], bytes.len())
            );
        }
        assert_eq!(other.tasks().take(&mut reader, &mut bytes).unwrap(), None);
    }

    /// A worker's and a parent's side of values.
    struct Sides {
        memory: Memory,
        other: &'static Memory,
        writer: Place,
        reader: Place,
    }

    impl Sides {
        fn new() -> Self {
            let (memory, file) = Memory::create().unwrap();
            Self {
                other: Box::leak(Box::new(Memory::open(file.as_fd()).unwrap())),
                memory,
                writer: Place::default(),
                reader: Place::default(),
            }
        }

        /// Reads what is new: kinds and bytes.
        fn read(&mut self) -> Vec<(u32, Vec<u8>)> {
            let (ring, mut taken) = (self.memory.outcomes(), Vec::new());
            let Some(mut before) = ring.take(&mut self.reader, &mut taken).unwrap() else {
                return Vec::new();
            };
            let (mut at, mut read, mut open) = (0, Vec::new(), Some(0));
            while at < taken.len() {
                let (kind, _) = header_at(&taken, at).unwrap();
                if kind != VALUES {
                    let (_, range, next) = record(&taken, at).unwrap();
                    read.push((kind, taken[range].to_vec()));
                    at = next;
                    continue;
                }
                let part = part(&taken, at, before).unwrap();
                read.push((part.each, part.values.to_vec()));
                let Some(next) = part.next else {
                    open = (at > 0).then_some(taken.len() - at);
                    break;
                };
                (at, before) = (next, 0);
            }
            ring.finish(&mut self.reader, open);
            read
        }
    }

    const VALUES: u32 = 77;

    #[test]
    fn values_are_there_as_soon_as_they_are_put() {
        let mut sides = Sides::new();
        let ring = sides.other.outcomes();
        for each in [1, 3, 8, 40] {
            ring.push(&mut sides.writer, 5, &[b"before"]).unwrap();
            let open = ring.open(&mut sides.writer, VALUES, each, 10).unwrap();
            let mut stretch = open.unwrap();
            assert!(!stretch.put(&vec![0; each as usize + 1]), "another length");
            let value = |n: u8| vec![n; each as usize];
            assert!(stretch.put(&value(1)));
            assert_eq!(sides.read(), [(5, b"before".to_vec()), (each, value(1))]);
            assert_eq!(sides.read(), []);
            (2..=4).for_each(|n| assert!(stretch.put(&value(n))));
            assert_eq!(sides.read(), [(each, [2, 3, 4].map(value).concat())]);
            assert!(stretch.put(&value(5)));
            // Shorter than it was announced.
            ring.close(&mut sides.writer, stretch);
            ring.push(&mut sides.writer, 6, &[]).unwrap();
            assert_eq!(sides.read(), [(each, value(5)), (6, Vec::new())]);
            // Nothing in it, and all of it.
            let stretch = ring.open(&mut sides.writer, VALUES, each, 10).unwrap();
            ring.close(&mut sides.writer, stretch.unwrap());
            let stretch = ring.open(&mut sides.writer, VALUES, each, 3).unwrap();
            let mut stretch = stretch.unwrap();
            (1..=3).for_each(|n| assert!(stretch.put(&value(n))));
            assert!(!stretch.put(&value(4)), "it is full");
            assert_eq!(sides.read(), [(each, [1, 2, 3].map(value).concat())]);
            ring.close(&mut sides.writer, stretch);
            ring.push(&mut sides.writer, 7, &[]).unwrap();
            assert_eq!(sides.read().last(), Some(&(7, Vec::new())));
        }
    }

    #[test]
    fn values_of_any_length_go_around_the_end() {
        let mut sides = Sides::new();
        let ring = sides.other.outcomes();
        let (mut sent, mut seen) = (Vec::new(), Vec::new());
        let mut stretch: Option<Stretch<'static>> = None;
        for round in 0..20_000_usize {
            let value = vec![round as u8; round * 7 % 61];
            if !stretch.as_mut().is_some_and(|stretch| stretch.put(&value)) {
                if let Some(stretch) = stretch.take() {
                    ring.close(&mut sides.writer, stretch);
                }
                stretch = ring.open(&mut sides.writer, VALUES, EACH, 5).unwrap();
                if !stretch.as_mut().is_some_and(|stretch| stretch.put(&value)) {
                    assert!(stretch.is_none(), "it is short, and there is room");
                    assert!(ring.push(&mut sides.writer, 1, &[&value]).unwrap());
                }
            }
            sent.push(value);
            if round % 13 == 0 {
                seen.append(&mut sides.read());
            }
        }
        seen.append(&mut sides.read());
        let seen = seen.into_iter().flat_map(|(each, bytes)| {
            let values = if each == EACH {
                super::super::link::Values::all(&bytes, EACH).unwrap()
            } else {
                super::super::link::Values::one(&bytes)
            };
            values.iter().map(<[u8]>::to_vec).collect::<Vec<_>>()
        });
        assert!(seen.eq(sent));
    }

    #[test]
    fn an_open_record_that_makes_no_sense_is_told() {
        let taken = |length: u64, each: u64, values: &[u8]| {
            [&length.to_ne_bytes()[..], &each.to_ne_bytes(), values].concat()
        };
        assert!(part(&taken(16, 8, &[0; 8]), 0, 0).unwrap().next.is_some());
        assert!(part(&taken(24, 8, &[0; 8]), 0, 0).unwrap().next.is_none());
        assert!(part(&taken(24, 8, &[0; 8]), 0, 8).unwrap().next.is_some());
        // Shorter than what has been taken of it.
        assert!(part(&taken(16, 8, &[]), 0, 16).is_err());
        assert!(part(&taken(0, 8, &[0; 8]), 0, 0).is_err());
        assert!(part(&taken(16, 8, &[])[..12], 0, 0).is_err());
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
        words.tail.0.store(u64::MAX, Ordering::Relaxed);
        assert!(
            memory
                .outcomes()
                .take(&mut Place::default(), &mut Vec::new())
                .is_err()
        );
        words.head.0.store(u64::MAX / 2, Ordering::Relaxed);
        assert!(memory.outcomes().push(&mut place, 1, &[]).is_err());
        assert!(record(&[0xff; 24], 0).is_err());
        assert!(record(&[0; 4], 0).is_err());
    }
}
