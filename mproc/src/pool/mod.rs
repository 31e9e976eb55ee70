//! Many calls over a few long-lived processes.
//!
//! The parent holds every task until it has resolved. Each worker has a private pair of lanes, and one thread of the parent, its
//! [driver](drive), which sends it frames of tasks and hears what becomes of them; no lock and no lane is shared between workers, so a
//! worker that is killed can hold up nobody. A driver sleeps while there is nothing to do.
//!
//! # What the parent knows
//!
//! | the worker has said      | of the frame's next task | if the worker is lost now                   |
//! |--------------------------|--------------------------|---------------------------------------------|
//! | nothing since the frame  | it has not begun         | the whole frame is sent to another worker   |
//! | that it begins           | it is being executed     | it has *died*; the rest is sent to another  |
//! | an outcome               | the one after it is      | as above, for the one after                 |
//!
//! A worker says each outcome before it begins the next task, so no task is begun twice unless it may be retried.
//!
//! # Invariants
//!
//! 1. A task is in the queue, or in the frame of one driver, or resolved.
//! 2. A driver ends only when the pool is closed and the queue empty, or when it is terminated or has failed, and then nothing is left in
//!    the queue: whoever sets that state resolves what is there, and `submit` refuses afterwards.
//! 3. User code never runs under a lock of the pool.

mod calls;
mod drive;
mod group;
mod imap;
mod link;
mod local;
mod result;
mod shared;

pub use calls::Calls;
pub use imap::{Imap, ImapUnordered};
pub use result::AsyncResult;
pub use shared::{Pool, PoolBuilder};

use std::sync::{Mutex, MutexGuard, PoisonError};

/// No code of users runs under our locks, so a poisoned one means no more than that some thread was unlucky.
fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
