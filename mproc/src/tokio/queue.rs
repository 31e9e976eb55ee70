//! Queues whose items are awaited.

use std::fmt;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use ::tokio::io::unix::AsyncFd;
use ::tokio::time;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::ready::{Look, Pause, found, give_way, look, register};
use crate::channel_error::{RecvError, SendError};
use crate::error::Result;
use crate::queue;

/// A queue, to be awaited.
///
/// Made by [`into_async`](crate::Queue::into_async). Clones are the same queue, for other tasks of the runtime that it was made in; for
/// another process, send [`get_ref`](Self::get_ref) or a clone of that. Any number of tasks may wait for it, each item goes to one, and
/// threads and other processes may use it in their own ways at the same time.
///
/// # The last holder
///
/// `get` of an empty queue is [`Disconnected`](RecvError::Disconnected) when all other processes that held it have ended, as it is
/// [without a runtime](crate::Queue#if-a-peer-dies), noticed within a second or two; and for this, handles count, and not tasks. A task
/// that is to put something holds a clone, or the others may find the queue at its end. Where several threads have used the queue, as
/// in a runtime of several threads, nobody can tell, and `get` waits: there, [`close`](Self::close) is what ends it.
///
/// # Examples
///
/// ```
/// use mproc::Queue;
///
/// #[mproc::entry]
/// fn squares(numbers: Queue<u64>, results: Queue<u64>) {
///     for number in &numbers {
///         results.put(number.unwrap().pow(2)).unwrap();
///     }
/// }
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
/// let numbers = Queue::new()?;
/// let results = Queue::new()?;
/// let child = squares::spawn(numbers.clone(), results.clone())?;
/// let results = results.into_async()?;
/// for number in 1..=3 {
///     numbers.put(number)?;
/// }
/// let sum = results.get().await? + results.get().await? + results.get().await?;
/// assert_eq!(sum, 14);
/// numbers.close();
/// child.wait_async().await?;
/// # Ok(())
/// # })
/// # }
/// ```
pub struct Queue<T> {
    ready: Arc<AsyncFd<OwnedFd>>,
    queue: queue::Queue<T>,
}

impl<T> queue::Queue<T> {
    /// Makes this handle one that tasks await, and [watches](Self#waiting-for-it) the queue.
    ///
    /// With the cargo feature `tokio`.
    ///
    /// # Errors
    ///
    /// If there is no room for a descriptor. The handle is dropped then.
    ///
    /// # Panics
    ///
    /// [Outside a runtime](crate::tokio#panics).
    pub fn into_async(self) -> Result<Queue<T>> {
        Ok(Queue {
            ready: Arc::new(register(self.watch()?)?),
            queue: self,
        })
    }
}

impl<T> Queue<T> {
    /// The queue itself, for all that does not wait, and to be sent.
    pub fn get_ref(&self) -> &queue::Queue<T> {
        &self.queue
    }

    /// The handle for threads again.
    pub fn into_inner(self) -> queue::Queue<T> {
        self.queue
    }

    /// Closes the queue for everybody. See [`close`](crate::Queue::close).
    pub fn close(&self) {
        self.queue.close();
    }
}

impl<T: Serialize> Queue<T> {
    /// Puts an item. Waits while the queue is full, if it has a bound; where it has none, [`try_put`](Self::try_put) is the same without
    /// a future.
    ///
    /// Nothing tells a task of room: it looks, after pauses of 1 to 32 milliseconds. A future that is dropped before it was ready has
    /// put nothing, and drops the item.
    ///
    /// # Errors
    ///
    /// As [`put`](crate::Queue::put).
    pub async fn put(&self, item: T) -> std::result::Result<(), SendError<T>> {
        give_way().await;
        let is_worth_a_try = || !self.queue.is_full() || self.queue.is_closed();
        put_with(item, is_worth_a_try, |item| self.queue.try_put(item)).await
    }

    /// Puts an item if there is room.
    ///
    /// # Errors
    ///
    /// As [`try_put`](crate::Queue::try_put).
    pub fn try_put(&self, item: T) -> std::result::Result<(), SendError<T>> {
        self.queue.try_put(item)
    }
}

