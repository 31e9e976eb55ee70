//! The lane: frames of bytes from one writer to one reader, through memory that they share.
//!
//! A lane is a ring of frames in a [segment](Segment) of a shared file. When the ring is full and the lane may grow, the writer
//! puts a larger segment behind it and goes on there; the reader follows and gives the old one back. So a lane that is read as
//! fast as it is written stays small and in the cache, one that is not holds as much as there is memory, and what was read
//! returns to the system.
//!
//! Several processes may share either side if they take turns under a [robust lock](crate::sync::Robust), as queues do.
//! Everything that a side has to know stands in the shared page, so that whoever has the turn next needs nothing from
//! whoever had it before, who may be dead.
//!
//! # State
//!
//! `tail` and `head` are one word each: where in the file (34 bits, in units of 8 bytes) and how many frames so far (30 bits).
//!
//! | word           | meaning                                      | changed by           | if that process dies here                              |
//! |----------------|----------------------------------------------|----------------------|--------------------------------------------------------|
//! | `tail`         | frames before it are complete                | writer, last of all  | what it had written behind `tail` is not there         |
//! | `head`         | frames before it have been taken             | reader, last of all  | the frame at `head` is still there, whole              |
//! | `seen_head`    | a `head` of some time ago                    | writer               | an older one: less room is seen than there is          |
//! | `seen_tail`    | a `tail` of some time ago                    | reader               | an older one: the writer's cache line is read sooner   |
//! | `put_segments` | two; that which contains `tail` is current   | writer, before `tail`| the other one is written again                         |
//! | `get_segments` | two; that which contains `head` is current   | reader, before `head`| the other one is written again                         |
//! | `asked`        | memory is being put behind this segment      | writer, before that, and after `tail` | it is given back by the next writer, unless `tail` is in it |
//! | `released`     | file pages from here to the reader's segment have yet to be given back | reader, after that | they are given back at the next change of segments |
//!
//! # Frames
//!
//! A header of 8 bytes (length 40 bits, kind 8, number of descriptors 16), the payload, and as much as is missing to a multiple
//! of 8. The first lies [a little behind](BEGINNING) the beginning of its segment, and none runs past the end. A `JUMP` leads to the first place of
//! the same segment, or of another. There is always room for one more jump and one more empty frame.
//!
//! # Ordering
//!
//! *frame visible*: the writer stores `tail` with Release after the frame's bytes, the reader loads it with Acquire before it
//! reads them. *frame taken*: the reader stores `head` with Release after it has copied the bytes, the writer loads it with
//! Acquire before it writes there again. Each store is also one half of a question that is put across: *is anybody asleep?* against
//! *is there anything?* (see [`Bell`](crate::sync::Bell)), and for that something SeqCst has to stand between it and the look for sleepers. In a pipe
//! that is a [fence](super::atomic::full_fence). In a queue it is the freeing of the turn: a SeqCst store behind this one, which whoever is about to sleep loads
//! (SeqCst) after it has enlisted and before it looks; if the enlisting went unseen, that load sees the turn free, and with it the frame. Taking
//! the turn is SeqCst as well, so who had enlisted before is seen in it.
//!
//! # Invariants
//!
//! 1. `tail` and `head` are positions of frame headers inside the segment that contains them, at least [`SPARE`] before its end.
//! 2. Equal positions mean that there is nothing; so a full ring keeps a gap.
//! 3. Live segments lie behind one another in the file, from `released` to the current segment of the writer, around its end.
//! 4. Nothing read from the memory is believed: positions and lengths are compared with the mapping before they are used, and
//!    a payload is copied before it is looked at.
//! 5. A [cursor](Cursor) that has something left points into the view of its side, at what its side's word says. Whatever maps another
//!    segment or moves the word in another way leaves it nothing.

use std::io;
use std::mem::MaybeUninit;
use std::ptr;

use super::atomic::{AtomicU64, Ordering};
use super::copy::{AHEAD, copy, expect_write};
use super::memory::{Memory, PageOfWords, Segment, View};
use crate::sys::PAGE;

/// Keeps what one side writes off the cache lines of the other: 128, because processors fetch lines in pairs.
#[repr(align(128))]
#[derive(Debug, Default)]
pub(crate) struct Apart<T>(pub(crate) T);

/// The words of one lane.
#[repr(C)]
#[derive(Debug, Default)]
pub(crate) struct LaneWords {
    writer: Apart<WriterWords>,
    reader: Apart<ReaderWords>,
}

#[repr(C)]
#[derive(Debug, Default)]
struct WriterWords {
    tail: AtomicU64,
    seen_head: AtomicU64,
    put_segments: [AtomicU64; 2],
    asked: AtomicU64,
}

#[repr(C)]
#[derive(Debug, Default)]
struct ReaderWords {
    head: AtomicU64,
    seen_tail: AtomicU64,
    get_segments: [AtomicU64; 2],
    released: AtomicU64,
}

/// A page that has a lane in it.
pub(crate) trait HasLane: PageOfWords {
    fn lane(&self) -> &LaneWords;
}

/// How many frames a lane holds at most.
pub(crate) const MOST_FRAMES: u32 = (1 << COUNT_BITS) - 1;

const COUNT_BITS: u32 = 30;
const PLACE_BITS: u32 = 64 - COUNT_BITS;

/// 128 GiB: as far as places reach.
pub(crate) const SPAN: u64 = 8 << PLACE_BITS;

/// A place in the file and a number of frames, as `tail` and `head` hold them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Mark(u64);

impl Mark {
    #[inline]
    fn new(position: u64, count: u32) -> Self {
        // Cut to its bits: behind a page that another process has filled with nonsense, it may be anything.
        Self((position / 8) & ((1 << PLACE_BITS) - 1) | u64::from(count) << PLACE_BITS)
    }

    /// In bytes from the beginning of the file.
    #[inline]
    fn position(self) -> u64 {
        (self.0 & ((1 << PLACE_BITS) - 1)) * 8
    }

