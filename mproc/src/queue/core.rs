//! A queue without the type of its items: putting, taking, sleeping, and what the deaths of others leave to do.
//!
//! Each side of the [lane](crate::shm::lane) has a robust lock, its *turn*: who has it is the only writer, or the only reader. An
//! item is encoded before and decoded after, so no code of users runs under a turn, and a turn takes some tens of
//! nanoseconds, or as long as copying a long item.
//!
//! # Sleeping
//!
//! Consumers sleep on the bell `items`, producers of a full queue on the bell `room`, and whoever waits for a turn on the bell of
//! that lock. Each put wakes one consumer, each take one producer, and whoever is woken, and has taken its item, wakes the next one if
//! there is more (*chain*). So nobody is woken for nothing, and a wake-up that went to the wrong one is passed on.
//!
//! # If a process dies here
//!
//! | died                                             | what is left                               | who goes on                                           |
//! |--------------------------------------------------|--------------------------------------------|-------------------------------------------------------|
//! | putting, before `tail` moved                     | bytes that nobody sees                     | the kernel frees the turn and wakes a sleeper         |
//! | putting, after that, before waking anybody       | an item, and perhaps everybody asleep      | the same: it was pending until it had woken whom it has to |
//! | taking, before `head` moved                      | the item, whole                            | the kernel frees the turn and wakes a sleeper         |
//! | taking, after that                               | nothing: the item was in its hands         | the same                                              |
//! | asleep                                           | it is counted as enlisted until a ring finds nobody | –                                            |
//! | woken, before it had the turn                    | an item, and perhaps everybody asleep      | the kernel wakes a sleeper, or who has the turn does  |
//! | woken by the death of who had the other turn     | that one is free, and perhaps somebody sleeps until it is | the same                               |
//!
//! For this, each operation keeps the word of its turn [pending](crate::sys::Pending) from before it takes the turn until it has woken
//! whom it has to wake, and whoever sleeps, for whatever, sleeps on the words of both turns as well. One who was woken [heals](Core::heal):
//! it wakes a sleeper of each bell whose condition holds. The kernel wakes one sleeper for each death, and that is enough, because
//! each that is woken passes on.
//!
//! A process that is *stopped* in the middle of a turn keeps it; deadlines of others hold, and they go on when it does, or is killed. One
//! that is stopped asleep keeps nothing: a signal that stops ends the sleep first. Only between being woken and having the turn does it keep the
//! wake-up, and then the item waits for the next put or get.
//!
//! # Who holds it
//!
//! Each process that holds the queue has opened the file for itself and holds a shared lock on its first byte, which the
//! kernel drops when the last descriptor is gone, in whatever process or unread message that is. So "am I the only one?" has
//! an exact answer at any time. Nobody is *told* when another holder dies, though: who sleeps as perhaps the last one looks again
//! after growing pauses of at most a second. Holders that end normally wake it.

use std::cell::UnsafeCell;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32 as LocalU32, AtomicU64 as LocalU64};
use std::time::Duration;

use super::office::{Fetcher, Office};
use super::words::{CHANGING, GROWTH, ITEM, QueueWords, RUNG, SILENT};
use crate::channel_error::{Patience, Trouble};
use crate::courier::{LABEL, Label, Packer};
use crate::shm::atomic::{Ordering, word};
use crate::shm::lane::{self, Apart, Frame, HasLane, MOST_FRAMES, Reader, Writer};
use crate::shm::memory::Memory;
use crate::sync::{Bell, Looked, Robust, Spin};
use crate::sys::{self, Deadline, PAGE, RobustThread, Woken};
use crate::wire::Handles;

/// The byte of the file on which holders have their lock.
const HOLDERS: u64 = 0;

pub(crate) struct Core {
    memory: Memory<QueueWords>,
    office: Office,
    /// The doorbell of a watched queue.
    doorbell: Arc<OwnedFd>,
    /// Only for who has the producers' turn. Off the cache lines of the rest, since threads of one process may share a queue.
    put_side: Apart<UnsafeCell<PutSide>>,
    /// Only for who has the consumers' turn.
    get_side: Apart<UnsafeCell<GetSide>>,
    /// How looking before sleeping went. Shared by threads, exact for none.
    spin: LocalU64,
    /// The first thread that used this, and whether another one has.
    first_user: LocalU32,
    several_users: AtomicBool,
    /// A copy of this process made by `fork` shares its locks on the file, and is not to let go of them.
    process: u32,
}

#[derive(Default)]
struct PutSide {
    writer: Writer,
    packer: Packer,
}

#[derive(Default)]
struct GetSide {
    reader: Reader,
    fetcher: Fetcher,
}

