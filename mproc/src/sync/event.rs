//! A flag that many wait for: the words of [`Event`](crate::Event).
//!
//! # State
//!
//! | words            | meaning                                         | changed by  | if that process dies here                         |
//! |------------------|-------------------------------------------------|-------------|---------------------------------------------------|
//! | `state`, lowest bit | whether the flag is set                      | set, clear  | –                                                 |
//! | `state`, the rest | how often it was set                           | set         | see `rung`                                        |
//! | `rung`           | the state after which all sleepers were woken   | set, waiters | the kernel wakes one sleeper, who wakes the others |
//! | `watch`          | 0 for ever: pending while somebody sets or waits | nobody     | the kernel wakes one who sleeps on it             |
//!
//! # Ordering
//!
//! *set*: `state` changes by SeqCst read-modify-write and is read with SeqCst, so what was done before `set` is seen after `wait`, and of
//! one who sets and one who is about to sleep, one sees the other (see [`Bell`]). A sleeper sleeps on `state` as well: one who
//! has looked, and is not asleep when the one who set it dies, does not fall asleep.
//!
//! A waiter whose flag is set and cleared again before it runs has seen the count grow, and returns.

use std::io;

use super::bell::Bell;
use crate::shm::atomic::{AtomicU32, Ordering, word};
use crate::shm::memory::PageOfWords;
use crate::sys::{self, Deadline, RobustThread, Woken};

#[repr(C)]
#[derive(Debug, Default)]
pub(crate) struct EventWords {
    state: AtomicU32,
    rung: AtomicU32,
    watch: AtomicU32,
    asleep: Bell,
}

// SAFETY: atomics only; any bytes are valid ones.
unsafe impl PageOfWords for EventWords {}

const SET: u32 = 1;

impl EventWords {
    pub(crate) fn is_set(&self) -> bool {
        self.state.load(Ordering::SeqCst) & SET != 0
    }

    pub(crate) fn set(&self) -> io::Result<()> {
        let thread = RobustThread::current()?;
        let _pending = thread.pending(word(&self.watch));
        let set = |state: u32| Some(state.wrapping_add(2) | SET);
        let _ = self
            .state
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, set);
        self.ring();
        Ok(())
    }

    pub(crate) fn clear(&self) {
        self.state.fetch_and(!SET, Ordering::SeqCst);
    }

    /// Wakes all who sleep, and notes that it has, so that those who are woken need not.
    fn ring(&self) {
        let state = self.state.load(Ordering::SeqCst);
        self.asleep.ring_all_if_awaited();
        // Somebody else's may be newer, and this one then is too old for its waiters: they ring once more.
        self.rung.store(state | SET, Ordering::SeqCst);
    }

    /// Waits until it is set. Whether it was, in time.
    pub(crate) fn wait(&self, deadline: Deadline) -> io::Result<bool> {
        let first = self.state.load(Ordering::SeqCst);
        if first & SET != 0 {
            return Ok(true);
        }
        let thread = RobustThread::current()?;
        let _pending = thread.pending(word(&self.watch));
        loop {
            let ticket = self.asleep.enlist();
            let state = self.state.load(Ordering::SeqCst);
            let slept = if state == first {
                let words = [
                    (self.asleep.word(), ticket.generation()),
                    (word(&self.state), state),
                    (word(&self.watch), 0),
                ];
                sys::wait_any(&words, deadline)
            } else {
                Ok(Woken::Perhaps)
            };
            self.asleep.delist(ticket);
            let slept = slept?;
            let state = self.state.load(Ordering::SeqCst);
            if state != first {
                if self.rung.load(Ordering::SeqCst) != state | SET {
                    self.ring();
                }
                return Ok(true);
            }
            if slept == Woken::TimedOut {
                return Ok(false);
            }
        }
    }
}
