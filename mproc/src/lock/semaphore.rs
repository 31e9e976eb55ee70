//! Permits, of which there are so many.

use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::Fd;
use crate::error::{Error, ErrorKind, Result};
use crate::sync::roster::Roster;
use crate::sync::semaphore::{NoPermit, NotReleased, SemaphoreCore};
use crate::sys::Deadline;

/// A number of permits that processes and threads share.
///
/// [`acquire`](Self::acquire) takes one, waiting while there is none; its guard gives it back. A *shared* handle, see
/// [`Lock`](crate::Lock). It costs a descriptor, and two pages for each thread that holds permits at the same time; there can be 1024
/// such threads.
///
/// A semaphore may also be *signalled*: [`release`](Self::release) adds a permit that nobody held, and [`Permit::forget`] gives one away, to
/// be released by somebody else, or by nobody.
///
/// # If a peer dies
///
/// The permits in the guards of a process that is killed, at whatever instruction, and of a thread that ends with them, come back, also
/// for those who are asleep already, and without anybody looking for them (with more than 124 threads that hold permits of one
/// semaphore, within a second). A permit that was given away does not come back. A waiter that is killed costs nothing.
///
/// # Examples
///
/// ```
/// use mproc::Semaphore;
///
/// # fn main() -> mproc::Result<()> {
/// let two = Semaphore::new(2)?;
/// let one = two.acquire()?;
/// let other = two.acquire()?;
/// assert!(two.try_acquire().is_err());
/// drop(one);
/// assert_eq!(two.value()?, 1);
/// two.release()?;                       // signalling: one more
/// assert_eq!(two.value()?, 2);
/// # drop(other);
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Semaphore {
    core: Arc<SemaphoreCore>,
}

/// A [`Semaphore`] that never has more permits than at first.
///
/// Releasing one that nobody acquired is an error. With guards alone that cannot happen; it finds mistakes in signalling.
///
/// # Examples
///
/// ```
/// # fn main() -> mproc::Result<()> {
/// let one = mproc::BoundedSemaphore::new(1)?;
/// one.acquire()?.forget();              // given away
/// one.release()?;                       // and released by whoever
/// assert_eq!(one.release().unwrap_err().kind(), mproc::ErrorKind::OverReleased);
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct BoundedSemaphore {
    inner: Semaphore,
}

/// A permit, which is given back when this is dropped. It belongs to the thread that acquired it.
#[must_use = "the permit is given back when this is dropped"]
pub struct Permit<'s> {
    core: &'s SemaphoreCore,
    seat: u32,
    thread: PhantomData<*mut ()>,
}

impl Semaphore {
    /// A semaphore with so many permits.
    ///
    /// # Errors
    ///
    /// If there is no memory or no room for a descriptor.
    pub fn new(permits: u32) -> Result<Self> {
        Self::with(permits, 0)
    }

    fn with(permits: u32, bound: u32) -> Result<Self> {
        let roster =
            Roster::create().map_err(|error| Error::io("a semaphore could not be made", error))?;
        let core = SemaphoreCore::over(roster);
        core.begin(permits, bound);
        Ok(Self {
            core: Arc::new(core),
        })
    }

    /// Takes a permit. Waits while there is none.
    ///
    /// # Errors
    ///
    /// - [`TooMany`](ErrorKind::TooMany): 1024 threads hold permits of this semaphore, or this one 2000 locks.
    /// - [`Io`](ErrorKind::Io): the system refuses.
    pub fn acquire(&self) -> Result<Permit<'_>> {
        self.acquire_within(Some(Deadline::NEVER))
    }

    /// Takes a permit if there is one.
    ///
    /// # Errors
    ///
    /// As [`acquire`](Self::acquire), and [`WouldBlock`](ErrorKind::WouldBlock).
    pub fn try_acquire(&self) -> Result<Permit<'_>> {
        self.acquire_within(None)
    }

    /// Takes a permit if there is one in time.
    ///
    /// # Errors
    ///
    /// As [`acquire`](Self::acquire), and [`Timeout`](ErrorKind::Timeout), never early.
    pub fn acquire_timeout(&self, timeout: Duration) -> Result<Permit<'_>> {
        self.acquire_within(Some(Deadline::after(timeout)))
    }

    fn acquire_within(&self, deadline: Option<Deadline>) -> Result<Permit<'_>> {
        match self.core.acquire(deadline) {
            Ok(seat) => Ok(Permit {
                core: &self.core,
                seat,
                thread: PhantomData,
            }),
            Err(error) => Err(match error {
                NoPermit::None => Error::new(ErrorKind::WouldBlock, "there is no permit now"),
                NoPermit::TimedOut => Error::new(ErrorKind::Timeout, "there was no permit in time"),
                NoPermit::TooMany => Error::new(
                    ErrorKind::TooMany,
                    "1024 threads hold permits of this semaphore, or this one 2000 locks; release some first",
                ),
                NoPermit::Io(error) => Error::io("a permit could not be acquired", error),
            }),
        }
    }

    /// Adds a permit that nobody held: a signal to one who waits, or the end of one that was [given away](Permit::forget).
    ///
    /// It waits for whoever changes the semaphore at this moment, which is a matter of nanoseconds, unless that process has been stopped (`SIGSTOP`) in the
    /// middle; so does giving a permit back.
    ///
    /// # Errors
    ///
    /// [`OverReleased`](ErrorKind::OverReleased) beyond 2³² − 1 permits; if the system refuses.
    pub fn release(&self) -> Result<()> {
        self.core.signal().map_err(|error| match error {
            NotReleased::TooOften => Error::new(
                ErrorKind::OverReleased,
                "the semaphore was released more often than it was acquired",
            ),
            NotReleased::Io(error) => Error::io("a semaphore could not be released", error),
        })
    }

    /// How many permits are free. With others at work, that was true a moment ago.
    ///
    /// # Errors
    ///
    /// If the system refuses.
    #[doc(alias = "get_value")]
    pub fn value(&self) -> Result<u32> {
        self.core
            .value()
            .map_err(|error| Error::io("a semaphore could not be read", error))
    }

    /// Whether no permit is free. With others at work, that was true a moment ago.
    pub fn locked(&self) -> bool {
        self.core.value().is_ok_and(|value| value == 0)
    }
}

