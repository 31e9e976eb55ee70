//! The reading end of a pipe: frames out of the lane, descriptors out of the line beside it, and waiting for either.
//!
//! # Being rung
//!
//! The word `awaits` says whether the writer is to ring after a frame.
//!
//! | `awaits`  | meaning                                              | changed by          | if that process dies here            |
//! |-----------|------------------------------------------------------|---------------------|--------------------------------------|
//! | `UNASKED` | no ring comes                                        | reader              | –                                    |
//! | `ASKED`   | ring for the frame of this number, or for the end    | reader, if unasked  | –                                    |
//! | `RINGING` | the ring is on its way, or there, and not heard yet  | writer, if asked    | the bell hangs up: that is heard too |
//!
//! What is rung for *is not there yet* before the ring is heard, although it stands in the lane: the writer may be stopped just before
//! it rings, for as long as it likes, and a ring that came when its frame has been taken would announce nothing. So a reader that
//! finds a frame withdraws what it asked for, and takes the frame if the writer had not seen the asking: then no ring comes.
//! If it had, the ring is heard first. The number is for a writer that is stopped *before* it looks whether it is to ring: by then the
//! reader may have taken the frame and asked for the next one.
//!
//! # Watched
//!
//! An end whose descriptor was given out is *watched*: from then on it is kept readable exactly while there is something, be it the
//! beginning of a long message, so that any poll, level-triggered or edge-triggered, of whatever event loop sees it. What is given out is
//! an epoll instance with two bells in it: the writer's, which also hangs up at the end, and one of our own, for what is there without a
//! ring of the writer. Ours is silenced when nothing is there, then the writer is asked to ring, and then the lane is looked at once more, in
//! this order, so that no frame comes unseen.
//!
//! # Invariants
//!
//! 1. A frame is taken, and the end is told, only after [`withdraw`](Inlet::withdraw) has said that no ring is on its way.
//! 2. So there is at most one ring in the bell, and what it announces is there.

use std::cell::{Cell, OnceCell};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use super::outlet::KEPT;
use super::words::{GROWTH, PipeWords, RINGING, UNASKED, asked_for, kind};
use crate::channel_error::{Patience, RecvError, Trouble};
use crate::courier::{self, LABEL, Label};
use crate::shm::atomic::{AtomicU64, Ordering, full_fence};
use crate::shm::lane::{Frame, HasLane, LITTLE, Reader};
use crate::shm::memory::Memory;
use crate::sync::{Spin, core};
use crate::sys::{self, Heard};
use crate::wire::Handles;

pub(super) struct Inlet {
    pub(super) memory: Memory<PipeWords>,
    reader: Reader,
    /// Rung by the writer; it hangs up when the writer is gone.
    pub(super) bell: Arc<OwnedFd>,
    /// To the writer: rings for room go, descriptors come.
    pub(super) line: Arc<OwnedFd>,
    /// How much was taken since it was asked whether the writer waits for room.
    unasked: u64,
    spin: Spin,
    /// What was received last, and has not been decoded.
    scratch: Vec<u8>,
    handles: Handles,
    /// The crate from which descriptors are taken now.
    pub(super) opened: Option<(u64, Arc<OwnedFd>)>,
    pub(super) partial: Option<Partial>,
    /// Whether the word `awaits` may say that the writer was asked to ring.
    asked: Cell<bool>,
    /// The bell that a watched end rings itself, and whether it is rung.
    own_bell: OnceCell<OwnedFd>,
    own_is_rung: Cell<bool>,
    /// A copy of this process made by `fork` does not close what it did not open.
    process: u32,
}

/// A long message of which not everything has arrived, or been asked for.
pub(super) struct Partial {
    pub(super) is_bytes: bool,
    pub(super) total: usize,
    pub(super) bytes: Vec<u8>,
    pub(super) handles: Handles,
}

impl Partial {
    fn is_complete(&self) -> bool {
        self.bytes.len() == self.total
    }
}

/// Whether it is this process that lacks something, room for a descriptor above all: then the message stays.
fn is_ours(error: &io::Error) -> bool {
    error.kind() != io::ErrorKind::InvalidData
}

