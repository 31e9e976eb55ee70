//! Waiting for a word from another under a lock: the words of [`Condition`](crate::Condition).
//!
//! Each waiter has a [seat](super::roster), so a notify can tell the living from the dead, and reaches those it chooses. Seats are claimed,
//! and chosen, by who holds the lock of the condition; so they have no other lock.
//!
//! # State
//!
//! | words              | meaning                                       | changed by          | if that process dies here                          |
//! |--------------------|-----------------------------------------------|---------------------|----------------------------------------------------|
//! | seat held, WAITING | its holder waits                              | wait                | the kernel marks the seat, and nobody chooses it   |
//! | seat held, NOTIFIED | it was chosen, and wakes or is awake         | notify              | as above: what it was told went with it            |
//! | seat held, LEFT    | its time was over before it was chosen        | its holder          | as above                                           |
//! | `unfinished`       | somebody is notifying, or died while it did   | notify              | the kernel wakes one sleeper, who wakes the chosen |
//! | `watch`            | 0 for ever: pending while somebody notifies or waits | nobody       | the kernel wakes one who sleeps on it              |
//!
//! # Ordering
//!
//! WAITING becomes NOTIFIED or LEFT by compare-exchange, so each waiter is chosen or gives up, and not both. A sleeper sleeps on that
//! word and falls asleep only while it is WAITING. `unfinished` is set before the first is chosen and reset after the last was woken.

use std::io;
use std::time::Duration;

use super::lock::{Acquired, LockCore, NotAcquired, Patience};
use super::roster::{HasRoster, Roster, RosterWords, Unseated};
use crate::shm::atomic::{AtomicU32, AtomicU64, Ordering, word};
use crate::shm::memory::PageOfWords;
use crate::sys::{self, Deadline, RobustThread, Woken};

#[repr(C)]
#[derive(Debug, Default)]
pub(crate) struct ConditionWords {
    roster: RosterWords,
    watch: AtomicU32,
    unfinished: AtomicU32,
    /// The next waiter's: who waits longest is chosen first.
    ticket: AtomicU64,
}

// SAFETY: atomics only; any bytes are valid ones.
unsafe impl PageOfWords for ConditionWords {}

impl HasRoster for ConditionWords {
    fn roster(&self) -> &RosterWords {
        &self.roster
    }
}

pub(super) const WAITING: u32 = 1;
const NOTIFIED: u32 = 2;
const LEFT: u32 = 3;

pub(crate) struct ConditionCore {
    roster: Roster<ConditionWords>,
}

/// Why a wait did not begin.
#[derive(Debug)]
pub(crate) enum NotWaited {
    NotOwned,
    TooMany,
    Io(io::Error),
}

impl From<io::Error> for NotWaited {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// How a wait ended.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Waited {
    pub(crate) notified: bool,
    /// How the lock was acquired again.
    pub(crate) acquired: Acquired,
}

impl ConditionCore {
    pub(crate) fn over(roster: Roster<ConditionWords>) -> Self {
        Self { roster }
    }

    pub(crate) fn roster(&self) -> &Roster<ConditionWords> {
        &self.roster
    }

    /// Frees the lock, which the calling thread holds, altogether, waits, and holds it again as before.
    pub(crate) fn wait(&self, lock: &LockCore, deadline: Deadline) -> Result<Waited, NotWaited> {
        let thread = RobustThread::current()?;
        if !lock.is_mine() {
            return Err(NotWaited::NotOwned);
        }
        let words = self.roster.words();
        let pending = thread.pending(word(&words.watch));
        let seat = self.take_seat(thread)?;
        let depth = lock.release_all();
        let notified = self.sleep(seat, deadline);
        self.roster.vacate(thread, seat);
        drop(pending);
        let acquired = loop {
            match lock.acquire(Patience::FOREVER) {
                Ok(acquired) => break acquired,
                // The system refuses to sleep, or another has forgotten its guard. Whoever called holds the lock when we return, and has a guard that
                // lends what it guards, so there is no way out.
                Err(NotAcquired::Io(_) | NotAcquired::Leaked(_)) => {
                    std::thread::sleep(Duration::from_millis(1));
                }
                // It was free until now, and its place in the list is free: so somebody has changed the memory who had no right to.
                Err(_) => {
                    let text =
                        "the shared memory of a lock was changed by somebody who does not hold it";
                    return Err(io::Error::new(io::ErrorKind::InvalidData, text).into());
                }
            }
        };
        lock.restore(depth);
        Ok(Waited {
            notified: notified?,
            acquired,
        })
    }

