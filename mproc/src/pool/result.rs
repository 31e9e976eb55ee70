//! The result of a call that may not have ended yet.

use std::collections::VecDeque;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use super::drive::Shared;
use super::group::Group;
use crate::error::{Error, ErrorKind, Result};

/// The value of a call, or of all calls of a map, that a pool runs meanwhile.
///
/// Dropping it lets the tasks go on. It is also a future, of any executor.
///
/// # If a peer dies
///
/// It resolves whatever happens to the worker: see [`Pool`](crate::Pool).
#[doc(alias = "Future")]
#[must_use = "this is where errors arrive"]
pub struct AsyncResult<R> {
    pub(super) shared: Arc<Shared>,
    pub(super) group: Arc<Group>,
    pub(super) collect: fn(&Group) -> Result<R>,
}

impl<R> AsyncResult<R> {
    /// Waits for the value.
    ///
    /// # Errors
    ///
    /// The function panicked, its worker died, the time of the task was over, it was cancelled, or the pool ended; an argument or the value could not
    /// be sent. Of a map, the error of the first item that has one.
    pub fn get(self) -> Result<R> {
        self.wait();
        self.collected()
    }

    /// Waits for the value, for `timeout` at most, and can be asked again after that.
    ///
    /// # Errors
    ///
    /// As [`get`](Self::get), and [`Timeout`](ErrorKind::Timeout); after a value or an error has been given,
    /// [`AlreadyJoined`](ErrorKind::AlreadyJoined).
    pub fn get_timeout(&mut self, timeout: Duration) -> Result<R> {
        if !self.wait_timeout(timeout) {
            let text = "the task has not ended in this time; it goes on";
            return Err(Error::new(ErrorKind::Timeout, text));
        }
        self.collected()
    }

    fn collected(&self) -> Result<R> {
        self.group.finish_observers();
        (self.collect)(&self.group)
    }

    /// Waits until it has resolved.
    pub fn wait(&self) {
        self.wait_for(None);
    }

    /// Waits until it has resolved, for `timeout` at most; false if it has not.
    pub fn wait_timeout(&self, timeout: Duration) -> bool {
        self.wait_for(Some(timeout))
    }

    fn wait_for(&self, limit: Option<Duration>) -> bool {
        let group = &self.group;
        group.is_done() || self.shared.wait(Some(group), limit, |_| group.is_done())
    }

    /// Whether it has resolved.
    #[doc(alias = "ready")]
    pub fn is_ready(&self) -> bool {
        self.group.is_done()
    }

    /// Whether it has resolved, and every task with a value: neither an error nor a panic of the function nor a death of its worker.
    ///
    /// A value that is itself an `Err` is a value. False once the value has been taken.
    #[doc(alias = "successful")]
    pub fn is_successful(&self) -> bool {
        self.is_ready() && self.group.has_only_values()
    }

    /// Cancels what has not ended: what has not begun does not, and a worker that is at it is killed and replaced. What is cancelled is
    /// an error of kind [`Cancelled`](ErrorKind::Cancelled).
    pub fn cancel(&self) {
        self.shared
            .change(|dispatcher| dispatcher.cancel(&self.group));
    }
}

/// Waits until one at least of these has resolved, and gives the indices of all that have; none if the time is over, or if there are none.
///
/// They may be results of several pools.
///
/// # Examples
///
/// ```
/// use mproc::AsyncResult;
///
/// #[mproc::entry]
/// fn square(x: i64) -> i64 { x * x }
///
/// # fn main() -> mproc::Result<()> {
/// let pool = mproc::Pool::new(2)?;
/// let results = [pool.apply_async(square::bind(2))?, pool.apply_async(square::bind(3))?];
/// let ready = mproc::wait_any(&results, None);
/// assert!(!ready.is_empty() && results[ready[0]].is_ready());
/// # Ok(())
/// # }
/// ```
#[doc(alias = "FIRST_COMPLETED")]
pub fn wait_any<R>(results: &[AsyncResult<R>], timeout: Option<Duration>) -> Vec<usize> {
    let ready = || -> Vec<usize> {
        let indices = 0..results.len();
        indices.filter(|&index| results[index].is_ready()).collect()
    };
    let (Some(first), found) = (results.first(), ready()) else {
        return Vec::new();
    };
    if !found.is_empty() {
        return found;
    }
    let shared = &first.shared;
    if results
        .iter()
        .all(|result| Arc::ptr_eq(&result.shared, shared))
    {
        // Driven here: one that resolves is seen at once, and all are watched for when somebody else drives.
        let any = |_: &_| results.iter().any(AsyncResult::is_ready);
        shared.wait_for_any(results.iter().map(|result| &*result.group), timeout, any);
        return ready();
    }
    for result in results {
        result.group.watch();
        result.shared.drive_soon();
    }
    let deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
    loop {
        let found = ready();
        if !found.is_empty() {
            return found;
        }
        match deadline.map(|deadline| deadline.saturating_duration_since(Instant::now())) {
            None => std::thread::park(),
            Some(Duration::ZERO) => return Vec::new(),
            Some(left) => std::thread::park_timeout(left),
        }
    }
}

/// Gives results as they resolve: each once, with its index among those given.
///
/// # Examples
///
/// ```
/// #[mproc::entry]
/// fn square(x: i64) -> i64 { x * x }
///
/// # fn main() -> mproc::Result<()> {
/// let pool = mproc::Pool::new(2)?;
/// let results = (0..3).map(|x| pool.apply_async(square::bind(x))).collect::<mproc::Result<Vec<_>>>()?;
/// for (index, value) in mproc::as_completed(results) {
///     assert_eq!(value?, (index * index) as i64);
/// }
/// # Ok(())
/// # }
/// ```
pub fn as_completed<R>(
    results: impl IntoIterator<Item = AsyncResult<R>>,
) -> impl Iterator<Item = (usize, Result<R>)> {
    let mut waiting: Vec<_> = results.into_iter().collect();
    let mut indices: Vec<usize> = (0..waiting.len()).collect();
    let mut ready = VecDeque::new();
    std::iter::from_fn(move || {
        if ready.is_empty() {
            // All that are, or each would cost a look at all others.
            let mut places = wait_any(&waiting, None).into_iter().peekable();
            let all = indices.drain(..).zip(waiting.drain(..)).enumerate();
            let (found, left): (Vec<_>, Vec<_>) =
                all.partition(|(place, _)| places.next_if_eq(place).is_some());
            ready.extend(found.into_iter().map(|(_, found)| found));
            (indices, waiting) = left.into_iter().map(|(_, left)| left).unzip();
        }
        let (index, result) = ready.pop_front()?;
        Some((index, result.get()))
    })
}

impl<R> Future for AsyncResult<R> {
    type Output = Result<R>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<R>> {
        if self.group.is_done() || !self.group.watch_with(context.waker()) {
            Poll::Ready(self.collected())
        } else {
            self.shared.drive_soon();
            Poll::Pending
        }
    }
}

impl<R> fmt::Debug for AsyncResult<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.is_ready() {
            "AsyncResult(ready)"
        } else {
            "AsyncResult(pending)"
        })
    }
}