/// What a frame takes beside its payload.
const FRAME: u64 = 8;

/// 64 MiB: as much as is reserved on the word of a peer.
const BELIEVED: usize = 64 * 1024 * 1024;

/// 4 MiB: so long a buffer has no memory behind it yet, and asking for that a part at a time costs half of what faulting page by page
/// does.
const FRESH: usize = 4 * 1024 * 1024;

impl Inlet {
    pub(super) fn new(memory: Memory<PipeWords>, bell: Arc<OwnedFd>, line: Arc<OwnedFd>) -> Self {
        // It may have been asked for, and given, where the end was before.
        let asked = memory.words().reader.0.awaits.load(Ordering::SeqCst) != UNASKED;
        Self {
            memory,
            reader: Reader::default(),
            bell,
            line,
            unasked: 0,
            spin: Spin::default(),
            scratch: Vec::new(),
            handles: Handles::new(),
            opened: None,
            partial: None,
            asked: Cell::new(asked),
            own_bell: OnceCell::new(),
            own_is_rung: Cell::new(false),
            process: sys::process_id(),
        }
    }

    /// Receives a value: its [`encoding`](Self::encoding).
    // A call, where there is nothing to receive at once: its error is dropped in a place that is not on the way of a value.
    #[inline(always)]
    pub(super) fn receive(&mut self, patience: Patience) -> Result<(), RecvError> {
        match self.receive_at_once() {
            true => Ok(()),
            false => self.receive_in_time(patience),
        }
    }

    #[cold]
    fn receive_in_time(&mut self, patience: Patience) -> Result<(), RecvError> {
        while !self.receive_at_once() {
            if self.partial.is_some() || !self.memory.words().lane().is_empty() {
                return self.receive_slowly(patience);
            }
            // Then it most likely is short, and the sender waits for the answer.
            if let Err(trouble) = self.wait(patience) {
                self.settle();
                return Err(trouble.receiving(patience));
            }
        }
        Ok(())
    }

    /// Receives a value that is one frame, without descriptors, and there.
    #[inline(always)]
    fn receive_at_once(&mut self) -> bool {
        // Descriptors of a message whose decoding panicked may still be there.
        if self.partial.is_none()
            && self.handles.is_empty()
            && let Some(frame) = self.reader.next(&self.memory)
            && frame.kind() == kind::VALUE
            && frame.handles() == 0
            && self.withdraw()
        {
            self.scratch.clear();
            self.reader.copy(&frame, &mut self.scratch);
            self.pass(frame);
            return true;
        }
        false
    }

    fn receive_slowly(&mut self, patience: Patience) -> Result<(), RecvError> {
        let mut scratch = std::mem::take(&mut self.scratch);
        scratch.clear();
        let received = self.whole(false, usize::MAX, &mut scratch, patience);
        self.settle();
        self.scratch = scratch;
        self.handles = received?;
        Ok(())
    }

    /// What the value that was last received consists of: bytes and descriptors.
    #[inline(always)]
    pub(super) fn encoding(&mut self) -> (&[u8], &mut Handles) {
        (&self.scratch, &mut self.handles)
    }

    /// The encoding is not needed any more.
    #[inline(always)]
    pub(super) fn forget_encoding(&mut self) {
        if self.scratch.capacity() > KEPT {
            self.scratch = Vec::new();
        }
    }

    /// Receives bytes, `most` at most.
    pub(super) fn receive_bytes(
        &mut self,
        most: usize,
        patience: Patience,
    ) -> Result<Vec<u8>, RecvError> {
        let mut bytes = Vec::new();
        let received = self.whole(true, most, &mut bytes, patience);
        self.settle();
        received.map(|_| bytes)
    }

    /// Receives bytes into a buffer and says how many.
    #[inline]
    pub(super) fn receive_into(
        &mut self,
        buffer: &mut [u8],
        patience: Patience,
    ) -> Result<usize, RecvError> {
        if self.partial.is_none()
            && let Some(frame) = self.reader.next(&self.memory)
            && frame.kind() == kind::BYTES
            && frame.handles() == 0
            && frame.length() <= buffer.len()
            && self.withdraw()
        {
            let length = frame.length();
            self.reader.copy_into(&frame, &mut buffer[..length]);
            self.pass(frame);
            return Ok(length);
        }
        self.fill_in_time(buffer, patience)
    }

