//! A lock in shared memory that the kernel frees when its owner dies.
//!
//! Without contention, taking it is one compare-exchange and freeing it one store. It guards words that are right at every
//! instruction, so whoever takes it after a death has nothing to mend, and is not told.
//!
//! # State
//!
//! | word                 | meaning                    | changed by          | if that process dies here                                  |
//! |----------------------|----------------------------|---------------------|------------------------------------------------------------|
//! | 0                    | free                       | lock                | the kernel wakes one sleeper, see below                    |
//! | owner + WAITERS      | taken                      | unlock              | the kernel makes it free and wakes one sleeper             |
//! | WAITERS + OWNER_DIED | free, the owner died       | lock                | as for 0                                                   |
//!
//! WAITERS is set in every taken lock, whether anybody waits or not: the kernel wakes somebody only where it is set.
//!
//! # Dying in between
//!
//! For a whole operation, from before it takes the lock until after it has woken whom it has to wake, a thread keeps the word
//! [pending](crate::sys::Pending). If it dies when it does not own the lock, the kernel wakes one of those who sleep on the
//! word, provided nobody owns it; if somebody does, that one is awake and passes on what there is when it unlocks. User space
//! never wakes anybody on this word itself: those who wait for the lock are woken by its [`Bell`]. So whoever sleeps on the
//! word hears of deaths and of nothing else, and heals what the dead may have left undone.

use std::hint;

use super::bell::{Bell, Ticket};
use crate::shm::atomic::{AtomicU32, Ordering};
use crate::sys::{OWNER, OWNER_DIED, WAITERS};

/// The lock. Zeroes are a free one.
#[repr(C)]
#[derive(Debug, Default)]
pub(crate) struct RobustLock {
    state: AtomicU32,
    bell: Bell,
}

/// How often a taken lock is looked at before sleeping: its owner needs some tens of nanoseconds, if it runs.
const LOOKS: u32 = if cfg!(mproc_model) { 0 } else { 4 };

/// Pauses before each look: about a microsecond, in which the owner goes through a dozen turns. Looking more often would take the cache line
/// away from it for each, and pass no turn on any sooner (two producers: 78 instead of 133 ns an item).
const PAUSES: u32 = 32;

/// The lock, wherever its two parts are.
#[derive(Clone, Copy)]
pub(crate) struct Robust<'l> {
    pub(crate) state: &'l AtomicU32,
    pub(crate) bell: &'l Bell,
}

/// The lock was taken from somebody who died with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct OwnerDied(pub(crate) bool);

impl<'l> Robust<'l> {
    /// As [`try_take`](Self::try_take), of a lock that nobody has died with, and without looking first: a look would bring the cache line as one
    /// to be read, and fetch it again to be written.
    #[inline]
    pub(crate) fn take_at_once(self, me: u32) -> bool {
        self.state
            .compare_exchange(0, me | WAITERS, Ordering::SeqCst, Ordering::Relaxed)
            .is_ok()
    }

    /// Takes the lock for the thread `me` if it is free.
    ///
    /// SeqCst, because what is done under the lock asks who is about to sleep: one who found it free, and had enlisted before
    /// that, is seen from here on.
    #[inline]
    pub(crate) fn try_take(self, me: u32) -> Option<OwnerDied> {
        let state = self.state.load(Ordering::Relaxed);
        let free = state & OWNER == 0;
        let taken = free
            && self
                .state
                .compare_exchange(state, me | WAITERS, Ordering::SeqCst, Ordering::Relaxed)
                .is_ok();
        taken.then_some(OwnerDied(state & OWNER_DIED != 0))
    }

    /// Takes the lock for the thread `me`. `sleep` sleeps on the bell and the word with the values given, and says false
    /// when there is no more time, which this then says too.
    #[cold]
    pub(crate) fn take_slowly<E>(
        self,
        me: u32,
        mut sleep: impl FnMut(Ticket, u32) -> Result<bool, E>,
    ) -> Result<Option<OwnerDied>, E> {
        loop {
            for _ in 0..LOOKS {
                for _ in 0..PAUSES {
                    hint::spin_loop();
                }
                if let Some(died) = self.try_take(me) {
                    return Ok(Some(died));
                }
            }
            let ticket = self.bell.enlist();
            let state = self.state.load(Ordering::SeqCst); // pairs with "freed"
            let slept = if state & OWNER == 0 {
                Ok(true)
            } else {
                sleep(ticket, state)
            };
            self.bell.delist(ticket);
            let in_time = slept?;
            if let Some(died) = self.try_take(me) {
                return Ok(Some(died));
            }
            if !in_time {
                return Ok(None);
            }
        }
    }

    /// Frees the lock. Only its owner may.
    #[inline]
    pub(crate) fn free_with(self, wake: impl FnMut(u32) -> usize) {
        self.state.store(0, Ordering::SeqCst); // "freed"
        self.bell.ring_with(wake);
    }

    /// Frees the lock. Only its owner may.
    #[inline]
    pub(crate) fn free(self) {
        self.free_with(|count| crate::sys::wake(self.bell.word(), count));
    }
}

impl Robust<'_> {
    /// Frees the lock as if its owner had died with it. Only its owner may.
    pub(crate) fn leave_to_the_next(self) {
        self.state.store(WAITERS | OWNER_DIED, Ordering::SeqCst); // "freed"
        self.bell
            .ring_with(|count| crate::sys::wake(self.bell.word(), count));
    }
}

impl<'l> Robust<'l> {
    /// Whether somebody owns it.
    pub(crate) fn is_locked(self) -> bool {
        self.state.load(Ordering::SeqCst) & OWNER != 0
    }

    /// The word, and its value now.
    pub(crate) fn word_and_value(self) -> (&'l AtomicU32, u32) {
        (self.state, self.state.load(Ordering::SeqCst))
    }
}

impl RobustLock {
    #[inline]
    pub(crate) fn parts(&self) -> Robust<'_> {
        Robust {
            state: &self.state,
            bell: &self.bell,
        }
    }

    /// Takes the lock for the thread `me`, as [`take_slowly`](Robust::take_slowly) does if it is not free.
    #[inline]
    pub(crate) fn lock_with<E>(
        &self,
        me: u32,
        mut sleep: impl FnMut(&Self, Ticket, u32) -> Result<bool, E>,
    ) -> Result<bool, E> {
        if self.parts().try_take(me).is_some() {
            return Ok(true);
        }
        let taken = self
            .parts()
            .take_slowly(me, |ticket, state| sleep(self, ticket, state))?;
        Ok(taken.is_some())
    }

    pub(crate) fn word(&self) -> &AtomicU32 {
        &self.state
    }

    pub(crate) fn bell(&self) -> &Bell {
        &self.bell
    }

    /// Frees the lock. Only its owner may.
    #[inline]
    pub(crate) fn unlock(&self) {
        self.parts().free();
    }
}
