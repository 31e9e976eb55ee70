//! Queues: any number of processes and threads put, any number of them get, and each item goes to one.

mod core;
mod drawer;
#[cfg(all(test, not(mproc_model)))]
mod fuzz;
mod joinable;
mod office;
mod scratch;
mod words;

use std::fmt;
use std::io;
use std::marker::PhantomData;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::time::Duration;

use serde::de::{DeserializeOwned, Error as _};
use serde::ser::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use self::core::{Core, NotPut, NotTaken, Taking};
use self::scratch::Scratch;
use crate::Fd;
use crate::channel_error::{EncodeError, Patience, RecvError, SendError};
use crate::error::{Error, ErrorKind, Result};
use crate::wire::{Handles, decode_parts, encode_parts};

pub use joinable::{Job, Jobs, JoinError, JoinableQueue, TaskIter};

/// A queue that processes and threads share: whoever holds it puts and gets, and each item goes to one getter.
///
/// A *shared* handle. Clones are the same queue, and so is what arrives when it is sent: in arguments, results and messages, also in messages of
/// itself. All methods take `&self`, so it works in a `static` and behind `&` in threads. It lives as long as anybody holds it,
/// whoever made it.
///
/// Items come out in the order in which each producer put them; those of several producers are interleaved. What was put is in the queue
/// when `put` returns: there is no feeder thread, so a process that has put may end, and may be waited for, whether or not anybody gets.
///
/// Unbounded unless made with [`bounded`](Self::bounded): it takes as much memory as its items need (and 8 bytes each),
/// up to 128 GiB and 10⁹ items, and gives back what was read. An unused one costs two pages, one that has been emptied keeps 1 MiB at most. It costs each process that holds it four
/// descriptors, and none for its items, except those in them that are not read yet.
///
/// # If a peer dies
///
/// Whoever is killed, at whatever instruction: each item is in the queue whole or not at all, and comes out once, or, if the process that was getting it
/// was killed, perhaps not. The others go on, and a wake-up that went to a dead process goes to another. A process that is *stopped* in the
/// middle of a put or get (some tens of nanoseconds, or the copying of a long item) holds up others of its side until it goes on or is
/// killed; their deadlines hold. One that is stopped in the moment of being woken leaves its item to the next who gets, or is woken by the next put.
///
/// `get` of an empty queue is [`Disconnected`](RecvError::Disconnected) when nobody else holds it who could put something: all other processes
/// that held it have ended (noticed within a second, for which a `get` that may be the last one looks as often: some 40 µs of CPU), no unread message carries it, and in this process there are no clones, and no
/// other thread has used this handle. A thread that borrows a handle and has yet to use it is not counted: give it a clone.
///
/// # Waiting for it
///
/// `as_fd` makes the queue *watched*, in all processes: from then on its descriptor is readable exactly while there is an item, or
/// the queue is closed. Watching costs two system calls each time the queue runs empty. [`wait`](crate::wait()) does this for you. The one exception
/// is a process that is stopped, or killed, in the middle of a put: it may have announced an item that is not there yet, or never will be. A `try_get` that
/// finds nothing then waits for it, up to 50 milliseconds.
///
/// # Examples
///
/// ```
/// use mproc::Queue;
///
/// #[mproc::entry]
/// fn squares(numbers: Queue<u64>, results: Queue<u64>) {
///     for number in &numbers {
///         let number = number.unwrap();
///         results.put(number * number).unwrap();
///     }
/// }
///
/// # fn main() -> mproc::Result<()> {
/// let numbers = Queue::new()?;
/// let results = Queue::new()?;
/// let child = squares::spawn(numbers.clone(), results.clone())?;
/// for number in 0..3 {
///     numbers.put(number)?;
/// }
/// numbers.close();
/// child.join()?;
/// assert_eq!((results.get()?, results.get()?, results.get()?), (0, 1, 4));
/// # Ok(())
/// # }
/// ```
#[doc(alias = "SimpleQueue")]
pub struct Queue<T> {
    core: Arc<Core>,
    values: PhantomData<fn(T) -> T>,
}

impl<T> Queue<T> {
    /// A queue without a bound: `put` does not wait.
    ///
    /// # Errors
    ///
    /// If there is no memory or no room for a descriptor.
    pub fn new() -> Result<Self> {
        Self::with_capacity(0)
    }

    /// A queue of at most `capacity` items: `put` waits while it is full.
    ///
    /// # Errors
    ///
    /// If there is no memory or no room for a descriptor, or `capacity` is 0 or more than 10⁹.
    #[doc(alias = "maxsize")]
    pub fn bounded(capacity: usize) -> Result<Self> {
        match u32::try_from(capacity) {
            Ok(capacity @ 1..=1_000_000_000) => Self::with_capacity(capacity),
            _ => Err(Error::new(
                ErrorKind::Io,
                format!(
                    "a queue of {capacity} items cannot be made; `Queue::new` makes one without a bound"
                ),
            )),
        }
    }