    /// The number of frames so far, modulo 2³⁰.
    #[inline]
    pub(crate) fn count(self) -> u32 {
        (self.0 >> PLACE_BITS) as u32
    }

    /// Behind a frame of this size, which is a multiple of 8 and lies inside the file. The count is above all, so it wraps by itself.
    #[inline]
    fn after(self, size: u64) -> Self {
        Self(self.0.wrapping_add(size / 8 + (1 << PLACE_BITS)))
    }

    /// How many frames `later` is ahead of this mark.
    #[inline]
    pub(crate) fn until(self, later: Self) -> u32 {
        later.count().wrapping_sub(self.count()) & MOST_FRAMES
    }
}

const HEADER: u64 = 8;

/// Where the first frame of a segment lies. Payloads in a large ring begin near the beginning of a page, and so do the buffers that
/// `malloc` gives for what is large. Where a target lies less than a line behind its source within a page, processors take what was just
/// written for what is about to be read, and copy more slowly. Two lines away, neither the way in nor the way out is like that. Whole lines,
/// so that short frames, of sixteen bytes, do not lie in two each.
const BEGINNING: u64 = 128;

/// The position of the first frame.
fn beginning(segment: Segment) -> u64 {
    segment.start() + BEGINNING
}

/// A jump and an empty frame.
const SPARE: u64 = JUMP_SIZE + HEADER;
const JUMP_SIZE: u64 = HEADER + 8;

/// The kind of the frames that lead on. All others are their users'.
const JUMP: u8 = 0xff;

const LENGTH_BITS: u32 = 40;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct FrameHeader {
    length: u64,
    kind: u8,
    handles: u16,
}

impl FrameHeader {
    #[inline]
    fn to_word(self) -> u64 {
        self.length | u64::from(self.kind) << LENGTH_BITS | u64::from(self.handles) << 48
    }

    #[inline]
    fn from_word(word: u64) -> Self {
        Self {
            length: word & ((1 << LENGTH_BITS) - 1),
            kind: (word >> LENGTH_BITS) as u8,
            handles: (word >> 48) as u16,
        }
    }

    /// With header and padding.
    #[inline]
    fn size(self) -> u64 {
        HEADER + self.length.next_multiple_of(8)
    }
}

/// A shared page with one lane and what its users add, and the file behind it.
pub(crate) type LaneMemory<Words> = Memory<Words>;

/// How large the segments of a lane become.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Growth {
    /// In pages.
    pub(crate) first: u32,
    /// In pages. Frames that are larger get a segment of their own size, if the lane is `unbounded`.
    pub(crate) largest: u32,
    /// Whether there may always be one more segment.
    pub(crate) unbounded: bool,
}

impl Growth {
    /// As it is for who knows that the largest will be needed: growing step by step costs half as much again.
    pub(crate) fn at_once(self) -> Self {
        Self {
            first: self.largest,
            ..self
        }
    }

    /// How many pages an empty lane keeps: 1 MiB, as much as sides that take turns on their cores put into it in one. To get new
    /// memory for each costs twice as much as the items do.
    #[inline]
    pub(crate) fn kept(self) -> u32 {
        (4 * self.first).max(256)
    }
}

/// Creates the memory of a lane.
pub(crate) fn create<Words: HasLane>(growth: Growth) -> io::Result<LaneMemory<Words>> {
    let segment = Segment {
        first: 1,
        pages: growth.first,
    };
    let memory = Memory::<Words>::create(segment)?;
    memory.words().lane().begin_in(segment);
    Ok(memory)
}

impl LaneWords {
    /// An empty lane. Nobody else has the words yet.
    pub(crate) fn begin_in(&self, segment: Segment) {
        let (writer, reader) = (&self.writer.0, &self.reader.0);
        let start = Mark::new(beginning(segment), 0).0;
        writer.tail.store(start, Ordering::Relaxed);
        writer.seen_head.store(start, Ordering::Relaxed);
        writer.put_segments[0].store(segment.to_word(), Ordering::Relaxed);
        reader.head.store(start, Ordering::Relaxed);
        reader.seen_tail.store(start, Ordering::Relaxed);
        reader.get_segments[0].store(segment.to_word(), Ordering::Relaxed);
        let released = u64::from(segment.first);
        reader.released.store(released, Ordering::Relaxed);
    }

    /// Frames written so far.
    #[inline]
    pub(crate) fn tail(&self) -> Mark {
        Mark(self.writer.0.tail.load(Ordering::SeqCst))
    }

    /// Frames taken so far.
    #[inline]
    pub(crate) fn head(&self) -> Mark {
        Mark(self.reader.0.head.load(Ordering::SeqCst))
    }

    /// Whether there is nothing to take.
    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.head().until(self.tail()) == 0
    }

    /// How many bytes the reader has taken since `head`, if they can be told; otherwise many.
    pub(crate) fn taken_since(&self, head: Mark) -> u64 {
        let taken = self.head().position().checked_sub(head.position());
        taken.unwrap_or(u64::MAX)
    }

    /// How many bytes are free in the segment that both sides are in; none if they are not in one, all if there is nothing
    /// to read. The reader's view.
    pub(crate) fn free(&self) -> u64 {
        let head = self.head();
        let tail = self.tail();
        if head.until(tail) == 0 {
            return u64::MAX;
        }
        let (head, tail) = (head.position(), tail.position());
        match current(&self.reader.0.get_segments, head) {
            Some((_, segment)) if (segment.start()..segment.end()).contains(&tail) => {
                match tail.checked_sub(head) {
                    Some(used) => segment.length() - used,
                    None => head - tail,
                }
            }
            _ => 0,
        }
    }

    /// Whether there are fewer than `most` frames. The writer's view, which remembers a head that it saw.
    #[inline]
    pub(crate) fn holds_less_than(&self, most: u32) -> bool {
        let words = &self.writer.0;
        let tail = Mark(words.tail.load(Ordering::Relaxed));
        if Mark(words.seen_head.load(Ordering::Relaxed)).until(tail) < most {
            return true;
        }
        let head = self.head(); // pairs with "frame taken"
        words.seen_head.store(head.0, Ordering::Relaxed);
        head.until(tail) < most
    }

    /// Whether an empty lane would not keep what it has: the reader is in a segment that is too large, or one died who asked for one.
    pub(crate) fn has_more_than(&self, growth: Growth) -> bool {
        let segment = current(&self.reader.0.get_segments, self.head().position());
        segment.is_some_and(|(_, segment)| segment.pages > growth.kept())
            || self.writer.0.asked.load(Ordering::Relaxed) != 0
    }

    /// How many frames there are.
    pub(crate) fn len(&self) -> u32 {
        // The head first: so the tail is never behind it, unless frames come and go between the two looks.
        let head = self.head();
        head.until(self.tail())
    }
}

