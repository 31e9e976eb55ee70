//! Memory that processes share: what it holds, and how it is found safe to read.

pub(crate) mod atomic;
pub(crate) mod copy;
pub(crate) mod lane;
pub(crate) mod memory;
pub(crate) mod stretch;

#[cfg(all(test, not(mproc_model)))]
pub(crate) mod fuzz;