    fn with_capacity(capacity: u32) -> Result<Self> {
        let core =
            Core::new(capacity).map_err(|error| Error::io("a queue could not be made", error))?;
        core.used_here();
        Ok(Self::of(core))
    }

    fn of(core: Core) -> Self {
        Self {
            core: Arc::new(core),
            values: PhantomData,
        }
    }

    /// How many items there are. With others at work, that was true a moment ago.
    #[doc(alias = "qsize")]
    pub fn len(&self) -> usize {
        self.core.len()
    }

    /// Whether there are no items. With others at work, that was true a moment ago.
    #[doc(alias = "empty")]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether a `put` would wait. With others at work, that was true a moment ago. Never of a queue without a bound.
    #[doc(alias = "full")]
    pub fn is_full(&self) -> bool {
        self.capacity()
            .is_some_and(|capacity| self.len() >= capacity)
    }

    /// How many items there may be; `None` without a bound.
    pub fn capacity(&self) -> Option<usize> {
        self.core.capacity()
    }

    /// Closes the queue, for everybody: from here on `put` is an error, and `get` gives what is left and is then
    /// [`Closed`](RecvError::Closed). Closing again changes nothing.
    ///
    /// Python's `close` only says that this process puts no more; dropping the handle does that here.
    pub fn close(&self) {
        // OK to ignore: it fails where no operation of the queue works, and each of them says so.
        let _ = self.core.close();
    }

    /// Whether the queue was closed, by whomever.
    pub fn is_closed(&self) -> bool {
        self.core.is_closed()
    }

    /// What [`as_fd`](AsFd::as_fd) gives, where an error can be told.
    ///
    /// # Errors
    ///
    /// If the system refuses.
    pub fn watch(&self) -> Result<BorrowedFd<'_>> {
        let doorbell = self
            .core
            .watch()
            .map_err(|error| Error::io("a queue cannot be watched", error))?;
        Ok(doorbell.as_fd())
    }
}

impl<T: Serialize> Queue<T> {
    /// Puts an item. Waits while the queue is full, if it has a bound.
    ///
    /// # Errors
    ///
    /// Nothing was put, and the item is handed back, with all handles in it working as before:
    ///
    /// - [`Closed`](SendError::Closed): the queue was closed.
    /// - [`Encode`](SendError::Encode): something in the item cannot travel.
    /// - [`Io`](SendError::Io): there is no memory; more descriptors are in flight than the kernel allows.
    #[inline]
    pub fn put(&self, item: T) -> Result<(), SendError<T>> {
        self.put_within(item, Patience::FOREVER)
    }

    /// Puts an item if there is room.
    ///
    /// # Errors
    ///
    /// As [`put`](Self::put), and [`Full`](SendError::Full).
    #[doc(alias = "put_nowait")]
    pub fn try_put(&self, item: T) -> Result<(), SendError<T>> {
        self.put_within(item, Patience::None)
    }

    /// Puts an item if there is room in time.
    ///
    /// # Errors
    ///
    /// As [`put`](Self::put), and [`Timeout`](SendError::Timeout).
    pub fn put_timeout(&self, item: T, timeout: Duration) -> Result<(), SendError<T>> {
        self.put_within(item, Patience::of(timeout))
    }

    fn put_within(&self, item: T, patience: Patience) -> Result<(), SendError<T>> {
        let mut bytes = Scratch::lend();
        let attached = match encode_parts(&item, &mut bytes) {
            Ok(attached) => attached,
            Err(error) => return Err(SendError::Encode(item, EncodeError(error))),
        };
        match self.core.put(&bytes, attached.handles(), patience) {
            Ok(()) => {
                attached.commit();
                Ok(())
            }
            Err(not_put) => {
                drop(attached);
                Err(match not_put {
                    NotPut::Closed => SendError::Closed(item),
                    NotPut::Trouble(trouble) => trouble.sending(item, patience),
                })
            }
        }
    }
}

impl<T: DeserializeOwned> Queue<T> {
    /// Gets the next item. Waits until there is one.
    ///
    /// # Errors
    ///
    /// - [`Closed`](RecvError::Closed): the queue was closed and is empty.
    /// - [`Disconnected`](RecvError::Disconnected): it is empty and nobody else holds it, see [there](Self#if-a-peer-dies).
    /// - [`Decode`](RecvError::Decode): an item is not a `T`. It is used up.
    /// - [`Broken`](RecvError::Broken), [`Io`](RecvError::Io). An item whose descriptors this process has no room for stays.
    #[inline]
    pub fn get(&self) -> Result<T, RecvError> {
        self.get_within(Patience::FOREVER)
    }

