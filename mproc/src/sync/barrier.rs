//! Waiting for each other: the words of [`Barrier`](crate::Barrier).
//!
//! Each party has a [seat](super::roster), from its first wait to the end of its thread, so the others hear of its death, whether it
//! comes inside `wait` or between two of them. Words change in a *turn*, a [robust lock](RobustLock) that is held for some tens of
//! nanoseconds and never while code of users runs.
//!
//! # State
//!
//! | words              | meaning                                             | changed by       | if that process dies here               |
//! |--------------------|-----------------------------------------------------|------------------|-----------------------------------------|
//! | `pass`             | how often the barrier was reset, and passed         | who has the turn | see `rung`                              |
//! | `ticket` of a seat | the pass for which its holder has arrived, plus one | its holder, in a turn | its seat is marked: it breaks the barrier |
//! | `broken`           | 0, or why, and which process it was                 | who has the turn | see `rung`                              |
//! | `changes`, `rung`  | twice how often the above changed, odd while it does; after which change all sleepers were woken | who has the turn; whoever wakes | the kernel wakes one sleeper, who wakes the others |
//!
//! How many have arrived is counted from the seats, so no count can be wrong after a death.
//!
//! # Sleeping
//!
//! As in [`semaphore`](super::semaphore): on a bell, on the word of the turn, which each operation keeps pending, and on the words of
//! all seats. Whoever changes something stirs the bell in its turn, and rings it after; who dies in between leaves `rung` behind
//! `changes`, and whoever is woken by that rings.

use std::io;
use std::time::Duration;

use super::bell::Bell;
use super::robust::RobustLock;
use super::roster::{HasRoster, Roster, RosterWords, Unseated};
use super::semaphore::{GLANCE, SHORT, WATCHED, enter};
use crate::shm::atomic::{AtomicU32, AtomicU64, Ordering, word};
use crate::shm::memory::PageOfWords;
use crate::sys::{self, Deadline, RobustThread, Woken};

#[repr(C)]
#[derive(Debug, Default)]
pub(crate) struct BarrierWords {
    roster: RosterWords,
    turn: RobustLock,
    moved: Bell,
    pass: AtomicU64,
    /// A process in the upper half, a [`Cause`] in the lower.
    broken: AtomicU64,
    changes: AtomicU32,
    rung: AtomicU32,
    parties: AtomicU32,
}

// SAFETY: atomics only; any bytes are valid ones.
unsafe impl PageOfWords for BarrierWords {}

impl HasRoster for BarrierWords {
    fn roster(&self) -> &RosterWords {
        &self.roster
    }
}

/// Why a barrier is broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cause {
    Aborted = 1,
    TimedOut = 2,
    Died = 3,
    /// It was reset while this one waited.
    Reset = 4,
    Panicked = 5,
}

impl Cause {
    fn of(code: u32) -> Self {
        match code {
            2 => Self::TimedOut,
            3 => Self::Died,
            4 => Self::Reset,
            5 => Self::Panicked,
            _ => Self::Aborted,
        }
    }
}

/// Why a wait did not end in a pass.
#[derive(Debug)]
pub(crate) enum NotPassed {
    /// The process that it was, if that is known.
    Broken(Cause, u32),
    /// The time was over; that broke it.
    TimedOut,
    TooMany,
    Io(io::Error),
}

impl From<io::Error> for NotPassed {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// What one that has arrived is to do.
pub(crate) enum Arrived {
    /// It has passed, as the last one.
    Passed(u32),
    /// Wait for the others.
    Wait(Waiting),
    /// It is the last one: do what comes before the pass, and say so.
    Act(Waiting),
}

/// A part in a pass.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Waiting {
    pass: u64,
    /// 0 for the first who arrived.
    index: u32,
}

pub(crate) struct BarrierCore {
    roster: Roster<BarrierWords>,
}

/// The half of `pass` that says how often it was reset.
fn resets(pass: u64) -> u64 {
    pass >> 32
}