/// The segment among two that contains a position.
fn current(segments: &[AtomicU64; 2], position: u64) -> Option<(usize, Segment)> {
    segments
        .iter()
        .map(|word| Segment::from_word(word.load(Ordering::Acquire)))
        .enumerate()
        .find(|(_, segment)| (segment.start()..segment.end()).contains(&position))
}

/// Whether a view that was mapped some time ago shows a segment that still is one. Of two, the one that contains a position is
/// current, so comparing the position with the view does the rest.
#[inline]
fn is_one_of(segments: &[AtomicU64; 2], view: &View) -> bool {
    let word = view.segment().to_word();
    segments[0].load(Ordering::Relaxed) == word || segments[1].load(Ordering::Relaxed) == word
}

fn broken(text: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, text)
}

/// What a process keeps of the writing side between frames: a mapping. Of a lane with one writer, also where that goes on.
#[derive(Default)]
pub(crate) struct Writer {
    view: Option<View>,
    cursor: Cursor,
}

/// Where the only process on its side goes on, so that it need not read its own words: for a short message that is most of the work.
struct Cursor {
    /// What the side's word holds.
    mark: Mark,
    /// Where that is.
    at: ptr::NonNull<u8>,
    /// How many bytes from there are free for the writer, or full for the reader. 0: nothing is known.
    left: u64,
}

// SAFETY: the address is in a mapping that the owner of the cursor owns, too, and is used through that owner only.
unsafe impl Send for Cursor {}

impl Default for Cursor {
    fn default() -> Self {
        Self {
            mark: Mark(0),
            at: ptr::NonNull::dangling(),
            left: 0,
        }
    }
}

impl Cursor {
    /// Goes on behind a frame.
    ///
    /// # Safety
    ///
    /// `size` is a multiple of 8, and no more than is left.
    #[inline(always)]
    unsafe fn pass(&mut self, size: u64) {
        self.mark = self.mark.after(size);
        // SAFETY: so much is left, inside the mapping.
        self.at = unsafe { self.at.add(size as usize) };
        self.left -= size;
    }
}

/// Room that has been found for a frame.
#[derive(Debug)]
pub(crate) struct Room {
    tail: Mark,
    to: ptr::NonNull<u8>,
    length: u64,
}

impl Room {
    /// Where the frame's payload will be, in bytes from the beginning of the memory.
    pub(crate) fn position(&self) -> u64 {
        self.tail.position() + HEADER
    }
}

impl Writer {
    /// Writes a frame right behind the last one; false if that takes more thought.
    ///
    /// Only for a lane that nobody else writes, after [`aim`](Self::aim).
    #[inline(always)]
    pub(crate) fn push<Words: HasLane>(
        &mut self,
        memory: &LaneMemory<Words>,
        kind: u8,
        payload: &[u8],
    ) -> bool {
        let header = FrameHeader {
            length: payload.len() as u64,
            kind,
            handles: 0,
        };
        let size = header.size();
        if size > self.cursor.left {
            return false;
        }
        // SAFETY: so many bytes from the cursor are inside the view, behind `tail` and before `head`: see `aim`, and that nobody else
        // writes. Positions are multiples of 8.
        unsafe {
            let to = self.cursor.at;
            to.cast::<u64>().write(header.to_word());
            copy(
                payload.as_ptr(),
                to.as_ptr().add(HEADER as usize),
                payload.len(),
            );
            self.cursor.pass(size);
        }
        expect_write(self.cursor.at.as_ptr().wrapping_add(AHEAD));
        let words = &memory.words().lane().writer.0;
        words.tail.store(self.cursor.mark.0, Ordering::Release); // pairs with "frame visible"
        true
    }

    /// Has [`push`](Self::push) go on behind the last frame, as far as is known to be free.
    pub(crate) fn aim<Words: HasLane>(&mut self, memory: &LaneMemory<Words>) {
        let words = &memory.words().lane().writer.0;
        let tail = Mark(words.tail.load(Ordering::Relaxed));
        let Some(view) = &self.view else { return };
        if !is_one_of(&words.put_segments, view) {
            return;
        }
        let seen = Mark(words.seen_head.load(Ordering::Relaxed));
        let left = free_behind(view.segment(), tail.position(), seen.position());
        if let Some(at) = view.at(tail.position(), left) {
            self.cursor = Cursor {
                mark: tail,
                at,
                left,
            };
        }
    }

    /// Looks at another segment from here on. What is known of the old one is not to be used any more.
    fn map(&mut self, view: View) {
        self.cursor.left = 0;
        self.view = Some(view);
    }

    /// Finds room for a frame with a payload of `length` bytes; `None` if the lane is full. Nothing is to be seen of it before
    /// [`commit`](Self::commit), and room that was found and not used is found again.
    #[inline]
    pub(crate) fn reserve<Words: HasLane>(
        &mut self,
        memory: &LaneMemory<Words>,
        growth: Growth,
        length: u64,
    ) -> io::Result<Option<Room>> {
        match self.reserve_at_once(memory, length) {
            Some(room) => Ok(Some(room)),
            None => self.reserve_slowly(memory, growth, length),
        }
    }

