//! Single values that processes share, under a lock.

use std::fmt;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;
use std::time::Duration;

use bytemuck::Pod;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::array::{Array, ArrayGuard};
use crate::error::Result;
use crate::lock::{AcquireError, HasLock, HoldsLock, Lock, LockGuard};
use crate::sync::lock::LockCore;

/// A plain value that processes and threads share, under a lock: an [`Array`] of one.
///
/// What is said of [`Array`] holds here, too. There is no `+=` that could be forgotten to be guarded, as in Python: the value is reached
/// through the guard.
///
/// # Examples
///
/// ```
/// use mproc::{Failure, Value};
///
/// #[mproc::entry]
/// fn count(total: &Value<i64>) -> Result<(), Failure> {
///     for _ in 0..1000 {
///         *total.lock().map_err(mproc::Error::from)? += 1;
///     }
///     Ok(())
/// }
///
/// # fn main() -> mproc::Result<()> {
/// let total = Value::new(0_i64)?;
/// let children = [count::spawn(&total)?, count::spawn(&total)?];
/// for child in children {
///     child.join()?.unwrap();
/// }
/// assert_eq!(total.get()?, 2000);
/// # Ok(())
/// # }
/// ```
pub struct Value<T>(Array<T>);

impl<T: Pod> Value<T> {
    /// A value with a lock of its own.
    ///
    /// # Errors
    ///
    /// As [`Array::new`].
    pub fn new(value: T) -> Result<Self> {
        Array::from_slice(&[value]).map(Self)
    }

    /// A value under a lock that guards other things, too, see [`Array::with_lock`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn with_lock(lock: &Lock, value: T) -> Result<Self> {
        Array::with_lock(lock, &[value]).map(Self)
    }

    /// Locks the value. Waits while somebody else holds its lock.
    ///
    /// # Errors
    ///
    /// As [`Lock::acquire`].
    #[doc(alias = "get_lock")]
    pub fn lock(&self) -> Result<ValueGuard<'_, T>, AcquireError<ValueGuard<'_, T>>> {
        with(self.0.lock())
    }

    /// Locks the value if nobody holds its lock.
    ///
    /// # Errors
    ///
    /// As [`Lock::try_acquire`].
    pub fn try_lock(&self) -> Result<ValueGuard<'_, T>, AcquireError<ValueGuard<'_, T>>> {
        with(self.0.try_lock())
    }

    /// Locks the value if its lock is to be had in time.
    ///
    /// # Errors
    ///
    /// As [`Lock::acquire_timeout`].
    pub fn lock_timeout(
        &self,
        timeout: Duration,
    ) -> Result<ValueGuard<'_, T>, AcquireError<ValueGuard<'_, T>>> {
        with(self.0.lock_timeout(timeout))
    }

    /// A copy of the value.
    ///
    /// # Errors
    ///
    /// As [`Lock::acquire`]; that an owner died is an error, too.
    pub fn get(&self) -> Result<T> {
        Ok(*self.lock()?)
    }

    /// Replaces the value.
    ///
    /// # Errors
    ///
    /// As [`get`](Self::get), and then the value is what it was.
    pub fn set(&self, value: T) -> Result<()> {
        *self.lock()? = value;
        Ok(())
    }

    /// The value, for who holds the lock that it was made [with](Self::with_lock), see [`Array::get_mut`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn get_mut<'a>(&'a self, guard: &'a mut LockGuard<'_>) -> Result<&'a mut T> {
        Ok(&mut self.0.get_mut(guard)?[0])
    }
}

impl<T> Value<T> {
    /// The lock that guards it.
    pub fn lock_handle(&self) -> &Lock {
        self.0.lock_handle()
    }
}

fn with<'a, T: Pod>(
    locked: Result<ArrayGuard<'a, T>, AcquireError<ArrayGuard<'a, T>>>,
) -> Result<ValueGuard<'a, T>, AcquireError<ValueGuard<'a, T>>> {
    locked
        .map(ValueGuard)
        .map_err(|error| error.map(ValueGuard))
}

/// A locked [`Value`]. Unlocks it when dropped.
#[must_use = "the value is unlocked when the guard is dropped"]
pub struct ValueGuard<'a, T>(ArrayGuard<'a, T>);

impl<T> ValueGuard<'_, T> {
    /// Says that the value is right again, after an owner of the lock died: those who lock it from now on are not told any more.
    pub fn mark_consistent(&self) {
        self.0.mark_consistent();
    }
}

impl<T: Pod> Deref for ValueGuard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0[0]
    }
}

impl<T: Pod> DerefMut for ValueGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.0[0]
    }
}

impl<T: Pod + fmt::Debug> fmt::Debug for ValueGuard<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

impl<T> Clone for Value<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

/// Without the value, for which the lock would have to be acquired.
impl<T> fmt::Debug for Value<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Value({:?})", self.lock_handle())
    }
}

impl<T> Serialize for Value<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

impl<'de, T: Pod> Deserialize<'de> for Value<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let array = Array::deserialize(deserializer)?;
        if array.len() != 1 {
            return Err(serde::de::Error::custom(
                "an array where a value was expected",
            ));
        }
        Ok(Self(array))
    }
}

/// A [`Condition`](crate::Condition) can share the lock.
impl<T> HasLock for Value<T> {
    fn lock_core(&self) -> &Arc<LockCore> {
        self.0.lock_core()
    }
}

/// A [`Condition`](crate::Condition) can wait with it: nothing is borrowed from the value meanwhile.
impl<T> HoldsLock for ValueGuard<'_, T> {
    fn held_core(&self) -> &LockCore {
        self.0.held_core()
    }
}