impl BarrierCore {
    pub(crate) fn over(roster: Roster<BarrierWords>) -> Self {
        Self { roster }
    }

    /// Before anybody else has it.
    pub(crate) fn begin(&self, parties: u32) {
        self.words().parties.store(parties, Ordering::SeqCst);
    }

    pub(crate) fn roster(&self) -> &Roster<BarrierWords> {
        &self.roster
    }

    fn words(&self) -> &BarrierWords {
        self.roster.words()
    }

    pub(crate) fn parties(&self) -> u32 {
        self.words().parties.load(Ordering::SeqCst)
    }

    pub(crate) fn is_broken(&self) -> bool {
        self.words().broken.load(Ordering::SeqCst) != 0 || self.roster.first_dead().is_some()
    }

    /// How many wait for this pass.
    pub(crate) fn waiting(&self) -> u32 {
        if self.is_broken() {
            return 0;
        }
        self.arrived(self.words().pass.load(Ordering::SeqCst))
    }

    fn arrived(&self, pass: u64) -> u32 {
        let seats = (0..self.roster.used()).filter(|seat| {
            self.roster.is_held(*seat)
                && self.roster.seat(*seat).ticket.load(Ordering::SeqCst) == pass.wrapping_add(1)
        });
        seats.count() as u32
    }

    /// Takes part in the pass. With `acts`, the last one does not end it.
    pub(crate) fn arrive(&self, deadline: Deadline, acts: bool) -> Result<Arrived, NotPassed> {
        let thread = RobustThread::current()?;
        let words = self.words();
        let _pending = thread.pending(word(words.turn.word()));
        loop {
            if !enter(&words.turn, thread, deadline)? {
                return Err(NotPassed::TimedOut);
            }
            if let Err(broken) = self.look_for_the_dead() {
                self.leave();
                return Err(broken);
            }
            let pass = words.pass.load(Ordering::SeqCst);
            let index = self.arrived(pass);
            if index >= self.parties() {
                // All are there, and the last one is still at what comes before the pass.
                self.leave();
                let waiting = Waiting { pass, index };
                match self.sleep(waiting, deadline)? {
                    Some(false) => return Err(NotPassed::TimedOut),
                    _ => continue,
                }
            }
            let seat = match self.roster.seat_of(thread) {
                Some(seat) => seat,
                None => {
                    let listen_anew = || words.moved.ring_all_if_awaited();
                    let claimed = self.roster.claim(thread, listen_anew, |seat| {
                        seat.ticket.store(0, Ordering::Release);
                    });
                    match claimed {
                        Ok(seat) => seat,
                        Err(error) => {
                            self.leave();
                            return Err(match error {
                                Unseated::TooMany => NotPassed::TooMany,
                                Unseated::Io(error) => NotPassed::Io(error),
                            });
                        }
                    }
                }
            };
            let seat = self.roster.seat(seat);
            seat.ticket.store(pass.wrapping_add(1), Ordering::SeqCst);
            let waiting = Waiting { pass, index };
            if index + 1 < self.parties() {
                self.leave();
                return Ok(Arrived::Wait(waiting));
            }
            if acts {
                self.leave();
                return Ok(Arrived::Act(waiting));
            }
            self.change(|| words.pass.store(next(pass), Ordering::SeqCst));
            self.leave();
            return Ok(Arrived::Passed(index));
        }
    }

    /// The last one has done what comes before the pass.
    pub(crate) fn acted(&self, waiting: Waiting) -> Result<u32, NotPassed> {
        let thread = RobustThread::current()?;
        let words = self.words();
        let _pending = thread.pending(word(words.turn.word()));
        enter(&words.turn, thread, Deadline::NEVER)?;
        let still = self.look_for_the_dead();
        let pass = words.pass.load(Ordering::SeqCst);
        let passed = match still {
            _ if pass != waiting.pass => Err(NotPassed::Broken(Cause::Reset, 0)),
            Err(broken) => Err(broken),
            Ok(()) => {
                self.change(|| words.pass.store(next(pass), Ordering::SeqCst));
                Ok(waiting.index)
            }
        };
        self.leave();
        passed
    }

