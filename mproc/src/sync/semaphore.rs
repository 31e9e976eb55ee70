//! Permits: the words of [`Semaphore`](crate::Semaphore).
//!
//! How many permits are free is one word; the permits that threads hold stand in their [seats](super::roster). Both change only in a
//! *turn*, a [robust lock](RobustLock) that is held for some tens of nanoseconds and never while code of users runs.
//!
//! # State
//!
//! | words             | meaning                                | changed by        | if that process dies here                              |
//! |-------------------|----------------------------------------|-------------------|--------------------------------------------------------|
//! | `value`           | how many permits are free              | who has the turn  | see `journal`                                          |
//! | `count` of a seat | how many its holder has                | who has the turn  | whoever needs a permit takes them back                 |
//! | `journal`         | what `value` and `count` are about to be | who has the turn | whoever has the turn next does it once more           |
//! | `freed`           | sleepers                               | acquire           | a dead sleeper stays counted until a ring finds nobody |
//!
//! # Sleeping
//!
//! Who finds no permit sleeps on `freed`, on the word of the turn, and on the words of all seats. A release wakes one on `freed`. The
//! kernel wakes one on the seat of a holder that dies, without anybody looking for it. Each operation keeps the word of the turn
//! pending to its end, so one that dies having been woken, or before it has woken somebody, wakes another (see [`robust`](super::robust)); and
//! whoever leaves the turn looks whether there is something for one who sleeps (*chain*). A sleeper that enlists looks after that whether
//! there is anything; between its look and its sleep it is kept awake by `stir`, or by the change of a seat's word.
//!
//! The kernel takes 128 words. Beyond [`WATCHED`] seats, sleepers look again each second.
//!
//! # Invariants
//!
//! 1. Free permits and those in seats are as many as there were at first, and were added by signalling, less those given away; at every
//!    instruction if an open journal is counted as done.
//! 2. `count` of a free seat is 0.

use std::io;
use std::time::Duration;

use super::bell::Bell;
use super::robust::RobustLock;
use super::roster::{HasRoster, Roster, RosterWords, Unseated};
use crate::shm::atomic::{AtomicU32, Ordering, word};
use crate::shm::memory::PageOfWords;
use crate::sys::{self, Deadline, MOST_WORDS, RobustThread, Woken};

#[repr(C)]
#[derive(Debug, Default)]
pub(crate) struct SemaphoreWords {
    roster: RosterWords,
    turn: RobustLock,
    freed: Bell,
    value: AtomicU32,
    /// How many permits there may be; 0: any number.
    bound: AtomicU32,
    journal: Journal,
}

#[repr(C)]
#[derive(Debug, Default)]
struct Journal {
    /// Not 0: the rest is to be done.
    open: AtomicU32,
    value: AtomicU32,
    /// Plus one; 0: none.
    seat: AtomicU32,
    count: AtomicU32,
}

// SAFETY: atomics only; any bytes are valid ones.
unsafe impl PageOfWords for SemaphoreWords {}

impl HasRoster for SemaphoreWords {
    fn roster(&self) -> &RosterWords {
        &self.roster
    }
}

/// How many seats a sleeper watches.
pub(crate) const WATCHED: u32 = MOST_WORDS as u32 - 4;

/// How long one sleeps who cannot watch all.
pub(crate) const GLANCE: Duration = Duration::from_secs(1);

/// What a form that is not to wait waits for a turn at most: that is a matter of nanoseconds, unless its owner was stopped.
pub(super) const SHORT: Duration = Duration::from_millis(50);

pub(crate) struct SemaphoreCore {
    roster: Roster<SemaphoreWords>,
}

/// Why there is no permit.
#[derive(Debug)]
pub(crate) enum NoPermit {
    /// There is none now.
    None,
    TimedOut,
    TooMany,
    Io(io::Error),
}

impl From<io::Error> for NoPermit {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// A semaphore has as many permits as it may.
#[derive(Debug)]
pub(crate) enum NotReleased {
    TooOften,
    Io(io::Error),
}

impl From<io::Error> for NotReleased {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// The turn of one of these modules' words. The word is pending. Whether it was to be had in time.
pub(crate) fn enter(
    turn: &RobustLock,
    thread: RobustThread,
    deadline: Deadline,
) -> io::Result<bool> {
    turn.lock_with(thread.id(), |turn, ticket, state| {
        let words = [
            (turn.bell().word(), ticket.generation()),
            (word(turn.word()), state),
        ];
        sys::wait_any(&words, deadline).map(|woken| woken != Woken::TimedOut)
    })
}

impl SemaphoreCore {
    pub(crate) fn over(roster: Roster<SemaphoreWords>) -> Self {
        Self { roster }
    }