// SAFETY: everything but the two sides is `Sync`; the sides are used under a lock that has one owner among all threads of all
// processes, and whose taking and freeing are Acquire and Release.
unsafe impl Sync for Core {}

/// What putting can fail with, besides [`Trouble`].
pub(crate) enum NotPut {
    Trouble(Trouble),
    Closed,
}

/// An item that is about to be taken.
pub(crate) struct Taking<'a> {
    /// How many were taken before it, modulo 2³⁰.
    pub(crate) number: u32,
    /// How often it was put back.
    pub(crate) put_back: u8,
    /// Unless there are descriptors, too.
    pub(crate) payload: Option<&'a [u8]>,
}

impl<'a> Taking<'a> {
    #[inline]
    fn of(frame: &Frame, payload: Option<&'a [u8]>) -> Self {
        Self {
            number: frame.count(),
            put_back: frame.kind().saturating_sub(ITEM),
            payload,
        }
    }
}

/// What taking can fail with, besides [`Trouble`].
pub(crate) enum NotTaken {
    Trouble(Trouble),
    Closed,
}

impl<T: Into<Trouble>> From<T> for NotPut {
    fn from(trouble: T) -> Self {
        Self::Trouble(trouble.into())
    }
}

impl<T: Into<Trouble>> From<T> for NotTaken {
    fn from(trouble: T) -> Self {
        Self::Trouble(trouble.into())
    }
}

/// What a `try_` form waits for a turn at most: that is a matter of nanoseconds, unless its owner was stopped.
pub(super) const SHORT: Duration = Duration::from_millis(50);

/// What a form without a deadline that is not to wait at all waits for a turn.
const LONG: Duration = Duration::from_secs(1);

impl Core {
    pub(crate) fn new(capacity: u32) -> io::Result<Self> {
        let memory = lane::create::<QueueWords>(GROWTH)?;
        memory
            .words()
            .state
            .0
            .capacity
            .store(capacity, Ordering::Relaxed);
        sys::lock_byte(memory.file().as_fd(), HOLDERS, false)?;
        Ok(Self::with(
            memory,
            Office::new()?,
            Arc::new(sys::doorbell()?),
        ))
    }

    fn with(memory: Memory<QueueWords>, office: Office, doorbell: Arc<OwnedFd>) -> Self {
        Self {
            memory,
            office,
            doorbell,
            put_side: Apart::default(),
            get_side: Apart::default(),
            spin: LocalU64::new(Spin::default().to_word()),
            first_user: LocalU32::new(0),
            process: sys::process_id(),
            several_users: AtomicBool::new(false),
        }
    }

    /// Opens what [`descriptors`](Self::descriptors) gave.
    pub(crate) fn open(
        file: Arc<OwnedFd>,
        counter: Arc<OwnedFd>,
        shelf: Arc<OwnedFd>,
        doorbell: Arc<OwnedFd>,
    ) -> io::Result<Self> {
        let memory = Memory::open(file)?;
        Ok(Self::with(memory, Office { counter, shelf }, doorbell))
    }

    /// What another process needs: the file, opened anew so that it is another holder from now on, the office, the doorbell.
    pub(crate) fn descriptors(&self) -> io::Result<[Arc<OwnedFd>; 4]> {
        let file = sys::reopen(self.memory.file().as_fd())?;
        sys::lock_byte(file.as_fd(), HOLDERS, false)?;
        let state = &self.words().state.0;
        if state.shared.swap(1, Ordering::SeqCst) == 0 {
            // Who sleeps here may be the last holder from now on, and has to look now and then.
            state.items.ring_all();
        }
        Ok([
            Arc::new(file),
            Arc::clone(&self.office.counter),
            Arc::clone(&self.office.shelf),
            Arc::clone(&self.doorbell),
        ])
    }

    #[inline]
    pub(crate) fn words(&self) -> &QueueWords {
        self.memory.words()
    }

    pub(crate) fn memory(&self) -> &Memory<QueueWords> {
        &self.memory
    }

    pub(crate) fn len(&self) -> usize {
        self.words().lane().len() as usize
    }

    pub(crate) fn capacity(&self) -> Option<usize> {
        match self.words().state.0.capacity.load(Ordering::Relaxed) {
            0 => None,
            capacity => Some(capacity as usize),
        }
    }

    #[inline]
    fn most(&self) -> u32 {
        match self.words().state.0.capacity.load(Ordering::Relaxed) {
            0 => MOST_FRAMES,
            capacity => capacity.min(MOST_FRAMES),
        }
    }

    fn has_room(&self) -> bool {
        self.words().lane().len() < self.most()
    }

    /// The same for who has the producers' turn, who need not touch the consumers' cache line as long as there is much room.
    #[inline]
    fn has_room_in_turn(&self) -> bool {
        self.words().lane().holds_less_than(self.most())
    }