    #[cold]
    fn fill_in_time(&mut self, buffer: &mut [u8], patience: Patience) -> Result<usize, RecvError> {
        let received = self.fill(buffer, patience);
        self.settle();
        received
    }

    fn fill(&mut self, buffer: &mut [u8], patience: Patience) -> Result<usize, RecvError> {
        let mut frames = 0;
        loop {
            self.go_on(&mut frames, patience)?;
            if let Some(partial) = &mut self.partial
                && partial.is_bytes
                && partial.total <= buffer.len()
            {
                let mut filled = partial.bytes.len();
                buffer[..filled].copy_from_slice(&partial.bytes);
                let total = partial.total;
                match self.parts_into(&mut buffer[..total], &mut filled, patience) {
                    Ok(true) => {
                        self.partial = None;
                        return Ok(total);
                    }
                    Ok(false) => continue,
                    Err(error) => {
                        if let Some(partial) = &mut self.partial {
                            let known = partial.bytes.len();
                            partial.bytes.extend_from_slice(&buffer[known..filled]);
                        }
                        return Err(error);
                    }
                }
            }
            if self.partial.is_none() {
                let frame = self.expect_frame(patience)?;
                match frame.kind() {
                    kind::BYTES if frame.handles() == 0 && frame.length() <= buffer.len() => {
                        let length = frame.length();
                        self.reader.copy_into(&frame, &mut buffer[..length]);
                        self.take(frame);
                        return Ok(length);
                    }
                    kind::LONG_BYTES => {
                        self.begin(frame, true)?;
                        continue;
                    }
                    kind::RETRACTED => {
                        self.take(frame);
                        continue;
                    }
                    _ => {}
                }
            }
            // Too long, or of the other kind: as any other.
            let mut bytes = Vec::new();
            self.whole(true, usize::MAX, &mut bytes, patience)?;
            if bytes.len() > buffer.len() {
                return Err(RecvError::TooShort(bytes));
            }
            buffer[..bytes.len()].copy_from_slice(&bytes);
            return Ok(bytes.len());
        }
    }

    /// Receives the parts of a long message straight into their places. False: it was retracted.
    fn parts_into(
        &mut self,
        buffer: &mut [u8],
        filled: &mut usize,
        patience: Patience,
    ) -> Result<bool, RecvError> {
        let mut frames = 0;
        while *filled < buffer.len() {
            self.go_on(&mut frames, patience)?;
            let frame = self.expect_frame(patience)?;
            let fits = (1..=buffer.len() - *filled).contains(&frame.length());
            match frame.kind() {
                kind::PART if frame.handles() == 0 && fits => {
                    let end = *filled + frame.length();
                    self.reader.copy_into(&frame, &mut buffer[*filled..end]);
                    *filled = end;
                    self.take(frame);
                }
                kind::RETRACTED => {
                    self.take(frame);
                    self.partial = None;
                    return Ok(false);
                }
                _ => return Err(self.nonsense(frame)),
            }
        }
        Ok(true)
    }