impl<T: DeserializeOwned> Queue<T> {
    /// Gets the next item. See [`get`](crate::Queue::get).
    ///
    /// A future that is dropped before it was ready has taken nothing.
    ///
    /// # Errors
    ///
    /// As there.
    pub async fn get(&self) -> Received<T> {
        get_with(
            &self.ready,
            || settled(self.queue.try_get(), &self.queue),
            || self.queue.get_timeout(Duration::ZERO),
        )
        .await
    }

    /// Gets the next item if there is one.
    ///
    /// # Errors
    ///
    /// As [`try_get`](crate::Queue::try_get).
    pub fn try_get(&self) -> Received<T> {
        self.queue.try_get()
    }

    /// The next item; `None` when the queue is closed and empty, or nobody else is left. An error other than the end is an item.
    ///
    /// A future that is dropped before it was ready has taken nothing.
    pub async fn next(&self) -> Option<Received<T>> {
        until_end(self.get().await)
    }
}

impl<T> Clone for Queue<T> {
    fn clone(&self) -> Self {
        Self {
            ready: Arc::clone(&self.ready),
            queue: self.queue.clone(),
        }
    }
}

impl<T> fmt::Debug for Queue<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.queue.fmt(f)
    }
}

/// A queue that knows when all its items are done, to be awaited.
///
/// Made by [`into_async`](crate::JoinableQueue::into_async). What is said of [`Queue`] holds for it.
///
/// # Examples
///
/// ```
/// use mproc::JoinableQueue;
///
/// #[mproc::entry]
/// fn work(tasks: JoinableQueue<u32>) {
///     while let Ok(task) = tasks.get_job() {
///         println!("working on {}", *task);
///     }
/// }
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
/// let tasks = JoinableQueue::new()?;
/// let mut child = work::spawn(tasks.clone())?;
/// let tasks = tasks.into_async()?;
/// for task in 0..3 {
///     tasks.put(task).await?;
/// }
/// tasks.join().await?;
/// tasks.close();
/// child.join_async().await?;
/// # Ok(())
/// # })
/// # }
/// ```
pub struct JoinableQueue<T> {
    ready: Arc<AsyncFd<OwnedFd>>,
    queue: queue::JoinableQueue<T>,
}

impl<T> queue::JoinableQueue<T> {
    /// Makes this handle one that tasks await, and [watches](crate::Queue#waiting-for-it) the queue.
    ///
    /// With the cargo feature `tokio`.
    ///
    /// # Errors
    ///
    /// If there is no room for a descriptor. The handle is dropped then.
    ///
    /// # Panics
    ///
    /// [Outside a runtime](crate::tokio#panics).
    pub fn into_async(self) -> Result<JoinableQueue<T>> {
        Ok(JoinableQueue {
            ready: Arc::new(register(self.watch()?)?),
            queue: self,
        })
    }
}

impl<T> JoinableQueue<T> {
    /// The queue itself, for all that does not wait, and to be sent.
    pub fn get_ref(&self) -> &queue::JoinableQueue<T> {
        &self.queue
    }

    /// The handle for threads again.
    pub fn into_inner(self) -> queue::JoinableQueue<T> {
        self.queue
    }

    /// Closes the queue for everybody. See [`close`](crate::JoinableQueue::close).
    pub fn close(&self) {
        self.queue.close();
    }

    /// Says that one item that was got has been done. See [`task_done`](crate::JoinableQueue::task_done).
    ///
    /// # Errors
    ///
    /// As there.
    pub fn task_done(&self) -> Result<()> {
        self.queue.task_done()
    }

    /// Waits until every item that was put has been got and done.
    ///
    /// Nothing tells a task of that: it looks, after pauses of 1 to 32 milliseconds.
    ///
    /// # Errors
    ///
    /// As [`join`](crate::JoinableQueue::join).
    pub async fn join(&self) -> Result<(), queue::JoinError> {
        give_way().await;
        let mut pause = Pause::new();
        while !self.queue.join_timeout(Duration::ZERO)? {
            pause.rest().await;
        }
        Ok(())
    }
}

impl<T: Serialize> JoinableQueue<T> {
    /// Puts an item. See [`Queue::put`].
    ///
    /// # Errors
    ///
    /// As [`put`](crate::JoinableQueue::put).
    pub async fn put(&self, item: T) -> std::result::Result<(), SendError<T>> {
        give_way().await;
        let is_worth_a_try = || !self.queue.is_full() || self.queue.is_closed();
        put_with(item, is_worth_a_try, |item| self.queue.try_put(item)).await
    }

