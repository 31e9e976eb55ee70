//! Waking one of those who sleep until something is the case.
//!
//! Whoever wants to sleep *enlists*, looks once more whether what it waits for is the case, and sleeps on the bell's generation.
//! Whoever makes it the case looks afterwards whether anybody is enlisted, which costs no system call when nobody is, and wakes one.
//!
//! # State
//!
//! One word of 64 bits: a generation (32 bits, the half on which the kernel compares), how often the count of the enlisted began anew
//! (11 bits), whether somebody counts out (1 bit), and that count (20 bits).
//!
//! | generation, enlisted | meaning                                     | changed by       | if that process dies here                      |
//! |----------------------|---------------------------------------------|------------------|------------------------------------------------|
//! | g, 0                 | nobody sleeps                               | enlist           | –                                              |
//! | g, n                 | n sleep, are about to, or died              | enlist, delist   | it stays counted until a ring finds nobody     |
//! | g + 1, n             | stirred: who enlisted before, and is about to sleep, will not | stir, ring all | those asleep still sleep: whoever heals rings |
//! | g + 1, n, counting out | stirred by a ring that woke nobody; nobody enlisted since | ring   | as above: all who sleep are still counted      |
//! | g + 2, 0             | the ring then woke nobody for a second time, so the n neither sleep nor will | ring | –              |
//!
//! *Invariant:* whoever sleeps is counted. To count the dead out, a ring has to know that none of the n sleeps. Having moved the
//! generation, it knows that of those who enlisted before once it has woken all and found nobody; and an enlisting ends the counting
//! out, so that the count cannot have gone down by one and up by a sleeper in between.
//!
//! # Ordering
//!
//! *anybody asleep*: enlisting is a SeqCst read-modify-write followed by a SeqCst load of what is waited for; making it the
//! case is a SeqCst store followed by a SeqCst load of this word. All four stand in one order, so at least one side sees the
//! other.
//!
//! # If the woken dies
//!
//! A wake-up that was taken by a thread which then died is not this type's business: a sleeper also sleeps on the robust locks
//! of those whose death it has to hear of, and the kernel wakes one (see [`Robust`](super::Robust)).

use crate::shm::atomic::{AtomicU64, Ordering};

/// Sleepers on one condition.
#[repr(transparent)]
#[derive(Debug, Default)]
pub(crate) struct Bell {
    state: AtomicU64,
}

/// The generation in which somebody enlisted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ticket(u64);

impl Ticket {
    /// What the bell's word has to be for a sleep to begin.
    pub(crate) fn generation(self) -> u32 {
        generation(self.0)
    }
}

fn generation(state: u64) -> u32 {
    (state >> 32) as u32
}

/// How often the count began anew, modulo 2¹¹.
fn beginnings(state: u64) -> u32 {
    (state as u32) >> BEGINNINGS_FROM
}

fn enlisted(state: u64) -> u32 {
    state as u32 & ((1 << ENLISTED_BITS) - 1)
}

/// The next generation, in which the same are enlisted.
fn stirred(state: u64) -> u64 {
    u64::from(generation(state).wrapping_add(1)) << 32 | u64::from(state as u32)
}

/// The next generation, with nobody in it.
fn begun_anew(state: u64) -> u64 {
    let generation = generation(state).wrapping_add(1);
    let beginnings = beginnings(state).wrapping_add(1) << BEGINNINGS_FROM;
    u64::from(generation) << 32 | u64::from(beginnings)
}

const ENLISTED_BITS: u32 = 20;
const COUNTING_OUT: u64 = 1 << ENLISTED_BITS;
const BEGINNINGS_FROM: u32 = ENLISTED_BITS + 1;