    /// Before anybody else has it.
    pub(crate) fn begin(&self, value: u32, bound: u32) {
        let words = self.words();
        words.value.store(value, Ordering::SeqCst);
        words.bound.store(bound, Ordering::SeqCst);
    }

    pub(crate) fn roster(&self) -> &Roster<SemaphoreWords> {
        &self.roster
    }

    fn words(&self) -> &SemaphoreWords {
        self.roster.words()
    }

    pub(crate) fn bound(&self) -> u32 {
        self.words().bound.load(Ordering::SeqCst)
    }

    /// Takes a permit; gives the seat in which it stands. `deadline`: `None` is not to wait.
    pub(crate) fn acquire(&self, deadline: Option<Deadline>) -> Result<u32, NoPermit> {
        let thread = RobustThread::current()?;
        let words = self.words();
        let _pending = thread.pending(word(words.turn.word()));
        let for_turn = deadline.unwrap_or_else(|| Deadline::after(SHORT));
        let mut in_time = true;
        loop {
            if !enter(&words.turn, thread, for_turn)? {
                self.pass_on();
                return Err(match deadline {
                    None => NoPermit::None,
                    Some(_) => NoPermit::TimedOut,
                });
            }
            let taken = self.take_in_turn(thread);
            self.leave();
            if let Some(seat) = taken? {
                return Ok(seat);
            }
            let deadline = deadline.ok_or(NoPermit::None)?;
            if !in_time {
                return Err(NoPermit::TimedOut);
            }
            in_time = self.sleep(deadline)?;
        }
    }

    fn take_in_turn(&self, thread: RobustThread) -> Result<Option<u32>, NoPermit> {
        let words = self.words();
        self.finish();
        if words.value.load(Ordering::SeqCst) == 0 {
            self.take_back();
        }
        let value = words.value.load(Ordering::SeqCst);
        if value == 0 {
            return Ok(None);
        }
        let seat = match self.roster.seat_of(thread) {
            Some(seat) => seat,
            None => {
                let empty = |seat: &super::roster::Seat| seat.count.store(0, Ordering::Release);
                let listen_anew = || words.freed.ring_all_if_awaited();
                let claimed = self.roster.claim(thread, listen_anew, empty);
                let claimed = match claimed {
                    // Perhaps the dead keep them all.
                    Err(Unseated::TooMany) if self.take_back() => {
                        self.roster.claim(thread, listen_anew, empty)
                    }
                    claimed => claimed,
                };
                claimed.map_err(|error| match error {
                    Unseated::TooMany => NoPermit::TooMany,
                    Unseated::Io(error) => NoPermit::Io(error),
                })?
            }
        };
        let count = self.roster.seat(seat).count.load(Ordering::SeqCst);
        self.change(value - 1, Some((seat, count.saturating_add(1))));
        Ok(Some(seat))
    }

    /// Gives a permit that stands in a seat back, or, `away`, to nobody. Nothing happens if the calling thread does not have the seat, as in a copy of
    /// the process made by `fork`.
    pub(crate) fn give_back(&self, seat: u32, away: bool) -> io::Result<()> {
        let thread = RobustThread::current()?;
        if !self.roster.is_held_by(seat, thread) {
            return Ok(());
        }
        let words = self.words();
        let _pending = thread.pending(word(words.turn.word()));
        enter(&words.turn, thread, Deadline::NEVER)?;
        self.finish();
        let count = self.roster.seat(seat).count.load(Ordering::SeqCst);
        let value = words.value.load(Ordering::SeqCst);
        let value = if away { value } else { value.saturating_add(1) };
        let count = count.saturating_sub(1);
        self.change(value, Some((seat, count)));
        if count == 0 {
            self.roster.vacate(thread, seat);
        }
        self.leave();
        Ok(())
    }

    /// Adds a permit that nobody held.
    pub(crate) fn signal(&self) -> Result<(), NotReleased> {
        let thread = RobustThread::current()?;
        let words = self.words();
        let _pending = thread.pending(word(words.turn.word()));
        enter(&words.turn, thread, Deadline::NEVER)?;
        self.finish();
        let bound = words.bound.load(Ordering::SeqCst);
        let value = words.value.load(Ordering::SeqCst);
        let there = match bound {
            0 => u64::from(value),
            _ => u64::from(value) + self.held(),
        };
        let most = if bound == 0 { u32::MAX } else { bound };
        let fits = there < u64::from(most);
        if fits {
            self.change(value + 1, None);
        }
        self.leave();
        if fits {
            Ok(())
        } else {
            Err(NotReleased::TooOften)
        }
    }