    /// Receives the next whole message into `bytes`, which is empty, if it is of this kind and not too long.
    fn whole(
        &mut self,
        is_bytes: bool,
        most: usize,
        bytes: &mut Vec<u8>,
        patience: Patience,
    ) -> Result<Handles, RecvError> {
        let mut frames = 0;
        loop {
            if let Some(partial) = &self.partial {
                if partial.is_bytes != is_bytes {
                    return Err(RecvError::WrongKind);
                }
                if partial.total > most {
                    return Err(RecvError::TooLong {
                        length: partial.total,
                    });
                }
                if partial.is_complete() {
                    let partial = self.partial.take().expect("just seen");
                    *bytes = partial.bytes;
                    return Ok(partial.handles);
                }
            }
            let frame = self.expect_frame(patience)?;
            match (frame.kind(), self.partial.is_some()) {
                (kind::VALUE | kind::BYTES, false) => {
                    if (frame.kind() == kind::BYTES) != is_bytes {
                        return Err(RecvError::WrongKind);
                    }
                    let prefix = if frame.handles() > 0 { LABEL } else { 0 };
                    let length = frame.length().saturating_sub(prefix);
                    if length > most {
                        return Err(RecvError::TooLong { length });
                    }
                    self.reader.copy(&frame, bytes);
                    let handles = self.handles_of(&frame, bytes);
                    if !handles.as_ref().is_err_and(is_ours) {
                        self.take(frame);
                    }
                    return handles.map_err(|error| Trouble::Io(error).receiving(patience));
                }
                _ => self.pump(frame)?,
            }
            self.go_on(&mut frames, patience)?;
        }
    }

    /// Asks now and then whether there is time left: frames may come without an end, and a broken peer's without a message.
    fn go_on(&mut self, frames: &mut u32, patience: Patience) -> Result<(), RecvError> {
        *frames += 1;
        let over = match patience {
            // Twice what the ring holds of parts, and a broken peer's empty frames.
            Patience::None => *frames > 4096,
            Patience::Until(deadline) => frames.is_multiple_of(256) && deadline.is_over(),
        };
        if over {
            return Err(Trouble::TimedOut.receiving(patience));
        }
        Ok(())
    }

    /// Does with a frame of a long message what is to be done, whoever asks for the message later.
    fn pump(&mut self, frame: Frame) -> Result<(), RecvError> {
        match (frame.kind(), &mut self.partial) {
            (kind::RETRACTED, _) => {
                self.take(frame);
                self.partial = None;
                Ok(())
            }
            (kind::LONG_VALUE, None) => self.begin(frame, false),
            (kind::LONG_BYTES, None) => self.begin(frame, true),
            (kind::PART, Some(_)) if frame.handles() != 0 => self.last_part(frame),
            (kind::PART, Some(partial))
                if frame.length() <= partial.total - partial.bytes.len() && frame.length() > 0 =>
            {
                if partial.bytes.is_empty() {
                    // What is only claimed costs nothing: as much as that is reserved, and not touched.
                    partial.bytes.reserve_exact(partial.total.min(BELIEVED));
                }
                if partial.total >= FRESH {
                    let unwritten = partial.bytes.spare_capacity_mut();
                    let length = frame.length().min(unwritten.len());
                    sys::populate(&mut unwritten[..length]);
                }
                self.reader.copy(&frame, &mut partial.bytes);
                self.take(frame);
                Ok(())
            }
            _ => Err(self.nonsense(frame)),
        }
    }

    /// The first frame of a long message.
    fn begin(&mut self, frame: Frame, is_bytes: bool) -> Result<(), RecvError> {
        let mut length = Vec::new();
        if frame.length() != 8 || frame.handles() != 0 {
            return Err(self.nonsense(frame));
        }
        self.reader.copy(&frame, &mut length);
        let length = length.try_into().expect("eight bytes");
        let Ok(total) = usize::try_from(u64::from_le_bytes(length)) else {
            return Err(self.nonsense(frame));
        };
        self.take(frame);
        self.partial = Some(Partial {
            is_bytes,
            total,
            bytes: Vec::new(),
            handles: Handles::new(),
        });
        Ok(())
    }

    /// The last part of a long message that has descriptors.
    fn last_part(&mut self, frame: Frame) -> Result<(), RecvError> {
        let mut part = Vec::new();
        self.reader.copy(&frame, &mut part);
        let handles = match self.handles_of(&frame, &mut part) {
            Ok(handles) => handles,
            Err(error) if is_ours(&error) => return Err(RecvError::Io(error)),
            Err(error) => {
                self.take(frame);
                self.partial = None;
                return Err(RecvError::Broken(error.to_string()));
            }
        };
        match &mut self.partial {
            Some(partial) if part.len() == partial.total - partial.bytes.len() => {
                partial.bytes.extend_from_slice(&part);
                partial.handles = handles;
                self.take(frame);
                Ok(())
            }
            _ => Err(self.nonsense(frame)),
        }
    }

