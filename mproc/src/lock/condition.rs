//! Waiting for a word from another, under a lock.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde::de::Error as _;
use serde::ser::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::acquire_error::AcquireError;
use super::guard::Held;
use super::{Lock, LockGuard, RLock, RLockGuard};
use crate::Fd;
use crate::error::{Error, ErrorKind, Result};
use crate::sync::condition::{ConditionCore, NotWaited};
use crate::sync::lock::{Acquired, LockCore, Patience};
use crate::sync::roster::Roster;
use crate::sys::Deadline;

/// Waiting for a word from others, under a lock: whoever holds the lock waits, which releases it, until another who holds it notifies.
///
/// A *shared* handle, see [`Lock`](crate::Lock), of two descriptors: one for the lock. [`new`](Self::new) makes an [`RLock`] for it;
/// [`with_lock`](Self::with_lock) takes that of something else, so that several conditions can share one.
///
/// A waiter needs a page here and two in its process; there can be 1024 at a time.
///
/// # If a peer dies
///
/// Each notify reaches a waiter that lives, if there is one: those that are dead are never chosen. One that dies after it was chosen has had
/// its word, and it goes to nobody else. A process that dies while it notifies has chosen whom it has chosen, and those wake. If one dies that
/// holds the lock, waiters get the lock like everybody who acquires it: with [`OwnerDied`](ErrorKind::OwnerDied).
///
/// # Examples
///
/// ```
/// use mproc::{Condition, Failure, Queue};
///
/// #[mproc::entry]
/// fn consumes(ready: &Condition, items: &Queue<u32>) -> Result<u32, Failure> {
///     let mut guard = ready.acquire().map_err(mproc::Error::from)?;
///     ready.wait_for(&mut guard, || !items.is_empty())?;
///     Ok(items.try_get()?)
/// }
///
/// # fn main() -> mproc::Result<()> {
/// let ready = Condition::new()?;
/// let items = Queue::new()?;
/// let child = consumes::spawn(&ready, &items)?;
/// let guard = ready.acquire()?;
/// items.put(7)?;
/// ready.notify()?;
/// drop(guard);
/// assert_eq!(child.join()?.unwrap(), 7);
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Condition {
    core: Arc<ConditionCore>,
    lock: Arc<LockCore>,
}

/// Holds the lock of a [`Condition`] once, and releases it when dropped. It belongs to the thread that acquired it.
#[must_use = "the lock is released when the guard is dropped"]
pub struct ConditionGuard<'l>(Held<'l>);

impl ConditionGuard<'_> {
    /// Says that what the lock guards is right again, after an owner died.
    pub fn mark_consistent(&self) {
        self.0.mark_consistent();
    }
}

impl fmt::Debug for ConditionGuard<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ConditionGuard")
    }
}

/// What has a lock.
pub(crate) trait HasLock {
    fn lock_core(&self) -> &Arc<LockCore>;
}

/// What holds a lock.
pub(crate) trait HoldsLock {
    fn held_core(&self) -> &LockCore;
}

/// What a [`Condition`] can share the lock of: [`Lock`], [`RLock`], [`Value`](crate::Value), [`Array`](crate::Array), another `Condition`.
#[expect(private_bounds, reason = "it is sealed")]
pub trait Lockable: HasLock {}

impl HasLock for Lock {
    fn lock_core(&self) -> &Arc<LockCore> {
        self.core()
    }
}

impl HasLock for RLock {
    fn lock_core(&self) -> &Arc<LockCore> {
        self.core()
    }
}

impl HasLock for Condition {
    fn lock_core(&self) -> &Arc<LockCore> {
        &self.lock
    }
}

impl<T: HasLock> Lockable for T {}

/// A guard that a [`Condition`] can wait with: one of its own, or of the lock that it shares.
#[expect(private_bounds, reason = "it is sealed")]
pub trait WaitGuard: HoldsLock {}

impl HoldsLock for ConditionGuard<'_> {
    fn held_core(&self) -> &LockCore {
        self.0.core()
    }
}

