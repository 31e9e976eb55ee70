//! What mproc is measured against: the least that shared memory, the kernel, threads and a peer crate do for the same work.
//!
//! A *floor* is written for the benchmark alone: no types, no errors, no death of a peer, no sleepers. `stage` is what all
//! contenders stand on, ours too, so that nobody is timed by another clock or sits on other cores.

pub(crate) mod bulk;
pub(crate) mod crew;
pub(crate) mod crowd;
pub(crate) mod ipc;
pub(crate) mod kernel;
pub(crate) mod ring;
pub(crate) mod stage;
pub(crate) mod threads;
