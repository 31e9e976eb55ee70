//! Waiting, on a runtime's edge-triggered `epoll`, for descriptors whose *level* is what mproc promises.
//!
//! A watched descriptor is readable while there is something. It need not become unreadable and readable again for each message, and
//! one that another process was to silence may stay readable with nothing there. So an edge alone tells too little. The order
//! here makes the level count:
//!
//! 1. what the runtime knows is forgotten,
//! 2. the handle is asked,
//! 3. the level is looked at, and if it says that there is something after all, back to 2,
//! 4. the task sleeps until the next edge.
//!
//! A level that was low at 3 has to rise, which is an edge, and one that comes after 1 is not forgotten: tokio forgets only what
//! it had told before. With several tasks at one descriptor each edge wakes all of them, and each goes through the same order.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use ::tokio::io::Interest;
use ::tokio::io::unix::AsyncFd;
use ::tokio::{task, time};

use crate::error::{Error, Result};
use crate::sys;

/// What asking a handle gave.
pub(super) enum Look<T> {
    /// An answer.
    Found(T),
    /// Nothing, though the descriptor is readable.
    Perhaps,
    /// Nothing, and the descriptor will tell.
    Nothing,
}

/// What it is if asking gave no answer: that depends on the level, which is looked at after asking.
pub(super) fn look<T>(answer: Option<T>, watched: impl AsFd) -> Look<T> {
    match answer {
        Some(answer) => Look::Found(answer),
        None if sys::is_readable(watched.as_fd()) => Look::Perhaps,
        None => Look::Nothing,
    }
}

/// A copy of a descriptor, watched by the runtime. A copy, because one number can be registered once in each runtime, and handles
/// share theirs; and because it stays open as long as it is registered.
pub(super) fn register(fd: BorrowedFd<'_>) -> Result<AsyncFd<OwnedFd>> {
    let copy = fd.try_clone_to_owned().map_err(failed)?;
    // SAFETY: the `AsyncFd` owns the descriptor and gives it to nobody who could close it.
    let registered = unsafe { AsyncFd::register_with_interest(copy, Interest::READABLE) };
    registered.map_err(|error| failed(error.into()))
}

fn failed(error: io::Error) -> Error {
    Error::io("the runtime cannot watch this", error)
}

/// Asks until there is an answer, and sleeps between. Nothing is taken before the poll that gives it.
pub(super) async fn found<T>(
    ready: &AsyncFd<OwnedFd>,
    mut ask: impl FnMut() -> Look<T>,
) -> io::Result<T> {
    give_way().await;
    let mut pause = Pause::new();
    loop {
        match ask() {
            Look::Found(answer) => return Ok(answer),
            Look::Perhaps => pause.rest().await,
            Look::Nothing => {
                ready.readable().await?.clear_ready();
                pause = Pause::new();
            }
        }
    }
}

/// Lets other tasks have a turn if this one has had its share. A handle that always has something would keep the thread for itself.
pub(super) async fn give_way() {
    task::consume_budget().await;
}

/// Rests between questions that nothing answers by itself: yields a few times, then sleeps, longer each time.
pub(super) struct Pause {
    yields: u32,
    length: Duration,
}

impl Pause {
    /// As short as the runtime's timers can be.
    const SHORTEST: Duration = Duration::from_millis(1);
    const LONGEST: Duration = Duration::from_millis(32);
    const YIELDS: u32 = 4;

    pub(super) fn new() -> Self {
        Self {
            yields: 0,
            length: Self::SHORTEST,
        }
    }

    pub(super) async fn rest(&mut self) {
        if self.yields < Self::YIELDS {
            self.yields += 1;
            task::yield_now().await;
        } else {
            time::sleep(self.length).await;
            self.length = (2 * self.length).min(Self::LONGEST);
        }
    }
}
