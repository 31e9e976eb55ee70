//! Many calls over a few long-lived processes.
//!
//! ```text
//! facade    what users hold            calls  imap  result
//! drive     who waits, who drives      one thread at a time, under one lock
//! dispatch  which task is where        knows workers by `link` only; never waits
//! group     where tasks resolve             report  what is heard before: what tasks say; progress draws it
//! link      ↓ a trait                  errands, and what is said of them
//! local     the parent's end           worker  the process's
//! ring      what both share             trace   what happened when, for people
//! ```
//!
//! The parent holds every task until it has resolved. Each worker has memory of its own with a ring each way; no lock and no ring is shared
//! between workers, so a worker that is killed can hold up nobody.

mod calls;
mod dispatch;
mod drive;
mod facade;
mod group;
mod imap;
mod link;
mod local;
#[cfg(feature = "progress")]
mod progress;
mod report;
mod result;
mod ring;
mod trace;
mod worker;

pub use calls::Calls;
pub use facade::{Pool, PoolBuilder};
pub use imap::{Imap, ImapUnordered};
pub use report::{Report, report};
pub use result::{AsyncResult, as_completed, wait_any};

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Calls code of users, which may panic: nobody else is to suffer from that. `None`: it has.
fn unharmed<R>(call: impl FnOnce() -> R) -> Option<R> {
    let called = std::panic::catch_unwind(std::panic::AssertUnwindSafe(call));
    // Dropping a payload may panic again, and there is nothing left to gain from it.
    called.map_err(std::mem::forget).ok()
}

/// No code of users runs under our locks but what is [unharmed], so a poisoned one means no more than that some thread was unlucky.
fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