impl Bell {
    /// Announces a sleeper. Look at the condition AFTER this, and then sleep or delist.
    pub(crate) fn enlist(&self) -> Ticket {
        let enlist = |state| Some((state & !COUNTING_OUT) + 1);
        let moved = self
            .state
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, enlist); // "anybody asleep"
        match moved {
            Ok(state) | Err(state) => Ticket(state),
        }
    }

    /// The sleeper is awake again.
    pub(crate) fn delist(&self, ticket: Ticket) {
        // Not counted any more if the count has begun anew; it then is of others.
        let _ = self
            .state
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |state| {
                (beginnings(state) == beginnings(ticket.0) && enlisted(state) > 0)
                    .then(|| state - 1)
            });
    }

    /// Whether anybody is enlisted. One load.
    #[inline]
    pub(crate) fn is_awaited(&self) -> bool {
        enlisted(self.state.load(Ordering::SeqCst)) > 0 // "anybody asleep"
    }

    /// Keeps those who are enlisted, and not yet asleep, from falling asleep. For who has just made it the case and may die before it
    /// rings, or whose ring may wake one who dies: both leave the sleepers to the kernel, which wakes nobody who is not asleep yet.
    /// So it has to come before the death can go unseen: while a lock is held on whose word they sleep, too.
    #[inline]
    pub(crate) fn stir(&self) {
        if self.is_awaited() {
            self.state.fetch_add(1 << 32, Ordering::SeqCst);
        }
    }

    /// Wakes one sleeper, if there is any. `wake(n)` wakes up to n who sleep on the generation, and says how many.
    #[inline]
    pub(crate) fn ring_with(&self, wake: impl FnMut(u32) -> usize) {
        if self.is_awaited() {
            self.ring_slowly(wake);
        }
    }

    #[cold]
    fn ring_slowly(&self, mut wake: impl FnMut(u32) -> usize) {
        loop {
            let state = self.state.load(Ordering::SeqCst);
            if enlisted(state) == 0 || wake(1) > 0 {
                return;
            }
            // Those who are enlisted have died, or have not fallen asleep yet. The latter compare the generation first.
            let counting = stirred(state) | COUNTING_OUT;
            if !self.moves(state, counting) {
                continue;
            }
            // Not begun anew before: the count must not lose one who fell asleep meanwhile, even if we die here.
            if wake(u32::MAX) == 0 {
                self.moves(counting, begun_anew(counting));
            }
            return;
        }
    }

    fn moves(&self, from: u64, to: u64) -> bool {
        let (success, failure) = (Ordering::SeqCst, Ordering::SeqCst);
        self.state
            .compare_exchange(from, to, success, failure)
            .is_ok()
    }

    /// Wakes everybody. They stay counted until they run, so that one who dies in here has not made them look awake;
    /// the dead among them cost a system call each time, until a ring finds nobody.
    pub(crate) fn ring_all_with(&self, mut wake: impl FnMut(u32) -> usize) {
        let moved = self
            .state
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |state| {
                Some(stirred(state))
            });
        if moved.is_ok_and(|state| enlisted(state) > 0) {
            wake(u32::MAX);
        }
    }
}

impl Bell {
    /// Wakes everybody. Costs a load if nobody sleeps.
    #[inline]
    pub(crate) fn ring_all_if_awaited(&self) {
        if self.is_awaited() {
            self.ring_all();
        }
    }
}

impl Bell {
    /// The half of the word on which sleepers sleep.
    #[cfg(not(mproc_model))]
    pub(crate) fn word(&self) -> &std::sync::atomic::AtomicU32 {
        let halves = self.state.as_ptr().cast::<std::sync::atomic::AtomicU32>();
        let upper = if cfg!(target_endian = "little") { 1 } else { 0 };
        // SAFETY: half of a word that is borrowed as long; it is used as an address only, and compared by the kernel.
        unsafe { &*halves.add(upper) }
    }

    #[cfg(mproc_model)]
    pub(crate) fn word(&self) -> crate::shm::atomic::Word<'_> {
        crate::shm::atomic::Word::Upper(&self.state)
    }

    /// Wakes one sleeper, if there is any.
    #[inline]
    pub(crate) fn ring(&self) {
        self.ring_with(|count| crate::sys::wake(self.word(), count));
    }

    /// Wakes everybody.
    pub(crate) fn ring_all(&self) {
        self.ring_all_with(|count| crate::sys::wake(self.word(), count));
    }
}

#[cfg(all(test, not(mproc_model)))]
mod tests {
    use super::*;

    #[test]
    fn who_falls_asleep_during_a_ring_stays_counted() {
        let bell = Bell::default();
        let _ticket = bell.enlist();
        bell.ring_with(|count| match count {
            1 => 0, // "about to sleep"
            _ => {
                assert!(
                    bell.is_awaited(),
                    "who dies here leaves a sleeper uncounted"
                );
                1
            }
        });
        assert!(bell.is_awaited(), "it is counted until it runs");
    }

    #[test]
    fn the_dead_are_counted_out_by_the_first_ring_that_finds_nobody() {
        let bell = Bell::default();
        let _dead = (bell.enlist(), bell.enlist());
        let mut calls = 0;
        bell.ring_with(|_| {
            calls += 1;
            0
        });
        assert_eq!((calls, bell.is_awaited()), (2, false));
    }

    #[test]
    fn who_enlists_during_a_counting_out_stays_counted() {
        let bell = Bell::default();
        let dead = bell.enlist();
        bell.ring_with(|count| {
            if count > 1 {
                // The count is as before, and not of the same.
                bell.enlist();
                bell.delist(dead);
            }
            0
        });
        assert!(bell.is_awaited());
    }
}