impl HoldsLock for LockGuard<'_> {
    fn held_core(&self) -> &LockCore {
        self.held().core()
    }
}

impl HoldsLock for RLockGuard<'_> {
    fn held_core(&self) -> &LockCore {
        self.held().core()
    }
}

impl<T: HoldsLock> WaitGuard for T {}

impl Condition {
    /// A condition with an [`RLock`] of its own.
    ///
    /// # Errors
    ///
    /// If there is no memory or no room for a descriptor.
    pub fn new() -> Result<Self> {
        Self::with_lock(&RLock::new()?)
    }

    /// A condition that shares the lock of something else.
    ///
    /// # Errors
    ///
    /// If there is no memory or no room for a descriptor.
    pub fn with_lock(lock: &impl Lockable) -> Result<Self> {
        let roster =
            Roster::create().map_err(|error| Error::io("a condition could not be made", error))?;
        Ok(Self {
            core: Arc::new(ConditionCore::over(roster)),
            lock: Arc::clone(lock.lock_core()),
        })
    }

    /// Acquires the lock.
    ///
    /// # Errors
    ///
    /// As [`Lock::acquire`] or [`RLock::acquire`], whichever it is.
    pub fn acquire(&self) -> Result<ConditionGuard<'_>, AcquireError<ConditionGuard<'_>>> {
        self.acquire_within(Patience::FOREVER)
    }

    /// Acquires the lock if nobody else holds it.
    ///
    /// # Errors
    ///
    /// As [`acquire`](Self::acquire), and [`WouldBlock`](AcquireError::WouldBlock).
    pub fn try_acquire(&self) -> Result<ConditionGuard<'_>, AcquireError<ConditionGuard<'_>>> {
        self.acquire_within(Patience::None)
    }

    /// Acquires the lock if it is to be had in time.
    ///
    /// # Errors
    ///
    /// As [`acquire`](Self::acquire), and [`Timeout`](AcquireError::Timeout).
    pub fn acquire_timeout(
        &self,
        timeout: Duration,
    ) -> Result<ConditionGuard<'_>, AcquireError<ConditionGuard<'_>>> {
        self.acquire_within(Patience::of(timeout))
    }

    fn acquire_within(
        &self,
        patience: Patience,
    ) -> Result<ConditionGuard<'_>, AcquireError<ConditionGuard<'_>>> {
        match Held::acquire(&self.lock, patience) {
            Ok(held) => Ok(ConditionGuard(held)),
            Err(error) => Err(error.map(ConditionGuard)),
        }
    }

    /// Releases the lock, all levels of it, waits until somebody notifies this thread, and acquires it again as before.
    ///
    /// It returns for no other reason, and only once for each notify. What was waited for may be gone again by then, if others hold the
    /// lock first: see [`wait_for`](Self::wait_for).
    ///
    /// # Errors
    ///
    /// The lock is held as before, whatever the error:
    ///
    /// - [`OwnerDied`](ErrorKind::OwnerDied): this thread was notified, or its time was over, and it acquired the lock from an owner that died; or the data were
    ///   inconsistent already.
    /// - [`NotOwned`](ErrorKind::NotOwned): the guard is of another lock. Nothing was waited for.
    /// - [`TooMany`](ErrorKind::TooMany): 1024 wait already.
    /// - [`Io`](ErrorKind::Io): the system refuses.
    pub fn wait(&self, guard: &mut impl WaitGuard) -> Result<()> {
        self.wait_until(guard, Deadline::NEVER).map(drop)
    }

    /// As [`wait`](Self::wait), until the time is over, after which it acquires the lock again, however long that takes. Whether
    /// this thread was notified; never early.
    ///
    /// # Errors
    ///
    /// As [`wait`](Self::wait).
    pub fn wait_timeout(&self, guard: &mut impl WaitGuard, timeout: Duration) -> Result<bool> {
        self.wait_until(guard, Deadline::after(timeout))
    }