    #[inline]
    pub(crate) fn is_closed(&self) -> bool {
        self.words().state.0.closed.load(Ordering::SeqCst) != 0
    }

    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.words().lane().is_empty()
    }

    /// Whether this is in a copy of the process that made or received it.
    pub(crate) fn is_a_copy(&self) -> bool {
        self.process != sys::process_id()
    }

    /// Notes which threads use this queue.
    #[inline]
    fn used_by(&self, thread: RobustThread) {
        if self.first_user.load(Ordering::Relaxed) != thread.id()
            && !self.several_users.load(Ordering::Relaxed)
        {
            self.used_by_another(thread);
        }
    }

    #[cold]
    fn used_by_another(&self, thread: RobustThread) {
        let first =
            self.first_user
                .compare_exchange(0, thread.id(), Ordering::Relaxed, Ordering::Relaxed);
        if first.is_err() {
            self.several_users.store(true, Ordering::Relaxed);
        }
    }

    /// The thread that made it or received it.
    pub(crate) fn used_here(&self) {
        if let Ok(thread) = RobustThread::current() {
            self.used_by(thread);
        }
    }

    /// Takes a turn. Says whether it had to sleep for it.
    #[inline]
    fn turn(
        &self,
        lock: Robust<'_>,
        thread: RobustThread,
        patience: Patience,
    ) -> Result<bool, Trouble> {
        match lock.take_at_once(thread.id()) {
            true => Ok(false),
            false => self.turn_slowly(lock, thread, patience),
        }
    }

    #[cold]
    fn turn_slowly(
        &self,
        lock: Robust<'_>,
        thread: RobustThread,
        patience: Patience,
    ) -> Result<bool, Trouble> {
        let deadline = match patience {
            Patience::None => Deadline::after(SHORT),
            Patience::Until(deadline) => deadline,
        };
        let mut slept = false;
        let other = self.other_turn(lock);
        let locked = lock.take_slowly(thread.id(), |ticket, state| {
            slept = true;
            // On the other side's word, too: one of that side may have been woken by the death of our turn's owner, and die.
            let (other, other_state) = other.word_and_value();
            let words = [
                (lock.bell.word(), ticket.generation()),
                (word(lock.state), state),
                (word(other), other_state),
            ];
            // A holder may wake for nothing, as often as it likes.
            sys::wait_any(&words, deadline)
                .map(|woken| woken != Woken::TimedOut && !deadline.is_over())
        })?;
        if locked.is_some() {
            Ok(slept)
        } else {
            if slept {
                self.heal();
            }
            Err(Trouble::TimedOut)
        }
    }

    /// That of the other side.
    fn other_turn(&self, lock: Robust<'_>) -> Robust<'_> {
        let words = self.words();
        match std::ptr::eq(lock.state, words.producers().state) {
            true => words.consumers(),
            false => words.producers(),
        }
    }

    /// After a turn: wakes one who waits for that of the other side, if it is free. It was another's to do, who was woken by the death of its owner, and died
    /// during ours.
    #[inline(always)]
    fn pass_on_turn(&self, other: Robust<'_>) {
        if other.bell.is_awaited() && !other.is_locked() {
            other.bell.ring();
        }
    }

    /// Puts an item. `payload` and `handles` are its encoding.
    #[inline]
    pub(crate) fn put(
        &self,
        payload: &[u8],
        handles: &[Arc<OwnedFd>],
        patience: Patience,
    ) -> Result<(), NotPut> {
        let thread = RobustThread::current()?;
        self.used_by(thread);
        let words = self.words();
        let state = &words.state.0;
        let lock = words.producers();
        let pending = thread.pending(word(lock.state));
        let slept = self.turn(lock, thread, patience)?;
        // SAFETY: we have the producers' turn until `free`.
        let side = unsafe { &mut *self.put_side.0.get() };
        if !handles.is_empty() || slept || !self.put_at_once(side, payload) {
            return self.put_in_turns(slept, thread, payload, handles, patience);
        }
        state.items.stir();
        lock.free();
        self.has_put();
        drop(pending);
        Ok(())
    }

    /// Puts an item as most are put: without descriptors, into room that is known, of a queue that is neither closed nor watched. The
    /// caller has the producers' turn.
    #[inline(always)]
    fn put_at_once(&self, side: &mut PutSide, payload: &[u8]) -> bool {
        let state = &self.words().state.0;
        if self.is_closed() || state.watched.load(Ordering::SeqCst) != 0 || !self.has_room_in_turn()
        {
            return false;
        }
        match side
            .writer
            .reserve_at_once(&self.memory, payload.len() as u64)
        {
            Some(room) => {
                side.writer.commit(&self.memory, room, ITEM, 0, &[payload]);
                true
            }
            None => false,
        }
    }

    /// After a put: who is to be woken.
    #[inline(always)]
    fn has_put(&self) {
        let state = &self.words().state.0;
        state.items.ring(); // pairs with "anything there" in `sleep`
        // The next producer, if there is room for it, too: "chain".
        if state.room.is_awaited() && (self.has_room() || self.is_closed()) {
            state.room.ring();
        }
        self.pass_on_turn(self.words().consumers());
    }

    /// Goes on with [`put`](Self::put) in the producers' turn, its word pending.
    #[cold]
    fn put_in_turns(
        &self,
        mut slept: bool,
        thread: RobustThread,
        payload: &[u8],
        handles: &[Arc<OwnedFd>],
        patience: Patience,
    ) -> Result<(), NotPut> {
        let words = self.words();
        let state = &words.state.0;
        let lock = words.producers();
        loop {
            if self.is_closed() {
                lock.free();
                self.owed(words.consumers());
                self.pass_on(slept);
                return Err(NotPut::Closed);
            }
            if self.has_room_in_turn() {
                // SAFETY: we have the producers' turn until `free`.
                let side = unsafe { &mut *self.put_side.0.get() };
                let put = self.put_in_turn(side, ITEM, payload, handles);
                state.items.stir();
                lock.free();
                if put.is_err() {
                    self.owed(words.consumers());
                }
                self.has_put();
                self.pass_on(slept);
                return put.map_err(NotPut::from);
            }
            lock.free();
            self.owed(words.consumers());
            self.pass_on(slept);
            let deadline = patience.deadline()?;
            let ready = || self.has_room() || self.is_closed();
            if let Err(looked) = self.look(ready) {
                slept = true;
                let in_time = self.sleep(&state.room, ready, deadline)?;
                self.learn(looked);
                if !in_time {
                    self.heal();
                    return Err(Trouble::TimedOut.into());
                }
            }
            slept |= self.turn(lock, thread, patience)?;
        }
    }

    /// Puts an item back, for the `time`th time: behind all others, whether or not there is room for it, also into a queue that is closed.
    pub(crate) fn put_back(&self, payload: &[u8], time: u8) -> io::Result<()> {
        let thread = RobustThread::current()?;
        let state = &self.words().state.0;
        let lock = self.words().producers();
        let _pending = thread.pending(word(lock.state));
        match self.turn(lock, thread, Patience::of(LONG)) {
            Ok(_) => {}
            Err(Trouble::Io(error)) => return Err(error),
            Err(_) => return Err(io::ErrorKind::TimedOut.into()),
        }
        // SAFETY: we have the producers' turn until `free`.
        let side = unsafe { &mut *self.put_side.0.get() };
        let put = self.put_in_turn(side, ITEM + time, payload, &[]);
        state.items.stir();
        lock.free();
        state.items.ring();
        self.pass_on(true);
        put
    }

    fn put_in_turn(
        &self,
        side: &mut PutSide,
        kind: u8,
        payload: &[u8],
        handles: &[Arc<OwnedFd>],
    ) -> io::Result<()> {
        let words = self.words();
        let label = if handles.is_empty() { 0 } else { LABEL };
        // Room first: once the descriptors are packed, nothing may stop the item but death.
        let length = (label + payload.len()) as u64;
        let room = side.writer.reserve(&self.memory, GROWTH, length)?;
        let Some(room) = room else {
            return Err(io::ErrorKind::StorageFull.into());
        };
        let state = &words.state.0;
        if handles.is_empty() {
            self.announce(state.watched.load(Ordering::SeqCst) != 0);
            side.writer.commit(&self.memory, room, kind, 0, &[payload]);
        } else {
            let label = self
                .office
                .pack(&words.courier.0, &mut side.packer, handles)?;
            self.announce(state.watched.load(Ordering::SeqCst) != 0);
            let parts = [&label.to_bytes()[..], payload];
            side.writer
                .commit(&self.memory, room, ITEM, handles.len() as u16, &parts);
        }
        Ok(())
    }

    /// Makes the doorbell readable if the queue is watched. BEFORE the item is visible: a producer that dies in between has rung for
    /// nothing, which is found out, and one that died the other way round would leave an item that nobody hears of. The
    /// caller has the producers' turn.
    #[inline]
    fn announce(&self, watched: bool) {
        let rung = &self.words().state.0.rung;
        if watched && rung.load(Ordering::SeqCst) != RUNG {
            rung.store(CHANGING, Ordering::SeqCst);
            sys::ring(self.doorbell.as_fd());
            rung.store(RUNG, Ordering::SeqCst);
        }
    }

    /// Takes the next item: its bytes into `bytes`, which is empty, and its descriptors into `handles`. `before` runs in the turn, just before the item is gone from the
    /// queue; after an error it stays. `own`: as many as this process has of this at least, while the caller's is the only handle.
    #[inline]
    pub(crate) fn take(
        self: &Arc<Self>,
        bytes: &mut Vec<u8>,
        handles: &mut Handles,
        patience: Patience,
        own: usize,
        mut before: impl FnMut(&Taking<'_>) -> io::Result<()>,
    ) -> Result<(), NotTaken> {
        let thread = RobustThread::current()?;
        self.used_by(thread);
        let lock = self.words().consumers();
        let pending = thread.pending(word(lock.state));
        // Without asking first whether there is anything: the turn tells that without touching the producers' cache line.
        let slept = self.turn(lock, thread, patience)?;
        // SAFETY: we have the consumers' turn until `free`.
        let side = unsafe { &mut *self.get_side.0.get() };
        // As most are taken: without descriptors, from where the last one was.
        let frame = match side.reader.peek_at_once(&self.memory) {
            Some(frame) if frame.handles() == 0 && !slept => frame,
            _ => return self.take_in_turns(slept, thread, bytes, handles, patience, own, before),
        };
        side.reader.copy(&frame, bytes);
        let taken = before(&Taking::of(&frame, Some(bytes)));
        if taken.is_ok() {
            side.reader.take(&self.memory, frame);
        }
        let large = side.reader.is_large(GROWTH);
        self.words().state.0.room.stir();
        lock.free();
        self.taken(thread, false, large);
        drop(pending);
        taken.map_err(NotTaken::from)
    }

    /// Goes on with [`take`](Self::take) in the consumers' turn, its word pending.
    #[cold]
    #[expect(clippy::too_many_arguments, reason = "they are those of `take`")]
    fn take_in_turns(
        self: &Arc<Self>,
        mut slept: bool,
        thread: RobustThread,
        bytes: &mut Vec<u8>,
        handles: &mut Handles,
        patience: Patience,
        own: usize,
        mut before: impl FnMut(&Taking<'_>) -> io::Result<()>,
    ) -> Result<(), NotTaken> {
        let words = self.words();
        let state = &words.state.0;
        let lock = words.consumers();
        let mut pause = FIRST_PAUSE;
        loop {
            // SAFETY: we have the consumers' turn until `free`.
            let side = unsafe { &mut *self.get_side.0.get() };
            let taken = self.take_in_turn(side, bytes, handles, &mut before);
            let large = side.reader.is_large(GROWTH);
            state.room.stir();
            lock.free();
            match taken {
                Ok(true) => {
                    self.taken(thread, slept, large);
                    return Ok(());
                }
                Ok(false) => {
                    self.owed(words.producers());
                    // Whoever died, or was refused something, in a put, or died after the last take, has not given back what it should.
                    if words.lane().has_more_than(GROWTH) && self.is_empty() {
                        self.shrink(thread);
                    }
                }
                Err(error) => {
                    self.taken(thread, slept, large);
                    return Err(error.into());
                }
            }
            loop {
                // Looked at BEFORE the queue is found empty: what was put before the closing is still to be taken.
                let closed = self.is_closed();
                if !self.is_empty() {
                    break;
                }
                self.pass_on(slept);
                self.quieten(thread);
                if words.courier.0.has_litter() {
                    self.clear_up(thread);
                }
                if !self.is_empty() {
                    break; // Whoever is told that there is nothing waits for the next edge.
                }
                if closed {
                    return Err(NotTaken::Closed);
                }
                let deadline = patience.deadline()?;
                let ready = || !self.is_empty() || self.is_closed();
                let Err(looked) = self.look(ready) else {
                    continue;
                };
                let perhaps_last = self.is_perhaps_last();
                let until = if perhaps_last {
                    // Asked each time: other handles of this process come and go, too, and do not ring.
                    let is_last = self.is_alone(own) && !self.others_hold()?;
                    if is_last && self.is_empty() {
                        return Err(Trouble::Disconnected.into());
                    }
                    pause = (2 * pause).min(LONGEST_PAUSE);
                    deadline.within(pause)
                } else {
                    deadline
                };
                slept = true;
                let ready = || ready() || self.is_perhaps_last() != perhaps_last;
                let in_time = self.sleep(&state.items, ready, until)?;
                self.learn(looked);
                if !in_time && deadline.is_over() {
                    self.heal();
                    return Err(Trouble::TimedOut.into());
                }
            }
            slept |= self.turn(lock, thread, patience)?;
        }
    }

    fn take_in_turn(
        &self,
        side: &mut GetSide,
        bytes: &mut Vec<u8>,
        handles: &mut Handles,
        before: &mut impl FnMut(&Taking<'_>) -> io::Result<()>,
    ) -> io::Result<bool> {
        let frame = match side.reader.peek_at_once(&self.memory) {
            Some(frame) => frame,
            None => match side.reader.peek(&self.memory)? {
                Some(frame) => frame,
                None => return Ok(false),
            },
        };
        if frame.handles() == 0 {
            side.reader.copy(&frame, bytes);
            before(&Taking::of(&frame, Some(bytes)))?;
            side.reader.take(&self.memory, frame);
            return Ok(true);
        }
        *handles = self.take_with_handles(side, frame, bytes, before)?;
        Ok(true)
    }

    fn take_with_handles(
        &self,
        side: &mut GetSide,
        frame: Frame,
        bytes: &mut Vec<u8>,
        before: &mut impl FnMut(&Taking<'_>) -> io::Result<()>,
    ) -> io::Result<Handles> {
        let words = &self.words().courier.0;
        side.reader.copy(&frame, bytes);
        let label = Label::from_bytes(bytes);
        let count = usize::from(frame.handles());
        let looked = match label {
            Some(label) => side.fetcher.look(&self.office, words, label, count),
            None => Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "an item without its label",
            )),
        };
        let handles = match looked {
            Ok(handles) => handles,
            // The message is used up, unless it is we who have no room: then it stays.
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                before(&Taking::of(&frame, None))?;
                side.reader.take(&self.memory, frame);
                return Err(error);
            }
            Err(error) => return Err(error),
        };
        before(&Taking::of(&frame, None))?;
        side.reader.take(&self.memory, frame);
        if let Some(label) = label {
            side.fetcher.done(&self.office, words, label);
        }
        bytes.drain(..LABEL);
        Ok(handles)
    }

    /// After a take: who is to be woken, and what is to be given back.
    #[inline]
    fn taken(&self, thread: RobustThread, slept: bool, large: bool) {
        let state = &self.words().state.0;
        if state.room.is_awaited() {
            state.room.ring();
        }
        // The next consumer, if there is more: "chain".
        if state.items.is_awaited() && !self.is_empty() {
            state.items.ring();
        }
        self.pass_on_turn(self.words().producers());
        self.pass_on(slept);
        if state.rung.load(Ordering::SeqCst) != SILENT && self.is_empty() {
            self.quieten(thread);
        }
        if large && self.is_empty() {
            self.shrink(thread);
        }
    }

    /// After a turn in which there was nothing to do: one who died meanwhile, and owed somebody a wake-up, was not looked after by the
    /// kernel, because the turn was ours.
    #[inline]
    fn owed(&self, other: Robust<'_>) {
        self.pass_on_turn(other);
        let state = &self.words().state.0;
        if state.items.is_awaited() && (!self.is_empty() || self.is_closed()) {
            state.items.ring();
        }
        if state.room.is_awaited() && (self.has_room() || self.is_closed()) {
            state.room.ring();
        }
    }

    /// Silences the doorbell of a watched queue that is empty.
    #[inline]
    fn quieten(&self, thread: RobustThread) {
        if self.words().state.0.rung.load(Ordering::SeqCst) != SILENT {
            self.quieten_slowly(thread);
        }
    }

    #[cold]
    fn quieten_slowly(&self, thread: RobustThread) {
        let words = self.words();
        let state = &words.state.0;
        let lock = words.producers();
        let _pending = thread.pending(word(lock.state));
        // In the producers' turn, because then nobody puts: an item cannot come between the look and the silence.
        if self.turn(lock, thread, Patience::None).is_err() {
            // It stays readable, and the next one to find nothing tries again. Who waits for an edge gets one.
            sys::ring(self.doorbell.as_fd());
            return;
        }
        if self.is_empty() && !self.is_closed() {
            state.rung.store(CHANGING, Ordering::SeqCst);
            sys::silence(self.doorbell.as_fd());
            state.rung.store(SILENT, Ordering::SeqCst);
            // By one who did not wait for our turn: see `close`.
            if self.is_closed() {
                self.announce(true);
            }
        }
        lock.free();
        self.pass_on(true);
    }

    /// Lets go of the descriptors of items that are not there any more.
    #[cold]
    fn clear_up(&self, thread: RobustThread) {
        let words = self.words();
        let lock = words.producers();
        let _pending = thread.pending(word(lock.state));
        if lock.try_take(thread.id()).is_none() {
            return; // Somebody puts, so it will be found empty again.
        }
        // In this order: one who has taken the last item, and is throwing its packet away, has the turn, and whoever takes the turn from
        // now on finds no item.
        if self.is_empty() && !words.consumers().is_locked() {
            // OK to ignore: it is tried again the next time.
            let _ = self.office.clear_up(&words.courier.0);
        }
        lock.free();
        self.pass_on(true);
    }

    /// Gives the memory of a queue that has been long and is empty back.
    #[cold]
    fn shrink(&self, thread: RobustThread) {
        let lock = self.words().producers();
        let _pending = thread.pending(word(lock.state));
        if lock.try_take(thread.id()).is_none() {
            return; // Somebody puts, so it is not empty, or will be found so again.
        }
        if self.is_empty() {
            // SAFETY: we have the producers' turn.
            let side = unsafe { &mut *self.put_side.0.get() };
            // OK to ignore: the memory is used again, or goes with the queue.
            let _ = side.writer.shrink(&self.memory, GROWTH);
        }
        lock.free();
        self.pass_on(true);
    }

    /// Looks for a while. An error says how to learn from the sleep.
    fn look(&self, ready: impl FnMut() -> bool) -> Result<(), Looked> {
        let word = self.spin.load(Ordering::Relaxed);
        let mut spin = Spin::from_word(word);
        spin.until(0, ready)?;
        spin.met(self.words().lane().len());
        if spin.to_word() != word {
            self.spin.store(spin.to_word(), Ordering::Relaxed);
        }
        Ok(())
    }

    fn learn(&self, looked: Looked) {
        let mut spin = Spin::from_word(self.spin.load(Ordering::Relaxed));
        spin.slept(looked);
        self.spin.store(spin.to_word(), Ordering::Relaxed);
    }

    /// Sleeps until the bell rings, a process dies in its turn, or `ready`. False: the time is over. The caller's turn is pending.
    fn sleep(&self, bell: &Bell, ready: impl Fn() -> bool, deadline: Deadline) -> io::Result<bool> {
        let words = self.words();
        let ticket = bell.enlist();
        let (producers, puts) = words.producers().word_and_value();
        let (consumers, takes) = words.consumers().word_and_value();
        // Enlisted BEFORE looking, or something could come in between and nobody would ring: "anything there".
        let woken = if ready() {
            Ok(Woken::Perhaps)
        } else {
            let words = [
                (bell.word(), ticket.generation()),
                (word(producers), puts),
                (word(consumers), takes),
            ];
            sys::wait_any(&words, deadline)
        };
        bell.delist(ticket);
        // A holder may wake for nothing, as often as it likes.
        Ok(woken? != Woken::TimedOut && !deadline.is_over() || ready())
    }

    #[inline]
    fn pass_on(&self, slept: bool) {
        if slept {
            self.heal();
        }
    }

    /// Wakes a sleeper of each bell whose condition holds: one who died may have had to, or may have been woken in vain.
    #[cold]
    fn heal(&self) {
        let words = self.words();
        for lock in [words.producers(), words.consumers()] {
            if !lock.is_locked() {
                lock.bell.ring();
            }
        }
        let state = &words.state.0;
        let closed = self.is_closed();
        if closed || !self.is_empty() {
            state.items.ring();
        }
        if closed || self.has_room() {
            state.room.ring();
        }
    }

    /// Does something while nobody takes an item.
    pub(crate) fn in_consumers_turn<T>(
        &self,
        deadline: Deadline,
        act: impl FnOnce() -> T,
    ) -> io::Result<T> {
        let thread = RobustThread::current()?;
        let lock = self.words().consumers();
        let _pending = thread.pending(word(lock.state));
        match self.turn(lock, thread, Patience::Until(deadline)) {
            Ok(_) => {}
            Err(Trouble::Io(error)) => return Err(error),
            Err(_) => return Err(io::ErrorKind::TimedOut.into()),
        }
        let result = act();
        lock.free();
        self.pass_on(true);
        Ok(result)
    }

    /// Whether this process has no other handle, having `own` of this at least.
    pub(crate) fn is_alone(self: &Arc<Self>, own: usize) -> bool {
        Arc::strong_count(self) <= own
    }

    /// Whether there may be no other holder: others had it, and in this process one thread has used it.
    pub(crate) fn is_perhaps_last(&self) -> bool {
        self.words().state.0.shared.load(Ordering::SeqCst) != 0
            && !self.several_users.load(Ordering::Relaxed)
    }

    /// Whether it was sent to another process.
    pub(crate) fn was_sent(&self) -> bool {
        self.words().state.0.shared.load(Ordering::SeqCst) != 0
    }

    pub(crate) fn others_hold(&self) -> io::Result<bool> {
        sys::is_byte_locked(self.memory.file().as_fd(), HOLDERS)
    }

    /// Nothing more may be put from here on.
    pub(crate) fn close(&self) -> io::Result<()> {
        let thread = RobustThread::current()?;
        let words = self.words();
        let lock = words.producers();
        let _pending = thread.pending(word(lock.state));
        // In the turn, so that whoever sees the closing sees all items. One who has been stopped in its turn does not stop this.
        let turn = match self.turn(lock, thread, Patience::of(LONG)) {
            Err(Trouble::Io(error)) => return Err(error),
            turn => turn.is_ok(),
        };
        let state = &words.state.0;
        self.announce(state.watched.load(Ordering::SeqCst) != 0);
        state.closed.store(1, Ordering::SeqCst);
        if turn {
            state.items.stir();
            state.room.stir();
            lock.free();
        } else {
            // Whose turn it is may have been stopped about to silence what has just been rung. Either we see that it has, or it sees the closing.
            self.announce(state.watched.load(Ordering::SeqCst) != 0);
        }
        state.items.ring_all();
        state.room.ring_all();
        self.heal();
        Ok(())
    }

    /// The doorbell, which is readable from now on while there is an item, or the end.
    pub(crate) fn watch(&self) -> io::Result<&OwnedFd> {
        let words = self.words();
        let state = &words.state.0;
        if state.watched.load(Ordering::SeqCst) == 0 {
            let thread = RobustThread::current()?;
            let lock = words.producers();
            let _pending = thread.pending(word(lock.state));
            match self.turn(lock, thread, Patience::of(LONG)) {
                Ok(_) => {}
                Err(Trouble::Io(error)) => return Err(error),
                Err(_) => return Err(io::ErrorKind::TimedOut.into()),
            }
            state.watched.store(1, Ordering::SeqCst);
            if !self.is_empty() || self.is_closed() {
                self.announce(true);
            }
            lock.free();
            self.pass_on(true);
        }
        Ok(&self.doorbell)
    }
}

/// How long one who is perhaps the last holder sleeps before it looks whether it is.
pub(crate) const FIRST_PAUSE: Duration = Duration::from_millis(10);
pub(crate) const LONGEST_PAUSE: Duration = Duration::from_secs(1);

impl Drop for Core {
    fn drop(&mut self) {
        if self.is_a_copy() {
            return;
        }
        sys::unlock_byte(self.memory.file().as_fd(), HOLDERS);
        // Somebody may be the last one now, and sleep.
        self.words().state.0.items.ring_all();
    }
}

const _: () = assert!(size_of::<QueueWords>() <= PAGE);

#[cfg(all(test, mproc_model))]
#[path = "model.rs"]
mod model;

#[cfg(all(test, not(mproc_model)))]
mod tests {
    use super::*;

    const LARGE: u64 = 64 << 20;

    fn look(core: &Arc<Core>) -> Result<(), NotTaken> {
        let (mut bytes, mut handles) = (Vec::new(), Handles::new());
        core.take(&mut bytes, &mut handles, Patience::None, 1, |_| Ok(()))
    }

    /// Whoever finds nothing gives back what others have left, at the latest when it looks again.
    fn is_given_back(core: &Arc<Core>) {
        assert!(core.memory.holds(LARGE));
        assert!(look(core).is_err() && look(core).is_err());
        assert!(!core.memory.holds(2 << 20));
        assert!(core.put(&[1; 8], &[], Patience::None).is_ok());
        assert!(look(core).is_ok());
    }

    #[test]
    fn memory_that_a_dead_producer_found_is_given_back() {
        for count in 0..2 {
            let core = Arc::new(Core::new(0).unwrap());
            (0..count).for_each(|_| assert!(core.put(&[1; 8], &[], Patience::None).is_ok()));
            // SAFETY: nobody else has the queue.
            let side = unsafe { &mut *core.put_side.0.get() };
            let room = side.writer.reserve(&core.memory, GROWTH, LARGE);
            room.unwrap().unwrap();
            (0..count).for_each(|_| assert!(look(&core).is_ok()));
            is_given_back(&core);
        }
    }

    #[test]
    fn memory_that_a_dead_consumer_left_is_given_back() {
        let core = Arc::new(Core::new(0).unwrap());
        let large = vec![1; LARGE as usize];
        assert!(core.put(&large, &[], Patience::None).is_ok());
        // SAFETY: nobody else has the queue.
        let side = unsafe { &mut *core.get_side.0.get() };
        let frame = side.reader.peek(&core.memory).unwrap().unwrap();
        side.reader.take(&core.memory, frame);
        is_given_back(&core);
    }

    #[test]
    fn memory_of_an_item_that_was_refused_is_given_back() {
        let mut core = Core::new(0).unwrap();
        // An office that takes nothing.
        core.office.shelf = Arc::clone(&core.office.counter);
        let core = Arc::new(core);
        let handle: Arc<OwnedFd> = Arc::new(std::fs::File::open("/dev/null").unwrap().into());
        let large = vec![1; LARGE as usize];
        assert!(core.put(&large, &[handle], Patience::None).is_err());
        is_given_back(&core);
    }
}
