//! Arrays that processes share, under a lock.

use std::fmt;
use std::io;
use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;
use std::time::Duration;

use bytemuck::Pod;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::data::Data;
use crate::error::{Error, ErrorKind, Result};
use crate::lock::{AcquireError, HasLock, HoldsLock, Lock, LockGuard};
use crate::sync::lock::LockCore;
use crate::sys::PAGE;

/// A fixed number of plain values that processes and threads share, under a lock.
///
/// A *shared* handle: clones, and what arrives when it is sent, are the same array. It works in a `static`, behind `&` in threads, and lent
/// to entries as `&Array<T>`. Elements are whatever is [`Pod`](bytemuck::Pod): numbers, arrays of them, structs of them without padding
/// (`#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)] #[repr(C)]`).
///
/// The memory is anonymous: there is nothing to clean up, whoever is killed. All of it is allocated when it is made, so that there is room is known
/// then. (A limit of a control group is another matter: the kernel kills who exceeds it.) It costs one descriptor, and two
/// with a lock of others.
///
/// # Under the lock, a slice
///
/// [`lock`](Self::lock) gives a guard that is a `&mut [T]`: for iterators, sorting, or anything else that takes a slice, as a view of the crate `ndarray`
/// does:
///
/// ```
/// use ndarray::ArrayViewMut2;
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let numbers = mproc::Array::from_iter((0..6).map(f64::from))?;
/// let mut guard = numbers.lock().map_err(mproc::Error::from)?;
/// let mut matrix = ArrayViewMut2::from_shape((2, 3), &mut guard)?;
/// matrix *= 2.0;
/// assert_eq!(matrix.row(1).to_vec(), [6.0, 8.0, 10.0]);
/// # Ok(())
/// # }
/// ```
/// Two arrays of one lock are used one after the other, by [`get_mut`](Self::get_mut).
///
/// # If a peer dies
///
/// Who is killed while it holds the lock may leave the elements half changed, each of them being what it was or what it was to be, or, if
/// longer than a word, something in between. The next one to lock it is told, by [`OwnerDied`](AcquireError::OwnerDied) with the guard, and so is everybody
/// until somebody calls [`mark_consistent`](ArrayGuard::mark_consistent). The same is true of who panics while it holds the lock, as with std's mutex.
///
/// A guard that is forgotten (`std::mem::forget`, `Box::leak`) keeps the lock as long as its thread lives. After that, nobody gets it before the thread's *process* has
/// ended: what the guard has lent may still be in use. Until then each who asks is told: [`Leaked`](AcquireError::Leaked).
///
/// # Examples
///
/// ```
/// use mproc::{Array, Failure};
///
/// #[mproc::entry]
/// fn negate(numbers: &Array<i32>) -> Result<(), Failure> {
///     for number in numbers.lock().map_err(mproc::Error::from)?.iter_mut() {
///         *number = -*number;
///     }
///     Ok(())
/// }
///
/// # fn main() -> mproc::Result<()> {
/// let numbers = Array::from_iter(0..4)?;
/// negate::spawn(&numbers)?.join()?.unwrap();
/// assert_eq!(*numbers.lock()?, [0, -1, -2, -3]);
/// # Ok(())
/// # }
/// ```
pub struct Array<T> {
    lock: Lock,
    data: Arc<Data<T>>,
}

fn not_made(error: io::Error) -> Error {
    Error::io("an array could not be made", error)
}

impl<T: Pod> Array<T> {
    /// An array of so many zeroes.
    ///
    /// # Errors
    ///
    /// If there is no memory, no room for a descriptor, or a limit of file sizes (`RLIMIT_FSIZE`) is in the way.
    pub fn new(length: usize) -> Result<Self> {
        let room = Data::<T>::bytes(length).map_err(not_made)?;
        let core = LockCore::create(false, true, room).map_err(not_made)?;
        let data = Data::map(Arc::clone(core.file()), PAGE as u64, length).map_err(not_made)?;
        Ok(Self {
            lock: Lock::of(Arc::new(core)),
            data: Arc::new(data),
        })
    }

    /// An array of these elements.
    ///
    /// # Errors
    ///
    /// As [`new`](Self::new).
    pub fn from_slice(elements: &[T]) -> Result<Self> {
        let array = Self::new(elements.len())?;
        array.lock()?.copy_from_slice(elements);
        Ok(array)
    }