    /// A frame that does not belong there. It is thrown away, and what it was to belong to.
    fn nonsense(&mut self, frame: Frame) -> RecvError {
        let text = format!(
            "a frame of kind {} and {} bytes where it does not belong",
            frame.kind(),
            frame.length()
        );
        self.take(frame);
        self.partial = None;
        RecvError::Broken(text)
    }

    /// The descriptors of a message, whose label its payload begins with; that is cut off.
    fn handles_of(&mut self, frame: &Frame, payload: &mut Vec<u8>) -> io::Result<Handles> {
        let count = usize::from(frame.handles());
        if count == 0 {
            return Ok(Handles::new());
        }
        let missing = || courier::invalid("descriptors are missing");
        let label = Label::from_bytes(payload).ok_or_else(missing)?;
        payload.drain(..LABEL);
        while self.opened.as_ref().map(|opened| opened.0) != Some(label.crate_id) {
            let mut id = [0; 8];
            let mut arrived = Vec::new();
            // Looked at before it is taken out: it stays if there is no room for a descriptor.
            match sys::peek_packet(self.line.as_fd(), &mut id, &mut arrived) {
                Ok(sys::Received::Packet { length: 8 }) => {}
                Ok(_) => return Err(missing()),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Err(missing()),
                Err(error) => return Err(error),
            }
            sys::receive_bare(self.line.as_fd(), &mut id, false)?;
            // They come in the order in which they were begun, so those before it are done with.
            let fd = arrived.pop().ok_or_else(missing)?;
            self.opened = Some((u64::from_le_bytes(id), Arc::new(fd)));
        }
        let (_, opened) = self.opened.as_ref().expect("the loop has seen it");
        let handles = courier::look(opened.as_fd(), label, count);
        if !handles.as_ref().is_err_and(is_ours) {
            courier::throw_away(opened.as_fd(), label);
        }
        handles
    }

    /// The next frame, or an error when there is none in time.
    fn expect_frame(&mut self, patience: Patience) -> Result<Frame, RecvError> {
        self.frame(patience)?
            .ok_or_else(|| Trouble::TimedOut.receiving(patience))
    }

    /// The next frame. `None` stands for no time left.
    #[inline]
    fn frame(&mut self, patience: Patience) -> Result<Option<Frame>, RecvError> {
        loop {
            match self.reader.peek(&self.memory) {
                Ok(Some(frame)) if self.withdraw() => return Ok(Some(frame)),
                Ok(_) => {}
                Err(error) => return Err(Trouble::Io(error).receiving(patience)),
            }
            match self.wait(patience) {
                Ok(()) => {}
                Err(Trouble::TimedOut) => return Ok(None),
                Err(trouble) => {
                    if matches!(trouble, Trouble::Disconnected) {
                        // What there was of a message went down with its sender.
                        self.partial = None;
                    }
                    self.settle();
                    return Err(trouble.receiving(patience));
                }
            }
        }
    }

    /// Waits until there may be a frame.
    #[cold]
    fn wait(&mut self, patience: Patience) -> Result<(), Trouble> {
        // What was taken without asking whether anybody waits for room has become visible to whoever does, or is offered now.
        self.offer_room();
        let deadline = match patience {
            Patience::None => return self.look(),
            Patience::Until(deadline) => deadline,
        };
        if let Some(there) = self.there() {
            return there;
        }
        let mut learns = None;
        // One that looks needs no ring. Where one is on its way, that is what is waited for.
        if self.withdraw() {
            let words = self.memory.words();
            let lane = words.lane();
            let closed = &words.writer.0.closed;
            let other = words.writer.0.core.load(Ordering::Relaxed);
            let is_any = || !lane.is_empty() || closed.load(Ordering::SeqCst) != 0;
            match self.spin.until(other, is_any) {
                Ok(()) => {
                    self.spin.met(lane.len());
                    return Ok(());
                }
                Err(looked) => learns = Some(looked),
            }
            words.reader.0.core.store(core(), Ordering::Relaxed);
            // Asked to be rung BEFORE looking once more, or a frame could come in between and nobody would ring: "anything there".
            self.ask();
            if let Some(there) = self.there() {
                return there;
            }
        }
        let heard = sys::listen(self.bell.as_fd(), deadline)?;
        if heard == Heard::Bell {
            self.hear();
        }
        if let Some(looked) = learns {
            self.spin.slept(looked);
        }
        match (self.there(), heard) {
            (Some(there), _) => there,
            // A peer may ring for nothing, as often as it likes.
            (None, Heard::Bell | Heard::Signal) if deadline.is_over() => Err(Trouble::TimedOut),
            (None, Heard::Bell | Heard::Signal) => Ok(()),
            (None, Heard::HungUp) => Err(Trouble::Disconnected),
            (None, Heard::TimedOut) => Err(Trouble::TimedOut),
        }
    }

