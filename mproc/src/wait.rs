//! Waiting for many things at once.

use std::os::fd::AsFd;
use std::time::Duration;

use crate::error::{Error, Result};
use crate::sys::{self, Deadline};

/// Waits until at least one of `items` is ready, `timeout` at most, and gives the indices of all that are.
///
/// Ready means readable: a [`Receiver`](crate::Receiver) or [`Connection`](crate::Connection) with a message, or the beginning of one of more than
/// 256 KiB (`try_recv` tells, and keeps what has come), or at its end, a
/// [`Queue`](crate::Queue) with an item, a [`Child`](crate::Child) that has ended, and whatever other descriptor `poll` would
/// call readable or hung up: sockets, pipes, timers. The list is empty when the time is over. Without a `timeout`, and with at least one item, it
/// never is. With no items and no timeout this is an error, since it would never end.
///
/// Of several processes that wait for one queue, all are told of an item and one gets it: use
/// [`try_get`](crate::Queue::try_get) afterwards.
///
/// # Errors
///
/// If the system refuses to wait.
///
/// # Panics
///
/// If an item cannot be watched, see [`Receiver::watch`](crate::Receiver::watch).
///
/// # Examples
///
/// ```
/// # fn main() -> mproc::Result<()> {
/// let (mut tx, rx) = mproc::pipe::<&str>()?;
/// let (_quiet, silent) = mproc::pipe::<()>()?;
/// tx.send("hello")?;
/// assert_eq!(mproc::wait(&[&silent, &rx], None)?, [1]);
/// # Ok(())
/// # }
/// ```
pub fn wait(items: &[&dyn AsFd], timeout: Option<Duration>) -> Result<Vec<usize>> {
    if items.is_empty() && timeout.is_none() {
        let text = "waiting for nothing, and for ever";
        return Err(Error::new(crate::ErrorKind::Timeout, text));
    }
    let fds: Vec<_> = items.iter().map(|item| item.as_fd()).collect();
    let deadline = timeout.map_or(Deadline::NEVER, Deadline::after);
    sys::wait_many(&fds, deadline).map_err(|error| Error::io("waiting failed", error))
}