    /// Waits until `condition`, which is asked under the lock, at first and after each notify, is true.
    ///
    /// # Errors
    ///
    /// As [`wait`](Self::wait).
    pub fn wait_for(
        &self,
        guard: &mut impl WaitGuard,
        condition: impl FnMut() -> bool,
    ) -> Result<()> {
        self.wait_for_until(guard, condition, Deadline::NEVER)
            .map(drop)
    }

    /// As [`wait_for`](Self::wait_for), until the time is over. What `condition` said last.
    ///
    /// # Errors
    ///
    /// As [`wait`](Self::wait).
    pub fn wait_for_timeout(
        &self,
        guard: &mut impl WaitGuard,
        condition: impl FnMut() -> bool,
        timeout: Duration,
    ) -> Result<bool> {
        self.wait_for_until(guard, condition, Deadline::after(timeout))
    }

    fn wait_for_until(
        &self,
        guard: &mut impl WaitGuard,
        mut condition: impl FnMut() -> bool,
        deadline: Deadline,
    ) -> Result<bool> {
        loop {
            if condition() {
                return Ok(true);
            }
            if !self.wait_until(guard, deadline)? {
                return Ok(condition());
            }
        }
    }

    fn wait_until(&self, guard: &mut impl WaitGuard, deadline: Deadline) -> Result<bool> {
        let held = guard.held_core();
        if !held.is_same(&self.lock) {
            return Err(not_owned());
        }
        let waited = self.core.wait(held, deadline).map_err(in_words)?;
        match waited.acquired {
            Acquired::Clean => Ok(waited.notified),
            Acquired::OwnerDied(process_id) => Err(AcquireError::OwnerDied {
                guard: (),
                process_id,
            }
            .into()),
        }
    }

    /// Wakes the one that waits longest, if anybody waits. How many that were. The calling thread holds the lock; the woken one runs when
    /// it is released.
    ///
    /// # Errors
    ///
    /// [`NotOwned`](ErrorKind::NotOwned): the calling thread does not hold the lock.
    #[doc(alias = "notify_one")]
    pub fn notify(&self) -> Result<usize> {
        self.notify_up_to(1)
    }

    /// Wakes the `count` that wait longest. How many there were, up to that.
    ///
    /// # Errors
    ///
    /// As [`notify`](Self::notify).
    pub fn notify_up_to(&self, count: usize) -> Result<usize> {
        self.core.notify(&self.lock, count).map_err(in_words)
    }

    /// Wakes all that wait. How many that were.
    ///
    /// # Errors
    ///
    /// As [`notify`](Self::notify).
    pub fn notify_all(&self) -> Result<usize> {
        self.notify_up_to(usize::MAX)
    }
}

fn not_owned() -> Error {
    Error::new(
        ErrorKind::NotOwned,
        "this thread does not hold the lock of the condition; acquire it first",
    )
}

fn in_words(error: NotWaited) -> Error {
    match error {
        NotWaited::NotOwned => not_owned(),
        NotWaited::TooMany => Error::new(
            ErrorKind::TooMany,
            "1024 wait for this condition already, or this thread holds 2000 locks",
        ),
        NotWaited::Io(error) => Error::io("waiting for a condition failed", error),
    }
}

/// Shows the lock: `<Condition(<RLock(None, 0)>)>`.
impl fmt::Debug for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<Condition(")?;
        super::guard::show_lock(&self.lock, f)?;
        f.write_str(")>")
    }
}

#[derive(Serialize, Deserialize)]
struct Travelling {
    waiters: Fd,
    lock: Fd,
}

impl Serialize for Condition {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        Travelling {
            waiters: Fd::shared(Arc::clone(self.core.roster().file())),
            lock: Fd::shared(self.lock.file_to_send().map_err(S::Error::custom)?),
        }
        .serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Condition {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let travelling = Travelling::deserialize(deserializer)?;
        let roster = Roster::open(travelling.waiters.into_shared()).map_err(D::Error::custom)?;
        let lock = LockCore::open(travelling.lock.into_shared()).map_err(D::Error::custom)?;
        Ok(Self {
            core: Arc::new(ConditionCore::over(roster)),
            lock,
        })
    }
}