    /// Room right behind the last frame, if it is known to be there. [`reserve`](Self::reserve) finds it anywhere.
    #[inline(always)]
    pub(crate) fn reserve_at_once<Words: HasLane>(
        &mut self,
        memory: &LaneMemory<Words>,
        length: u64,
    ) -> Option<Room> {
        let words = &memory.words().lane().writer.0;
        let tail = Mark(words.tail.load(Ordering::Relaxed));
        let view = self.view.as_ref()?;
        if !is_one_of(&words.put_segments, view) {
            return None;
        }
        let size = HEADER + length.next_multiple_of(8);
        let seen = Mark(words.seen_head.load(Ordering::Relaxed));
        if size > free_behind(view.segment(), tail.position(), seen.position()) {
            return None;
        }
        let to = view.at(tail.position(), size)?;
        Some(Room { tail, to, length })
    }

    #[cold]
    fn reserve_slowly<Words: HasLane>(
        &mut self,
        memory: &LaneMemory<Words>,
        growth: Growth,
        length: u64,
    ) -> io::Result<Option<Room>> {
        if length >= 1 << LENGTH_BITS {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "a message of more than a terabyte",
            ));
        }
        let lane = memory.words().lane();
        let words = &lane.writer.0;
        let size = HEADER + length.next_multiple_of(8);
        give_back_asked(memory);
        loop {
            let tail = Mark(words.tail.load(Ordering::Relaxed));
            let (_, segment) = current(&words.put_segments, tail.position())
                .ok_or_else(|| broken("the place where to write is in no segment"))?;
            if self.view.as_ref().map(View::segment) != Some(segment) {
                self.map(memory.view(segment, true)?);
            }
            let view = self.view.as_ref().expect("mapped above");
            let head = lane.head(); // pairs with "frame taken"
            words.seen_head.store(head.0, Ordering::Relaxed);
            let free = free_behind(segment, tail.position(), head.position());
            if size <= free {
                let to = view
                    .at(tail.position(), size)
                    .ok_or_else(|| broken("the place where to write is in no segment"))?;
                return Ok(Some(Room { tail, to, length }));
            }
            let at_start = free_at_start(segment, tail.position(), head.position());
            if size <= at_start {
                self.jump(memory, tail, segment)?;
                continue;
            }
            let Some(next) = next_segment(memory, growth, segment, size)? else {
                return Ok(None);
            };
            self.jump_to_new(memory, tail, next)?;
        }
    }

    /// Puts memory behind a segment, and [jumps](Self::jump) there.
    fn jump_to_new<Words: HasLane>(
        &mut self,
        memory: &LaneMemory<Words>,
        tail: Mark,
        next: Segment,
    ) -> io::Result<()> {
        let words = &memory.words().lane().writer.0;
        words.asked.store(next.to_word(), Ordering::Release);
        let jumped = memory
            .allocate(next)
            .and_then(|()| self.jump(memory, tail, next));
        give_back_asked(memory);
        jumped
    }

    /// Room for one empty frame, which there always is, once, behind any other.
    pub(crate) fn reserve_last<Words: HasLane>(
        &mut self,
        memory: &LaneMemory<Words>,
    ) -> Option<Room> {
        let words = &memory.words().lane().writer.0;
        let tail = Mark(words.tail.load(Ordering::Relaxed));
        let (_, segment) = current(&words.put_segments, tail.position())?;
        if self.view.as_ref().map(View::segment) != Some(segment) {
            self.map(memory.view(segment, true).ok()?);
        }
        let to = self.view.as_ref()?.at(tail.position(), HEADER)?;
        Some(Room {
            tail,
            to,
            length: 0,
        })
    }

    /// Leads the reader, and the next frame, to the beginning of `to`.
    fn jump<Words: HasLane>(
        &mut self,
        memory: &LaneMemory<Words>,
        tail: Mark,
        to: Segment,
    ) -> io::Result<()> {
        let words = &memory.words().lane().writer.0;
        let view = self.view.as_ref().expect("the caller has mapped it");
        let from = view
            .at(tail.position(), JUMP_SIZE)
            .ok_or_else(|| broken("no room to lead on"))?;
        let header = FrameHeader {
            length: 8,
            kind: JUMP,
            handles: 0,
        };
        // SAFETY: `at` has checked that 16 bytes are inside; they are behind `tail`, where nobody else looks, and positions
        // are multiples of 8.
        unsafe {
            from.cast::<u64>().write(header.to_word());
            from.cast::<u64>().add(1).write(to.to_word());
        }
        if view.segment() != to {
            // The slot that is not current is written BEFORE the tail moves there, so that whoever has the turn after our
            // death finds the tail in one of both, whenever it happens.
            let (index, _) = current(&words.put_segments, tail.position())
                .ok_or_else(|| broken("the place where to write is in no segment"))?;
            words.put_segments[1 - index].store(to.to_word(), Ordering::Release);
        }
        let tail = Mark::new(beginning(to), tail.count());
        self.cursor.left = 0;
        words.tail.store(tail.0, Ordering::SeqCst); // pairs with "frame visible"
        Ok(())
    }

    /// Gives the memory of a lane that is empty and has grown back, all but a few pages. The caller is the only writer now.
    pub(crate) fn shrink<Words: HasLane>(
        &mut self,
        memory: &LaneMemory<Words>,
        growth: Growth,
    ) -> io::Result<()> {
        let lane = memory.words().lane();
        let words = &lane.writer.0;
        give_back_asked(memory);
        let tail = Mark(words.tail.load(Ordering::Relaxed));
        let Some((_, segment)) = current(&words.put_segments, tail.position()) else {
            return Ok(());
        };
        // Empty, and the reader where we are: where it has yet to follow a jump that no frame came behind, that jump would be given back, too.
        if segment.pages <= growth.kept() || lane.head() != tail {
            return Ok(());
        }
        if self.view.as_ref().map(View::segment) != Some(segment) {
            self.map(memory.view(segment, true)?);
        }
        let small = Growth {
            largest: growth.first,
            ..growth
        };
        let Some(next) = next_segment(memory, small, segment, 0)? else {
            return Ok(());
        };
        self.jump_to_new(memory, tail, next)?;
        // Nobody looks at the old segment any more, but for the jump itself, at which the reader is.
        let page = |position: u64| (position / PAGE as u64) as u32;
        memory.release(segment.first, page(tail.position()));
        let behind = page(tail.position() + JUMP_SIZE - 1) + 1;
        memory.release(behind, segment.first.saturating_add(segment.pages));
        Ok(())
    }

    /// Writes the frame into its room and makes it visible, in one store.
    #[inline]
    pub(crate) fn commit<Words: HasLane>(
        &mut self,
        memory: &LaneMemory<Words>,
        room: Room,
        kind: u8,
        handles: u16,
        parts: &[&[u8]],
    ) {
        let header = FrameHeader {
            length: room.length,
            kind,
            handles,
        };
        let mut left = room.length as usize;
        // SAFETY: `reserve` has found `header.size()` bytes from `room.to` inside the view, which `self` has kept since, behind
        // `tail` and before `head`, where nobody else looks; positions are multiples of 8.
        unsafe {
            room.to.cast::<u64>().write(header.to_word());
            let mut to = room.to.add(HEADER as usize);
            for part in parts {
                let length = part.len().min(left);
                copy(part.as_ptr(), to.as_ptr(), length);
                to = to.add(length);
                left -= length;
            }
        }
        debug_assert_eq!(left, 0);
        self.cursor.left = 0;
        expect_write(
            room.to
                .as_ptr()
                .wrapping_add(header.size() as usize + AHEAD),
        );
        let next = room.tail.position() + header.size();
        let tail = Mark::new(next, room.tail.count().wrapping_add(1) & MOST_FRAMES);
        let words = &memory.words().lane().writer.0;
        words.tail.store(tail.0, Ordering::Release); // pairs with "frame visible"
    }
}