    /// Looks whether there is a frame.
    fn look(&self) -> Result<(), Trouble> {
        if let Some(there) = self.there() {
            return there;
        }
        // Who watches and is told that there is nothing waits for the next edge, so there has to be one from here on.
        if self.own_bell.get().is_some() && !self.is_silent_and_empty() {
            return Ok(());
        }
        let is_over = sys::has_hung_up(self.bell.as_fd())?;
        match self.there() {
            Some(there) => there,
            None if is_over => Err(Trouble::Disconnected),
            None => Err(Trouble::TimedOut),
        }
    }

    /// What may be taken: a frame, or word of the end. A ring that is on its way comes first.
    fn there(&self) -> Option<Result<(), Trouble>> {
        let words = self.memory.words();
        // In this order, since the last frame may have come before the closing.
        let closed = words.writer.0.closed.load(Ordering::SeqCst) != 0;
        let empty = words.lane().is_empty();
        if (empty && !closed) || !self.withdraw() {
            return None;
        }
        Some(if empty {
            Err(Trouble::Disconnected)
        } else {
            Ok(())
        })
    }

    /// Takes a message that is one frame, found by [`next`](Reader::next).
    #[inline(always)]
    fn pass(&mut self, frame: Frame) {
        let length = frame.length();
        self.reader.pass(&self.memory, frame);
        self.taken(length);
        self.settle();
    }

    #[inline]
    fn take(&mut self, frame: Frame) {
        let length = frame.length();
        self.reader.take(&self.memory, frame);
        self.taken(length);
    }

    #[inline(always)]
    fn taken(&mut self, length: usize) {
        // Nobody waits for what little this makes room for, so whether anybody does need not be asked: a writer that waits wants half
        // of the largest ring, and there is more than half in it. Of that, no more is taken than was found, and then it is
        // looked at again. A writer that does not see yet what was taken is asked for before this end waits itself. Where there is much, it
        // is asked now and then, for the same reason: asking takes as long as receiving.
        const { assert!(LITTLE <= GROWTH.largest as u64 * sys::PAGE as u64 / 4) };
        if !self.reader.found_little() {
            self.unasked += length as u64 + FRAME;
            if self.unasked >= LITTLE / 4 {
                self.unasked = 0;
                self.offer_room();
            }
        }
    }

    /// Wakes the writer if it waits for room and there is enough.
    #[cold]
    fn offer_room(&self) {
        full_fence(); // "anybody waiting"
        let wants = &self.memory.words().writer.0.wants_room;
        let wanted = wants.load(Ordering::SeqCst);
        if wanted != 0 {
            self.give_room(wants, wanted);
        }
    }

    #[cold]
    fn give_room(&self, wants: &AtomicU64, wanted: u64) {
        let words = self.memory.words();
        if wanted != 0 && words.lane().free() >= wanted && wants.swap(0, Ordering::SeqCst) != 0 {
            sys::ring_line(self.line.as_fd());
        }
    }

    /// Whether a receive would not wait: there is a message, or the end.
    pub(super) fn poll(&mut self, patience: Patience) -> Result<bool, RecvError> {
        let polled = self.pump_until_whole(patience);
        self.settle();
        match polled {
            Err(RecvError::Disconnected) => Ok(true),
            // Parts came, and no end of them in time.
            Err(RecvError::Empty | RecvError::Timeout) => Ok(false),
            polled => polled,
        }
    }

