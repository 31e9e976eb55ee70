//! The result of a call that may not have ended yet.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

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
