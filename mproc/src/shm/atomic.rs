//! The atomics of everything that is shared between processes. A model checker (`--cfg loom`) puts its own in their place.

#[cfg(not(loom))]
pub(crate) use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

#[cfg(loom)]
pub(crate) use loom::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// The word as the kernel knows it.
#[cfg(not(loom))]
pub(crate) fn word(word: &AtomicU32) -> &AtomicU32 {
    word
}

/// A model has no kernel: its sleeps are given as functions.
#[cfg(loom)]
pub(crate) fn word(_: &AtomicU32) -> &std::sync::atomic::AtomicU32 {
    unreachable!("models do not call the kernel")
}