impl BoundedSemaphore {
    /// A semaphore with so many permits, at least one, and never more.
    ///
    /// # Errors
    ///
    /// If there is no memory or no room for a descriptor, or `permits` is 0.
    pub fn new(permits: u32) -> Result<Self> {
        if permits == 0 {
            return Err(Error::new(
                ErrorKind::Io,
                "a bounded semaphore without permits could never be acquired; give it at least one",
            ));
        }
        Ok(Self {
            inner: Semaphore::with(permits, permits)?,
        })
    }

    /// As [`Semaphore::acquire`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn acquire(&self) -> Result<Permit<'_>> {
        self.inner.acquire()
    }

    /// As [`Semaphore::try_acquire`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn try_acquire(&self) -> Result<Permit<'_>> {
        self.inner.try_acquire()
    }

    /// As [`Semaphore::acquire_timeout`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn acquire_timeout(&self, timeout: Duration) -> Result<Permit<'_>> {
        self.inner.acquire_timeout(timeout)
    }

    /// Releases a permit that was [given away](Permit::forget).
    ///
    /// # Errors
    ///
    /// [`OverReleased`](ErrorKind::OverReleased) if there is none; if the system refuses.
    pub fn release(&self) -> Result<()> {
        self.inner.release()
    }

    /// As [`Semaphore::value`].
    ///
    /// # Errors
    ///
    /// As there.
    #[doc(alias = "get_value")]
    pub fn value(&self) -> Result<u32> {
        self.inner.value()
    }

    /// As [`Semaphore::locked`].
    pub fn locked(&self) -> bool {
        self.inner.locked()
    }
}

impl Permit<'_> {
    /// Gives the permit away: it does not come back by itself, neither now nor when this process dies. Whoever
    /// [releases](Semaphore::release) the semaphore brings it back.
    pub fn forget(self) {
        let permit = std::mem::ManuallyDrop::new(self);
        // OK to ignore: the thread was looked after when it acquired this, and is now.
        let _ = permit.core.give_back(permit.seat, true);
    }
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        // OK to ignore: as in `forget`.
        let _ = self.core.give_back(self.seat, false);
    }
}

impl fmt::Debug for Permit<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Permit")
    }
}

/// Shows the free permits as Python does: `<Semaphore(value=2)>`.
impl fmt::Debug for Semaphore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.core.value() {
            Ok(value) => write!(f, "<Semaphore(value={value})>"),
            Err(_) => f.write_str("<Semaphore(value=unknown)>"),
        }
    }
}

/// Shows the free permits as Python does: `<BoundedSemaphore(value=2, maxvalue=3)>`.
impl fmt::Debug for BoundedSemaphore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let core = &self.inner.core;
        let value = core.value().unwrap_or(0);
        write!(
            f,
            "<BoundedSemaphore(value={value}, maxvalue={})>",
            core.bound()
        )
    }
}

impl Serialize for Semaphore {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        Fd::shared(Arc::clone(self.core.roster().file())).serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Semaphore {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let file = Fd::deserialize(deserializer)?.into_shared();
        let roster = Roster::open(file).map_err(D::Error::custom)?;
        Ok(Self {
            core: Arc::new(SemaphoreCore::over(roster)),
        })
    }
}

impl Serialize for BoundedSemaphore {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.inner.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for BoundedSemaphore {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Self {
            inner: Semaphore::deserialize(deserializer)?,
        })
    }
}