    /// Puts an item if there is room.
    ///
    /// # Errors
    ///
    /// As [`try_put`](crate::JoinableQueue::try_put).
    pub fn try_put(&self, item: T) -> std::result::Result<(), SendError<T>> {
        self.queue.try_put(item)
    }
}

impl<T: DeserializeOwned> JoinableQueue<T> {
    /// Gets the next item, which is to be [reported](Self::task_done). See [`get`](crate::JoinableQueue::get).
    ///
    /// A future that is dropped before it was ready has taken nothing.
    ///
    /// # Errors
    ///
    /// As there.
    pub async fn get(&self) -> Received<T> {
        get_with(
            &self.ready,
            || settled(self.queue.try_get(), &self.queue),
            || self.queue.get_timeout(Duration::ZERO),
        )
        .await
    }

    /// Gets the next item as a job, which marks it done when it is dropped. See [`get_job`](crate::JoinableQueue::get_job).
    ///
    /// A future that is dropped before it was ready has taken nothing.
    ///
    /// # Errors
    ///
    /// As there.
    pub async fn get_job(&self) -> Received<queue::Job<T>> {
        get_with(
            &self.ready,
            || settled(self.queue.try_get_job(), &self.queue),
            || self.queue.get_job_timeout(Duration::ZERO),
        )
        .await
    }

    /// Gets the next item if there is one.
    ///
    /// # Errors
    ///
    /// As [`try_get`](crate::JoinableQueue::try_get).
    pub fn try_get(&self) -> Received<T> {
        self.queue.try_get()
    }

    /// The next item, as [`get`](Self::get) gives it; `None` when the queue is closed and empty, or nobody else is left.
    pub async fn next(&self) -> Option<Received<T>> {
        until_end(self.get().await)
    }
}

impl<T> Clone for JoinableQueue<T> {
    fn clone(&self) -> Self {
        Self {
            ready: Arc::clone(&self.ready),
            queue: self.queue.clone(),
        }
    }
}

impl<T> fmt::Debug for JoinableQueue<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.queue.fmt(f)
    }
}

type Received<T> = std::result::Result<T, RecvError>;

/// How long a task sleeps before it looks whether it holds the queue alone. Nobody is told of that.
const FIRST_PATIENCE: Duration = Duration::from_millis(10);
const LONGEST_PATIENCE: Duration = Duration::from_secs(1);

/// Gets with `ask`, which does not wait, and now and then with `ask_thoroughly`, which also finds out that nobody else is left.
async fn get_with<T>(
    ready: &AsyncFd<OwnedFd>,
    mut ask: impl FnMut() -> Look<Received<T>>,
    mut ask_thoroughly: impl FnMut() -> Received<T>,
) -> Received<T> {
    let mut patience = FIRST_PATIENCE;
    loop {
        // What is found is given by the same poll: when the time is over at the same moment, the item still comes first.
        match time::timeout(patience, found(ready, &mut ask)).await {
            Ok(answer) => return answer.unwrap_or_else(|error| Err(RecvError::Io(error))),
            Err(_) => match ask_thoroughly() {
                Err(RecvError::Timeout) => patience = (2 * patience).min(LONGEST_PATIENCE),
                answer => return answer,
            },
        }
    }
}

async fn put_with<T>(
    mut item: T,
    is_worth_a_try: impl Fn() -> bool,
    mut put: impl FnMut(T) -> std::result::Result<(), SendError<T>>,
) -> std::result::Result<(), SendError<T>> {
    let mut pause = Pause::new();
    loop {
        match put(item) {
            Err(SendError::Full(back)) => item = back,
            done => return done,
        }
        // Encoding it anew costs more than a look.
        pause.rest().await;
        while !is_worth_a_try() {
            pause.rest().await;
        }
    }
}

/// What a get that does not wait says, and if that is nothing, what the descriptor does.
fn settled<T>(answer: Received<T>, watched: impl std::os::fd::AsFd) -> Look<Received<T>> {
    match answer {
        Err(RecvError::Empty) => look(None, watched),
        answer => Look::Found(answer),
    }
}

fn until_end<T>(received: Received<T>) -> Option<Received<T>> {
    match received {
        Err(RecvError::Closed | RecvError::Disconnected) => None,
        item => Some(item),
    }
}
