//! Locks and wake-ups between processes. Knows memory and threads, and nothing of what they are used for.

mod bell;
#[cfg(not(mproc_model))]
pub(crate) mod lock;
mod robust;
mod spin;

pub(crate) use bell::Bell;
pub(crate) use robust::RobustLock;
pub(crate) use spin::{Looked, Spin, core};