    fn take_seat(&self, thread: RobustThread) -> Result<u32, NotWaited> {
        while let Some(seat) = self.roster.first_dead() {
            self.roster.clear(seat);
        }
        let words = self.roster.words();
        let ticket = words.ticket.fetch_add(1, Ordering::SeqCst);
        let claimed = self.roster.claim(
            thread,
            || {},
            |seat| {
                seat.state.store(WAITING, Ordering::Release);
                seat.ticket.store(ticket, Ordering::Release);
            },
        );
        claimed.map_err(|error| match error {
            Unseated::TooMany => NotWaited::TooMany,
            Unseated::Io(error) => NotWaited::Io(error),
        })
    }

    /// Sleeps until this seat was chosen. Whether it was, in time.
    fn sleep(&self, seat: u32, deadline: Deadline) -> io::Result<bool> {
        let words = self.roster.words();
        let state = &self.roster.seat(seat).state;
        let notified = loop {
            if state.load(Ordering::SeqCst) != WAITING {
                break Ok(true);
            }
            let watched = [(word(state), WAITING), (word(&words.watch), 0)];
            let slept = sys::wait_any(&watched, deadline);
            if let Ok(Woken::Perhaps) = slept {
                self.finish();
                continue;
            }
            let left = state.compare_exchange(WAITING, LEFT, Ordering::SeqCst, Ordering::SeqCst);
            break match (left, slept) {
                (Err(_), _) => Ok(true),
                (Ok(_), Ok(_)) => Ok(false),
                (Ok(_), Err(error)) => Err(error),
            };
        };
        self.finish();
        notified
    }

    /// Wakes those whom somebody has chosen who may have died before it had woken them.
    fn finish(&self) {
        if self.roster.words().unfinished.load(Ordering::SeqCst) == 0 {
            return;
        }
        for seat in 0..self.roster.used() {
            let state = &self.roster.seat(seat).state;
            if self.roster.is_held(seat) && state.load(Ordering::SeqCst) == NOTIFIED {
                sys::wake(word(state), 1);
            }
        }
    }

    /// Chooses and wakes up to `count` of those that live and wait, the longest first. How many there were.
    pub(crate) fn notify(&self, lock: &LockCore, count: usize) -> Result<usize, NotWaited> {
        let thread = RobustThread::current()?;
        if !lock.is_mine() {
            return Err(NotWaited::NotOwned);
        }
        let words = self.roster.words();
        let mut waiting: Vec<(u64, u32)> = (0..self.roster.used())
            .filter(|seat| self.roster.is_held(*seat))
            .map(|seat| (seat, self.roster.seat(seat)))
            .filter(|(_, words)| words.state.load(Ordering::SeqCst) == WAITING)
            .map(|(seat, words)| (words.ticket.load(Ordering::SeqCst), seat))
            .collect();
        if waiting.is_empty() {
            return Ok(0);
        }
        waiting.sort_unstable();
        let _pending = thread.pending(word(&words.watch));
        words.unfinished.store(1, Ordering::SeqCst);
        let mut chosen = 0;
        for (_, seat) in waiting {
            if chosen == count {
                break;
            }
            let state = &self.roster.seat(seat).state;
            let choice =
                state.compare_exchange(WAITING, NOTIFIED, Ordering::SeqCst, Ordering::SeqCst);
            // One that has died since, or given up, is not counted.
            if choice.is_ok() && self.roster.is_held(seat) {
                chosen += 1;
                sys::wake(word(state), 1);
            }
        }
        words.unfinished.store(0, Ordering::SeqCst);
        Ok(chosen)
    }
}
