//! Locks that processes share: Python's, with guards, and with owners that may die.

mod acquire_error;
mod guard;
mod mutex;
mod rlock;

pub use acquire_error::AcquireError;
pub(crate) use guard::Held;
pub use mutex::{Lock, LockGuard};
pub use rlock::{RLock, RLockGuard};