    /// Waits for the others.
    pub(crate) fn wait(&self, waiting: Waiting, deadline: Deadline) -> Result<u32, NotPassed> {
        let thread = RobustThread::current()?;
        let words = self.words();
        let _pending = thread.pending(word(words.turn.word()));
        loop {
            let slept = self.sleep(waiting, deadline)?;
            let pass = words.pass.load(Ordering::SeqCst);
            if pass != waiting.pass {
                self.ring_what_was_not();
                return if resets(pass) == resets(waiting.pass) {
                    Ok(waiting.index)
                } else {
                    Err(NotPassed::Broken(Cause::Reset, 0))
                };
            }
            if slept == Some(true) && !self.is_broken() {
                continue;
            }
            // Broken, or to be broken. The turn is a matter of nanoseconds, unless its owner was stopped.
            if !enter(&words.turn, thread, deadline.at_least(SHORT))? {
                return Err(NotPassed::TimedOut);
            }
            let passed = words.pass.load(Ordering::SeqCst) != waiting.pass;
            let mut ended = self.look_for_the_dead();
            if !passed && ended.is_ok() && slept == Some(false) {
                self.break_it(Cause::TimedOut, thread.process());
                ended = Err(NotPassed::TimedOut);
            }
            self.leave();
            match ended {
                _ if passed => {}
                Err(error) => return Err(error),
                Ok(()) => {}
            }
        }
    }

    /// Breaks the barrier, until it is reset.
    pub(crate) fn abort(&self, cause: Cause) -> io::Result<()> {
        let thread = RobustThread::current()?;
        let words = self.words();
        let _pending = thread.pending(word(words.turn.word()));
        enter(&words.turn, thread, Deadline::NEVER)?;
        if words.broken.load(Ordering::SeqCst) == 0 {
            self.break_it(cause, thread.process());
        }
        self.leave();
        Ok(())
    }

    /// Breaks it for those who wait, and mends it for those who come.
    pub(crate) fn reset(&self) -> io::Result<()> {
        let thread = RobustThread::current()?;
        let words = self.words();
        let _pending = thread.pending(word(words.turn.word()));
        enter(&words.turn, thread, Deadline::NEVER)?;
        while let Some(seat) = self.roster.first_dead() {
            self.roster.clear(seat);
        }
        self.change(|| {
            let pass = words.pass.load(Ordering::SeqCst);
            let next = resets(pass).wrapping_add(1) << 32;
            // In this order: who dies in between leaves it broken.
            words.pass.store(next, Ordering::SeqCst);
            words.broken.store(0, Ordering::SeqCst);
        });
        self.leave();
        Ok(())
    }

    /// The calling thread takes part no more, if it ever did.
    pub(crate) fn retire(&self) -> io::Result<()> {
        let thread = RobustThread::current()?;
        let Some(seat) = self.roster.seat_of(thread) else {
            return Ok(());
        };
        let words = self.words();
        let _pending = thread.pending(word(words.turn.word()));
        enter(&words.turn, thread, Deadline::NEVER)?;
        self.roster.vacate(thread, seat);
        self.leave();
        Ok(())
    }

    /// Whether the calling thread has taken part.
    pub(crate) fn takes_part(&self) -> bool {
        RobustThread::current().is_ok_and(|thread| self.roster.seat_of(thread).is_some())
    }

    /// In a turn.
    fn look_for_the_dead(&self) -> Result<(), NotPassed> {
        let words = self.words();
        let mut broken = words.broken.load(Ordering::SeqCst);
        if broken == 0 {
            let Some(seat) = self.roster.first_dead() else {
                return Ok(());
            };
            let process = self.roster.seat(seat).process.load(Ordering::SeqCst);
            self.break_it(Cause::Died, process);
            broken = words.broken.load(Ordering::SeqCst);
        }
        Err(NotPassed::Broken(
            Cause::of(broken as u32),
            (broken >> 32) as u32,
        ))
    }

