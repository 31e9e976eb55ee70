//! How long to look before sleeping.

use std::hint;
use std::time::Instant;

use crate::sys;

/// How long one side looks for the other before it sleeps: learnt from how it went.
///
/// Waking a sleeping core costs some tens of microseconds, so looking for as long is worth it where the answer comes in that time, and a waste
/// where it does not. What counts is how long a wait took altogether, sleep included: where that was shorter than waking
/// a core may take, the next wait looks for as long, so that two sides that have both fallen asleep wake up for good; where it was longer, looking
/// would have been for nothing. Where the other side was last seen on this core, it cannot come while we look.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Spin {
    /// Nanoseconds.
    budget: u32,
    /// Pauses before the first look, while the other side is so close in front that each look takes its cache line away.
    distance: u32,
}

/// What a look costs at least: short enough not to show where looking is in vain.
const SHORTEST: u32 = 4_000;
/// As long as waking a core may take.
const LONGEST: u32 = 150_000;
const MOST_DISTANCE: u32 = 512;

/// So often is looked before the clock is asked.
const LOOKS: u32 = 16;

/// Between two looks. Each takes away the cache line in which the other side is about to write (round trip: 0.41 µs with three, 0.53 with
/// one, 0.58 without any).
const PAUSES: u32 = 3;

/// How a wait began.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Looked {
    /// `None`: nobody looked, so the wait teaches nothing.
    since: Option<Instant>,
}

impl Spin {
    /// Looks for a while, and says whether `found` came true, or else how to [learn](Self::slept) from the sleep. `other` is what [`core`] was
    /// for the other side when it last slept or woke somebody; 0 if that is not known.
    pub(crate) fn until(
        &mut self,
        other: u32,
        mut found: impl FnMut() -> bool,
    ) -> Result<(), Looked> {
        if cfg!(mproc_model) || other == core() {
            return if found() {
                Ok(())
            } else {
                Err(Looked { since: None })
            };
        }
        for _ in 0..self.distance {
            hint::spin_loop();
        }
        for _ in 0..LOOKS {
            if found() {
                return Ok(());
            }
            for _ in 0..PAUSES {
                hint::spin_loop();
            }
        }
        // Asked only now: the clock costs as much as a message.
        let since = Instant::now();
        let budget = u128::from(self.budget.max(SHORTEST));
        loop {
            for _ in 0..16 {
                if found() {
                    return Ok(());
                }
                hint::spin_loop();
            }
            if since.elapsed().as_nanos() > budget {
                return Err(Looked { since: Some(since) });
            }
        }
    }

    /// A wait that began with looking has ended in a sleep.
    pub(crate) fn slept(&mut self, looked: Looked) {
        if let Some(since) = looked.since {
            let was_short = since.elapsed().as_nanos() < u128::from(LONGEST);
            self.budget = if was_short { LONGEST } else { 0 };
        }
    }

    /// So many were there when there was something again. Where they come faster than one in eight pauses, staying further behind
    /// is faster for both, since neither then touches what the other is about to.
    pub(crate) fn met(&mut self, count: u32) {
        self.distance = if count >= 2 + self.distance / 8 {
            (2 * self.distance + 1).min(MOST_DISTANCE)
        } else {
            self.distance / 2
        };
    }

    /// For keeping it in an atomic, where threads share it and none is exact.
    pub(crate) fn to_word(self) -> u64 {
        u64::from(self.budget) << 32 | u64::from(self.distance)
    }

    pub(crate) fn from_word(word: u64) -> Self {
        Self {
            budget: (word >> 32) as u32,
            distance: word as u32,
        }
    }
}

/// The processor that this thread is on, plus one.
pub(crate) fn core() -> u32 {
    if cfg!(mproc_model) {
        return 0; // Every execution of a model goes the same way.
    }
    sys::core().wrapping_add(1)
}