    /// An array of what the iterator gives.
    ///
    /// # Errors
    ///
    /// As [`new`](Self::new).
    #[expect(
        clippy::should_implement_trait,
        reason = "it may fail, and the name is the one to look for"
    )]
    pub fn from_iter(elements: impl IntoIterator<Item = T>) -> Result<Self> {
        Self::from_slice(&elements.into_iter().collect::<Vec<_>>())
    }

    /// An array of these elements under a lock that guards other things, too.
    ///
    /// From here on that lock tells everybody of a dead owner until one calls [`mark_consistent`](LockGuard::mark_consistent).
    ///
    /// # Errors
    ///
    /// As [`new`](Self::new).
    pub fn with_lock(lock: &Lock, elements: &[T]) -> Result<Self> {
        let data = Data::<T>::new(elements.len()).map_err(not_made)?;
        // SAFETY: nobody else has the memory yet; it has room for as many elements, and is aligned for them.
        unsafe { std::slice::from_raw_parts_mut(data.first().as_ptr(), elements.len()) }
            .copy_from_slice(elements);
        lock.core().set_guards_data();
        Ok(Self {
            lock: lock.clone(),
            data: Arc::new(data),
        })
    }

    /// Locks the array. Waits while somebody else holds its lock.
    ///
    /// # Errors
    ///
    /// As [`Lock::acquire`].
    #[doc(alias = "get_lock")]
    #[doc(alias = "get_obj")]
    pub fn lock(&self) -> Result<ArrayGuard<'_, T>, AcquireError<ArrayGuard<'_, T>>> {
        self.with(self.lock.acquire())
    }

    /// Locks the array if nobody holds its lock.
    ///
    /// # Errors
    ///
    /// As [`Lock::try_acquire`].
    pub fn try_lock(&self) -> Result<ArrayGuard<'_, T>, AcquireError<ArrayGuard<'_, T>>> {
        self.with(self.lock.try_acquire())
    }

    /// Locks the array if its lock is to be had in time.
    ///
    /// # Errors
    ///
    /// As [`Lock::acquire_timeout`].
    pub fn lock_timeout(
        &self,
        timeout: Duration,
    ) -> Result<ArrayGuard<'_, T>, AcquireError<ArrayGuard<'_, T>>> {
        self.with(self.lock.acquire_timeout(timeout))
    }

    fn with<'a>(
        &'a self,
        acquired: Result<LockGuard<'a>, AcquireError<LockGuard<'a>>>,
    ) -> Result<ArrayGuard<'a, T>, AcquireError<ArrayGuard<'a, T>>> {
        let guard = |held| ArrayGuard {
            held,
            data: &self.data,
            values: PhantomData,
        };
        match acquired {
            Ok(held) => Ok(guard(held)),
            Err(error) => Err(error.map(guard)),
        }
    }

    /// The elements, for who holds the lock that the array was made [with](Self::with_lock), as long as nothing else is
    /// used that the lock guards.
    ///
    /// # Errors
    ///
    /// [`NotHeld`](ErrorKind::NotHeld): the guard is that of another lock.
    pub fn get_mut<'a>(&'a self, guard: &'a mut LockGuard<'_>) -> Result<&'a mut [T]> {
        if !guard.held().core().is_same(self.lock.core()) {
            return Err(Error::new(
                ErrorKind::NotHeld,
                "the guard of another lock than that of the array",
            ));
        }
        // SAFETY: as in `ArrayGuard::deref_mut`; the guard is borrowed as long as the slice.
        Ok(unsafe { std::slice::from_raw_parts_mut(self.data.first().as_ptr(), self.len()) })
    }
}

impl<T> Array<T> {
    /// The lock that guards it.
    pub fn lock_handle(&self) -> &Lock {
        &self.lock
    }
}

impl<T: Pod> Array<T> {
    /// How many elements there are.
    pub fn len(&self) -> usize {
        self.data.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// A locked [`Array`]: its elements as a slice. Unlocks it when dropped.
#[must_use = "the array is unlocked when the guard is dropped"]
pub struct ArrayGuard<'a, T> {
    held: LockGuard<'a>,
    data: &'a Data<T>,
    values: PhantomData<&'a mut [T]>,
}

impl<T> ArrayGuard<'_, T> {
    /// Says that the elements are right again, after an owner of the lock died: those who lock it from now on are not told any more.
    pub fn mark_consistent(&self) {
        self.held.mark_consistent();
    }
}

impl<T: Pod> Deref for ArrayGuard<'_, T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        // SAFETY: as in `deref_mut`, and the guard is borrowed, so nobody has a `&mut` to it.
        unsafe { std::slice::from_raw_parts(self.data.first().as_ptr(), self.data.len()) }
    }
}

impl<T: Pod> DerefMut for ArrayGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut [T] {
        // SAFETY:
        // - mapped: the guard borrows the array, which has the mapping.
        // - inside: invariants 1 and 2 of `Data`: so many elements, aligned.
        // - bytes:  `T: Pod`, so whatever another process wrote is a valid `T`.
        // - others: all of mproc's ways to the elements ask for the lock, which is held, by this thread, until the guard goes; and
        //   who holds it has this guard only, which is borrowed as long as the slice. A process that writes to
        //   memory which it was sent by other means than mproc's breaks this, as it breaks any other program.
        unsafe { std::slice::from_raw_parts_mut(self.data.first().as_ptr(), self.data.len()) }
    }
}

impl<T: Pod + fmt::Debug> fmt::Debug for ArrayGuard<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

impl<T: Pod + PartialEq, const N: usize> PartialEq<[T; N]> for ArrayGuard<'_, T> {
    fn eq(&self, other: &[T; N]) -> bool {
        **self == other[..]
    }
}

impl<T> Clone for Array<T> {
    fn clone(&self) -> Self {
        Self {
            lock: self.lock.clone(),
            data: Arc::clone(&self.data),
        }
    }
}

impl<T: Pod> fmt::Debug for Array<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Array({} elements, {:?})", self.len(), self.lock)
    }
}

impl<T> Serialize for Array<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        (&self.lock, &*self.data).serialize(serializer)
    }
}

impl<'de, T: Pod> Deserialize<'de> for Array<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let (lock, data) = Deserialize::deserialize(deserializer)?;
        Ok(Self {
            lock,
            data: Arc::new(data),
        })
    }
}

/// A [`Condition`](crate::Condition) can share the lock.
impl<T> HasLock for Array<T> {
    fn lock_core(&self) -> &Arc<LockCore> {
        self.lock.core()
    }
}

/// A [`Condition`](crate::Condition) can wait with it: nothing is borrowed from the array meanwhile.
impl<T> HoldsLock for ArrayGuard<'_, T> {
    fn held_core(&self) -> &LockCore {
        self.held.held().core()
    }
}