    /// How many permits stand in seats. In a turn.
    fn held(&self) -> u64 {
        let seats = (0..self.roster.used()).filter(|seat| self.roster.state(*seat) != 0);
        let counts = seats.map(|seat| self.roster.seat(seat).count.load(Ordering::SeqCst));
        counts.map(u64::from).sum()
    }

    /// How many permits are free.
    pub(crate) fn value(&self) -> io::Result<u32> {
        let thread = RobustThread::current()?;
        let words = self.words();
        let _pending = thread.pending(word(words.turn.word()));
        if !enter(&words.turn, thread, Deadline::after(SHORT))? {
            return Ok(words.value.load(Ordering::SeqCst));
        }
        self.finish();
        self.take_back();
        let value = words.value.load(Ordering::SeqCst);
        self.leave();
        Ok(value)
    }

    /// How many are free at the end of a model, when those of the dead were taken back.
    #[cfg(all(test, mproc_model))]
    pub(super) fn free_in_model(&self) -> u32 {
        self.finish();
        self.take_back();
        self.words().value.load(Ordering::SeqCst)
    }

    /// Changes both words as if they were one. In a turn.
    fn change(&self, value: u32, seat: Option<(u32, u32)>) {
        let journal = &self.words().journal;
        // Release: each is stored after those before it, so an open journal is a whole one.
        journal.value.store(value, Ordering::Release);
        let (seat, count) = seat.map_or((0, 0), |(seat, count)| (seat + 1, count));
        journal.seat.store(seat, Ordering::Release);
        journal.count.store(count, Ordering::Release);
        journal.open.store(1, Ordering::Release);
        self.finish();
    }

    /// Does what the journal says. First of all in each turn: its last owner may have died in the middle.
    fn finish(&self) {
        let words = self.words();
        let journal = &words.journal;
        if journal.open.load(Ordering::SeqCst) == 0 {
            return;
        }
        let seat = journal.seat.load(Ordering::SeqCst);
        if (1..=self.roster.used()).contains(&seat) {
            let count = journal.count.load(Ordering::SeqCst);
            self.roster
                .seat(seat - 1)
                .count
                .store(count, Ordering::Release);
        }
        let value = journal.value.load(Ordering::SeqCst);
        words.value.store(value, Ordering::SeqCst);
        journal.open.store(0, Ordering::Release);
    }

    /// Takes the permits of the dead back. In a turn. Whether there were any dead.
    fn take_back(&self) -> bool {
        let mut any = false;
        while let Some(seat) = self.roster.first_dead() {
            let count = self.roster.seat(seat).count.load(Ordering::SeqCst);
            let value = self.words().value.load(Ordering::SeqCst);
            self.change(value.saturating_add(count), Some((seat, 0)));
            self.roster.clear(seat);
            any = true;
        }
        any
    }

    /// Whether there is something for one who sleeps.
    fn is_due(&self) -> bool {
        self.words().value.load(Ordering::SeqCst) > 0 || self.roster.first_dead().is_some()
    }

    /// Ends a turn.
    fn leave(&self) {
        let words = self.words();
        if words.freed.is_awaited() && self.is_due() {
            words.freed.stir();
        }
        words.turn.unlock();
        self.pass_on();
    }

    /// Wakes one, if there is something for it: "chain". After the turn, because who dies while we have it is left to us.
    fn pass_on(&self) {
        let freed = &self.words().freed;
        if freed.is_awaited() && self.is_due() {
            freed.ring();
        }
    }

    /// Sleeps until there may be a permit. Whether in time.
    fn sleep(&self, deadline: Deadline) -> io::Result<bool> {
        let words = self.words();
        let ticket = words.freed.enlist();
        let used = self.roster.used();
        let mut watched = vec![
            (words.freed.word(), ticket.generation()),
            (
                word(words.turn.word()),
                words.turn.word().load(Ordering::SeqCst),
            ),
        ];
        for seat in 0..used.min(WATCHED) {
            watched.push((word(self.roster.word(seat)), self.roster.state(seat)));
        }
        // Looked at AFTER the words were read: whatever comes between changes one of them.
        let slept = if self.is_due() {
            Ok(Woken::Perhaps)
        } else if used > WATCHED {
            match sys::wait_any(&watched, deadline.within(GLANCE)) {
                Ok(Woken::TimedOut) if deadline.remaining() != Some(Duration::ZERO) => {
                    Ok(Woken::Perhaps)
                }
                slept => slept,
            }
        } else {
            sys::wait_any(&watched, deadline)
        };
        words.freed.delist(ticket);
        Ok(slept? != Woken::TimedOut)
    }
}