/// Room for a frame at `tail`, with what has to stay free behind it.
#[inline]
fn free_behind(segment: Segment, tail: u64, head: u64) -> u64 {
    let end = if (tail + 1..segment.end()).contains(&head) {
        head // The reader is ahead of us, around the ring. (2) keeps a gap.
    } else {
        segment.end()
    };
    (end - tail.min(end)).saturating_sub(SPARE)
}

/// Room for a frame at the beginning of the segment, if the reader has left it.
fn free_at_start(segment: Segment, tail: u64, head: u64) -> u64 {
    let start = beginning(segment);
    if (start..=tail).contains(&head) {
        (head - start).saturating_sub(SPARE)
    } else {
        0
    }
}

/// Gives back the memory of a segment to which nobody came to jump: whoever asked for it has died, or was refused. The caller has the writers' turn.
fn give_back_asked<Words: HasLane>(memory: &LaneMemory<Words>) {
    let words = &memory.words().lane().writer.0;
    let asked = words.asked.load(Ordering::Relaxed);
    if asked == 0 {
        return;
    }
    let segment = Segment::from_word(asked);
    let tail = Mark(words.tail.load(Ordering::Relaxed)).position();
    if !(segment.start()..segment.end()).contains(&tail) {
        memory.release(segment.first, segment.first.saturating_add(segment.pages));
    }
    words.asked.store(0, Ordering::Relaxed);
}

/// Where a larger segment can stand, if there may be one.
fn next_segment<Words: HasLane>(
    memory: &LaneMemory<Words>,
    growth: Growth,
    segment: Segment,
    size: u64,
) -> io::Result<Option<Segment>> {
    let needed =
        u32::try_from((BEGINNING + size + SPARE).div_ceil(PAGE as u64)).unwrap_or(u32::MAX);
    let doubled = segment.pages.saturating_mul(2);
    let lane = memory.words().lane();
    // A segment with nothing in it may be followed by another as large: both of its parts may be too small for a frame that all of it holds.
    let may_follow = segment.pages < growth.largest || lane.is_empty();
    if !growth.unbounded && (needed > growth.largest || !may_follow) {
        return Ok(None);
    }
    let pages = doubled.min(growth.largest).max(growth.first).max(needed);
    let released = lane.reader.0.released.load(Ordering::Acquire);
    let released = u32::try_from(released).unwrap_or(u32::MAX);
    let last = (memory.longest() / PAGE as u64) as u32;
    let behind = segment.first.saturating_add(segment.pages);
    // Of a bounded lane it may do to wait: there will be room when something has been taken.
    let nowhere = || match !growth.unbounded && needed <= segment.pages && !lane.is_empty() {
        true => Ok(None),
        false => Err(io::Error::from(io::ErrorKind::StorageFull)),
    };
    let fits = |first: u32, end: u32| first.checked_add(pages).is_some_and(|last| last <= end);
    // By invariant 3: what is free lies behind us to the file's last page and from its second to `released`, or between both.
    let first = if released <= segment.first {
        if fits(behind, last) {
            behind
        } else if fits(1, released) {
            1
        } else {
            return nowhere();
        }
    } else if fits(behind, released) {
        behind
    } else {
        return nowhere();
    };
    Ok(Some(Segment { first, pages }))
}

/// What a process keeps of the reading side between frames: a mapping.
#[derive(Default)]
pub(crate) struct Reader {
    view: Option<View>,
    cursor: Cursor,
    /// Whether there was little when it looked last. See [`found_little`](Self::found_little).
    found_little: bool,
}

/// The frame at the head. It stays there until it is taken.
#[derive(Debug)]
pub(crate) struct Frame {
    head: Mark,
    header: FrameHeader,
    payload: ptr::NonNull<u8>,
}

