//! Functions in processes of their own: Python's `multiprocessing` for Rust, typed, with its traps turned into guarantees.
//!
//! ```
//! #[mproc::entry]
//! fn count(text: &str) -> usize { text.split_whitespace().count() }
//!
//! mproc::main! {
//!     fn main() -> mproc::Result<()> {
//!         let here = count("to be or not to be");          // still an ordinary function
//!         let child = count::spawn("to be or not to be")?; // the same call in a process of its own
//!         assert_eq!(child.join()?, here);
//!         Ok(())
//!     }
//! }
//! ```
//!
//! [`#[mproc::entry]`](macro@entry) above a function adds a type of the same name beside it with three functions that take the
//! same arguments: `spawn` starts it in a process of its own, `process` describes such a process to be configured first, and
//! `bind` makes a [`Call`], a value that can be sent on. [`main!`] around `main` lets the program, executed again, become the
//! child.
//!
//! # What a child is
//!
//! The same program, executed again from `/proc/self/exe` (so an upgraded or deleted binary does not matter), with the same
//! arguments and environment, that runs one call instead of `main`. Its statics are fresh; it inherits its standard streams
//! (stdin is `/dev/null` unless told otherwise), no other descriptor, and no signal mask. It dies with the process that
//! started it, unless it is [detached](Process::detached).
//!
//! # What mproc does to your program
//!
//! Nothing that is not asked for. The first start registers a handler that waits for children when the program ends. Dropping
//! the last handle of a child that still runs starts one thread that collects such children. [`log_to_stderr`] and
//! [`forward_logs`] start one that receives records. There are no signal handlers and no constructors but the ones that register
//! entries and, with the cargo feature `test`, the one that lets test binaries have children.
//!
//! # Map
//!
//! A module uses the rows below it.
//!
//! ```text
//! facade     lib.rs   __private (for the macros' output only)
//! core       process/ → entry/         one call in one process; what a call is, how a fresh process finds it
//!            logging   fd  error  failure
//! plumbing   wire/                     values as bytes and descriptors, packets that carry both
//! system     sys/                      every system call, and no policy
//! ```
//!
//! Only `sys` names `nix` or `libc`; only `wire/codec` names `bincode`; `wire` knows no message types.

mod entry;
mod error;
mod failure;
mod fd;
mod logging;
mod process;
mod sys;
mod wire;

pub use entry::{Call, Entry, Run, Unary, freeze_support};
pub use error::{Error, ErrorKind, Panic, Result};
pub use failure::Failure;
pub use fd::Fd;
pub use logging::{forward_logs, get_logger, log_to_stderr};
pub use mproc_macros::{entry, main};
pub use process::{
    AnyChild, Child, CurrentProcess, ExitStatus, ParentProcess, Process, Stdio, active_children,
    cpu_count, current_process, parent_process,
};

/// For the macros' output. No part of the interface: it changes without notice.
#[doc(hidden)]
pub mod __private {
    pub use crate::entry::macros::*;
    pub use inventory;
}
