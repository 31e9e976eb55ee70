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
//! # Platform
//!
//! Linux 5.16 or newer (queues sleep with `futex_waitv`, and say so where a sandbox refuses it) with `/proc` mounted and pages of 4 KiB; written for x86-64 and aarch64, glibc and musl, and tested on x86-64 with glibc. Programs that
//! are linked dynamically against this crate as a Rust `dylib` cannot use the cargo feature `test`.
//!
//! Processes that share queues, locks or memory under a lock have to be in one PID namespace: the kernel looks after locks by the numbers of threads. (Locks
//! refuse one from another namespace where they arrive.)
//!
//! # Map
//!
//! A module uses the rows below it.
//!
//! ```text
//! facade     lib.rs   __private (for the macros' output only)
//! services   pool/                         many calls over a few processes
//! channels   queue/   pipe/   wait     tokio/ (with that feature)
//!            shared/                   values, arrays, lists, memory, blobs
//!            lock/                     Python's locks, with guards, over what `sync/` has
//!            courier  channel_error    descriptors beside messages; what sending and receiving can fail with
//! core       process/ → entry/         one call in one process; what a call is, how a fresh process finds it
//!            logging   fd  error  failure
//! shared     sync/                     locks that survive their owners, seats, waking, looking before sleeping
//! plumbing   wire/                     values as bytes and descriptors, packets that carry both, ends that move
//!            shm/                      memory that processes share, the lane in it
//! system     sys/                      every system call, and no policy
//! ```
//!
//! Only `sys` names `nix` or `libc`; only `wire/codec` names `bincode`; `wire` knows no message types; `sync` knows no processes.

mod channel_error;
mod courier;
mod entry;
mod error;
mod failure;
mod fd;
#[cfg(not(mproc_model))]
mod lock;
mod logging;
mod pipe;
#[cfg(not(mproc_model))]
mod pool;
mod process;
mod queue;
#[cfg(not(mproc_model))]
mod shared;
mod shm;
mod sync;
mod sys;
#[cfg(feature = "tokio")]
pub mod tokio;
mod wait;
mod wire;

pub use bytemuck;
pub use channel_error::{DecodeError, EncodeError, RecvError, SendError};
pub use entry::{Call, Entry, Run, Unary, freeze_support};
pub use error::{Error, ErrorKind, Panic, Result};
pub use failure::Failure;
pub use fd::Fd;
#[cfg(feature = "progress")]
pub use indicatif;
#[cfg(not(mproc_model))]
pub use lock::{
    AcquireError, Barrier, BarrierError, BoundedSemaphore, Condition, ConditionGuard, Event, Lock,
    LockGuard, Lockable, Permit, RLock, RLockGuard, Semaphore, WaitGuard,
};
pub use logging::{forward_logs, get_logger, log_to_stderr};
/// Makes a function, or a value with a `run` method, something that a process of its own can run.
///
/// # On a function
///
/// ```
/// #[mproc::entry]
/// fn hello(name: &str) -> usize {
///     println!("hello {name}");
///     name.len()
/// }
///
/// # fn main() -> mproc::Result<()> {
/// hello("here");                                          // still an ordinary function
/// let child = hello::spawn("bob")?;                       // the same call in a process of its own
/// let length: usize = child.join()?;
/// let process = hello::process("ann").name("greeter");    // described, not yet started
/// let call: mproc::Call<usize> = hello::bind("eve");      // a value that can itself be sent
/// # assert_eq!((length, process.start()?.join()?, call.run()?), (3, 3, 3));
/// # Ok(())
/// # }
/// ```
///
/// The function stays exactly as written. Beside it stands a type of the same name (functions and types have separate
/// namespaces) with the functions `spawn`, `process` and `bind`, which take the function's own parameters and implement
/// [`Entry`]. A module or type of that name beside the function is therefore a name clash.
///
/// Parameters may be values of any type that is `Serialize + DeserializeOwned`, or shared references: the caller of
/// `spawn` lends, the bytes travel, the child owns them and lends them to the function. Patterns and `mut` work. The result
/// is any type that is `Serialize + DeserializeOwned`.
///
/// Refused, each with a message that says what to write: `async`, `unsafe` and `extern` functions, generics, `self`, `impl
/// Trait`, `&mut`, lifetimes, raw pointers, and references inside other types or in the result.
///
/// # On an impl of `Run`
///
/// ```
/// use mproc::Run;
///
/// #[derive(serde::Serialize, serde::Deserialize)]
/// struct Worker { id: u32 }
///
/// #[mproc::entry]
/// impl Run for Worker {
///     type Output = u32;
///     fn run(self) -> u32 { self.id }
/// }
///
/// # fn main() -> mproc::Result<()> {
/// let child = Worker { id: 7 }.spawn()?;
/// assert_eq!(child.join()?, 7);
/// # Ok(())
/// # }
/// ```
///
/// `spawn`, `process` and `bind` are then methods of the value. An `impl Run` without the attribute does not compile.
///
/// # Arguments
///
/// - `name = "…"` registers the entry under a name of your own instead of one made from its path and position, so that it can move
///   in the source and still be found. Two entries of one name are an error when the program boots.
/// - `crate = path` says where mproc is, if it is not at `::mproc`.
pub use mproc_macros::entry;
/// The program's `main`, which first lets a child process find its entry.
///
/// ```
/// #[mproc::entry]
/// fn hello(name: &str) {
///     println!("hello {name}");
/// }
///
/// mproc::main! {
///     fn main() -> mproc::Result<()> {
///         hello::spawn("bob")?.join()
///     }
/// }
/// ```
///
/// or, with the function elsewhere,
///
/// ```
/// # #[mproc::entry]
/// # fn hello(name: &str) {}
/// fn run() -> mproc::Result<()> {
///     hello::spawn("bob")?.join()
/// }
///
/// # #[cfg(any())] // a doctest sees no `main` in this, and writes one
/// mproc::main!(run);
/// # fn main() {}
/// ```
///
/// A process that mproc started runs its entry here and exits; the program itself goes on into the function given. Attributes
/// stay on that function, so `#[tokio::main] async fn main` works, and a child is done before the runtime would start. The
/// result is whatever `main` may return. To write `main` by hand, begin it with [`freeze_support`].
pub use mproc_macros::main;
pub use pipe::{Connection, IntoIter, Iter, Receiver, Sender, duplex, pipe};
#[cfg(not(mproc_model))]
pub use pool::{
    AsyncResult, Calls, Imap, ImapUnordered, Pool, PoolBuilder, Report, as_completed, report,
    wait_any,
};
pub use process::{
    AnyChild, Child, CurrentProcess, ExitStatus, ParentProcess, Process, StartMethod, Stdio,
    active_children, cpu_count, current_process, parent_process,
};

pub use queue::{Iter as QueueIter, Job, Jobs, JoinError, JoinableQueue, Queue, TaskIter};
#[cfg(not(mproc_model))]
pub use shared::{
    Abandoned, Array, ArrayGuard, Atomic, Element, RawArray, RawValue, Scalar, Shareable,
    ShareableList, ShareableListGuard, SharedBytes, SharedMemory, Value, ValueGuard,
};
pub use wait::wait;

/// The programs of the guide, compiled and run. In the repository only: a published package does not have it.
#[cfg(doctest)]
#[doc = include_str!("../../docs/from-python.md")]
mod from_python {}

/// For the macros' output. No part of the interface: it changes without notice.
#[doc(hidden)]
pub mod __private {
    pub use crate::entry::macros::*;
    pub use inventory;
}