impl Frame {
    #[inline]
    pub(crate) fn kind(&self) -> u8 {
        self.header.kind
    }

    #[inline]
    pub(crate) fn handles(&self) -> u16 {
        self.header.handles
    }

    #[inline]
    pub(crate) fn length(&self) -> usize {
        self.header.length as usize
    }

    /// How many were taken before it, modulo 2³⁰.
    #[inline]
    pub(crate) fn count(&self) -> u32 {
        self.head.count()
    }
}

/// As many jumps as are followed in a row. Writers that give up after each, and want more each time, make one for a page more; a ring of nothing else is
/// broken.
const MOST_JUMPS: u32 = 4096;

/// 64 KiB; a quarter of what there is, in a model.
pub(crate) const LITTLE: u64 = if cfg!(mproc_model) { 1024 } else { 64 * 1024 };

/// 1 MiB: what claims to be longer has to have memory behind it.
const BELIEVED: u64 = 1024 * 1024;

impl Reader {
    /// The next frame, if it is right behind the last one, and short; otherwise [`peek`](Self::peek) finds it.
    ///
    /// Only for a lane that nobody else reads.
    #[inline(always)]
    pub(crate) fn next<Words: HasLane>(&mut self, memory: &LaneMemory<Words>) -> Option<Frame> {
        if self.cursor.left == 0 && !self.aim(memory) {
            return None;
        }
        // SAFETY: there are at least eight bytes, see `aim`, and as in `peek_at_once`.
        let header =
            FrameHeader::from_word(unsafe { self.cursor.at.cast::<u64>().read_volatile() });
        if header.kind == JUMP || header.size() > self.cursor.left {
            return None;
        }
        Some(Frame {
            head: self.cursor.mark,
            header,
            // SAFETY: as long as the cursor has left.
            payload: unsafe { self.cursor.at.add(HEADER as usize) },
        })
    }

    /// Takes the frame that [`next`](Self::next) gave.
    #[inline(always)]
    pub(crate) fn pass<Words: HasLane>(&mut self, memory: &LaneMemory<Words>, frame: Frame) {
        debug_assert_eq!(frame.head, self.cursor.mark);
        // SAFETY: `next` has compared the size with what is left.
        unsafe { self.cursor.pass(frame.header.size()) };
        let words = &memory.words().lane().reader.0;
        words.head.store(self.cursor.mark.0, Ordering::Release); // pairs with "frame taken"
    }

    /// Has [`next`](Self::next) begin at the head, as far as frames lie behind one another there. False: there is nothing, or it takes
    /// more thought.
    fn aim<Words: HasLane>(&mut self, memory: &LaneMemory<Words>) -> bool {
        let lane = memory.words().lane();
        let words = &lane.reader.0;
        let head = Mark(words.head.load(Ordering::Relaxed));
        let tail = lane.tail(); // pairs with "frame visible"
        if tail.position() == head.position() {
            return false;
        }
        self.saw(words, head, tail);
        let Some(view) = &self.view else { return false };
        if !is_one_of(&words.get_segments, view) {
            return false;
        }
        let segment = view.segment();
        let end = if (head.position()..segment.end()).contains(&tail.position()) {
            tail.position()
        } else {
            segment.end() // Or rather a jump on the way there.
        };
        let left = end.saturating_sub(head.position());
        match view.at(head.position(), left) {
            Some(at) if left >= HEADER => {
                self.cursor = Cursor {
                    mark: head,
                    at,
                    left,
                };
                true
            }
            _ => false,
        }
    }

    /// Remembers a tail, so that the writer's cache line need not be touched until the head has reached it.
    #[inline]
    fn saw(&mut self, words: &ReaderWords, head: Mark, tail: Mark) {
        words.seen_tail.store(tail.0, Ordering::Release);
        // One that lies before the head, or in another segment, is far away.
        let length = tail.position().wrapping_sub(head.position());
        self.found_little = length < LITTLE;
    }

    /// Looks at another segment from here on. What is known of the old one is not to be used any more.
    fn map(&mut self, view: View) {
        self.cursor.left = 0;
        self.view = Some(view);
    }

    /// The frame at the head, if there is one. An error means that another process wrote nonsense.
    #[inline]
    pub(crate) fn peek<Words: HasLane>(
        &mut self,
        memory: &LaneMemory<Words>,
    ) -> io::Result<Option<Frame>> {
        match self.peek_at_once(memory) {
            Some(frame) => Ok(Some(frame)),
            None => self.peek_slowly(memory),
        }
    }

    /// The frame at the head, if it is found where the last one was. [`peek`](Self::peek) finds it anywhere.
    #[inline(always)]
    pub(crate) fn peek_at_once<Words: HasLane>(
        &mut self,
        memory: &LaneMemory<Words>,
    ) -> Option<Frame> {
        let lane = memory.words().lane();
        let words = &lane.reader.0;
        let head = Mark(words.head.load(Ordering::Relaxed));
        if words.seen_tail.load(Ordering::Acquire) == head.0 {
            let tail = lane.tail(); // pairs with "frame visible"
            if tail.position() == head.position() {
                return None;
            }
            self.saw(words, head, tail);
        }
        if let Some(view) = &self.view
            && is_one_of(&words.get_segments, view)
            && let Some(from) = view.at(head.position(), HEADER)
        {
            // SAFETY: inside the mapping and aligned. The writer has left it alone since it moved the tail past it; one that
            // has not harms nothing, since any word is a header, and it is checked below.
            let header = FrameHeader::from_word(unsafe { from.cast::<u64>().read_volatile() });
            if header.kind != JUMP
                && header.length <= BELIEVED
                && let Some(payload) = view.at(head.position() + HEADER, header.size() - HEADER)
            {
                return Some(Frame {
                    head,
                    header,
                    payload,
                });
            }
        }
        None
    }

