//! Waiting for messages, items and children in tasks of [tokio](https://docs.rs/tokio), without a thread for each that waits.
//!
//! With the cargo feature `tokio`. Each kind of handle has a form here, made by `into_async` and given back by `into_inner`:
//! [`Receiver`], [`Connection`], [`Queue`], [`JoinableQueue`]. Children need none: [`join_async`](crate::Child::join_async) and
//! [`wait_async`](crate::AnyChild::wait_async) stand beside `join` and `wait`.
//!
//! What waits here waits for a descriptor in the runtime's own `epoll`, whatever process is at the other end. What does not wait is
//! as it is without a runtime: it is done at once, in the memory that the processes share. Each
//! form costs one descriptor more than the handle in it.
//!
//! The errors are those of the blocking forms, and so is what happens when a peer dies.
//!
//! # Cancelling
//!
//! A future that is dropped before it was ready, by `select!` or a timeout, has taken nothing: the message is there for the next one.
//! What is taken is taken in the poll that gives it. A future that *puts* holds the item, which is dropped with it if it was not put.
//!
//! # Where blocking is left
//!
//! Decoding, and copying long messages, happens in the task that receives. Sending into a pipe blocks the thread while the pipe is full,
//! as nobody rings for room; so does a queue for as long as another process is in the middle of a put or get, which is some tens of
//! nanoseconds, and at most 50 milliseconds at a time if that one was stopped there.
//!
//! # Panics
//!
//! `into_async`, `join_async` and `wait_async` panic outside a runtime, or in one without I/O, as tokio's own sockets do; and
//! waiting may in one without timers. `#[tokio::main]` and `Builder::enable_all` have both.
//!
//! # Examples
//!
//! ```
//! #[mproc::entry]
//! fn count_up(mut numbers: mproc::Sender<u64>, count: u64) -> Result<(), mproc::Failure> {
//!     for number in 0..count {
//!         numbers.send(number)?;
//!     }
//!     Ok(())
//! }
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
//! let (tx, rx) = mproc::pipe()?;
//! let mut rx = rx.into_async()?;
//! let mut child = count_up::spawn(tx, 3)?;
//! let mut sum = 0;
//! while let Some(number) = rx.next().await {
//!     sum += number?;
//! }
//! child.join_async().await??;
//! assert_eq!(sum, 3);
//! # Ok(())
//! # })
//! # }
//! ```

mod child;
mod pipe;
mod queue;
mod ready;

pub use pipe::{Connection, Receiver};
pub use queue::{JoinableQueue, Queue};
