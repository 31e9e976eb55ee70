//! What all guards of locks have in common.

use std::fmt;
use std::marker::PhantomData;

use super::acquire_error::AcquireError;
use crate::process::current_process;
use crate::sync::lock::{Acquired, LockCore, Patience};
use crate::sys::is_own_thread;

/// One hold of a lock. Belongs to the thread that acquired it.
pub(crate) struct Held<'l> {
    core: &'l LockCore,
    /// Whether the thread was unwinding already when it acquired it.
    panicking: bool,
    thread: PhantomData<*mut ()>,
}

// SAFETY: all that can be done through a shared reference is to read words of the lock and, in `mark_consistent`, to store one; the
// guard itself cannot leave its thread.
unsafe impl Sync for Held<'_> {}

impl<'l> Held<'l> {
    #[inline]
    pub(crate) fn acquire(
        core: &'l LockCore,
        patience: Patience,
    ) -> Result<Self, AcquireError<Self>> {
        let acquired = core.acquire(patience).map_err(AcquireError::of)?;
        let guard = Self {
            core,
            panicking: std::thread::panicking(),
            thread: PhantomData,
        };
        match acquired {
            Acquired::Clean => Ok(guard),
            Acquired::OwnerDied(process_id) => Err(AcquireError::OwnerDied { guard, process_id }),
        }
    }

    pub(crate) fn core(&self) -> &'l LockCore {
        self.core
    }

    /// What the lock guards is right again: those who acquire it from now on are not told any more.
    pub(crate) fn mark_consistent(&self) {
        self.core.mark_consistent();
    }
}

impl Drop for Held<'_> {
    #[inline]
    fn drop(&mut self) {
        // As std's mutex does it: what a panic has left may be half changed.
        if std::thread::panicking() && !self.panicking {
            self.core.mark_inconsistent();
        }
        self.core.release();
    }
}

/// The owner, in Python's words.
pub(crate) fn owner_in_words(core: &LockCore) -> String {
    let owner = core.owner();
    if owner == 0 {
        return "None".into();
    }
    if core.is_mine() {
        let process = current_process();
        // The first thread of a process has its number.
        if owner == process.id() {
            return process.name().into();
        }
        let thread = std::thread::current();
        return match thread.name() {
            Some(name) => format!("{}|{name}", process.name()),
            None => format!("{}|{:?}", process.name(), thread.id()),
        };
    }
    if is_own_thread(owner) {
        "SomeOtherThread".into()
    } else {
        "SomeOtherProcess".into()
    }
}

pub(crate) fn show_rlock(core: &LockCore, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let owner = owner_in_words(core);
    match core.levels() {
        0 => write!(f, "<RLock(None, 0)>"),
        levels if core.is_mine() => write!(f, "<RLock({owner}, {levels})>"),
        _ => write!(f, "<RLock({owner}, nonzero)>"),
    }
}

pub(crate) fn show_lock(core: &LockCore, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    if core.is_recursive() {
        return show_rlock(core, f);
    }
    write!(f, "<Lock(owner={})>", owner_in_words(core))
}
