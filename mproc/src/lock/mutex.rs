//! The lock that one thread of all processes holds.

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

/// A lock that processes and threads share, and of all of them one thread holds.
///
/// A *shared* handle: clones, and what arrives when it is sent, are the same lock. It works in a `static`, behind `&` in threads, and lent
/// to entries as `&Lock`. It costs a descriptor and a page, two in each process that has it.
///
/// Not recursive: the thread that holds it gets an error from [`acquire`](Self::acquire) where Python's waits for ever. Only the guard
/// releases it; what one process acquires and another releases, as Python allows, is a [`Semaphore`](crate::Semaphore) of one permit.
///
/// # If a peer dies
///
/// A process that is killed while it holds the lock, at whatever instruction, and a thread that ends while it does (its guard
/// having been forgotten), leave it to the next who acquires it, who is told: [`OwnerDied`](AcquireError::OwnerDied), with the guard. If the
/// lock guards nothing of mproc's that is told once; a lock that guards a value or an array tells everybody until somebody calls
/// [`mark_consistent`](LockGuard::mark_consistent), also of one who panicked with it. One that is killed while it waits costs nothing. A process that is
/// *stopped* (`SIGSTOP`) while it holds the lock keeps it.
///
/// # Examples
///
/// ```
/// use mproc::{Failure, Lock};
///
/// #[mproc::entry]
/// fn hello(lock: &Lock, number: u32) -> Result<(), Failure> {
///     let _held = lock.acquire().map_err(mproc::Error::from)?;
///     println!("hello world {number}");
///     Ok(())
/// }
///
/// # fn main() -> mproc::Result<()> {
/// let lock = Lock::new()?;
/// let children = [1, 2].map(|number| hello::spawn(&lock, number));
/// for child in children {
///     child?.join()?.unwrap();
/// }
/// assert!(!lock.locked());
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Lock {
    core: Arc<LockCore>,
}

impl Lock {
    /// A lock that nobody holds.
    ///
    /// # Errors
    ///
    /// If there is no memory, no room for a descriptor, or a thread of this process cannot have robust locks.
    pub fn new() -> Result<Self> {
        let core = LockCore::create(false, false, 0)
            .map_err(|error| Error::io("a lock could not be made", error))?;
        Ok(Self {
            core: Arc::new(core),
        })
    }

    pub(crate) fn core(&self) -> &Arc<LockCore> {
        &self.core
    }

    /// The lock in a file that begins with one, see [`LockCore::create`].
    pub(crate) fn of(core: Arc<LockCore>) -> Self {
        Self { core }
    }

    /// Acquires the lock. Waits while somebody else holds it. The guard releases it when it is dropped.
    ///
    /// # Errors
    ///
    /// - [`OwnerDied`](AcquireError::OwnerDied): the lock is held now, by the guard in the error, and see [there](Self#if-a-peer-dies).
    /// - [`Deadlock`](AcquireError::Deadlock): the calling thread holds it.
    /// - [`TooMany`](AcquireError::TooMany), [`Io`](AcquireError::Io).
    #[doc(alias = "lock")]
    #[inline]
    pub fn acquire(&self) -> Result<LockGuard<'_>, AcquireError<LockGuard<'_>>> {
        self.acquire_within(Patience::FOREVER)
    }

    /// The same as [`acquire`](Self::acquire), in std's word.
    ///
    /// # Errors
    ///
    /// As [`acquire`](Self::acquire).
    #[inline]
    pub fn lock(&self) -> Result<LockGuard<'_>, AcquireError<LockGuard<'_>>> {
        self.acquire()
    }

    /// Acquires the lock if nobody holds it.
    ///
    /// # Errors
    ///
    /// As [`acquire`](Self::acquire), and [`WouldBlock`](AcquireError::WouldBlock).
    pub fn try_acquire(&self) -> Result<LockGuard<'_>, AcquireError<LockGuard<'_>>> {
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
    ) -> Result<LockGuard<'_>, AcquireError<LockGuard<'_>>> {
        self.acquire_within(Patience::of(timeout))
    }

    #[inline]
    fn acquire_within(
        &self,
        patience: Patience,
    ) -> Result<LockGuard<'_>, AcquireError<LockGuard<'_>>> {
        match Held::acquire(&self.core, patience) {
            Ok(held) => Ok(LockGuard(held)),
            Err(error) => Err(error.map(LockGuard)),
        }
    }

    /// Whether somebody holds it, the calling thread included. With others at work, that was true a moment ago.
    pub fn locked(&self) -> bool {
        self.core.owner() != 0
    }
}

/// Shows the owner as Python does: `<Lock(owner=MainProcess)>`, `None`, `MainProcess|thread`, `SomeOtherThread`, `SomeOtherProcess`.
impl fmt::Debug for Lock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        show_lock(&self.core, f)
    }
}

impl Serialize for Lock {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let file = self.core.file_to_send().map_err(S::Error::custom)?;
        Fd::shared(file).serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Lock {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let file: Arc<OwnedFd> = Fd::deserialize(deserializer)?.into_shared();
        let core = LockCore::open(file).map_err(D::Error::custom)?;
        if core.is_recursive() {
            return Err(D::Error::custom("a lock of another kind"));
        }
        Ok(Self { core })
    }
}

/// Holds a [`Lock`], and releases it when dropped. It belongs to the thread that acquired it.
///
/// One that is forgotten (`std::mem::forget`) keeps the lock until its thread ends; the memory of the lock then stays mapped, whatever
/// becomes of the handle.
#[must_use = "the lock is released when the guard is dropped"]
pub struct LockGuard<'l>(Held<'l>);

impl<'l> LockGuard<'l> {
    /// Says that what the lock guards is right again, after an owner died: those who acquire it from now on are not told any more.
    pub fn mark_consistent(&self) {
        self.0.mark_consistent();
    }

    pub(crate) fn held(&self) -> &Held<'l> {
        &self.0
    }
}

impl fmt::Debug for LockGuard<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LockGuard")
    }
}