    #[cold]
    fn peek_slowly<Words: HasLane>(
        &mut self,
        memory: &LaneMemory<Words>,
    ) -> io::Result<Option<Frame>> {
        let lane = memory.words().lane();
        let words = &lane.reader.0;
        for _ in 0..MOST_JUMPS {
            let head = Mark(words.head.load(Ordering::Relaxed));
            let tail = lane.tail(); // pairs with "frame visible"
            if tail.position() == head.position() {
                // Users ask the counts whether there is anything: one that says so for ever would keep them looking.
                return match head.until(tail) {
                    0 => Ok(None),
                    _ => Err(broken("a count of frames that are not there")),
                };
            }
            words.seen_tail.store(tail.0, Ordering::Release);
            self.found_little = false;
            let (index, segment) = current(&words.get_segments, head.position())
                .ok_or_else(|| broken("the place where to read is in no segment"))?;
            if self.view.as_ref().map(View::segment) != Some(segment) {
                self.map(memory.view(segment, false)?);
            }
            let view = self.view.as_ref().expect("mapped above");
            let from = view
                .at(head.position(), HEADER)
                .ok_or_else(|| broken("a frame that runs out of its segment"))?;
            // SAFETY: as in `peek`.
            let header = FrameHeader::from_word(unsafe { from.cast::<u64>().read_volatile() });
            let payload = view
                .at(head.position() + HEADER, header.size() - HEADER)
                .ok_or_else(|| broken("a frame that runs out of its segment"))?;
            if header.kind != JUMP {
                if header.length > BELIEVED && !memory.holds(header.length) {
                    return Err(broken("a frame that claims more memory than there is"));
                }
                return Ok(Some(Frame {
                    head,
                    header,
                    payload,
                }));
            }
            if header.length != 8 {
                return Err(broken("a jump to nowhere"));
            }
            // SAFETY: eight bytes inside the mapping, and aligned, since positions are.
            let to = Segment::from_word(unsafe { payload.cast::<u64>().read_volatile() });
            if to.end() > SPAN {
                return Err(broken("a jump to nowhere"));
            }
            let moves = to != segment;
            if moves {
                // Mapped BEFORE the head moves there, so that an error leaves things as they were.
                let next = memory.view(to, false)?;
                words.get_segments[1 - index].store(to.to_word(), Ordering::Release);
                self.map(next);
            }
            self.cursor.left = 0;
            words
                .head
                .store(Mark::new(beginning(to), head.count()).0, Ordering::SeqCst); // pairs with "frame taken"
            if moves {
                release_before(memory, to);
            }
        }
        Err(broken("a ring of jumps"))
    }

    /// Whether no more than [`LITTLE`] lay between head and tail when this last looked for the tail, which it does whenever the head
    /// has reached what it saw.
    #[inline]
    pub(crate) fn found_little(&self) -> bool {
        self.found_little
    }

    /// Whether the reader is in a segment that an empty lane would not keep.
    #[inline]
    pub(crate) fn is_large(&self, growth: Growth) -> bool {
        self.view
            .as_ref()
            .is_some_and(|view| view.segment().pages > growth.kept())
    }

    /// Adds the payload to `to`. The frame stays.
    #[inline]
    pub(crate) fn copy(&self, frame: &Frame, to: &mut Vec<u8>) {
        let length = frame.length();
        to.reserve(length);
        // SAFETY: room for `length` bytes was reserved, and as many are set by `copy_to`.
        unsafe {
            self.copy_out(frame, to.spare_capacity_mut().as_mut_ptr());
            to.set_len(to.len() + length);
        }
    }

    /// Copies the payload, which has to be exactly as long, into `to`. The frame stays.
    pub(crate) fn copy_into(&self, frame: &Frame, to: &mut [u8]) {
        assert_eq!(to.len(), frame.length());
        // SAFETY: `to` is as long as the payload.
        unsafe { self.copy_out(frame, to.as_mut_ptr().cast()) }
    }

    #[inline]
    unsafe fn copy_out(&self, frame: &Frame, to: *mut MaybeUninit<u8>) {
        let length = frame.length();
        let from = frame.payload.as_ptr().cast_const();
        // SAFETY:
        // - mapped: the view that `peek` found the frame in; only `peek` and `take`, which need `&mut self` and come before
        //   and after, replace it.
        // - inside: `peek` has compared the length with the mapping.
        // - bytes:  any byte is a `u8`, and nothing looks at them before they are private.
        // - others: the writer leaves a visible frame alone until it is taken. A broken one that does not changes what
        //   bytes we get and nothing else: the compiler sees one copy, from memory that nothing in this program writes.
        unsafe { copy(from, to.cast(), length) }
    }

    /// Takes the frame, in one store: it was copied, or it is not wanted.
    #[inline]
    pub(crate) fn take<Words: HasLane>(&mut self, memory: &LaneMemory<Words>, frame: Frame) {
        let next = frame.head.position() + frame.header.size();
        let head = Mark::new(next, frame.head.count().wrapping_add(1) & MOST_FRAMES);
        self.cursor.left = 0;
        let words = &memory.words().lane().reader.0;
        words.head.store(head.0, Ordering::Release); // pairs with "frame taken"
    }
}

/// Gives back what lies before the reader's segment, also what a dead reader did not come to.
fn release_before<Words: HasLane>(memory: &LaneMemory<Words>, segment: Segment) {
    let words = &memory.words().lane().reader.0;
    let from = u32::try_from(words.released.load(Ordering::Relaxed)).unwrap_or(u32::MAX);
    if from <= segment.first {
        memory.release(from, segment.first);
    } else {
        memory.release(from, memory.pages());
        memory.release(1, segment.first);
    }
    // Only AFTER that may the writer put a segment there.
    words
        .released
        .store(u64::from(segment.first), Ordering::Release);
}

#[cfg(all(test, not(mproc_model)))]
mod tests {
    use std::collections::VecDeque;

