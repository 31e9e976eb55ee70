//! The lock that one thread of all processes holds, as often as it likes.

use std::fmt;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use serde::de::Error as _;
use serde::ser::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::acquire_error::AcquireError;
use super::guard::{Held, show_lock};
use crate::Fd;
use crate::error::{Error, Result};
use crate::sync::lock::{LockCore, Patience};

/// A lock that one thread of all processes holds, as often as it likes.
///
/// As [`Lock`](crate::Lock), but that its owner may acquire it again. It is released with the last of the guards.
///
/// # If a peer dies
///
/// A process that is killed while it holds the lock, at whatever instruction, and a thread that ends while it does (its guard
/// having been forgotten), leave it to the next who acquires it, who is told: [`OwnerDied`](AcquireError::OwnerDied), with the guard. If the
/// lock guards nothing of mproc's that is told once; a lock that guards a value or an array tells everybody until somebody calls
/// [`mark_consistent`](RLockGuard::mark_consistent). One that is killed while it waits costs nothing. A process that is
/// *stopped* (`SIGSTOP`) while it holds the lock keeps it.
///
/// # Examples
///
/// ```
/// use mproc::RLock;
///
/// # fn main() -> mproc::Result<()> {
/// let lock = RLock::new()?;
/// let outer = lock.acquire()?;
/// let inner = lock.acquire()?;
/// drop(outer);
/// assert!(lock.locked());
/// drop(inner);
/// assert!(!lock.locked());
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct RLock {
    core: Arc<LockCore>,
}

impl RLock {
    /// A lock that nobody holds.
    ///
    /// # Errors
    ///
    /// If there is no memory, no room for a descriptor, or a thread of this process cannot have robust locks.
    pub fn new() -> Result<Self> {
        let core = LockCore::create(true, false, 0)
            .map_err(|error| Error::io("a lock could not be made", error))?;
        Ok(Self {
            core: Arc::new(core),
        })
    }

    pub(crate) fn core(&self) -> &Arc<LockCore> {
        &self.core
    }

    /// Acquires the lock. Waits while somebody else holds it. The guard releases it when it is dropped.
    ///
    /// # Errors
    ///
    /// - [`OwnerDied`](AcquireError::OwnerDied): the lock is held now, by the guard in the error, and see [there](Self#if-a-peer-dies).
    /// - [`TooMany`](AcquireError::TooMany), [`Io`](AcquireError::Io).
    #[doc(alias = "lock")]
    #[inline]
    pub fn acquire(&self) -> Result<RLockGuard<'_>, AcquireError<RLockGuard<'_>>> {
        self.acquire_within(Patience::FOREVER)
    }

    /// The same as [`acquire`](Self::acquire), in std's word.
    ///
    /// # Errors
    ///
    /// As [`acquire`](Self::acquire).
    #[inline]
    pub fn lock(&self) -> Result<RLockGuard<'_>, AcquireError<RLockGuard<'_>>> {
        self.acquire()
    }

    /// Acquires the lock if nobody else holds it.
    ///
    /// # Errors
    ///
    /// As [`acquire`](Self::acquire), and [`WouldBlock`](AcquireError::WouldBlock).
    pub fn try_acquire(&self) -> Result<RLockGuard<'_>, AcquireError<RLockGuard<'_>>> {
        self.acquire_within(Patience::None)
    }

    /// Acquires the lock if it is to be had in time.
    ///
    /// # Errors
    ///
    /// As [`acquire`](Self::acquire), and [`Timeout`](AcquireError::Timeout), never early.
    pub fn acquire_timeout(
        &self,
        timeout: Duration,
    ) -> Result<RLockGuard<'_>, AcquireError<RLockGuard<'_>>> {
        self.acquire_within(Patience::of(timeout))
    }

    #[inline]
    fn acquire_within(
        &self,
        patience: Patience,
    ) -> Result<RLockGuard<'_>, AcquireError<RLockGuard<'_>>> {
        match Held::acquire(&self.core, patience) {
            Ok(held) => Ok(RLockGuard(held)),
            Err(error) => Err(error.map(RLockGuard)),
        }
    }

    /// Whether somebody holds it, the calling thread included. With others at work, that was true a moment ago.
    pub fn locked(&self) -> bool {
        self.core.owner() != 0
    }
}

/// Shows the owner as Python does: `<RLock(MainProcess, 2)>`, `(None, 0)`, `(SomeOtherProcess, nonzero)`.
impl fmt::Debug for RLock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        show_lock(&self.core, f)
    }
}

impl Serialize for RLock {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let file = self.core.file_to_send().map_err(S::Error::custom)?;
        Fd::shared(file).serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for RLock {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let file: Arc<OwnedFd> = Fd::deserialize(deserializer)?.into_shared();
        let core = LockCore::open(file).map_err(D::Error::custom)?;
        if !core.is_recursive() {
            return Err(D::Error::custom("a lock of another kind"));
        }
        Ok(Self { core })
    }
}

/// Holds an [`RLock`] once, and releases it when dropped. It belongs to the thread that acquired it.
///
/// One that is forgotten (`std::mem::forget`) keeps the lock until its thread ends; the memory of the lock then stays mapped, whatever
/// becomes of the handle.
#[must_use = "the lock is released when the guard is dropped"]
pub struct RLockGuard<'l>(Held<'l>);

impl<'l> RLockGuard<'l> {
    /// Says that what the lock guards is right again, after an owner died: those who acquire it from now on are not told any more.
    pub fn mark_consistent(&self) {
        self.0.mark_consistent();
    }

    pub(crate) fn held(&self) -> &Held<'l> {
        &self.0
    }
}

impl fmt::Debug for RLockGuard<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RLockGuard")
    }
}
