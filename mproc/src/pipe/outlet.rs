//! The writing end of a pipe: frames into the lane, descriptors into the line beside it, and waiting for room.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use super::words::{ASKED, GROWTH, PART, PipeWords, RINGING, WriterSays, asked_for, kind};
use crate::channel_error::{Patience, Trouble};
use crate::courier::{LABEL, Label, Packer};
use crate::shm::atomic::{Ordering, full_fence};
use crate::shm::lane::{Growth, HasLane, Room, Writer};
use crate::shm::memory::Memory;
use crate::sync::{Spin, core};
use crate::sys::{self, Heard};

/// The end: where values are encoded, and what sends them.
pub(super) struct Outlet {
    pub(super) mouth: Mouth,
    pub(super) scratch: Vec<u8>,
}

/// What sends.
pub(super) struct Mouth {
    pub(super) memory: Memory<PipeWords>,
    writer: Writer,
    /// The reader's bell, where it is rung, and where it is heard: see [`sleigh_bell`](sys::sleigh_bell).
    pub(super) bell: Arc<OwnedFd>,
    pub(super) heard: Arc<OwnedFd>,
    /// To the reader: descriptors go, rings for room come, and it hangs up when the reader is gone.
    pub(super) line: Arc<OwnedFd>,
    spin: Spin,
    packer: Packer,
    /// A copy of this process made by `fork` does not close what it did not open.
    process: u32,
}

/// Half of what the ring becomes.
const HALF_A_RING: u64 = GROWTH.largest as u64 * sys::PAGE as u64 / 2;

/// As much scratch as is kept from one message to the next.
pub(super) const KEPT: usize = 1024 * 1024;

impl Outlet {
    pub(super) fn new(
        memory: Memory<PipeWords>,
        bell: Arc<OwnedFd>,
        heard: Arc<OwnedFd>,
        line: Arc<OwnedFd>,
    ) -> Self {
        let mouth = Mouth {
            memory,
            writer: Writer::default(),
            bell,
            heard,
            line,
            spin: Spin::default(),
            packer: Packer::default(),
            process: sys::process_id(),
        };
        Self {
            mouth,
            scratch: Vec::new(),
        }
    }
}

impl Mouth {
    /// Sends a message whole. After an error, nothing of it has been sent.
    // Inlined by force, as what is called here for each message: a call more, and what it brings with it, is a tenth of a short message.
    #[inline(always)]
    pub(super) fn send(
        &mut self,
        short: u8,
        long: u8,
        payload: &[u8],
        handles: &[Arc<OwnedFd>],
        patience: Patience,
    ) -> Result<(), Trouble> {
        let closed = &self.memory.words().reader.0.closed;
        if closed.load(Ordering::Relaxed) != 0 {
            return Err(Trouble::Disconnected);
        }
        if payload.len() <= PART
            && handles.is_empty()
            && self.writer.push(&self.memory, short, payload)
        {
            self.ring();
            return Ok(());
        }
        self.send_with_thought(short, long, payload, handles, patience)
    }

    #[cold]
    fn send_with_thought(
        &mut self,
        short: u8,
        long: u8,
        payload: &[u8],
        handles: &[Arc<OwnedFd>],
        patience: Patience,
    ) -> Result<(), Trouble> {
        let sent = self.send_slowly(short, long, payload, handles, patience);
        self.writer.aim(&self.memory);
        if matches!(sent, Err(Trouble::Disconnected)) {
            // It stays so, whatever room there is. Said where we look at it for each message, and nobody else will.
            let closed = &self.memory.words().reader.0.closed;
            closed.store(1, Ordering::Relaxed);
        }
        sent
    }

    fn send_slowly(
        &mut self,
        short: u8,
        long: u8,
        payload: &[u8],
        handles: &[Arc<OwnedFd>],
        patience: Patience,
    ) -> Result<(), Trouble> {
        // In parts, unless there is no time for it: then it fits as a whole or not at all.
        if payload.len() <= PART || matches!(patience, Patience::None) {
            return self.send_frame(short, payload, handles, GROWTH, patience);
        }
        let length = (payload.len() as u64).to_le_bytes();
        self.send_frame(long, &length, &[], GROWTH, patience)?;
        let growth = if payload.len() as u64 >= HALF_A_RING {
            GROWTH.at_once()
        } else {
            GROWTH
        };
        let mut parts = payload.chunks(PART).peekable();
        while let Some(part) = parts.next() {
            // The descriptors go with the last part: what is taken back after all has not left.
            let handles = if parts.peek().is_none() { handles } else { &[] };
            if let Err(trouble) = self.send_frame(kind::PART, part, handles, growth, patience) {
                self.retract();
                return Err(trouble);
            }
        }
        Ok(())
    }