    use super::*;
    use crate::shm::fuzz::{Dice, rounds};

    #[repr(transparent)]
    struct Words(LaneWords);

    // SAFETY: atomics only; any bytes are valid ones.
    unsafe impl PageOfWords for Words {}

    impl HasLane for Words {
        fn lane(&self) -> &LaneWords {
            &self.0
        }
    }

    const GROWTH: Growth = Growth {
        first: 1,
        largest: 1024,
        unbounded: true,
    };

    fn payload(number: u64, length: usize) -> Vec<u8> {
        let pattern = number.to_ne_bytes();
        pattern.iter().copied().cycle().take(length).collect()
    }

    /// Mostly short, and some for which a segment has to be begun anew, or a larger one.
    fn length(dice: &mut Dice) -> usize {
        let most = match dice.below(16) {
            0 => 1 << 20,
            1..4 => 300 << 10,
            4..8 => 20 << 10,
            _ => 100,
        };
        dice.below(most) as usize
    }

    /// A lane, and what should be in it.
    struct Scene {
        memory: LaneMemory<Words>,
        writer: Writer,
        reader: Reader,
        inside: VecDeque<Vec<u8>>,
        written: u64,
    }

    impl Scene {
        fn put(&mut self, dice: &mut Dice) {
            let payload = payload(self.written, length(dice));
            let room = self
                .writer
                .reserve(&self.memory, GROWTH, payload.len() as u64);
            let room = room.unwrap().unwrap();
            // Whoever has found room may die, or be refused something else, and leave jumps behind that no frame follows.
            if dice.below(4) > 0 {
                self.writer.commit(&self.memory, room, 1, 0, &[&payload]);
                self.inside.push_back(payload);
                self.written += 1;
            }
        }

        fn take(&mut self, dice: &mut Dice) {
            let frame = self.reader.peek(&self.memory).unwrap();
            let Some(frame) = frame else {
                assert!(self.inside.is_empty());
                return;
            };
            let mut bytes = Vec::new();
            self.reader.copy(&frame, &mut bytes);
            assert!(Some(&bytes) == self.inside.front(), "whole, and in order");
            if dice.below(8) > 0 {
                self.reader.take(&self.memory, frame);
                self.inside.pop_front();
            }
            if self.inside.is_empty() && dice.below(4) > 0 {
                // In between others have had the turn.
                for _ in 0..dice.below(3) {
                    let length = length(dice) as u64;
                    self.writer.reserve(&self.memory, GROWTH, length).unwrap();
                }
                self.writer.shrink(&self.memory, GROWTH).unwrap();
            }
        }
    }

    #[test]
    fn what_is_written_is_read_whoever_dies_and_whenever_memory_is_given_back() {
        let mut shrunk = 0;
        rounds("a lane", 5, 5000, 64 << 20, |dice| {
            let mut scene = Scene {
                memory: create(GROWTH).unwrap(),
                writer: Writer::default(),
                reader: Reader::default(),
                inside: VecDeque::new(),
                written: 0,
            };
            let mut pages = 1;
            for _ in 0..300 {
                // Full or empty for some time, or one by one.
                let (puts, takes) = (dice.below(5), dice.below(6));
                (0..puts).for_each(|_| scene.put(dice));
                (0..takes).for_each(|_| scene.take(dice));
                // Another process has the turn.
                if dice.below(8) == 0 {
                    scene.writer = Writer::default();
                }
                if dice.below(8) == 0 {
                    scene.reader = Reader::default();
                }
                let now = scene
                    .writer
                    .view
                    .as_ref()
                    .map_or(pages, |view| view.segment().pages);
                shrunk += u32::from(now < pages);
                pages = now;
            }
        });
        assert!(shrunk > 0, "memory was given back");
    }

    fn write(memory: &LaneMemory<Words>, writer: &mut Writer, payload: &[u8]) {
        let room = writer.reserve(memory, GROWTH, payload.len() as u64);
        writer.commit(memory, room.unwrap().unwrap(), 1, 0, &[payload]);
    }

    fn read(memory: &LaneMemory<Words>, reader: &mut Reader) -> Vec<u8> {
        let frame = reader.peek(memory).unwrap().unwrap();
        let mut bytes = Vec::new();
        reader.copy(&frame, &mut bytes);
        reader.take(memory, frame);
        bytes
    }

    #[test]
    fn many_who_gave_up_one_after_the_other_are_no_nonsense() {
        let memory = create(GROWTH).unwrap();
        let mut writer = Writer::default();
        write(&memory, &mut writer, &[1; 8]);
        for pages in 1..=80 {
            let length = (4 << 20) + pages * PAGE as u64;
            let room = Writer::default().reserve(&memory, GROWTH, length);
            room.unwrap().unwrap();
        }
        write(&memory, &mut writer, &[2; 8]);
        let mut reader = Reader::default();
        assert_eq!(read(&memory, &mut reader), [1; 8]);
        assert_eq!(read(&memory, &mut reader), [2; 8]);
    }

    #[test]
    fn memory_that_somebody_died_over_is_given_back() {
        let memory: LaneMemory<Words> = create(GROWTH).unwrap();
        // One who died after it had asked, and before it jumped.
        let dead = Segment {
            first: 2,
            pages: 16384,
        };
        let asked = &memory.words().0.writer.0.asked;
        asked.store(dead.to_word(), Ordering::Relaxed);
        memory.allocate(dead).unwrap();
        assert!(memory.holds(64 << 20));
        assert!(memory.words().0.has_more_than(GROWTH));
        let mut writer = Writer::default();
        writer.shrink(&memory, GROWTH).unwrap();
        assert!(!memory.holds(1 << 20));
        assert!(!memory.words().0.has_more_than(GROWTH));
        write(&memory, &mut writer, &[1; 8]);
        assert_eq!(read(&memory, &mut Reader::default()), [1; 8]);
    }
}
