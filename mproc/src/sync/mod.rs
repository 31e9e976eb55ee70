//! Locks and wake-ups between processes. Knows memory and threads, and nothing of what they are used for.

pub(crate) mod barrier;
mod bell;
pub(crate) mod condition;
pub(crate) mod event;
#[cfg(all(test, not(mproc_model)))]
mod hostile;
pub(crate) mod lock;
#[cfg(all(test, mproc_model))]
mod model;
mod robust;
pub(crate) mod roster;
pub(crate) mod semaphore;
mod spin;

pub(crate) use bell::Bell;
pub(crate) use robust::Robust;
pub(crate) use spin::{Looked, Spin, core};