    /// Sends a frame, which may have descriptors beside it.
    fn send_frame(
        &mut self,
        kind: u8,
        payload: &[u8],
        handles: &[Arc<OwnedFd>],
        growth: Growth,
        patience: Patience,
    ) -> Result<(), Trouble> {
        if handles.is_empty() {
            let room = self.room(payload.len(), growth, patience)?;
            self.writer.commit(&self.memory, room, kind, 0, &[payload]);
        } else {
            // Room first: once the descriptors are in the line, nothing may stop the frame but death.
            let room = self.room(LABEL + payload.len(), growth, patience)?;
            let label = self.send_handles(handles, patience)?;
            let parts = [&label.to_bytes()[..], payload];
            self.writer
                .commit(&self.memory, room, kind, handles.len() as u16, &parts);
        }
        self.ring();
        Ok(())
    }

    /// Packs the descriptors and gives the label under which they go. Those of a message that came to nothing, because there was
    /// no time or no sender left, stay behind, and the reader throws them away when it meets a later number.
    fn send_handles(
        &mut self,
        handles: &[Arc<OwnedFd>],
        patience: Patience,
    ) -> Result<Label, Trouble> {
        let crates = &self.memory.words().writer.0.crates;
        let next = || Ok(crates.fetch_add(1, Ordering::Relaxed).wrapping_add(1));
        loop {
            match self.packer.pack(self.line.as_fd(), next, handles) {
                Ok(label) => return Ok(label),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    match sys::wait_writable(self.line.as_fd(), patience.deadline()?)? {
                        Heard::Bell | Heard::Signal => {}
                        Heard::HungUp => return Err(Trouble::Disconnected),
                        Heard::TimedOut => return Err(Trouble::TimedOut),
                    }
                }
                Err(error) if is_hang_up(&error) => return Err(Trouble::Disconnected),
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Takes back what was sent of a long message: its reader forgets it. There is always room for that.
    fn retract(&mut self) {
        if let Some(room) = self.writer.reserve_last(&self.memory) {
            self.writer
                .commit(&self.memory, room, kind::RETRACTED, 0, &[]);
            self.ring();
        }
    }

    #[inline]
    fn says(&self) -> &WriterSays {
        &self.memory.words().writer.0
    }

    /// Rings if the reader asked for it. After each frame.
    #[inline(always)]
    fn ring(&self) {
        // pairs with "anything there" in `Inlet::wait`
        full_fence();
        let asked = self.memory.words().reader.0.awaits.load(Ordering::SeqCst);
        // Not for an earlier frame than the one it asks for: it has taken that already, without a ring. One that asks for an earlier one
        // has yet to look whether that is there.
        if asked & ASKED != 0 && asked == asked_for(self.memory.words().lane().tail().count()) {
            self.ring_as(asked);
        }
    }

    /// Rings if that is still what the reader asks for. It hears this before it takes anything.
    #[cold]
    fn ring_as(&self, asked: u32) {
        let awaits = &self.memory.words().reader.0.awaits;
        let seen = awaits.compare_exchange(asked, RINGING, Ordering::SeqCst, Ordering::SeqCst);
        if seen.is_ok() {
            self.says().core.store(core(), Ordering::Relaxed);
            sys::strike(self.bell.as_fd());
        }
    }

    #[inline]
    fn room(&mut self, length: usize, growth: Growth, patience: Patience) -> Result<Room, Trouble> {
        match self.writer.reserve(&self.memory, growth, length as u64)? {
            Some(room) => Ok(room),
            None => self.wait_for_room(length as u64, growth, patience),
        }
    }

    #[cold]
    fn wait_for_room(
        &mut self,
        length: u64,
        growth: Growth,
        patience: Patience,
    ) -> Result<Room, Trouble> {
        // Waking up for each frame that is taken would cost more than the frames: half the ring is to be free first.
        let wanted = HALF_A_RING.max(2 * length);
        let enough = length.max(sys::PAGE as u64);
        let deadline = match patience {
            Patience::None if sys::has_hung_up(self.line.as_fd())? => {
                return Err(Trouble::Disconnected);
            }
            patience => patience.deadline()?,
        };
        loop {
            let lane = self.memory.words().lane();
            let says = &self.memory.words().reader.0;
            let head = lane.head();
            let looked = self.spin.until(says.core.load(Ordering::Relaxed), || {
                lane.taken_since(head) >= enough
                    || lane.is_empty()
                    || says.closed.load(Ordering::Relaxed) != 0
            });
            if let Some(room) = self.writer.reserve(&self.memory, growth, length)? {
                return Ok(room);
            }
            let words = self.memory.words();
            let wants = &words.writer.0.wants_room;
            wants.store(wanted, Ordering::SeqCst); // pairs with "anybody waiting" in `Inlet::taken`
            if let Some(room) = self.writer.reserve(&self.memory, growth, length)? {
                wants.store(0, Ordering::SeqCst);
                return Ok(room);
            }
            if words.reader.0.closed.load(Ordering::SeqCst) != 0 {
                return Err(Trouble::Disconnected);
            }
            self.says().core.store(core(), Ordering::Relaxed);
            let heard = sys::wait_line(self.line.as_fd(), deadline)?;
            if let Err(looked) = looked {
                self.spin.slept(looked);
            }
            match heard {
                Heard::Bell | Heard::Signal => sys::empty_line(self.line.as_fd()),
                Heard::HungUp => return Err(Trouble::Disconnected),
                Heard::TimedOut => {}
            }
            // Also after a ring: a peer may ring for nothing, as often as it likes.
            if heard == Heard::TimedOut || deadline.is_over() {
                self.says().wants_room.store(0, Ordering::SeqCst);
                let room = self.writer.reserve(&self.memory, growth, length)?;
                return room.ok_or(Trouble::TimedOut);
            }
        }
    }

    /// Says that no more will come.
    pub(super) fn close(&self) {
        if self.process != sys::process_id() {
            return;
        }
        let words = self.memory.words();
        words.writer.0.closed.store(1, Ordering::SeqCst);
        let asked = words.reader.0.awaits.load(Ordering::SeqCst);
        if asked & ASKED != 0 {
            self.ring_as(asked);
        }
    }
}

fn is_hang_up(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset | io::ErrorKind::NotConnected
    )
}

#[cfg(all(test, not(mproc_model)))]
mod tests {
    use std::time::Duration;