    /// Gets the next item if there is one.
    ///
    /// # Errors
    ///
    /// As [`get`](Self::get), and [`Empty`](RecvError::Empty).
    #[doc(alias = "get_nowait")]
    pub fn try_get(&self) -> Result<T, RecvError> {
        self.get_within(Patience::None)
    }

    /// Gets the next item if there is one in time.
    ///
    /// # Errors
    ///
    /// As [`get`](Self::get), and [`Timeout`](RecvError::Timeout).
    pub fn get_timeout(&self, timeout: Duration) -> Result<T, RecvError> {
        self.get_within(Patience::of(timeout))
    }

    #[inline]
    fn get_within(&self, patience: Patience) -> Result<T, RecvError> {
        self.get_with(1, patience, just_take)
    }

    fn get_with(
        &self,
        own: usize,
        patience: Patience,
        before: impl FnMut(&Taking<'_>) -> io::Result<()>,
    ) -> Result<T, RecvError> {
        let mut bytes = Scratch::lend();
        let mut handles = Handles::new();
        let taken = self
            .core
            .take(&mut bytes, &mut handles, patience, own, before);
        match taken {
            Ok(()) => decode_parts(&bytes, &mut handles).map_err(RecvError::from),
            Err(NotTaken::Closed) => Err(RecvError::Closed),
            Err(NotTaken::Trouble(trouble)) => Err(trouble.receiving(patience)),
        }
    }

    /// What is got, one item after the other, until the queue is closed and empty, or nobody else is left.
    pub fn iter(&self) -> Iter<'_, T> {
        Iter(self)
    }
}

/// Nothing is to be done before an item is taken. A function, not a closure, which would be another one for each type of items.
fn just_take(_: &Taking<'_>) -> io::Result<()> {
    Ok(())
}

/// What a queue gives until its end. An error other than the end is an item.
#[derive(Debug)]
pub struct Iter<'a, T>(&'a Queue<T>);

impl<T: DeserializeOwned> Iterator for Iter<'_, T> {
    type Item = Result<T, RecvError>;

    fn next(&mut self) -> Option<Self::Item> {
        match self.0.get() {
            Err(RecvError::Closed | RecvError::Disconnected) => None,
            item => Some(item),
        }
    }
}

impl<'a, T: DeserializeOwned> IntoIterator for &'a Queue<T> {
    type Item = Result<T, RecvError>;
    type IntoIter = Iter<'a, T>;

    fn into_iter(self) -> Iter<'a, T> {
        self.iter()
    }
}

impl<T> Clone for Queue<T> {
    fn clone(&self) -> Self {
        Self {
            core: Arc::clone(&self.core),
            values: PhantomData,
        }
    }
}

/// Makes the queue *watched*, see [there](Queue#waiting-for-it).
///
/// # Panics
///
/// Where [`watch`](Queue::watch) gives an error.
impl<T> AsFd for Queue<T> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self.watch() {
            Ok(doorbell) => doorbell,
            Err(error) => panic!("{error}; `watch` gives this as an error"),
        }
    }
}

impl<T> fmt::Debug for Queue<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Queue({} items", self.len())?;
        if let Some(capacity) = self.capacity() {
            write!(f, " of {capacity}")?;
        }
        f.write_str(if self.is_closed() { ", closed)" } else { ")" })
    }
}

/// A queue as a message carries it.
#[derive(Serialize, Deserialize)]
struct Travelling {
    file: Fd,
    counter: Fd,
    shelf: Fd,
    doorbell: Fd,
}

impl<T> Serialize for Queue<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if !crate::wire::handles::is_attaching() {
            return Err(S::Error::custom(crate::wire::handles::OUTSIDE));
        }
        let [file, counter, shelf, doorbell] = self.core.descriptors().map_err(S::Error::custom)?;
        Travelling {
            file: Fd::shared(file),
            counter: Fd::shared(counter),
            shelf: Fd::shared(shelf),
            doorbell: Fd::shared(doorbell),
        }
        .serialize(serializer)
    }
}

impl<'de, T> Deserialize<'de> for Queue<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let travelling = Travelling::deserialize(deserializer)?;
        let core = Core::open(
            travelling.file.into_shared(),
            travelling.counter.into_shared(),
            travelling.shelf.into_shared(),
            travelling.doorbell.into_shared(),
        )
        .map_err(D::Error::custom)?;
        core.used_here();
        Ok(Self::of(core))
    }
}
