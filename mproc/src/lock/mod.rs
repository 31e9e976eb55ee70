//! Locks that processes share: Python's, with guards, and with owners that may die.

mod acquire_error;
mod barrier;
mod condition;
mod event;
mod guard;
mod mutex;
mod rlock;
mod semaphore;

pub use acquire_error::AcquireError;
pub use barrier::{Barrier, BarrierError};
pub use condition::{Condition, ConditionGuard, Lockable, WaitGuard};
pub(crate) use condition::{HasLock, HoldsLock};
pub use event::Event;
pub(crate) use guard::Held;
pub use mutex::{Lock, LockGuard};
pub use rlock::{RLock, RLockGuard};
pub use semaphore::{BoundedSemaphore, Permit, Semaphore};
