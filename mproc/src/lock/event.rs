//! A flag that others wait for.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::Fd;
use crate::error::{Error, Result};
use crate::shm::memory::Memory;
use crate::sync::event::EventWords;
use crate::sys::{self, Deadline, PAGE};

/// A flag that processes and threads share: it is set or not, and any number of them wait until it is.
///
/// A *shared* handle, see [`Lock`](crate::Lock). It costs a descriptor and a page.
///
/// # If a peer dies
///
/// A waiter that is killed costs nothing. One that is killed while it sets the flag has set it and all wake, or it has not.
///
/// # Examples
///
/// ```
/// use mproc::Event;
///
/// #[mproc::entry]
/// fn waits(event: &Event) -> mproc::Result<bool, mproc::Failure> {
///     event.wait()?;
///     Ok(event.is_set())
/// }
///
/// # fn main() -> mproc::Result<()> {
/// let event = Event::new()?;
/// let child = waits::spawn(&event)?;
/// event.set()?;
/// assert!(child.join()?.unwrap());
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Event {
    memory: Arc<Memory<EventWords>>,
}

impl Event {
    /// An event that is not set.
    ///
    /// # Errors
    ///
    /// If there is no memory or no room for a descriptor.
    pub fn new() -> Result<Self> {
        let memory = sys::shared_file(PAGE as u64)
            .and_then(|file| Memory::open(Arc::new(file)))
            .map_err(|error| Error::io("an event could not be made", error))?;
        Ok(Self {
            memory: Arc::new(memory),
        })
    }

    /// Whether it is set.
    pub fn is_set(&self) -> bool {
        self.memory.words().is_set()
    }

    /// Sets it, and wakes all who wait.
    ///
    /// # Errors
    ///
    /// If this thread was not made by libc, so that the kernel does not look after it.
    pub fn set(&self) -> Result<()> {
        self.memory
            .words()
            .set()
            .map_err(|error| Error::io("an event could not be set", error))
    }

    /// Resets it: from now on whoever waits waits until it is set again. Those who were woken by `set` return, however late they run.
    pub fn clear(&self) {
        self.memory.words().clear();
    }

    /// Waits until it is set.
    ///
    /// # Errors
    ///
    /// If the system refuses to wait.
    pub fn wait(&self) -> Result<()> {
        self.wait_until(Deadline::NEVER).map(drop)
    }

    /// Waits until it is set, `timeout` at most. Whether it was; never early.
    ///
    /// # Errors
    ///
    /// As [`wait`](Self::wait).
    pub fn wait_timeout(&self, timeout: Duration) -> Result<bool> {
        self.wait_until(Deadline::after(timeout))
    }

    fn wait_until(&self, deadline: Deadline) -> Result<bool> {
        self.memory
            .words()
            .wait(deadline)
            .map_err(|error| Error::io("waiting for an event failed", error))
    }
}

impl fmt::Debug for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.is_set() {
            "<Event set>"
        } else {
            "<Event unset>"
        })
    }
}

impl Serialize for Event {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        Fd::shared(Arc::clone(self.memory.file())).serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Event {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let file = Fd::deserialize(deserializer)?.into_shared();
        let memory = Memory::open(file).map_err(D::Error::custom)?;
        Ok(Self {
            memory: Arc::new(memory),
        })
    }
}