    fn pump_until_whole(&mut self, patience: Patience) -> Result<bool, RecvError> {
        let mut frames = 0;
        loop {
            if self.partial.as_ref().is_some_and(Partial::is_complete) {
                return Ok(true);
            }
            match self.frame(patience)? {
                None => return Ok(false),
                Some(frame) if matches!(frame.kind(), kind::VALUE | kind::BYTES) => {
                    return Ok(true);
                }
                Some(frame) => self.pump(frame)?,
            }
            self.go_on(&mut frames, patience)?;
        }
    }

    /// From here on the descriptor that this gives, one for both bells, is kept readable while there is something.
    pub(super) fn watch(&self) -> io::Result<OwnedFd> {
        let own_bell = match self.own_bell.get() {
            Some(own_bell) => own_bell,
            None => {
                let own_bell = sys::doorbell()?;
                self.own_bell.get_or_init(|| own_bell)
            }
        };
        let both = sys::either(self.bell.as_fd(), own_bell.as_fd())?;
        self.put_right();
        Ok(both)
    }

    /// Asks to be rung for the next frame.
    fn ask(&self) {
        // Where it was asked for already it is for the same frame, and its ring may be on its way.
        if !self.asked.replace(true) {
            let words = self.memory.words();
            let next = words.lane().head().count().wrapping_add(1);
            words
                .reader
                .0
                .awaits
                .store(asked_for(next), Ordering::SeqCst);
        }
    }

    /// Asks not to be rung. False: the writer has seen the asking, and its ring is on its way.
    #[inline(always)]
    fn withdraw(&self) -> bool {
        !self.asked.get() || self.withdraw_asked()
    }

    #[cold]
    fn withdraw_asked(&self) -> bool {
        let awaits = &self.memory.words().reader.0.awaits;
        if awaits.fetch_and(RINGING, Ordering::SeqCst) & RINGING == 0 {
            self.asked.set(false);
            return true;
        }
        let bell = self.bell.as_fd();
        // A writer that has died does not ring any more.
        let heard = sys::unstrike(bell) || sys::has_hung_up(bell).unwrap_or(false);
        if heard {
            self.hear();
        }
        heard
    }

    /// No ring is on its way any more.
    fn hear(&self) {
        let awaits = &self.memory.words().reader.0.awaits;
        awaits.store(UNASKED, Ordering::SeqCst);
        self.asked.set(false);
    }

    /// Silences the bell that is ours, asks to be rung, and says whether there is nothing still.
    fn is_silent_and_empty(&self) -> bool {
        if let Some(own_bell) = self.own_bell.get()
            && self.own_is_rung.replace(false)
        {
            sys::silence(own_bell.as_fd());
        }
        self.ask();
        self.there().is_none()
    }

    /// Whether a watched end is readable, as far as that is its own doing.
    #[cfg(all(test, mproc_model))]
    pub(super) fn has_rung(&self) -> bool {
        self.own_is_rung.get()
    }

    #[inline(always)]
    fn settle(&self) {
        if self.own_bell.get().is_some() {
            self.put_right();
        }
    }

    /// Has a watched end readable if there is something, and otherwise has the writer make it so.
    fn put_right(&self) {
        let complete = self.partial.as_ref().is_some_and(Partial::is_complete);
        if !complete && self.there().is_none() && self.is_silent_and_empty() {
            return;
        }
        if let Some(own_bell) = self.own_bell.get()
            && !self.own_is_rung.replace(true)
        {
            sys::ring(own_bell.as_fd());
        }
    }

    /// Says that nobody will receive any more.
    pub(super) fn close(&self) {
        if self.process != sys::process_id() {
            return;
        }
        let words = self.memory.words();
        words.reader.0.closed.store(1, Ordering::SeqCst);
        if words.writer.0.wants_room.swap(0, Ordering::SeqCst) != 0 {
            sys::ring_line(self.line.as_fd());
        }
    }
}