    use super::super::ends;
    use super::*;
    use crate::channel_error::RecvError;
    use crate::sys::Deadline;

    /// A poll that takes something away and gives an error leaves a watched end readable if there is more.
    #[test]
    fn an_error_of_a_poll_hides_nothing() {
        let (mut outlet, mut inlet) = ends().unwrap();
        let watch = inlet.watch().unwrap();
        let mouth = &mut outlet.mouth;
        for kind in [kind::PART, kind::BYTES] {
            let room = mouth.room(1, GROWTH, Patience::None).unwrap();
            let parts: [&[u8]; 1] = [&[1]];
            mouth.writer.commit(&mouth.memory, room, kind, 0, &parts);
            mouth.ring();
        }
        let polled = inlet.poll(Patience::None);
        assert!(matches!(polled, Err(RecvError::Broken(_))), "{polled:?}");
        let now = Deadline::after(Duration::ZERO);
        assert_eq!(sys::wait_many(&[watch.as_fd()], now).unwrap(), [0]);
        assert!(inlet.poll(Patience::None).unwrap());
    }

    /// What is announced is there, whenever a writer is stopped or killed on its way from a frame to its ring.
    #[test]
    fn a_writer_that_stops_before_it_rings() {
        let (mut outlet, mut inlet) = ends().unwrap();
        let watch = inlet.watch().unwrap();
        let readable = || {
            let now = Deadline::after(Duration::ZERO);
            sys::wait_many(&[watch.as_fd()], now).unwrap().len() == 1
        };
        let mouth = &mut outlet.mouth;
        let push = |mouth: &mut Mouth, byte| {
            let room = mouth.room(1, GROWTH, Patience::None).unwrap();
            let parts: [&[u8]; 1] = [&[byte]];
            let kind = kind::BYTES;
            mouth.writer.commit(&mouth.memory, room, kind, 0, &parts);
        };
        // It stops before it looks whether it is to ring: the frame is there, and is not announced afterwards.
        push(mouth, 1);
        assert_eq!(inlet.receive_bytes(9, Patience::None).unwrap(), [1]);
        mouth.ring();
        assert!(!readable());
        // It stops after that: the frame is there when it rings.
        for byte in [2, 3] {
            push(mouth, byte);
            let awaits = &mouth.memory.words().reader.0.awaits;
            assert_ne!(awaits.swap(RINGING, Ordering::SeqCst) & ASKED, 0);
            for _ in 0..2 {
                let received = inlet.receive_bytes(9, Patience::None);
                assert!(matches!(received, Err(RecvError::Empty)));
                assert!(!readable());
                let patience = Patience::of(Duration::from_millis(1));
                let received = inlet.receive_bytes(9, patience);
                assert!(matches!(received, Err(RecvError::Timeout)));
            }
            if byte == 2 {
                sys::strike(mouth.bell.as_fd());
                assert!(readable());
                assert_eq!(inlet.receive_bytes(9, Patience::None).unwrap(), [2]);
                assert!(!readable());
            }
        }
        // It is killed there: the frame is there all the same.
        drop(outlet);
        assert!(readable());
        assert_eq!(inlet.receive_bytes(9, Patience::None).unwrap(), [3]);
        assert!(readable());
        let received = inlet.receive_bytes(9, Patience::None);
        assert!(matches!(received, Err(RecvError::Disconnected)));
    }
}