    /// In a turn.
    fn break_it(&self, cause: Cause, process: u32) {
        let broken = u64::from(process) << 32 | cause as u64;
        self.change(|| self.words().broken.store(broken, Ordering::SeqCst));
    }

    /// Changes what others sleep until. In a turn.
    fn change(&self, act: impl FnOnce()) {
        let words = self.words();
        // Odd while it changes. One who died in the middle has left it odd.
        let under_way = words.changes.load(Ordering::SeqCst) | 1;
        words.changes.store(under_way, Ordering::SeqCst);
        act();
        words
            .changes
            .store(under_way.wrapping_add(1), Ordering::SeqCst);
        words.moved.stir();
    }

    /// Ends a turn, and wakes all if anything was changed, by us or by one who died.
    fn leave(&self) {
        self.words().turn.unlock();
        self.ring_what_was_not();
    }

    fn ring_what_was_not(&self) {
        let words = self.words();
        let changes = words.changes.load(Ordering::SeqCst);
        // While it is odd, whoever rings may do so too early.
        if words.rung.load(Ordering::SeqCst) != changes || changes & 1 != 0 {
            words.moved.ring_all_if_awaited();
            words.rung.store(changes, Ordering::SeqCst);
        }
        // A death that the kernel told nobody of, because we had the turn.
        if words.moved.is_awaited()
            && words.broken.load(Ordering::SeqCst) == 0
            && self.roster.first_dead().is_some()
        {
            words.moved.ring_all();
        }
    }

    /// Sleeps until something has changed since `waiting`. `None`: it had already; otherwise whether in time.
    fn sleep(&self, waiting: Waiting, deadline: Deadline) -> io::Result<Option<bool>> {
        let words = self.words();
        let ticket = words.moved.enlist();
        let used = self.roster.used();
        let mut watched = vec![
            (words.moved.word(), ticket.generation()),
            (
                word(words.turn.word()),
                words.turn.word().load(Ordering::SeqCst),
            ),
        ];
        for seat in 0..used.min(WATCHED) {
            watched.push((word(self.roster.word(seat)), self.roster.state(seat)));
        }
        // Looked at AFTER the words were read: whatever comes between changes one of them.
        let has_changed = words.pass.load(Ordering::SeqCst) != waiting.pass || self.is_broken();
        let slept = if has_changed {
            Ok(None)
        } else if used > WATCHED {
            sys::wait_any(&watched, deadline.within(GLANCE)).map(|slept| {
                Some(slept != Woken::TimedOut || deadline.remaining() != Some(Duration::ZERO))
            })
        } else {
            sys::wait_any(&watched, deadline).map(|slept| Some(slept != Woken::TimedOut))
        };
        words.moved.delist(ticket);
        slept
    }
}

/// The pass after this one.
fn next(pass: u64) -> u64 {
    resets(pass) << 32 | (pass.wrapping_add(1) & 0xffff_ffff)
}

#[cfg(all(test, not(mproc_model)))]
mod tests {
    use std::sync::mpsc::channel;

    use super::*;

    /// One that was stopped with the turn in its hands keeps nobody beyond the deadline, but for a moment.
    #[test]
    fn a_deadline_bounds_the_wait_for_a_turn_too() {
        let core = BarrierCore::over(Roster::create().unwrap());
        core.begin(2);
        let Ok(Arrived::Wait(waiting)) = core.arrive(Deadline::NEVER, false) else {
            panic!("it is the first of two");
        };
        let (stopped, number) = channel();
        let (go_on, told) = channel::<()>();
        let owner = std::thread::spawn(move || {
            stopped.send(RobustThread::current().unwrap().id()).unwrap();
            told.recv().unwrap_err();
        });
        assert!(
            core.words()
                .turn
                .parts()
                .take_at_once(number.recv().unwrap())
        );
        let soon = Deadline::after(Duration::from_millis(10));
        assert!(matches!(core.wait(waiting, soon), Err(NotPassed::TimedOut)));
        core.words().turn.unlock();
        drop(go_on);
        owner.join().unwrap();
    }
}
